//! Members that train together, in one process and in turns: how good what they make is, and for how many bytes. One
//! line of JSON.
//!
//! `swarm text=FILE` trains the characters of FILE; `swarm given=FOLDER` trains what another program drew: weights and batches
//! that `xtask/src/bench/training/draw.py` wrote. Each member is a [`Trainer`](talka_train::Trainer); what it learned goes through the
//! compressors, the merging and the outer step that nodes use. Words and their usual values:
//!
//! - `members=2`, `steps=500` of each, `every=25` steps they exchange, `seed=0`; `synchronous`: one model on the batches of all;
//! - `compressor=plain32` and others, `feedback=0.95`, `rate=`, `momentum=` (what suits the number of rounds), `centre=mean`, `clip`:
//!   see `exchange`;
//! - `fragments=1`: each round exchanges one part of so many; `ahead=0`: so many steps are trained before what others learned is here;
//! - `optimiser=adamw|muon`, `learning-rate=0.004`, `precision=f32|bf16`, `threads=1`, `curve=8` looks on the way;
//! - `churn`: three of ten members die in each ten rounds, others join late, one is five times slower, links break;
//! - `liars=0` of the members lie, `lie=flip|hundred|nan|stale`.

mod fate;
mod lie;
mod material;
mod run;
#[path = "../words/mod.rs"]
mod words;

use fate::Fates;
use lie::Lie;
use material::Material;
use run::{Run, Settings};
use talka_train::{
    AdamW, Feedback, Muon, OptimiserConfig, Outer, Precision, Schedule, TrainConfig,
};
use words::Words;

fn main() -> Result<(), String> {
    let words = Words(std::env::args().skip(1).collect());
    let material = match (words.text("text"), words.text("given")) {
        ("", "") => return Err("expected text=FILE or given=FOLDER".into()),
        (text, "") => Material::text(text.as_ref()),
        (_, folder) => Material::given(folder.as_ref()),
    };
    let material = material.map_err(|error| error.to_string())?;
    let settings = settings(&words, &material)?;
    println!("{}", Run::new(settings, material)?.finish()?);
    Ok(())
}

fn settings(words: &Words, material: &Material) -> Result<Settings, String> {
    let (members, steps, every) =
        (words.get("members", 2_u16)?, words.get("steps", 500)?, words.get("every", 25)?);
    if members == 0 || steps == 0 || every == 0 {
        return Err("members, steps and every begin at 1".into());
    }
    let layers = material.model().layers as usize;
    if !(1..=layers).contains(&words.get("fragments", 1)?) {
        return Err(format!("fragments is 1 to {layers}"));
    }
    if words.get("ahead", 0)? > every {
        return Err("ahead is at most every".into());
    }
    let liars = words.get("liars", 0)?;
    let rounds = u64::div_ceil(steps, every);
    let seed = words.get("seed", 0)?;
    Ok(Settings {
        members: members.into(),
        steps,
        every,
        seed,
        is_synchronous: words.says("synchronous"),
        compressor: words.compressor()?,
        decay: words.get("feedback", Feedback::DECAY)?,
        outer: words.outer(Outer::for_rounds(rounds))?,
        rule: words.rule(members)?,
        fragments: words.get("fragments", 1)?,
        ahead: words.get("ahead", 0)?,
        fates: if words.says("churn") {
            Fates::disturbed(members.into(), rounds, seed)
        } else {
            Fates::quiet()
        },
        liars,
        lie: Lie::named(words.text("lie"))?,
        looks: words.get("curve", 8)?,
        threads: words.get("threads", 1)?,
        config: config(words, material, steps)?,
    })
}

/// The recipe of the published small runs.
fn config(words: &Words, material: &Material, steps: u64) -> Result<TrainConfig, String> {
    let adamw = AdamW {
        learning_rate: words.get("learning-rate", 4e-3)?,
        decay_norms: true,
        ..AdamW::default()
    };
    let optimiser = match words.text("optimiser") {
        "" | "adamw" => OptimiserConfig::AdamW(adamw),
        "muon" => OptimiserConfig::Muon(Muon { adamw, ..Muon::default() }),
        other => return Err(format!("optimiser={other} is none of adamw, muon")),
    };
    let precision = match words.text("precision") {
        "" | "f32" => Precision::F32,
        "bf16" => Precision::Bf16,
        other => return Err(format!("precision={other} is none of f32, bf16")),
    };
    let schedule = Schedule::Cosine { warmup: 50, steps, last: 0.1 };
    Ok(TrainConfig { optimiser, schedule, precision, ..TrainConfig::new(material.model()) })
}
