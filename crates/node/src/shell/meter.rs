//! How fast this node is: by the passes it really makes, before those by one made when a stage was loaded, and
//! before that by how fast memory is read, which is what decoding one token waits for. The same of products and of
//! links: real traffic counts, and what was tried at the start until there is some.

use crate::wire::Machine;
use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use talka_base::{ModelId, NodeId};
use talka_engine::{LogitsWanted, Stage, StageInput};

/// A pass counts for this part of the average: a hundred tokens forget what was before.
const PASS_WEIGHT: f64 = 1.0 / 32.0;

/// Passes of a stage that was just loaded. The first reads what no cache holds yet, so the fastest counts.
const TRIAL_PASSES: u32 = 3;

/// A pass of so many rows waits for arithmetic and not for memory.
const PRODUCT_ROWS_MIN: usize = 64;
/// A pass of one token that reads less may find it all in caches.
const READ_BYTES_MIN: u64 = 32 << 20;

/// A long frame counts for this part of the average of its link.
const FRAME_WEIGHT: f64 = 1.0 / 8.0;

/// Averages of what a machine does in a second, and the links to it.
#[derive(Debug, Default)]
struct Rates {
    /// Floating-point operations in products of many rows.
    flops: Option<f64>,
    /// Bytes of weights read for single tokens.
    memory_bytes: Option<f64>,
    /// Bytes that came in from each node.
    links: HashMap<NodeId, f64>,
}

/// What a pass was like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass {
    /// Rows of all sessions.
    pub(crate) rows: usize,
    /// Floating-point operations for one row, attention left out.
    pub(crate) row_flops: f64,
    /// Bytes of weights.
    pub(crate) weight_bytes: u64,
}

/// What runs and loads took, by model.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    layer_us: Mutex<HashMap<ModelId, f64>>,
    load_time: Mutex<HashMap<ModelId, Duration>>,
    rates: Mutex<Rates>,
    /// Tokens of answers that this head chose.
    tokens: AtomicU64,
}

impl Meter {
    fn lock(&self) -> MutexGuard<'_, HashMap<ModelId, f64>> {
        self.layer_us.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn loads(&self) -> MutexGuard<'_, HashMap<ModelId, Duration>> {
        self.load_time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before anything ran, this machine reads so many bytes a second and does so many floating-point operations.
    pub(crate) fn begin(&self, memory_bytes: f64, flops: f64) {
        let mut rates = self.rates();
        rates.memory_bytes = rates.memory_bytes.or(Some(memory_bytes));
        rates.flops = rates.flops.or(Some(flops));
    }

    /// A pass took `time`.
    pub(crate) fn passed(&self, pass: Pass, time: Duration) {
        let seconds = time.as_secs_f64().max(1e-6);
        let mut rates = self.rates();
        if pass.rows >= PRODUCT_ROWS_MIN {
            average(&mut rates.flops, pass.rows as f64 * pass.row_flops / seconds, PASS_WEIGHT);
        } else if pass.rows == 1 && pass.weight_bytes >= READ_BYTES_MIN {
            average(&mut rates.memory_bytes, pass.weight_bytes as f64 / seconds, PASS_WEIGHT);
        }
    }

    /// A long frame of `node` came at so many bytes a second.
    pub(crate) fn arrived(&self, node: NodeId, bytes_per_second: u64) {
        let mut rates = self.rates();
        let mut rate = rates.links.get(&node).copied();
        average(&mut rate, bytes_per_second as f64, FRAME_WEIGHT);
        rates.links.extend(rate.map(|rate| (node, rate)));
    }

    /// KiB a second that come from those of `nodes` that sent enough to tell. The others are forgotten.
    pub(crate) fn throughputs_kib(&self, nodes: &[(NodeId, u32)]) -> Vec<(NodeId, u32)> {
        let mut rates = self.rates();
        rates.links.retain(|node, _| nodes.iter().any(|(linked, _)| linked == node));
        rates.links.iter().map(|(node, rate)| (*node, (rate / 1024.0) as u32)).collect()
    }

    /// How fast this machine computes.
    pub(crate) fn machine(&self) -> Machine {
        let rates = self.rates();
        let millions = |rate: Option<f64>| (rate.unwrap_or(0.0) / 1e6) as u32;
        Machine {
            matmul_mflops: millions(rates.flops),
            memory_mbytes: millions(rates.memory_bytes),
        }
    }

    /// So many more tokens of an answer were chosen.
    pub(crate) fn chose(&self, tokens: u32) {
        self.tokens.fetch_add(u64::from(tokens), Ordering::Relaxed);
    }

    /// Tokens chosen since the start.
    pub(crate) fn tokens_chosen(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }

    /// Layers of `model` were loaded in `time`.
    pub(crate) fn loaded(&self, model: ModelId, time: Duration) {
        self.loads().insert(model, time);
    }

    /// How long layers of `model` took to load when they last were.
    pub(crate) fn load_ms(&self, model: ModelId) -> Option<u64> {
        let time = self.loads().get(&model).copied()?;
        Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    /// One token went through `layers` layers in `time`.
    pub(crate) fn ran(&self, model: ModelId, layers: u32, time: Duration) {
        let us = per_layer_us(time, layers);
        let mut averages = self.lock();
        let average = averages.entry(model).or_insert(us);
        *average += (us - *average) * PASS_WEIGHT;
    }

    /// The same of a trial: real passes know better.
    pub(crate) fn tried(&self, model: ModelId, layers: u32, time: Duration) {
        self.lock().entry(model).or_insert(per_layer_us(time, layers));
    }

    /// Microseconds for one token through one layer, of each model that ran.
    pub(crate) fn layer_us(&self) -> Vec<(ModelId, u32)> {
        self.lock().iter().map(|(model, us)| (*model, us.ceil() as u32)).collect()
    }
}

/// Moves `rate` by a part of what it is off `found`; the first counts whole.
fn average(rate: &mut Option<f64>, found: f64, weight: f64) {
    let rate = rate.get_or_insert(found);
    *rate += (found - *rate) * weight;
}

fn per_layer_us(time: Duration, layers: u32) -> f64 {
    time.as_secs_f64() * 1e6 / f64::from(layers)
}

/// Takes one token through a stage that was just loaded; nothing if it cannot.
pub(crate) fn try_out(stage: &mut Stage, width: u32) -> Option<Duration> {
    let span = stage.span();
    let hidden = vec![0.0; width as usize];
    let logits = if stage.ends_model() { LogitsWanted::Last } else { LogitsWanted::None };
    let mut cache = stage.new_cache(span, TRIAL_PASSES);
    let mut fastest = None;
    for _ in 0..TRIAL_PASSES {
        let input =
            if span.start() == 0 { StageInput::Tokens(&[0]) } else { StageInput::Hidden(&hidden) };
        let begun = Instant::now();
        stage.run(input, &mut cache, logits).ok()?;
        let time = begun.elapsed();
        fastest = Some(fastest.map_or(time, |fastest: Duration| fastest.min(time)));
    }
    fastest
}

/// Microseconds in which `bytes` are read.
pub(crate) fn read_us(bytes: u64, bytes_per_second: f64) -> u32 {
    (bytes as f64 / bytes_per_second * 1e6).ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_follow_passes_and_trials_only_begin_them() {
        let (meter, model) = (Meter::default(), ModelId([1; 32]));
        let ms = Duration::from_millis;
        meter.tried(model, 4, ms(8));
        assert_eq!(meter.layer_us(), [(model, 2_000)]);
        meter.tried(model, 4, ms(80));
        meter.ran(model, 2, ms(4));
        assert_eq!(meter.layer_us(), [(model, 2_000)]);
        (0..200).for_each(|_| meter.ran(model, 2, ms(2)));
        let [(_, us)] = meter.layer_us()[..] else { panic!("one model") };
        assert!((1_000..1_010).contains(&us), "{us}");
    }

    #[test]
    fn machines_and_links_are_known_by_what_they_really_did() {
        let meter = Meter::default();
        let machine = |matmul_mflops, memory_mbytes| Machine { matmul_mflops, memory_mbytes };
        assert_eq!(meter.machine(), machine(0, 0));
        meter.begin(2e9, 5e9);
        assert_eq!(meter.machine(), machine(5_000, 2_000));
        let pass = |rows| Pass { rows, row_flops: 1e8, weight_bytes: 100 << 20 };
        meter.passed(pass(8), Duration::from_millis(1));
        let small = Pass { weight_bytes: 1 << 20, ..pass(1) };
        meter.passed(small, Duration::from_millis(1));
        assert_eq!(meter.machine(), machine(5_000, 2_000), "neither says anything");
        (0..500).for_each(|_| meter.passed(pass(100), Duration::from_secs(1)));
        (0..500).for_each(|_| meter.passed(pass(1), Duration::from_millis(100)));
        let Machine { matmul_mflops, memory_mbytes } = meter.machine();
        assert!((9_990..10_001).contains(&matmul_mflops), "{matmul_mflops}");
        assert!((1_040..1_050).contains(&memory_mbytes), "{memory_mbytes}");

        let [near, far] = [NodeId([1; 32]), NodeId([2; 32])];
        meter.arrived(near, 1 << 20);
        meter.arrived(far, 1 << 10);
        meter.arrived(far, 9 << 10);
        assert_eq!(meter.throughputs_kib(&[(far, 0)]), [(far, 2)]);
        assert_eq!(meter.throughputs_kib(&[(far, 0), (near, 0)]), [(far, 2)]);
    }
}
