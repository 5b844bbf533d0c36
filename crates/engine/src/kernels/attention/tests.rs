use super::super::testing::{bits, each_kernels, numbers};
use super::super::{Isa, Kernels, ThreadPool};
use super::{
    AttentionRule, AttentionSequence, CacheElement, PAGE_POSITIONS, Page, PageShape, SEGMENT_PAGES,
};
use half::{bf16, f16};

const RULE: AttentionRule = AttentionRule { scale: 0.3, window: None, softcap: None, causal: true };

/// Keys and values of one sequence, plain and in pages.
struct Kept {
    shape: PageShape,
    /// `[positions, kv_heads, head_dim]`, rounded as the pages round.
    keys: Vec<f32>,
    values: Vec<f32>,
    pages: Vec<Page>,
}

impl Kept {
    fn new(seed: u64, shape: PageShape, positions: usize) -> Self {
        let row = shape.kv_heads * shape.head_dim;
        let round = |number: f32| match shape.element {
            CacheElement::F32 => number,
            CacheElement::F16 => f16::from_f32(number).to_f32(),
            CacheElement::Bf16 => bf16::from_f32(number).to_f32(),
        };
        let keys: Vec<f32> = numbers(seed, positions * row);
        let values: Vec<f32> = numbers(seed + 1, positions * row);
        let mut kept = Self { shape, keys, values, pages: Vec::new() };
        kept.fill();
        kept.keys.iter_mut().chain(&mut kept.values).for_each(|number| *number = round(*number));
        kept
    }

    fn fill(&mut self) {
        let page = PAGE_POSITIONS * self.shape.kv_heads * self.shape.head_dim;
        let rows = self.keys.chunks(page).zip(self.values.chunks(page));
        let page = |(keys, values): (&[f32], &[f32])| {
            let mut page = Page::new(self.shape);
            // In two parts: a page fills up over several calls.
            let part = keys.len() / 2 / (self.shape.kv_heads * self.shape.head_dim);
            let cut = part * self.shape.kv_heads * self.shape.head_dim;
            page.write(0, &keys[..cut], &values[..cut]);
            page.write(part, &keys[cut..], &values[cut..]);
            page
        };
        self.pages = rows.map(page).collect();
    }

    fn sequence(&self, start: usize, rows: usize) -> AttentionSequence<'_> {
        AttentionSequence { pages: self.pages.iter().map(Some).collect(), start, rows }
    }

    /// The definition, in f64.
    fn defined(&self, q: &[f32], heads: usize, start: usize, rule: &AttentionRule) -> Vec<f64> {
        let PageShape { kv_heads, head_dim: width, .. } = self.shape;
        let end = start + q.len() / heads / width;
        let at = |of: &[f32], head: usize, position: usize, d: usize| {
            f64::from(of[(position * kv_heads + head) * width + d])
        };
        let mut out = Vec::new();
        for (unit, q) in q.chunks_exact(width).enumerate() {
            let (position, head) = (start + unit / heads, unit % heads / (heads / kv_heads));
            let seen = |s: &usize| {
                let window = rule.window.unwrap_or(usize::MAX);
                (!rule.causal || *s <= position) && s.abs_diff(position) < window
            };
            let score = |s: usize| {
                let dot: f64 =
                    (0..width).map(|d| f64::from(q[d]) * at(&self.keys, head, s, d)).sum();
                let score = dot * f64::from(rule.scale);
                rule.softcap.map_or(score, |cap| (score / f64::from(cap)).tanh() * f64::from(cap))
            };
            let weights: Vec<(usize, f64)> =
                (0..end).filter(seen).map(|s| (s, score(s).exp())).collect();
            let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
            for d in 0..width {
                let sum: f64 = weights.iter().map(|(s, w)| w * at(&self.values, head, *s, d)).sum();
                out.push(sum / total);
            }
        }
        out
    }
}

fn attend(
    kernels: &Kernels,
    q: &[f32],
    heads: usize,
    shape: PageShape,
    sequences: &[AttentionSequence<'_>],
    rule: &AttentionRule,
) -> Vec<f32> {
    let mut out = vec![f32::NAN; q.len()];
    kernels.attention(&mut out, q, heads, shape, sequences, rule);
    out
}

/// Heads of keys, queries to each, width of a head, positions before, rows.
const SHAPES: [(usize, usize, usize, usize, usize); 7] = [
    (1, 1, 1, 0, 1),
    (2, 3, 10, 0, 5),
    (3, 1, 64, 61, 7),
    (2, 4, 32, 100, 77),
    (1, 7, 100, 20, 9),
    (1, 2, 130, 1_000, 40),
    (2, 4, 64, 2 * SEGMENT_PAGES * PAGE_POSITIONS - 1, 2),
];
const RULES: [AttentionRule; 5] = [
    RULE,
    AttentionRule { window: Some(16), ..RULE },
    AttentionRule { window: Some(1_030), softcap: Some(0.5), ..RULE },
    AttentionRule { causal: false, ..RULE },
    AttentionRule { causal: false, window: Some(9), ..RULE },
];

#[test]
fn attention_is_its_definition() {
    for (index, (kv_heads, group, head_dim, start, rows)) in SHAPES.into_iter().enumerate() {
        let elements = [CacheElement::F32, CacheElement::F16, CacheElement::Bf16];
        let shape = PageShape { kv_heads, head_dim, element: elements[index % 3] };
        let heads = kv_heads * group;
        let kept = Kept::new(1, shape, start + rows);
        let q = numbers(3, rows * heads * head_dim);
        for rule in RULES {
            let expected = kept.defined(&q, heads, start, &rule);
            each_kernels(|kernels| {
                let out = attend(kernels, &q, heads, shape, &[kept.sequence(start, rows)], &rule);
                for (found, expected) in out.iter().zip(&expected) {
                    assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} {expected}");
                }
            });
        }
    }
}

#[test]
fn company_cuts_and_threads_change_no_bit() {
    for element in [CacheElement::F32, CacheElement::F16, CacheElement::Bf16] {
        for (kv_heads, group, head_dim, start, rows) in SHAPES {
            let shape = PageShape { kv_heads, head_dim, element };
            let heads = kv_heads * group;
            let row = heads * head_dim;
            let [kept, other] = [5, 7].map(|seed| Kept::new(seed, shape, start + rows));
            let q = numbers(3, rows * row);
            for rule in RULES.into_iter().filter(|rule| rule.causal) {
                each_kernels(|kernels| {
                    let alone = Kernels::new(kernels.isa(), ThreadPool::new(1));
                    let whole = [kept.sequence(start, rows)];
                    let expected = bits(&attend(&alone, &q, heads, shape, &whole, &rule));
                    // Row by row, each behind some rows of another sequence.
                    for t in [0, rows / 2, rows - 1] {
                        let both = [other.sequence(start, t), kept.sequence(start + t, 1)];
                        let mut all = numbers(4, t * row);
                        all.extend_from_slice(&q[t * row..][..row]);
                        let out = attend(kernels, &all, heads, shape, &both, &rule);
                        assert_eq!(bits(&out[t * row..]), expected[t * row..][..row]);
                    }
                });
            }
        }
    }
}

#[test]
fn what_a_row_does_not_see_may_be_anything() {
    let shape = PageShape { kv_heads: 1, head_dim: 16, element: CacheElement::F32 };
    let rule = AttentionRule { window: Some(30), ..RULE };
    let (start, rows) = (100, 12);
    let kept = Kept::new(1, shape, start + rows);
    let q = numbers(3, rows * 16);
    each_kernels(|kernels| {
        let expected = attend(kernels, &q, 1, shape, &[kept.sequence(start, rows)], &rule);
        let mut spoilt = Kept { keys: kept.keys.clone(), values: kept.values.clone(), ..kept_of() };
        for position in (0..start - 29).chain([start + rows - 1]) {
            spoilt.keys[position * 16..][..16].fill(f32::NAN);
            spoilt.values[position * 16..][..16].fill(f32::INFINITY);
        }
        spoilt.fill();
        let mut sequence = spoilt.sequence(start, rows);
        sequence.pages[0] = None;
        let found = attend(kernels, &q, 1, shape, &[sequence], &rule);
        let last = (rows - 1) * 16;
        assert_eq!(bits(&found[..last]), bits(&expected[..last]));
        assert!(found[last..].iter().all(|number| number.is_nan()));
    });

    fn kept_of() -> Kept {
        let shape = PageShape { kv_heads: 1, head_dim: 16, element: CacheElement::F32 };
        Kept::new(1, shape, 0)
    }
}

#[test]
fn half_precision_saturates() {
    let shape = PageShape { kv_heads: 1, head_dim: 2, element: CacheElement::F16 };
    let mut page = Page::new(shape);
    page.write(0, &[0.0, 0.0], &[1e9, -1e9]);
    let sequence = AttentionSequence { pages: vec![Some(&page)], start: 0, rows: 1 };
    let kernels = Kernels::new(Isa::detect(), ThreadPool::new(1));
    let out = attend(&kernels, &[1.0, 1.0], 1, shape, &[sequence], &RULE);
    assert_eq!(out, [65_504.0, -65_504.0]);
}

#[test]
#[should_panic(expected = "visible pages are there")]
fn a_page_that_is_gone_is_not_read() {
    let shape = PageShape { kv_heads: 1, head_dim: 2, element: CacheElement::F32 };
    let sequence = AttentionSequence { pages: vec![None], start: 0, rows: 1 };
    let kernels = Kernels::new(Isa::Portable, ThreadPool::new(1));
    attend(&kernels, &[1.0, 1.0], 1, shape, &[sequence], &RULE);
}
