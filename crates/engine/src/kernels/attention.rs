//! Causal attention of new positions over a key-value cache.

#[cfg(target_arch = "x86_64")]
mod simd;

use super::isa::Isa;
use super::math::{LANES, add_up, dot, exp};
use super::pool::ThreadPool;

/// Keys and values of one sequence in one layer.
#[derive(Debug, Clone, Copy)]
pub struct AttentionCache<'a> {
    /// `[kv_heads, positions_max, head_dim]`, rotated.
    pub keys: &'a [f32],
    /// `[kv_heads, positions_max, head_dim]`.
    pub values: &'a [f32],
    /// How many heads the cache holds.
    pub kv_heads: usize,
    /// How many positions the cache has room for.
    pub positions_max: usize,
    /// The width of a head.
    pub head_dim: usize,
}

/// How scores become weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionRule {
    /// Each score is multiplied by this before the softmax.
    pub scale: f32,
    /// How many positions a query sees, its own included; all if absent.
    pub window: Option<usize>,
    /// A scaled score `s` becomes `cap · tanh(s / cap)` (Gemma 2).
    pub softcap: Option<f32>,
    /// A query does not see later positions. Encoders see all.
    pub causal: bool,
}

/// Multiply-adds below which a second thread costs more than it saves.
const INLINE_MAX: usize = 100_000;

#[allow(clippy::too_many_arguments)]
pub(super) fn attention(
    isa: Isa,
    pool: &ThreadPool,
    out: &mut [f32],
    q: &[f32],
    cache: AttentionCache<'_>,
    heads: usize,
    start: usize,
    rule: &AttentionRule,
) {
    let scale = rule.scale;
    let AttentionCache { kv_heads, positions_max, head_dim, .. } = cache;
    let cached = kv_heads * positions_max * head_dim;
    assert_eq!(
        (cache.keys.len(), cache.values.len()),
        (cached, cached),
        "the cache fits its shape"
    );
    assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "{heads} heads share {kv_heads}");
    assert_eq!(out.len(), q.len(), "one output per query");
    let row = heads * head_dim;
    assert!(row > 0 && q.len().is_multiple_of(row), "{} is not rows of {row}", q.len());
    let end = start + q.len() / row;
    assert!(end <= positions_max, "positions up to {end} in a cache of {positions_max}");

    // One unit of work is the group of query heads of one position that share a key head: their
    // outputs are contiguous and each key is fetched once for all of them.
    let group = heads / kv_heads * head_dim;
    let small = q.len() * end * 2 <= INLINE_MAX;
    let units_per_job = if small { q.len() / group } else { 1 };
    pool.run_chunks(out, units_per_job.max(1) * group, &|job, out| {
        for (index, out) in out.chunks_exact_mut(group).enumerate() {
            let unit = job * units_per_job + index;
            let (position, kv_head) = (start + unit / kv_heads, unit % kv_heads);
            let last = if rule.causal { position + 1 } else { end };
            let first = rule.window.map_or(0, |window| (position + 1).saturating_sub(window));
            let seen = kv_head * positions_max + first..kv_head * positions_max + last;
            let seen = seen.start * head_dim..seen.end * head_dim;
            let (keys, values) = (&cache.keys[seen.clone()], &cache.values[seen]);
            let q = &q[unit * group..][..group];
            // SAFETY: `Kernels::new` made sure of the instruction set.
            unsafe {
                heads_of_one_key(
                    isa,
                    &Heads { q, keys, values, head_dim, scale, softcap: rule.softcap },
                    out,
                )
            };
        }
    });
}

/// The query heads of one position that share a key head.
struct Heads<'a> {
    /// `[group, head_dim]`
    q: &'a [f32],
    /// `[positions, head_dim]`, all that the position sees.
    keys: &'a [f32],
    /// `[positions, head_dim]`
    values: &'a [f32],
    head_dim: usize,
    scale: f32,
    softcap: Option<f32>,
}

/// `out` is `[group, head_dim]`.
///
/// # Safety
/// The processor must have `isa`.
#[cfg(target_arch = "x86_64")]
unsafe fn heads_of_one_key(isa: Isa, heads: &Heads<'_>, out: &mut [f32]) {
    match isa {
        _ if heads.softcap.is_some() => portable(heads, out),
        Isa::Portable => portable(heads, out),
        // SAFETY: the caller's promise.
        Isa::Avx2 => unsafe { simd::heads_avx2(heads, out) },
        // SAFETY: the caller's promise.
        Isa::Avx512 | Isa::Avx512Vnni | Isa::Amx => unsafe { simd::heads_avx512(heads, out) },
    }
}

/// # Safety
/// None needed; see the other one.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn heads_of_one_key(_: Isa, heads: &Heads<'_>, out: &mut [f32]) {
    portable(heads, out);
}

/// What attention means.
fn portable(heads: &Heads<'_>, out: &mut [f32]) {
    let &Heads { q, keys, values, head_dim, scale, softcap } = heads;
    let mut scores = vec![0.0; keys.len() / head_dim];
    for (out, q) in out.chunks_exact_mut(head_dim).zip(q.chunks_exact(head_dim)) {
        for (score, key) in scores.iter_mut().zip(keys.chunks_exact(head_dim)) {
            *score = dot(q, key) * scale;
            if let Some(cap) = softcap {
                *score = cap * super::math::tanh(*score / cap);
            }
        }
        softmax(&mut scores);
        out.fill(0.0);
        for (weight, value) in scores.iter().zip(values.chunks_exact(head_dim)) {
            for (out, value) in out.iter_mut().zip(value) {
                *out += weight * value;
            }
        }
    }
}

/// Replaces scores by `exp(score) / Σ exp(score)`, shifted by the largest so that none overflows.
#[inline(always)]
fn softmax(scores: &mut [f32]) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0; LANES];
    let (chunks, tail) = scores.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - largest);
            sums[lane] += chunk[lane];
        }
    }
    for (sum, score) in sums.iter_mut().zip(tail) {
        *score = exp(*score - largest);
        *sum += *score;
    }
    let factor = 1.0 / add_up(sums);
    for score in scores {
        *score *= factor;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{bits, each_kernels, numbers};
    use super::{AttentionCache, AttentionRule};

    const RULE: AttentionRule =
        AttentionRule { scale: 0.3, window: None, softcap: None, causal: true };

    /// The definition, in f64.
    fn defined(
        q: &[f32],
        cache: AttentionCache<'_>,
        heads: usize,
        start: usize,
        scale: f32,
    ) -> Vec<f64> {
        let width = cache.head_dim;
        let at = |of: &[f32], head: usize, position: usize, d: usize| {
            f64::from(of[(head * cache.positions_max + position) * width + d])
        };
        let mut out = Vec::new();
        for (unit, q) in q.chunks_exact(width).enumerate() {
            let (position, head) = (start + unit / heads, unit % heads / (heads / cache.kv_heads));
            let weights: Vec<f64> = (0..=position)
                .map(|s| (0..width).map(|d| f64::from(q[d]) * at(cache.keys, head, s, d)).sum())
                .map(|score: f64| (score * f64::from(scale)).exp())
                .collect();
            let total: f64 = weights.iter().sum();
            for d in 0..width {
                let sum: f64 =
                    weights.iter().enumerate().map(|(s, w)| w * at(cache.values, head, s, d)).sum();
                out.push(sum / total);
            }
        }
        out
    }

    #[test]
    fn attention_is_its_definition_and_ignores_the_batch() {
        for (kv_heads, group, head_dim, start, rows) in [
            (1, 1, 1, 0, 1),
            (2, 3, 10, 0, 5),
            (3, 1, 64, 7, 3),
            (2, 4, 32, 100, 33),
            (1, 7, 100, 20, 9),
            (1, 2, 130, 1_000, 2),
        ] {
            let (heads, positions_max) = (kv_heads * group, start + rows + 2);
            let keys = numbers(1, kv_heads * positions_max * head_dim);
            let values = numbers(2, keys.len());
            let cache =
                AttentionCache { keys: &keys, values: &values, kv_heads, positions_max, head_dim };
            let q = numbers(3, rows * heads * head_dim);
            let row = heads * head_dim;
            let expected = defined(&q, cache, heads, start, RULE.scale);
            each_kernels(|kernels| {
                let mut out = vec![0.0; q.len()];
                kernels.attention(&mut out, &q, cache, heads, start, &RULE);
                for (found, expected) in out.iter().zip(&expected) {
                    assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} {expected}");
                }
                let mut last = vec![0.0; row];
                let alone = &q[q.len() - row..];
                kernels.attention(&mut last, alone, cache, heads, start + rows - 1, &RULE);
                assert_eq!(bits(&last), bits(&out[q.len() - row..]));
            });
        }
    }

    #[test]
    #[should_panic(expected = "positions up to 3")]
    fn positions_beyond_the_cache_are_refused() {
        let cache = AttentionCache {
            keys: &[0.0; 2],
            values: &[0.0; 2],
            kv_heads: 1,
            positions_max: 2,
            head_dim: 1,
        };
        each_kernels(|kernels| kernels.attention(&mut [0.0], &[0.0], cache, 1, 2, &RULE));
    }
}
