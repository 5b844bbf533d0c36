//! `talka bench model`: tokens per second as a caller meets them.
//!
//! Asks the running node twice for the likeliest continuation of the same prompt, once with one
//! token and once with many. The first takes the prompt's time and one token's; the difference is
//! what the other tokens took. So HTTP, the ledger and the network are in the numbers, as they are
//! in everybody's answers. The best of three repetitions counts: disturbances only ever slow down.

#[cfg(feature = "gpu")]
mod gpus;
mod hardware;

use super::requests::COMPLETIONS;
use crate::{
    cli::{BenchAction, BenchArgs, BenchModelArgs, BenchText},
    client::{Client, Picked},
    exit::Exit,
    output,
};
use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::{Duration, Instant, SystemTime};
use talka_node::base::rng::Rng;

const REPETITIONS: u32 = 3;
/// The token of an answer that repeats itself, and what makes it the likeliest wherever it stands.
const REPEATED: (&str, u32) = ("20", 100);

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    prompt_tokens: u32,
    completion_tokens: u32,
    /// Answers at once; speeds are those of all of them.
    together: u32,
    prefill_tokens_per_s: f64,
    decode_tokens_per_s: f64,
}

#[derive(Debug, Deserialize)]
struct Completion {
    usage: Usage,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
}

pub async fn run(args: BenchArgs) -> Result<Exit> {
    let chosen = match args.action {
        Some(BenchAction::Hardware(chosen)) => return hardware::run(chosen, args.at.json).await,
        Some(BenchAction::Model(chosen)) => chosen,
        None => BenchModelArgs { together: 1, ..BenchModelArgs::default() },
    };
    let client = Client::find(&args.at)?;
    let picked = client.pick(chosen.model.as_deref()).await?;
    let report = measure(&client, &picked, &chosen).await?;
    if args.at.json {
        output::json(&report)?;
        return Ok(Exit::Done);
    }
    let Report { model, prompt_tokens, completion_tokens, .. } = &report;
    output::line(format!("model    {model}"))?;
    let (prefill, decode) = (report.prefill_tokens_per_s, report.decode_tokens_per_s);
    output::line(format!("prefill  {prefill:.1} tokens/s ({prompt_tokens} tokens)"))?;
    output::line(format!("decode   {decode:.1} tokens/s ({completion_tokens} tokens)"))?;
    Ok(Exit::Done)
}

async fn measure(client: &Client, picked: &Picked, chosen: &BenchModelArgs) -> Result<Report> {
    let context = picked.context.unwrap_or(u32::MAX);
    let prompt = chosen.prompt.unwrap_or((context / 2).clamp(1, 256));
    let tokens = chosen.tokens.unwrap_or((context / 4).clamp(2, 64));
    let (mut short, mut long) = (Duration::MAX, Duration::MAX);
    let mut usage = Usage { prompt_tokens: 0, completion_tokens: 0 };
    for _ in 0..REPETITIONS {
        short = short.min(ask_all(client, picked, prompt, 1, chosen).await?.0);
        let (took, used) = ask_all(client, picked, prompt, tokens, chosen).await?;
        long = long.min(took);
        usage = used;
    }
    let Usage { prompt_tokens, completion_tokens } = usage;
    ensure!(
        completion_tokens >= 2,
        "the model ended its answer after one token, expected {tokens}: try another --prompt length"
    );
    ensure!(
        long > short,
        "{completion_tokens} tokens took no longer than one, expected a difference to measure: \
         the computer is busy; try again, or with more --tokens"
    );
    let together = f64::from(chosen.together);
    Ok(Report {
        model: picked.name.clone(),
        prompt_tokens,
        completion_tokens,
        together: chosen.together,
        prefill_tokens_per_s: together * f64::from(prompt_tokens) / short.as_secs_f64(),
        decode_tokens_per_s: together * f64::from(completion_tokens - 1)
            / (long - short).as_secs_f64(),
    })
}

/// All answers that are asked for at once; the time until the last is there.
async fn ask_all(
    client: &Client,
    picked: &Picked,
    prompt: u32,
    tokens: u32,
    chosen: &BenchModelArgs,
) -> Result<(Duration, Usage)> {
    let asked = (0..chosen.together).map(|_| ask(client, picked, prompt, tokens, chosen));
    let answers = try_join_all(asked).await?;
    answers.into_iter().max_by_key(|(took, _)| *took).context("at least one answer")
}

/// One answer of at most `tokens` tokens, and how long it took.
async fn ask(
    client: &Client,
    picked: &Picked,
    prompt: u32,
    tokens: u32,
    chosen: &BenchModelArgs,
) -> Result<(Duration, Usage)> {
    let mut body = json!({
        "model": picked.name,
        "prompt": prompt_ids(prompt),
        "max_tokens": tokens,
        "temperature": if chosen.text == BenchText::Random { 1 } else { 0 },
        "talka": { "guesses": !chosen.no_guesses },
    });
    if chosen.text == BenchText::Repeating {
        let (token, bias) = REPEATED;
        body["logit_bias"] = json!({ token: bias });
    }
    let start = Instant::now();
    let completion: Completion = client.complete(COMPLETIONS, &body).await?;
    Ok((start.elapsed(), completion.usage))
}

/// Ids that every real vocabulary has, above the special ones at its start. Others each time: of two
/// prompts that begin alike a node computes the beginning once.
fn prompt_ids(tokens: u32) -> Vec<u32> {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let mut rng = Rng::new(since.as_nanos() as u64);
    (0..tokens).map(|_| 10 + rng.below(240) as u32).collect()
}
