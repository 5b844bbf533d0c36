//! From a text to one vector: which hidden states count, and how long a text may be.
//!
//! Decides what the files of sentence-transformers mean (`modules.json`, the pooling module's
//! `config.json`, `sentence_bert_config.json`), and what holds without them. Never decides what a vector is
//! used for. Every vector has length 1, whether or not the files list a module for that: a dot
//! product is then a cosine.

use crate::{
    config::{ConfigError, Fields},
    error::{ModelError, StageError},
    formats::ModelSource,
    generate::Pipeline,
    stage::{LogitsWanted, StageOutput},
};
use serde_json::{Map, Value};

/// Whether a model continues text or turns it into vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelKind {
    /// Each position sees those before it; the last layer ends in logits.
    Decoder,
    /// Each position sees the whole text, which must come in one call; there are no logits.
    Encoder,
}

/// Which hidden states of the last layer (after the final norm, if there is one) make the vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The mean over all positions.
    Mean,
    /// The first position, where encoders have a token for the purpose.
    Cls,
    /// The last position, the only one of a decoder that has seen everything.
    Last,
}

impl Pooling {
    /// What `hidden` `[T, D]`, a text's states or some of them, comes to: `[D]`, not yet of length 1. The
    /// mean of a text in pieces is that of theirs, weighted by rows.
    ///
    /// # Panics
    /// If `hidden` is not a positive number of rows of `width`.
    pub fn pool(self, hidden: &[f32], width: usize) -> Vec<f32> {
        assert!(
            width > 0 && !hidden.is_empty() && hidden.len().is_multiple_of(width),
            "{} numbers are not rows of {width}",
            hidden.len()
        );
        match self {
            Self::Cls => hidden[..width].to_vec(),
            Self::Last => hidden[hidden.len() - width..].to_vec(),
            Self::Mean => {
                let mut sums = vec![0.0_f64; width];
                for row in hidden.chunks_exact(width) {
                    sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
                }
                let rows = (hidden.len() / width) as f64;
                sums.iter().map(|sum| (sum / rows) as f32).collect()
            }
        }
    }
}

/// Brings `vector` to length 1; a vector of zeros stays.
pub fn normalise(vector: &mut [f32]) {
    let square = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
    if square > 0.0 {
        let factor = square.sqrt().recip();
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) * factor) as f32);
    }
}

/// How a model's vectors are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddingRules {
    /// Which hidden states count.
    pub pooling: Pooling,
    /// Longer texts are cut to so many tokens, special ones included.
    pub tokens_max: u32,
}

/// The vector `[D]` of `tokens`, a whole text. Forgets what `pipeline` holds.
///
/// # Errors
/// [`StageError`], for an unknown token or a text longer than the context.
pub fn embed(
    pipeline: &mut Pipeline,
    tokens: &[u32],
    pooling: Pooling,
) -> Result<Vec<f32>, StageError> {
    pipeline.truncate(0);
    let StageOutput::Hidden(hidden) = pipeline.run(tokens, LogitsWanted::None)? else {
        unreachable!("no logits were asked for")
    };
    let mut vector = pooling.pool(&hidden, hidden.len() / tokens.len());
    normalise(&mut vector);
    Ok(vector)
}

/// The files of sentence-transformers are a few lines each.
const BYTES_MAX: u64 = 1 << 20;
const MODULES: &str = "modules.json";
const SENTENCE: &str = "sentence_bert_config.json";
const TOKENIZER: &str = "tokenizer_config.json";

impl EmbeddingRules {
    /// Reads what `source` says of a model of `kind` with room for `context` positions.
    pub(crate) fn read(
        source: &ModelSource,
        kind: ModelKind,
        context: u32,
    ) -> Result<Self, ModelError> {
        let plain = Self::plain(kind, context);
        let pooling = read_pooling(source)?.unwrap_or(plain.pooling);
        Ok(Self { pooling, tokens_max: read_tokens_max(source)?.unwrap_or(context).min(context) })
    }

    /// What holds where nothing is said: the mean for an encoder, the last position for a decoder.
    pub(crate) fn plain(kind: ModelKind, context: u32) -> Self {
        let pooling = match kind {
            ModelKind::Encoder => Pooling::Mean,
            ModelKind::Decoder => Pooling::Last,
        };
        Self { pooling, tokens_max: context }
    }
}

/// How long a text may be by `sentence_bert_config.json`, else by the tokenizer's own settings.
fn read_tokens_max(source: &ModelSource) -> Result<Option<u32>, ModelError> {
    if let Some(map) = object(source, SENTENCE)? {
        let fields = Fields::of(SENTENCE, &map);
        fields.only("do_lower_case", false.into())?;
        if let Some(max) = fields.u32("max_seq_length")? {
            return Ok(Some(max.max(1)));
        }
    }
    // Where a tokenizer has no limit, this is 10^30.
    let Some(map) = object(source, TOKENIZER)? else { return Ok(None) };
    let max = Fields::of(TOKENIZER, &map).f64("model_max_length")?;
    Ok(max.filter(|max| *max >= 1.0).map(|max| max as u32))
}

/// The pooling module that `modules.json` lists; `None` if there is no such file.
fn read_pooling(source: &ModelSource) -> Result<Option<Pooling>, ModelError> {
    let Some(bytes) = source.read(MODULES, BYTES_MAX)? else { return Ok(None) };
    let modules: Vec<Map<String, Value>> = serde_json::from_slice(&bytes)
        .map_err(|source| ModelError::Json { file: MODULES.into(), source })?;
    let mut pooling = None;
    for module in &modules {
        let fields = Fields::of(MODULES, module);
        let kind = fields.str("type")?.unwrap_or_default();
        match kind.rsplit('.').next() {
            Some("Transformer" | "Normalize") => {}
            Some("Pooling") => pooling = Some(read_pooling_module(source, fields)?),
            _ => {
                let expected = "a module Transformer, Pooling or Normalize";
                return Err(fields.wrong("type", format_args!("{kind:?}"), expected).into());
            }
        }
    }
    Ok(pooling)
}

fn read_pooling_module(source: &ModelSource, module: Fields<'_>) -> Result<Pooling, ModelError> {
    let path = module.str("path")?.unwrap_or_default();
    // A plain name: nothing that could lead out of the folder, on any platform.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if path.is_empty() || !path.chars().all(is_plain) {
        let expected = "the name of a folder beside it";
        return Err(module.wrong("path", format_args!("{path:?}"), expected).into());
    }
    let file = format!("{path}/config.json");
    let map = object(source, &file)?.ok_or_else(|| source.lacks(&file))?;
    Ok(pooling_mode(Fields::of("the pooling module's config.json", &map))?)
}

/// One mode, by its name or, in older files, by the one of several switches that is on.
fn pooling_mode(fields: Fields<'_>) -> Result<Pooling, ConfigError> {
    const MODE: &str = "pooling_mode";
    const MODES: [(&str, &str, Option<Pooling>); 6] = [
        ("cls", "pooling_mode_cls_token", Some(Pooling::Cls)),
        ("mean", "pooling_mode_mean_tokens", Some(Pooling::Mean)),
        ("lasttoken", "pooling_mode_lasttoken", Some(Pooling::Last)),
        ("max", "pooling_mode_max_tokens", None),
        ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", None),
        ("weightedmean", "pooling_mode_weightedmean_tokens", None),
    ];
    let mut on = Vec::new();
    match fields.str(MODE)? {
        Some(mode) => on.push(mode),
        None => {
            for (name, switch, _) in MODES {
                if fields.bool(switch)?.unwrap_or(false) {
                    on.push(name);
                }
            }
        }
    }
    let known = |mode: &str| MODES.iter().find(|(name, ..)| *name == mode)?.2;
    match on.as_slice() {
        [mode] if known(mode).is_some() => Ok(known(mode).unwrap_or(Pooling::Mean)),
        other => Err(fields.wrong(MODE, other.join(" and "), "one of cls, mean, lasttoken")),
    }
}

fn object(source: &ModelSource, file: &str) -> Result<Option<Map<String, Value>>, ModelError> {
    let Some(bytes) = source.read(file, BYTES_MAX)? else { return Ok(None) };
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|source| ModelError::Json { file: file.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    #[test]
    fn each_pooling_takes_its_rows_and_the_vector_has_length_one() {
        let hidden = [3.0, 4.0, 0.0, 8.0, 3.0, 0.0];
        let vector = |pooling: Pooling, hidden: &[f32]| {
            let mut vector = pooling.pool(hidden, 2);
            normalise(&mut vector);
            vector
        };
        assert_eq!(vector(Pooling::Cls, &hidden), [0.6, 0.8]);
        assert_eq!(vector(Pooling::Last, &hidden), [1.0, 0.0]);
        assert_eq!(Pooling::Mean.pool(&hidden, 2), [2.0, 4.0]);
        let root = 5_f32.sqrt();
        let mean = vector(Pooling::Mean, &hidden);
        assert!((mean[0] - 1.0 / root).abs() < 1e-6 && (mean[1] - 2.0 / root).abs() < 1e-6);
        assert_eq!(vector(Pooling::Mean, &[0.0; 4]), [0.0; 2]);
    }

    fn rules(files: &[(&str, &str)]) -> Result<EmbeddingRules, String> {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).expect("a folder");
            fs::write(path, text).expect("written");
        }
        let source = ModelSource::Folder(folder.path().to_owned());
        EmbeddingRules::read(&source, ModelKind::Encoder, 512).map_err(|e| e.to_string())
    }

    const MODULES_TEXT: &str = r#"[{"type": "sentence_transformers.models.Transformer", "path": ""},
        {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]"#;

    #[test]
    fn the_files_of_sentence_transformers_are_followed() {
        let none = rules(&[]).expect("nothing said");
        assert_eq!(none, EmbeddingRules { pooling: Pooling::Mean, tokens_max: 512 });
        let old = r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#;
        for (config, pooling) in
            [(old, Pooling::Cls), (r#"{"pooling_mode": "lasttoken"}"#, Pooling::Last)]
        {
            let found = rules(&[
                ("modules.json", MODULES_TEXT),
                ("1_Pooling/config.json", config),
                ("sentence_bert_config.json", r#"{"max_seq_length": 256}"#),
                ("tokenizer_config.json", r#"{"model_max_length": 128}"#),
            ]);
            assert_eq!(found, Ok(EmbeddingRules { pooling, tokens_max: 256 }));
        }
        let tokenizer = |max| rules(&[("tokenizer_config.json", max)]).expect("a limit").tokens_max;
        assert_eq!(tokenizer(r#"{"model_max_length": 128}"#), 128);
        assert_eq!(tokenizer(r#"{"model_max_length": 1e30}"#), 512);
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        let both = r#"{"pooling_mode_max_tokens": true, "pooling_mode_mean_tokens": true}"#;
        let found = rules(&[("modules.json", MODULES_TEXT), ("1_Pooling/config.json", both)]);
        assert_eq!(
            found.expect_err("two modes"),
            "the pooling module's config.json has pooling_mode = mean and max, \
             expected one of cls, mean, lasttoken"
        );
        let dense = r#"[{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]"#;
        assert!(rules(&[("modules.json", dense)]).expect_err("dense").contains("Dense"));
        let outside = MODULES_TEXT.replace("1_Pooling", "../other");
        assert!(rules(&[("modules.json", &outside)]).expect_err("outside").contains("../other"));
        assert!(rules(&[("modules.json", MODULES_TEXT)]).is_err());
    }
}
