//! Gates and rotations, number by number.

use super::super::isa::{Isa, compiled_for};
use super::super::math::{LANES, exp};
use super::super::pool::{SharedSlice, ThreadPool};
use super::Number;
use half::bf16;

/// Numbers that one job takes.
const PER_JOB: usize = 16_384;

/// Calls `job` with ranges of `0..length` that are each at most [`PER_JOB`] long.
pub(super) fn ranges(
    pool: &ThreadPool,
    length: usize,
    job: &(dyn Fn(std::ops::Range<usize>) + Sync),
) {
    let jobs = length.div_ceil(PER_JOB);
    let part = |at: usize| job(at * PER_JOB..length.min((at + 1) * PER_JOB));
    if jobs > 1 { pool.run(jobs, &part) } else { (0..jobs).for_each(part) }
}

pub(super) fn narrow(isa: Isa, pool: &ThreadPool, out: &mut [bf16], x: &[f32]) {
    assert_eq!(out.len(), x.len(), "one for each");
    let shared = SharedSlice::new(out);
    ranges(pool, x.len(), &|range| {
        // SAFETY: ranges are disjoint.
        let out = unsafe { shared.slice(range.start, range.len()) };
        let x = &x[range];
        compiled_for!(isa, narrow_all(out: &mut [bf16], x: &[f32]));
    });
}

#[inline(always)]
fn narrow_all(out: &mut [bf16], x: &[f32]) {
    out.iter_mut().zip(x).for_each(|(out, x)| *out = bf16::narrow(*x));
}

pub(super) fn swiglu<N: Number>(isa: Isa, pool: &ThreadPool, out: &mut [N], gate: &[N], up: &[N]) {
    assert!(out.len() == gate.len() && out.len() == up.len(), "a gate for each number");
    let shared = SharedSlice::new(out);
    ranges(pool, gate.len(), &|range| {
        // SAFETY: ranges are disjoint.
        let out = unsafe { shared.slice(range.start, range.len()) };
        let (gate, up) = (&gate[range.clone()], &up[range]);
        compiled_for!(isa, swiglu_all<N: Number>(out: &mut [N], gate: &[N], up: &[N]));
    });
}

#[inline(always)]
fn swiglu_all<N: Number>(out: &mut [N], gate: &[N], up: &[N]) {
    let (chunks, rest) = out.as_chunks_mut::<LANES>();
    let ((gates, gate), (ups, up)) = (gate.as_chunks(), up.as_chunks());
    for ((out, gate), up) in chunks.iter_mut().zip(gates).zip(ups) {
        *out = gated(gate, up);
    }
    rest.copy_from_slice(&gated(&padded(gate), &padded(up))[..rest.len()]);
}

#[inline(always)]
fn gated<N: Number>(gate: &[N; LANES], up: &[N; LANES]) -> [N; LANES] {
    let mut out = [0.0; LANES];
    for lane in 0..LANES {
        let gate = gate[lane].wide();
        out[lane] = gate / (1.0 + exp(-gate)) * up[lane].wide();
    }
    out.map(N::narrow)
}

/// Fewer than [`LANES`] numbers, and zeros.
#[inline(always)]
fn padded<N: Number>(numbers: &[N]) -> [N; LANES] {
    let mut all = [N::default(); LANES];
    all[..numbers.len()].copy_from_slice(numbers);
    all
}

pub(super) fn swiglu_back<N: Number>(
    isa: Isa,
    pool: &ThreadPool,
    gate: &mut [N],
    up: &mut [N],
    gradient: &[N],
) {
    assert!(gradient.len() == gate.len() && gradient.len() == up.len(), "a gate for each number");
    let (gates, ups) = (SharedSlice::new(gate), SharedSlice::new(up));
    ranges(pool, gradient.len(), &|range| {
        // SAFETY: ranges are disjoint.
        let (gate, up) =
            unsafe { (gates.slice(range.start, range.len()), ups.slice(range.start, range.len())) };
        let gradient = &gradient[range];
        compiled_for!(isa, swiglu_back_all<N: Number>(gate: &mut [N], up: &mut [N], gradient: &[N]));
    });
}

#[inline(always)]
fn swiglu_back_all<N: Number>(gate: &mut [N], up: &mut [N], gradient: &[N]) {
    let ((gates, gate), (ups, up)) = (gate.as_chunks_mut(), up.as_chunks_mut());
    let (gradients, gradient) = gradient.as_chunks();
    for ((gate, up), gradient) in gates.iter_mut().zip(ups).zip(gradients) {
        (*gate, *up) = pulled(gate, up, gradient);
    }
    let (to_gate, to_up) = pulled(&padded(gate), &padded(up), &padded(gradient));
    gate.copy_from_slice(&to_gate[..gate.len()]);
    up.copy_from_slice(&to_up[..up.len()]);
}

/// The gradients of gates and of what they let through.
#[inline(always)]
fn pulled<N: Number>(
    gate: &[N; LANES],
    up: &[N; LANES],
    gradient: &[N; LANES],
) -> ([N; LANES], [N; LANES]) {
    let (mut to_gate, mut to_up) = ([0.0; LANES], [0.0; LANES]);
    for lane in 0..LANES {
        let (g, u, d) = (gate[lane].wide(), up[lane].wide(), gradient[lane].wide());
        let sigmoid = 1.0 / (1.0 + exp(-g));
        let silu = g * sigmoid;
        to_gate[lane] = d * u * (sigmoid + silu * (1.0 - sigmoid));
        to_up[lane] = d * silu;
    }
    (to_gate.map(N::narrow), to_up.map(N::narrow))
}

/// How heads are turned.
#[derive(Clone, Copy)]
pub(super) struct Angles<'a> {
    /// `[positions, head_dim / 2]`.
    pub cos: &'a [f32],
    /// `[positions, head_dim / 2]`.
    pub sin: &'a [f32],
    pub heads: usize,
    pub head_dim: usize,
    /// The other way.
    pub back: bool,
}

pub(super) fn rotate<N: Number>(isa: Isa, pool: &ThreadPool, x: &mut [N], angles: Angles<'_>) {
    let width = angles.heads * angles.head_dim;
    let sequence = angles.cos.len() / (angles.head_dim / 2) * width;
    assert!(angles.cos.len() == angles.sin.len() && x.len().is_multiple_of(sequence), "whole rows");
    pool.run_chunks(x, sequence, &|_, x| {
        compiled_for!(isa, rotate_all<N: Number>(x: &mut [N], angles: Angles<'_>));
    });
}

#[inline(always)]
fn rotate_all<N: Number>(x: &mut [N], angles: Angles<'_>) {
    let half = angles.head_dim / 2;
    let sign = if angles.back { -1.0 } else { 1.0 };
    let turns = angles.cos.chunks_exact(half).zip(angles.sin.chunks_exact(half));
    for (row, (cos, sin)) in x.chunks_exact_mut(angles.heads * angles.head_dim).zip(turns) {
        for head in row.chunks_exact_mut(angles.head_dim) {
            let (first, second) = head.split_at_mut(half);
            let pairs = first.iter_mut().zip(second);
            for ((first, second), (cos, sin)) in pairs.zip(cos.iter().zip(sin)) {
                let (a, b, sin) = (first.wide(), second.wide(), sin * sign);
                *first = N::narrow(a * cos - b * sin);
                *second = N::narrow(b * cos + a * sin);
            }
        }
    }
}
