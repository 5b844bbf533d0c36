//! How fast this machine runs a model: prompt and decoding in tokens per second, as one line of JSON.
//!
//! `throughput FOLDER THREADS PROMPT GENERATED`. The tokens are arbitrary: speed does not depend on
//! them. Sampling is left out; it is the same for every engine.

use serde_json::json;
use std::{error::Error, hint::black_box, sync::Arc, time::Instant};
use talka_base::LayerSpan;
use talka_engine::{
    LogitsWanted, Model, ModelSource, Pipeline,
    kernels::{Kernels, ThreadPool},
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, threads, prompt, generated] = arguments.as_slice() else {
        return Err("expected FOLDER THREADS PROMPT GENERATED".into());
    };
    let (prompt, generated): (u32, u32) = (prompt.parse()?, generated.parse()?);
    let pool = ThreadPool::new(threads.parse()?);
    let kernels = Kernels::detect(Arc::clone(&pool));

    let model = Model::open(ModelSource::Folder(folder.into()))?;
    let span = LayerSpan::new(0, model.shape().layers)?;
    let stage = model.stage(span, &kernels)?;
    let mut pipeline = Pipeline::new(vec![stage], prompt + generated)?;
    let token = |position: u32| position.wrapping_mul(7_919) % model.shape().vocab;

    // Brings the weights into memory.
    pipeline.run(&[token(0)], LogitsWanted::Last)?;
    pipeline.truncate(0);

    let tokens: Vec<u32> = (0..prompt).map(token).collect();
    let start = Instant::now();
    black_box(pipeline.run(&tokens, LogitsWanted::Last)?);
    let prefill = start.elapsed().as_secs_f64();

    let start = Instant::now();
    for position in prompt..prompt + generated {
        black_box(pipeline.run(&[token(position)], LogitsWanted::Last)?);
    }
    let decode = start.elapsed().as_secs_f64();

    let report = json!({
        "isa": format!("{:?}", kernels.isa()),
        "threads": pool.threads(),
        "prefill_tokens_per_s": f64::from(prompt) / prefill,
        "decode_tokens_per_s": f64::from(generated) / decode,
        "bytes_per_token": model.span_bytes(span),
        "memory_bytes_per_s": memory_bytes_per_s(&pool),
    });
    println!("{report}");
    Ok(())
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
