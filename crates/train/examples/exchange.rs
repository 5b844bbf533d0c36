//! The members' side of rounds for another program, which trains: it measures this crate's merging with any trainer.
//!
//! `exchange LAYOUT SETTINGS`: LAYOUT is `ROWSxCOLUMNS,...`; SETTINGS are words of `members=N`, `compressor=plain32|plain16|dense4|sparse`,
//! `top=K`, `cut=flat|tensors|tiles`, `feedback=X`, `rate=X`, `momentum=X`, `centre=mean|trimmed|median|krum|geometric`, `clip`,
//! `liars=N`. On standard input come the first weights, then for each round the weights of each member, all f32,
//! little-endian; after each round the merged weights go to standard output. What an update and all of them took in
//! bytes goes to standard error at the end.

mod words;

use std::io::{self, Read, Write};
use talka_train::{Compressor, Feedback, Layout, Outer, Part, Rule, Said, Shared, UpdateError};
use words::Words;

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
    let settings = settings(&Words(arguments.collect()))?;
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

fn settings(words: &Words) -> Result<Settings, String> {
    let members = words.get("members", 1)?;
    Ok(Settings {
        members: members.into(),
        compressor: words.compressor()?,
        decay: words.get("feedback", Feedback::DECAY)?,
        outer: words.outer(Outer::AVERAGE)?,
        rule: words.rule(members)?,
    })
}
