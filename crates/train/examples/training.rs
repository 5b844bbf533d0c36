//! How fast this machine trains, and how well: one line of JSON.
//!
//! `training speed PRECISION THREADS STEPS` trains 15.7 M weights on batches of 8 x 256 tokens; `training nanogpt TEXT STEPS
//! PRECISION THREADS` is nanoGPT's recipe for a CPU, on the characters of TEXT. `cargo xtask bench training` runs both.

use serde_json::json;
use std::{error::Error, path::PathBuf, time::Instant};
use talka_base::rng::Rng;
use talka_engine::kernels::{Kernels, ThreadPool};
use talka_train::data::{TextSource, Windows, tokenize, validation_batches};
use talka_train::tokens::TextTokenizer;
use talka_train::{
    AdamW, Batch, ModelConfig, OptimiserConfig, Parameters, Precision, Schedule, TrainConfig,
    Trainer,
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let report = match arguments[..] {
        ["speed", precision, threads, steps] => {
            speed(wanted(precision)?, threads.parse()?, steps.parse()?)?
        }
        ["nanogpt", text, steps, precision, threads] => {
            nanogpt(text.into(), steps.parse()?, wanted(precision)?, threads.parse()?)?
        }
        _ => {
            return Err("expected speed PRECISION THREADS STEPS, or nanogpt TEXT STEPS PRECISION \
                        THREADS"
                .into());
        }
    };
    println!("{report}");
    Ok(())
}

fn wanted(name: &str) -> Result<Precision, String> {
    match name {
        "f32" => Ok(Precision::F32),
        "bf16" => Ok(Precision::Bf16),
        _ => Err(format!("precision {name}, expected f32 or bf16")),
    }
}

/// A model of llama's family with the usual epsilon and angles.
fn model(sizes: [u32; 7], tied: bool) -> ModelConfig {
    let [hidden, layers, heads, kv_heads, ffn, vocab, context] = sizes;
    let (norm_epsilon, rope_theta) = (1e-5, 1e4);
    ModelConfig {
        hidden,
        layers,
        heads,
        kv_heads,
        ffn,
        vocab,
        context,
        tied,
        norm_epsilon,
        rope_theta,
    }
}

fn trainer(config: TrainConfig, threads: usize) -> Result<Trainer, Box<dyn Error>> {
    let weights = Parameters::new(&config.model).initial_weights(1);
    Ok(Trainer::new(config, weights, Kernels::detect(ThreadPool::new(threads)))?)
}

fn speed(
    precision: Precision,
    threads: usize,
    steps: usize,
) -> Result<serde_json::Value, Box<dyn Error>> {
    const ROWS: usize = 8;
    const LENGTH: usize = 256;
    let model = model([384, 6, 6, 2, 1024, 8192, 256], false);
    let config = TrainConfig { precision, ..TrainConfig::new(model) };
    let need = config.memory_need(ROWS, LENGTH).total();
    let mut trainer = trainer(config, threads)?;
    let mut rng = Rng::new(2);
    let tokens = (0..ROWS * (LENGTH + 1)).map(|_| rng.below(8192) as u32).collect();
    let batch = Batch { tokens, rows: ROWS };
    let mut seconds = Vec::new();
    let mut loss = 0.0;
    for _ in 0..steps + 2 {
        let start = Instant::now();
        loss = trainer.step(&batch)?.loss;
        seconds.push(start.elapsed().as_secs_f64());
    }
    let mut timed = seconds.split_off(2);
    timed.sort_unstable_by(f64::total_cmp);
    let median = timed.get(timed.len() / 2).copied().unwrap_or(f64::NAN);
    let tokens_per_s = (ROWS * LENGTH) as f64 / median;
    Ok(json!({ "tokens_per_s": tokens_per_s, "loss": loss, "reckoned_bytes": need,
        "peak_bytes": peak_bytes() }))
}

fn nanogpt(
    text: PathBuf,
    steps: u64,
    precision: Precision,
    threads: usize,
) -> Result<serde_json::Value, Box<dyn Error>> {
    const ROWS: usize = 12;
    const LENGTH: usize = 64;
    let documents = TextSource::Text { path: text }.documents()?;
    let tokenizer = TextTokenizer::characters(documents.iter().map(String::as_str));
    let split = tokenize(&documents, &tokenizer, 0.1)?;
    let windows = Windows::new(&split.train, LENGTH, 1)?;
    let adamw = AdamW { learning_rate: 4e-3, ..AdamW::default() };
    let config = TrainConfig {
        optimiser: OptimiserConfig::AdamW(adamw),
        schedule: Schedule::Cosine { warmup: 50, steps, last: 0.1 },
        precision,
        ..TrainConfig::new(model([128, 4, 4, 4, 344, tokenizer.vocab(), LENGTH as u32], true))
    };
    let mut trainer = trainer(config, threads)?;
    let start = Instant::now();
    for step in 0..steps {
        trainer.step(&windows.batch(step * ROWS as u64, ROWS))?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let validation = validation_batches(&split.validation, LENGTH, 64)?;
    Ok(json!({ "validation_loss": trainer.evaluate(&validation)?, "seconds": seconds,
        "steps_per_s": steps as f64 / seconds, "peak_bytes": peak_bytes() }))
}

/// The most memory this process ever had, where the system tells.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}
