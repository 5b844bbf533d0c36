//! How a model is named on the command line, and which layers of it.

use crate::{bundled::BARD, exit::UsageError};
use std::{path::PathBuf, str::FromStr};
use talka_node::{ModelChoice, ModelSource, base::LayerSpan};

/// A model as typed: `bard` or a folder. A folder that is itself called `bard` is `./bard`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelRef {
    /// The model inside this program.
    Bard,
    /// A folder in the Hugging Face layout, as typed.
    Folder(String),
}

/// Why text names no model that this program can load.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found:?} is not supported yet, expected `bard` or a folder in the Hugging Face layout \
     (config.json, tokenizer.json and safetensors files)"
)]
pub struct ModelRefError {
    found: String,
}

impl FromStr for ModelRef {
    type Err = ModelRefError;

    fn from_str(text: &str) -> Result<Self, ModelRefError> {
        match text {
            "bard" => Ok(Self::Bard),
            _ if text.is_empty() || text.starts_with("hf:") || text.ends_with(".gguf") => {
                Err(ModelRefError { found: text.into() })
            }
            _ => Ok(Self::Folder(text.into())),
        }
    }
}

/// `REF=A..B`: the layers of one model that this node shall serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerChoice {
    /// As in `--model`, or the model's name.
    pub model: String,
    /// Half open.
    pub span: LayerSpan,
}

impl FromStr for LayerChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (model, span) = text
            .rsplit_once('=')
            .ok_or_else(|| format!("expected REF=A..B such as bard=0..3, found {text:?}"))?;
        let span = span.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { model: model.into(), span })
    }
}

/// The models a node shall serve, with the layers chosen for each; `bard` if none is named.
///
/// # Errors
/// If a folder is no model's, two models share a name, or layers are given for none or twice.
pub fn choose(models: &[ModelRef], layers: &[LayerChoice]) -> Result<Vec<ModelChoice>, UsageError> {
    let models = if models.is_empty() { &[ModelRef::Bard] } else { models };
    let mut used = vec![false; layers.len()];
    let mut choices: Vec<ModelChoice> = Vec::with_capacity(models.len());
    for model in models {
        let (typed, name, source) = resolve(model)?;
        if choices.iter().any(|choice| choice.name == name) {
            return Err(UsageError(format!(
                "two models are called {name:?}, expected different names: rename a folder"
            )));
        }
        let mut span = None;
        for (layers, used) in layers.iter().zip(&mut used) {
            if layers.model == typed || layers.model == name {
                if span.replace(layers.span).is_some() {
                    return Err(UsageError(format!(
                        "--layers is given twice for {name:?}, expected one run of layers"
                    )));
                }
                *used = true;
            }
        }
        choices.push(ModelChoice { source, name, span });
    }
    match used.iter().position(|used| !used) {
        None => Ok(choices),
        Some(at) => Err(UsageError(format!(
            "--layers {}={} names no model of this command, expected one of: {}",
            layers[at].model,
            layers[at].span,
            choices.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ")
        ))),
    }
}

/// The text typed, the model's name and where it is.
fn resolve(model: &ModelRef) -> Result<(String, String, ModelSource), UsageError> {
    let typed = match model {
        ModelRef::Bard => {
            return Ok((BARD.name.into(), BARD.name.into(), ModelSource::Bundled(&BARD)));
        }
        ModelRef::Folder(typed) => typed,
    };
    let wrong = |found: String| {
        UsageError(format!(
            "--model {typed:?}: {found}, expected `bard` or a folder in the Hugging Face layout \
             (config.json, tokenizer.json and safetensors files)"
        ))
    };
    // The name comes from the real path: `.` and `models/..` have none of their own.
    let folder = PathBuf::from(typed).canonicalize().map_err(|error| wrong(error.to_string()))?;
    if !folder.is_dir() {
        return Err(wrong("this is a file".into()));
    }
    if !folder.join("config.json").is_file() {
        return Err(wrong("the folder has no config.json".into()));
    }
    let name = folder.file_name().ok_or_else(|| wrong("the folder has no name".into()))?;
    let name = name.to_string_lossy().into_owned();
    Ok((typed.clone(), name, ModelSource::Folder(folder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(texts: &[&str]) -> Vec<LayerChoice> {
        texts.iter().map(|text| text.parse().expect("layers")).collect()
    }

    #[test]
    fn what_is_not_supported_yet_is_refused_by_name() {
        for text in ["", "hf:meta-llama/Llama-3.2-1B", "models/tiny.gguf"] {
            let error = text.parse::<ModelRef>().expect_err("not supported");
            assert!(error.to_string().contains("not supported yet, expected `bard`"), "{error}");
        }
        assert_eq!("bard".parse(), Ok(ModelRef::Bard));
        assert_eq!("./bard".parse(), Ok(ModelRef::Folder("./bard".into())));
    }

    #[test]
    fn layers_are_half_open_and_may_follow_a_path_with_an_equals_sign() {
        let choice: LayerChoice = "a=b/c=2..4".parse().expect("layers");
        assert_eq!((choice.model.as_str(), choice.span.to_string()), ("a=b/c", "2..4".into()));
        for wrong in ["bard", "bard=", "bard=3..3", "bard=0-3"] {
            assert!(wrong.parse::<LayerChoice>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn layers_find_their_model_by_reference_or_name_exactly_once() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let model = folder.path().join("tiny");
        std::fs::create_dir(&model).expect("folder");
        std::fs::write(model.join("config.json"), "{}").expect("file");
        let typed = model.to_str().expect("text").to_owned();
        let models = [ModelRef::Bard, ModelRef::Folder(typed.clone())];

        let by_name = choose(&models, &layers(&["tiny=1..2"])).expect("known");
        let by_ref = choose(&models, &layers(&[&format!("{typed}=1..2")])).expect("known");
        for choices in [by_name, by_ref] {
            let spans = choices.iter().map(|c| (c.name.as_str(), c.span.map(|s| s.to_string())));
            let spans: Vec<_> = spans.collect();
            assert_eq!(spans, [("bard", None), ("tiny", Some("1..2".into()))]);
        }

        let refused = |models: &[ModelRef], texts: &[&str]| {
            choose(models, &layers(texts)).expect_err("refused").to_string()
        };
        assert!(refused(&models, &["other=0..1"]).contains("expected one of: bard, tiny"));
        assert!(refused(&models, &["bard=0..1", "bard=1..2"]).contains("twice"));
        assert!(refused(&[ModelRef::Bard, ModelRef::Bard], &[]).contains("two models"));
        assert!(refused(&[ModelRef::Folder("missing".into())], &[]).contains("config.json"));
    }

    #[test]
    fn without_a_model_it_is_bard() {
        let names: Vec<_> =
            choose(&[], &[]).expect("bard").into_iter().map(|choice| choice.name).collect();
        assert_eq!(names, ["bard"]);
    }
}
