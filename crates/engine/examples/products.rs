//! How fast this machine multiplies by weights: `products THREADS SECONDS [WORD]`, a line per encoding, shape and
//! number of rows, those whose line holds WORD alone.
//!
//! Each run takes the next of several copies of the weights, together larger than caches, as the layers
//! of a model are. The best of the runs is what the code can do, the median what this machine gave.

use std::{
    error::Error,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};
use talka_engine::{
    kernels::{Kernels, Matrix, ThreadPool},
    quant::Encoding,
};

/// `[outputs, inputs]`, of models of 135 M and 1.24 B parameters.
const SHAPES: [[usize; 2]; 4] = [[1536, 576], [576, 1536], [8192, 2048], [2048, 8192]];
/// One token, sequences decoded together, a prompt.
const ROWS: [usize; 3] = [1, 8, 512];
const ENCODINGS: [Encoding; 4] = [Encoding::Bf16, Encoding::Q8_0, Encoding::Q4_K, Encoding::Q6_K];
/// Bytes that no cache holds.
const UNCACHED_BYTES: usize = 256 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (threads, seconds, word) = match arguments.as_slice() {
        [threads, seconds] => (threads, seconds, ""),
        [threads, seconds, word] => (threads, seconds, word.as_str()),
        _ => return Err("expected THREADS SECONDS [WORD]".into()),
    };
    let kernels = Kernels::detect(ThreadPool::new(threads.parse()?));
    let patience = Duration::from_secs_f64(seconds.parse()?);
    for encoding in ENCODINGS {
        for shape in
            SHAPES.into_iter().filter(|[_, inputs]| inputs.is_multiple_of(encoding.block_numbers()))
        {
            let names = ROWS.map(|rows| format!("{encoding:?} {shape:?} x {rows}"));
            if names.iter().any(|name| name.contains(word)) {
                measure(
                    &kernels,
                    encoding,
                    shape,
                    patience,
                    &names.map(|name| name.contains(word)),
                )?;
            }
        }
    }
    Ok(())
}

fn measure(
    kernels: &Kernels,
    encoding: Encoding,
    [outputs, inputs]: [usize; 2],
    patience: Duration,
    wanted: &[bool],
) -> Result<(), Box<dyn Error>> {
    let row_bytes = encoding.bytes_of(inputs).ok_or("too wide")?;
    // Any such bytes spell numbers of moderate size in every encoding.
    let bytes: Vec<u8> = (0..outputs * row_bytes)
        .map(|n| 0x20 | (n.wrapping_mul(0x9e37_79b9) >> 13) as u8 & 0x1f)
        .collect();
    let pool: &Arc<ThreadPool> = kernels.pool();
    let start = Instant::now();
    let copies = (0..UNCACHED_BYTES.div_ceil(bytes.len()))
        .map(|_| Matrix::pack(pool, encoding, [outputs, inputs], &bytes))
        .collect::<Result<Vec<_>, _>>()?;
    let packed = (copies.len() * bytes.len()) as f64 / start.elapsed().as_secs_f64();
    println!("{encoding:?} [{outputs}, {inputs}] packed at {:.2} GB/s", packed / 1e9);

    for (rows, _) in ROWS.into_iter().zip(wanted).filter(|(_, wanted)| **wanted) {
        let x: Vec<f32> = (0..rows * inputs).map(|n| (n % 17) as f32 - 8.0).collect();
        let mut out = vec![0.0; rows * outputs];
        let begin = Instant::now();
        let mut times = Vec::new();
        while begin.elapsed() < patience || times.len() < 3 {
            let weights = &copies[times.len() % copies.len()];
            let start = Instant::now();
            kernels.matmul(&mut out, &x, weights);
            times.push(start.elapsed().as_secs_f64());
            black_box(&out);
        }
        times.sort_by(f64::total_cmp);
        let speed = |time: f64| {
            let operations = 2 * rows * outputs * inputs;
            format!(
                "{:6.0} GFLOP/s {:5.1} GB/s",
                operations as f64 / time / 1e9,
                bytes.len() as f64 / time / 1e9
            )
        };
        println!(
            "{encoding:?} [{outputs}, {inputs}] x {rows:3}: best {}, median {}",
            speed(times[0]),
            speed(times[times.len() / 2])
        );
    }
    Ok(())
}
