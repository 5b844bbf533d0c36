//! How fast this machine runs a model: prompt and decoding in tokens per second, as one line of JSON.
//!
//! `throughput MODEL THREADS PROMPT GENERATED`, where MODEL is a folder or a GGUF file. The tokens are
//! arbitrary: speed does not depend on them. Sampling is left out; it is the same for every engine.

use serde_json::json;
use std::{
    error::Error,
    hint::black_box,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};
use talka_base::LayerSpan;
use talka_engine::{
    BatchItem, LogitsWanted, Model, ModelSource, Stage, StageInput,
    kernels::{Kernels, ThreadPool},
};

/// Sequences that are decoded together.
const TOGETHER: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let begin = Instant::now();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, threads, prompt, generated] = arguments.as_slice() else {
        return Err("expected MODEL THREADS PROMPT GENERATED".into());
    };
    let (prompt, generated): (u32, u32) = (prompt.parse()?, generated.parse()?);
    let pool = ThreadPool::new(threads.parse()?);
    let kernels = Kernels::detect(Arc::clone(&pool));

    let path = PathBuf::from(path);
    let is_file = path.extension().is_some_and(|extension| extension == "gguf");
    let source = if is_file { ModelSource::Gguf(path) } else { ModelSource::Folder(path) };
    let model = Model::open(source)?;
    let span = LayerSpan::new(0, model.shape().layers)?;
    let mut stage = model.stage(span, &kernels)?;
    let token = |position: u32| position.wrapping_mul(7_919) % model.shape().vocab;
    let mut cache = stage.new_cache(span, prompt + generated);
    stage.run(StageInput::Tokens(&[token(0)]), &mut cache, LogitsWanted::Last)?;
    let first_token = begin.elapsed().as_secs_f64();
    cache.truncate(0);

    let tokens: Vec<u32> = (0..prompt).map(token).collect();
    let start = Instant::now();
    black_box(stage.run(StageInput::Tokens(&tokens), &mut cache, LogitsWanted::Last)?);
    let prefill = f64::from(prompt) / start.elapsed().as_secs_f64();
    let resident = resident_bytes();

    let mut decode = || -> Result<f64, Box<dyn Error>> {
        cache.truncate(prompt);
        let start = Instant::now();
        for position in prompt..prompt + generated {
            let input = StageInput::Tokens(&[token(position)]);
            black_box(stage.run(input, &mut cache, LogitsWanted::Last)?);
        }
        Ok(f64::from(generated) / start.elapsed().as_secs_f64())
    };
    let alone = decode()?;
    let beside = beside_a_busy_process(decode)?;
    let cores = std::thread::available_parallelism()?.get() as f64;
    let threads = pool.threads() as f64;
    // A scheduler shares the cores among all that want to run.
    let fair = (cores / (threads + 1.0)).min(1.0);

    let cache_bytes = 4 * 2 * u64::from(model.shape().kv_heads * model.shape().head_dim);
    let cache_bytes = cache_bytes * u64::from(model.shape().layers) * u64::from(prompt + generated);
    let report = json!({
        "isa": format!("{:?}", kernels.isa()),
        "threads": pool.threads(),
        "first_token_s": first_token,
        "prefill_tokens_per_s": prefill,
        "decode_tokens_per_s": alone,
        "decode_together_tokens_per_s": decode_together(&mut stage, &token, generated)?,
        "fair_share_kept": beside / alone / fair,
        "bytes_per_token": model.span_bytes(span),
        "resident_bytes": resident,
        "weight_and_cache_bytes": model.span_bytes(span) + cache_bytes,
        "memory_bytes_per_s": memory_bytes_per_s(&pool),
    });
    println!("{report}");
    Ok(())
}

/// Tokens per second of all sequences.
fn decode_together(
    stage: &mut Stage,
    token: &dyn Fn(u32) -> u32,
    generated: u32,
) -> Result<f64, Box<dyn Error>> {
    let span = stage.span();
    let mut caches: Vec<_> = (0..TOGETHER).map(|_| stage.new_cache(span, generated + 1)).collect();
    let mut step = |position: u32| -> Result<(), Box<dyn Error>> {
        let tokens: Vec<[u32; 1]> = (0..TOGETHER as u32).map(|n| [token(position + n)]).collect();
        let mut items: Vec<_> = caches
            .iter_mut()
            .zip(&tokens)
            .map(|(cache, tokens)| BatchItem {
                input: StageInput::Tokens(tokens),
                cache,
                logits: LogitsWanted::Last,
            })
            .collect();
        for output in stage.run_batch(&mut items) {
            black_box(output?);
        }
        Ok(())
    };
    step(0)?;
    let start = Instant::now();
    for position in 1..=generated {
        step(position)?;
    }
    Ok(TOGETHER as f64 * f64::from(generated) / start.elapsed().as_secs_f64())
}

/// What `measure` returns while another thread does nothing but compute.
fn beside_a_busy_process<T>(measure: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 1_u64;
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..1_000 {
                    number = black_box(number.wrapping_mul(6_364_136_223_846_793_005) + 1);
                }
            }
        });
        let measured = measure();
        stop.store(true, Ordering::Relaxed);
        measured
    })
}

/// Memory of this process that lies in RAM; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// How fast all threads together read memory that no cache holds: the best of a few passes. Each
/// thread reads several streams at once, as the kernels do; one alone is slower.
fn memory_bytes_per_s(pool: &ThreadPool) -> f64 {
    /// Larger than the last-level cache of any server so far.
    const BYTES: usize = 1 << 30;
    const CHUNK: usize = 1 << 18;
    const STREAMS: usize = 8;
    const PASSES: usize = 4;
    let numbers = vec![1_u64; BYTES / size_of::<u64>()];
    let chunks: Vec<&[u64]> = numbers.chunks(CHUNK / size_of::<u64>()).collect();
    let pass = |_| {
        let start = Instant::now();
        pool.run(chunks.len(), &|chunk| {
            let length = chunks[chunk].len() / STREAMS;
            let streams: [&[u64]; STREAMS] =
                std::array::from_fn(|stream| &chunks[chunk][stream * length..][..length]);
            let at = |index| streams.iter().fold(0_u64, |sum, s| sum.wrapping_add(s[index]));
            black_box((0..length).fold(0, |sum: u64, index| sum.wrapping_add(at(index))));
        });
        BYTES as f64 / start.elapsed().as_secs_f64()
    };
    (0..PASSES).map(pass).fold(0.0, f64::max)
}
