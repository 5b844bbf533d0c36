//! How fast this node is: by the passes it really makes, before those by one made when a stage was loaded, and before
//! that by how fast memory is read, which is what decoding one token waits for.

use std::{
    collections::HashMap,
    hint::black_box,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use talka_base::ModelId;
use talka_engine::{LogitsWanted, Stage, StageInput, kernels::ThreadPool};

/// A pass counts for this part of the average: a hundred tokens forget what was before.
const PASS_WEIGHT: f64 = 1.0 / 32.0;

/// Passes of a stage that was just loaded. The first reads what no cache holds yet, so the fastest counts.
const TRIAL_PASSES: u32 = 3;

/// Memory that is read to learn how fast it is: more than caches hold on most machines, over in milliseconds.
const PROBE_BYTES: usize = 32 << 20;
const PROBE_ROUNDS: usize = 2;

/// What runs and loads took, by model.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    layer_us: Mutex<HashMap<ModelId, f64>>,
    load_time: Mutex<HashMap<ModelId, Duration>>,
}

impl Meter {
    fn lock(&self) -> MutexGuard<'_, HashMap<ModelId, f64>> {
        self.layer_us.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn loads(&self) -> MutexGuard<'_, HashMap<ModelId, Duration>> {
        self.load_time.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Bytes that all threads together read in a second.
pub(crate) fn bytes_per_second(pool: &ThreadPool) -> f64 {
    let words = vec![1_u64; PROBE_BYTES / size_of::<u64>()];
    let parts: Vec<&[u64]> = words.chunks(words.len().div_ceil(pool.threads())).collect();
    let read = || {
        let begun = Instant::now();
        pool.run(parts.len(), &|part| {
            black_box(parts[part].iter().copied().fold(0_u64, u64::wrapping_add));
        });
        begun.elapsed()
    };
    let fastest = (0..PROBE_ROUNDS).map(|_| read()).min().unwrap_or_default();
    PROBE_BYTES as f64 / fastest.as_secs_f64().max(1e-6)
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
}
