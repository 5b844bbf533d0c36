//! How a model is named on the command line, and which layers of it.

use crate::{bundled::BARD, exit::UsageError, hub::Access};
use anyhow::Result;
use std::{path::Path, str::FromStr};
use talka_hub::{HubRef, HubRefError, Needs, Pulled};
use talka_node::{ModelChoice, ModelSource, base::LayerSpan};

/// What a model may be, for messages.
const EXPECTED: &str = "expected `bard`, a folder in the Hugging Face layout (config.json, \
     tokenizer.json and safetensors files), a .gguf file, or hf:OWNER/REPO";

/// A model as typed. A folder that is itself called `bard` is `./bard`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelRef {
    /// The model inside this program.
    Bard,
    /// A folder in the Hugging Face layout, as typed.
    Folder(String),
    /// A GGUF file, or the first of its parts, as typed.
    Gguf(String),
    /// A model on the hub.
    Hub(HubRef),
}

/// Why text names no model that this program can load.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelRefError {
    /// Nothing at all.
    #[error("no model is named, {EXPECTED}")]
    Empty,
    /// It begins like a reference to the hub.
    #[error(transparent)]
    Hub(#[from] HubRefError),
}

impl FromStr for ModelRef {
    type Err = ModelRefError;

    fn from_str(text: &str) -> Result<Self, ModelRefError> {
        match text {
            "bard" => Ok(Self::Bard),
            _ if text.starts_with("hf:") => Ok(Self::Hub(text.parse()?)),
            "" => Err(ModelRefError::Empty),
            _ if text.ends_with(".gguf") => Ok(Self::Gguf(text.into())),
            _ => Ok(Self::Folder(text.into())),
        }
    }
}

/// A model and where it is on this computer.
#[derive(Debug, Clone)]
pub struct Located {
    /// As the reference was typed.
    pub typed: String,
    /// What requests call it.
    pub name: String,
    /// Its files.
    pub source: ModelSource,
}

impl Located {
    /// The bundled model.
    pub fn bard() -> Self {
        let name = BARD.name.to_owned();
        Self { typed: name.clone(), name, source: ModelSource::Bundled(&BARD) }
    }

    /// A model in the store.
    ///
    /// # Errors
    /// If the reference names a file that is no model by itself.
    pub fn pulled(reference: &HubRef, pulled: Pulled) -> Result<Self, UsageError> {
        let typed = reference.to_string();
        let source = match pulled.needs {
            Needs::Folder => ModelSource::Folder(pulled.path),
            Needs::Gguf(_) => ModelSource::Gguf(pulled.path),
            Needs::File(_) => {
                return Err(UsageError(format!("{typed} names a file that is no model by itself")));
            }
        };
        Ok(Self { typed, name: pulled.name, source })
    }
}

impl ModelRef {
    /// Where the model is, fetched first if it is on the hub and not here.
    ///
    /// # Errors
    /// If there is no such model, or it cannot be fetched.
    pub async fn locate(&self, access: &Access) -> Result<Located> {
        match self {
            Self::Bard => Ok(Located::bard()),
            Self::Folder(typed) => Ok(folder(typed)?),
            Self::Gguf(typed) => Ok(gguf(typed)?),
            Self::Hub(reference) => Ok(Located::pulled(reference, access.get(reference).await?)?),
        }
    }
}

/// The folder's name comes from its real path: `.` and `models/..` have none of their own.
fn folder(typed: &str) -> Result<Located, UsageError> {
    let wrong = |found: String| UsageError(format!("--model {typed:?}: {found}, {EXPECTED}"));
    let folder = Path::new(typed).canonicalize().map_err(|error| wrong(error.to_string()))?;
    if !folder.is_dir() {
        return Err(wrong("this is a file".into()));
    }
    if !folder.join("config.json").is_file() {
        return Err(wrong("the folder has no config.json".into()));
    }
    let name = folder.file_name().ok_or_else(|| wrong("the folder has no name".into()))?;
    let name = name.to_string_lossy().into_owned();
    Ok(Located { typed: typed.into(), name, source: ModelSource::Folder(folder) })
}

/// A GGUF file is called by its stem, without the number of a part.
fn gguf(typed: &str) -> Result<Located, UsageError> {
    let wrong = |found: String| UsageError(format!("--model {typed:?}: {found}, {EXPECTED}"));
    let path = Path::new(typed).canonicalize().map_err(|error| wrong(error.to_string()))?;
    if !path.is_file() {
        return Err(wrong("this is a folder".into()));
    }
    let name = ModelSource::Gguf(path.clone()).name();
    Ok(Located { typed: typed.into(), name, source: ModelSource::Gguf(path) })
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

/// The models a node shall serve, with the layers chosen for each.
///
/// # Errors
/// If two models share a name, or layers are given for none or twice.
pub fn choose(
    models: Vec<Located>,
    layers: &[LayerChoice],
) -> Result<Vec<ModelChoice>, UsageError> {
    let mut used = vec![false; layers.len()];
    let mut choices: Vec<ModelChoice> = Vec::with_capacity(models.len());
    for Located { typed, name, source } in models {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(texts: &[&str]) -> Vec<LayerChoice> {
        texts.iter().map(|text| text.parse().expect("layers")).collect()
    }

    #[test]
    fn a_reference_tells_its_kind() {
        let error = "".parse::<ModelRef>().expect_err("nothing");
        assert!(error.to_string().contains("expected `bard`"), "{error}");
        assert_eq!("models/tiny.gguf".parse(), Ok(ModelRef::Gguf("models/tiny.gguf".into())));
        assert!("hf:gpt2".parse::<ModelRef>().is_err());
        assert!(matches!("hf:a/b".parse(), Ok(ModelRef::Hub(_))));
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
        let models = || vec![Located::bard(), super::folder(&typed).expect("a folder")];

        let by_name = choose(models(), &layers(&["tiny=1..2"])).expect("known");
        let by_ref = choose(models(), &layers(&[&format!("{typed}=1..2")])).expect("known");
        for choices in [by_name, by_ref] {
            let spans = choices.iter().map(|c| (c.name.as_str(), c.span.map(|s| s.to_string())));
            let spans: Vec<_> = spans.collect();
            assert_eq!(spans, [("bard", None), ("tiny", Some("1..2".into()))]);
        }

        let refused = |models: Vec<Located>, texts: &[&str]| {
            choose(models, &layers(texts)).expect_err("refused").to_string()
        };
        assert!(refused(models(), &["other=0..1"]).contains("expected one of: bard, tiny"));
        assert!(refused(models(), &["bard=0..1", "bard=1..2"]).contains("twice"));
        let twice = vec![Located::bard(), Located::bard()];
        assert!(refused(twice, &[]).contains("two models"));
        let missing = super::folder("missing").expect_err("refused").to_string();
        assert!(missing.contains("config.json"), "{missing}");
    }
}
