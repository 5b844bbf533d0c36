//! The members' side of rounds for another program, which trains: it measures this crate's merging with any trainer.
//!
//! `exchange LAYOUT SETTINGS`: LAYOUT is `ROWSxCOLUMNS,...`; SETTINGS are words of `members=N`, `compressor=plain32|plain16|dense4|sparse`,
//! `top=K`, `cut=flat|tensors|tiles`, `feedback=X`, `rate=X`, `momentum=X`, `centre=mean|trimmed|median|krum|geometric`, `clip`,
//! `liars=N`. On standard input come the first weights, then for each round the weights of each member, all f32,
//! little-endian; after each round the merged weights go to standard output. What an update and all of them took in
//! bytes goes to standard error at the end.

use std::io::{self, Read, Write};
use talka_train::{
    Centre, Compressor, Cut, Feedback, Layout, Outer, Part, Rule, Said, Shared, UpdateError,
};

struct Settings {
    members: usize,
    compressor: Compressor,
    decay: f32,
    outer: Outer,
    rule: Rule,
}

fn main() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1);
    let layout = layout(&arguments.next().ok_or("expected a layout, then settings")?)?;
    let settings = settings(&arguments.collect::<Vec<_>>())?;
    let Some(base) = values(&layout) else { return Err("expected the first weights".into()) };
    let mut shared = Shared::new(base);
    let mut feedback = vec![Feedback::new(layout.len(), settings.decay); settings.members];
    let (mut bytes, mut rounds, mut refused) = (0, 0, 0);
    while let Some(updates) = round(&layout, &settings, &shared, &mut feedback) {
        let read = |update: &Vec<u8>| settings.compressor.read(&layout, update).ok();
        let good: Vec<_> = updates.iter().flatten().filter_map(read).collect();
        refused += settings.members - good.len();
        let parts: Vec<_> = good.iter().map(|values| Part { values, tokens: 1 }).collect();
        let merged = shared.step(settings.outer, settings.rule, Said::Learned, &parts);
        merged.map_err(|error| error.to_string())?;
        let out: Vec<u8> = shared.anchor().iter().flat_map(|value| value.to_le_bytes()).collect();
        io::stdout()
            .write_all(&out)
            .and_then(|()| io::stdout().flush())
            .map_err(|e| e.to_string())?;
        bytes += updates.iter().flatten().map(Vec::len).sum::<usize>();
        rounds += 1;
    }
    let update = settings.compressor.bytes(&layout);
    let bits = 8.0 * update as f64 / layout.len() as f64;
    eprintln!(
        "{rounds} rounds, {update} bytes an update, {bits:.4} bits a parameter, {bytes} in all, {refused} refused"
    );
    Ok(())
}

/// What the members send; `None` at the end of the input.
fn round(
    layout: &Layout,
    settings: &Settings,
    shared: &Shared,
    feedback: &mut [Feedback],
) -> Option<Vec<Result<Vec<u8>, UpdateError>>> {
    let send = |feedback: &mut Feedback| {
        let weights = values(layout)?;
        let learned: Vec<f32> =
            shared.anchor().iter().zip(weights).map(|(anchor, own)| anchor - own).collect();
        Some(feedback.send(settings.compressor, layout, &learned))
    };
    feedback.iter_mut().map(send).collect()
}

fn values(layout: &Layout) -> Option<Vec<f32>> {
    let mut bytes = vec![0; 4 * layout.len()];
    io::stdin().read_exact(&mut bytes).ok()?;
    Some(bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect())
}

fn layout(text: &str) -> Result<Layout, String> {
    let shape = |part: &str| {
        let (rows, columns) = part.split_once('x')?;
        Some((rows.parse().ok()?, columns.parse().ok()?))
    };
    let shapes: Option<Vec<_>> = text.split(',').map(shape).collect();
    shapes.map(Layout::new).ok_or(format!("{text:?} is no layout, expected ROWSxCOLUMNS,..."))
}

fn settings(words: &[String]) -> Result<Settings, String> {
    let value = |name: &str| {
        words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
    };
    let number = |name: &str, usual: f64| match value(name) {
        "" => Ok(usual),
        text => text.parse::<f64>().map_err(|_| format!("{name}={text}, expected a number")),
    };
    let cut = match value("cut") {
        "" | "flat" => Cut::Flat,
        "tensors" => Cut::Tensors,
        "tiles" => Cut::Tiles,
        other => return Err(format!("cut={other} is none of flat, tensors, tiles")),
    };
    let compressor = match value("compressor") {
        "" | "plain32" => Compressor::Plain32,
        "plain16" => Compressor::Plain16,
        "dense4" => Compressor::Dense4,
        "sparse" => Compressor::Sparse { cut, top: number("top", 64.0)? as u16 },
        other => {
            return Err(format!("compressor={other} is none of plain32, plain16, dense4, sparse"));
        }
    };
    let (members, liars) = (number("members", 1.0)? as u16, number("liars", 0.0)? as u16);
    let centre = match value("centre") {
        "" | "mean" => Centre::Mean,
        "trimmed" => Centre::Trimmed { per_mille: 1000 * liars / members.max(1) },
        "median" => Centre::Median,
        "krum" => Centre::Krum { liars, kept: members },
        "geometric" => Centre::GeometricMedian,
        other => {
            return Err(format!(
                "centre={other} is none of mean, trimmed, median, krum, geometric"
            ));
        }
    };
    Ok(Settings {
        members: members.into(),
        compressor,
        decay: number("feedback", f64::from(Feedback::DECAY))? as f32,
        outer: Outer { rate: number("rate", 1.0)?, momentum: number("momentum", 0.0)? },
        rule: Rule { clip: words.iter().any(|word| word == "clip"), centre },
    })
}
