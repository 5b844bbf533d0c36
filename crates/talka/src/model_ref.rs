//! How a model is named on the command line, and which layers of it.

use crate::{bundled::BARD, exit::UsageError, hub::Access};
use anyhow::Result;
use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};
use talka_hub::{HubRef, HubRefError, Needs, Pulled};
use talka_node::{Grade, ModelChoice, ModelPlace, ModelSource, base::LayerSpan};

/// What a model may be, for messages.
const EXPECTED: &str = "expected `bard`, a folder in the Hugging Face layout (config.json, \
     tokenizer.json and safetensors files), a .gguf file, hf:OWNER/REPO, or peer:NAME";

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
    /// A model of the other nodes, as they call it.
    Peer(String),
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
            "" | "peer:" => Err(ModelRefError::Empty),
            _ if text.starts_with("peer:") => Ok(Self::Peer(text["peer:".len()..].into())),
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

/// A model for a node to serve, wherever it is.
#[derive(Debug, Clone)]
pub struct Served {
    /// As the reference was typed.
    pub typed: String,
    /// What requests call it.
    pub name: String,
    /// Where its files are.
    pub place: ModelPlace,
}

impl From<Located> for Served {
    fn from(Located { typed, name, source }: Located) -> Self {
        Self { typed, name, place: ModelPlace::Here(source) }
    }
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
            Self::Peer(name) => Err(UsageError(format!(
                "peer:{name} is not a model on this computer; other nodes give it to --model of \
                 `talka up` and `talka join` alone"
            ))
            .into()),
        }
    }

    /// What a node shall serve: located, unless the other nodes have it, or it is a model of the hub of which
    /// this node needs or holds a part only: `layers` of it are chosen, or it is larger than `bytes_max`.
    ///
    /// # Errors
    /// As [`Self::locate`].
    pub async fn serve(
        &self,
        access: &Access,
        layers: &[LayerChoice],
        bytes_max: u64,
    ) -> Result<Served> {
        match self {
            Self::Hub(reference) => {
                let typed = reference.to_string();
                let is_cut = |choice: &LayerChoice| {
                    choice.model == typed || choice.model == reference.repo()
                };
                let is_cut = layers.iter().any(is_cut);
                match access.parts(reference, is_cut, bytes_max).await? {
                    None => Ok(self.locate(access).await?.into()),
                    Some(ranges) => {
                        let name = reference.repo().to_owned();
                        Ok(Served { typed, name, place: ModelPlace::Ranges(Arc::new(ranges)) })
                    }
                }
            }
            Self::Peer(name) => {
                let typed = format!("peer:{name}");
                Ok(Served { typed, name: name.clone(), place: ModelPlace::Peers })
            }
            _ => Ok(self.locate(access).await?.into()),
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

/// `REF=PRECISION`: what a stage that answers may hold a model in at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrecisionChoice {
    /// As in `--model`, or the model's name.
    pub model: String,
    /// The least faithful.
    pub grade_min: Grade,
}

impl FromStr for PrecisionChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            format!(
                "expected REF=PRECISION such as bard=bf16, with bf16, f16 or f32 for weights as they are stored, q8_0 or q4_k, found {text:?}"
            )
        };
        let (model, grade) = text.rsplit_once('=').ok_or_else(expected)?;
        let grade_min = match grade {
            "f32" | "f16" | "bf16" | "stored" => Grade::Stored,
            "q8_0" => Grade::Q8,
            "q4_k" => Grade::Q4,
            _ => return Err(expected()),
        };
        Ok(Self { model: model.into(), grade_min })
    }
}

/// `[REF:]NAME=DIR`: an adapter of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterChoice {
    /// As in `--model`, or the model's name; may be left out where there is one model.
    pub model: Option<String>,
    /// What requests call it.
    pub name: String,
    /// Where its files are.
    pub folder: PathBuf,
}

impl FromStr for AdapterChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected [REF:]NAME=DIR such as pirate=./lora, found {text:?}");
        let (whose, folder) = text.split_once('=').ok_or_else(wrong)?;
        let (model, name) = match whose.rsplit_once(':') {
            Some((model, name)) => (Some(model.to_owned()), name),
            None => (None, whose),
        };
        if name.is_empty() || folder.is_empty() {
            return Err(wrong());
        }
        Ok(Self { model, name: name.into(), folder: folder.into() })
    }
}

/// `[REF=]DRAFT`: who guesses for one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DraftChoice {
    /// As in `--model`, or the model's name; may be left out where there is one model.
    pub model: Option<String>,
    /// The smaller model.
    pub draft: ModelRef,
}

impl FromStr for DraftChoice {
    type Err = ModelRefError;

    fn from_str(text: &str) -> Result<Self, ModelRefError> {
        match text.split_once('=') {
            Some((model, draft)) => Ok(Self { model: Some(model.into()), draft: draft.parse()? }),
            None => Ok(Self { model: None, draft: text.parse()? }),
        }
    }
}

/// What is said of models beside which they are.
#[derive(Debug, Default)]
pub struct Wishes<'a> {
    /// `--layers`.
    pub layers: &'a [LayerChoice],
    /// `--min-precision`.
    pub precisions: &'a [PrecisionChoice],
    /// `--adapter`.
    pub adapters: &'a [AdapterChoice],
    /// `--draft`, and where each is.
    pub drafts: Vec<(&'a DraftChoice, ModelSource)>,
}

/// The models a node shall serve, with the layers, adapters and draft chosen for each.
///
/// # Errors
/// If two models share a name, or something is said of no model or twice.
pub fn choose(
    models: Vec<impl Into<Served>>,
    wishes: Wishes<'_>,
) -> Result<Vec<ModelChoice>, UsageError> {
    let models: Vec<Served> = models.into_iter().map(Into::into).collect();
    let typed: Vec<String> = models.iter().map(|model| model.typed.clone()).collect();
    let mut choices: Vec<ModelChoice> = Vec::with_capacity(models.len());
    for Served { name, place, .. } in models {
        if choices.iter().any(|choice| choice.name == name) {
            return Err(UsageError(format!(
                "two models are called {name:?}, expected different names: rename a folder"
            )));
        }
        choices.push(ModelChoice {
            place,
            name,
            span: None,
            adapters: Vec::new(),
            // Whatever there is.
            grade_min: Grade::Q4,
            draft: None,
        });
    }
    for precision in wishes.precisions {
        let said = || format!("--min-precision {}={}", precision.model, precision.grade_min);
        let choice = place(&mut choices, &typed, Some(&precision.model), said)?;
        choice.grade_min = precision.grade_min;
    }
    for layers in wishes.layers {
        let said = || format!("--layers {}={}", layers.model, layers.span);
        let choice = place(&mut choices, &typed, Some(&layers.model), said)?;
        if choice.span.replace(layers.span).is_some() {
            return Err(twice("--layers", &choice.name, "one run of layers"));
        }
    }
    for adapter in wishes.adapters {
        let said = || format!("--adapter {}={}", adapter.name, adapter.folder.display());
        let choice = place(&mut choices, &typed, adapter.model.as_deref(), said)?;
        if choice.adapters.iter().any(|(name, _)| *name == adapter.name) {
            return Err(twice("--adapter", &adapter.name, "different names"));
        }
        choice.adapters.push((adapter.name.clone(), adapter.folder.clone()));
    }
    for (draft, source) in wishes.drafts {
        let said = || format!("--draft {}", draft.model.as_deref().unwrap_or_default());
        let choice = place(&mut choices, &typed, draft.model.as_deref(), said)?;
        if choice.draft.replace(source).is_some() {
            return Err(twice("--draft", &choice.name, "one draft"));
        }
    }
    Ok(choices)
}

fn twice(flag: &str, name: &str, expected: &str) -> UsageError {
    UsageError(format!("{flag} is given twice for {name:?}, expected {expected}"))
}

/// The one of `choices`, typed as `typed`, that is meant by `model`: the only one if nothing is said.
fn place<'a>(
    choices: &'a mut [ModelChoice],
    typed: &[String],
    model: Option<&str>,
    said: impl Fn() -> String,
) -> Result<&'a mut ModelChoice, UsageError> {
    let names: Vec<String> = choices.iter().map(|choice| choice.name.clone()).collect();
    let found = match model {
        None => (names.len() == 1).then_some(0),
        Some(model) => (0..names.len()).find(|at| typed[*at] == model || names[*at] == model),
    };
    found.and_then(|at| choices.get_mut(at)).ok_or_else(|| {
        let names = names.join(", ");
        UsageError(format!("{} names no model of this command, expected one of: {names}", said()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_precision_is_said_of_a_model() {
        let grade = |text: &str| text.parse::<PrecisionChoice>().map(|choice| choice.grade_min);
        assert_eq!(grade("bard=bf16"), Ok(Grade::Stored));
        assert_eq!(grade("a=b=q8_0"), Ok(Grade::Q8));
        assert!(grade("bard").is_err() && grade("bard=q5").is_err());
        let precisions = ["bard=q8_0".parse().expect("a precision")];
        let wishes = Wishes { precisions: &precisions, ..Wishes::default() };
        let chosen = choose(vec![Located::bard()], wishes).expect("one model");
        assert_eq!(chosen[0].grade_min, Grade::Q8);
    }

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
        assert_eq!("peer:bard".parse(), Ok(ModelRef::Peer("bard".into())));
        assert!("peer:".parse::<ModelRef>().is_err());
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

        let with_layers = |models: Vec<Located>, texts: &[&str]| {
            choose(models, Wishes { layers: &layers(texts), ..Wishes::default() })
        };
        let by_name = with_layers(models(), &["tiny=1..2"]).expect("known");
        let by_ref = with_layers(models(), &[&format!("{typed}=1..2")]).expect("known");
        for choices in [by_name, by_ref] {
            let spans = choices.iter().map(|c| (c.name.as_str(), c.span.map(|s| s.to_string())));
            let spans: Vec<_> = spans.collect();
            assert_eq!(spans, [("bard", None), ("tiny", Some("1..2".into()))]);
        }

        let refused = |models: Vec<Located>, texts: &[&str]| {
            with_layers(models, texts).expect_err("refused").to_string()
        };
        assert!(refused(models(), &["other=0..1"]).contains("expected one of: bard, tiny"));
        assert!(refused(models(), &["bard=0..1", "bard=1..2"]).contains("twice"));
        let twice = vec![Located::bard(), Located::bard()];
        assert!(refused(twice, &[]).contains("two models"));
        let missing = super::folder("missing").expect_err("refused").to_string();
        assert!(missing.contains("config.json"), "{missing}");
    }

    #[test]
    fn adapters_and_drafts_name_their_model_unless_there_is_one_only() {
        let adapter: AdapterChoice = "bard:pirate=./a=b".parse().expect("an adapter");
        let expected = (Some("bard".into()), "pirate".into(), PathBuf::from("./a=b"));
        assert_eq!((adapter.model, adapter.name, adapter.folder), expected);
        let plain: AdapterChoice = "pirate=./lora".parse().expect("an adapter");
        assert_eq!(plain.model, None);
        for wrong in ["pirate", "pirate=", "bard:=x", "=x"] {
            assert!(wrong.parse::<AdapterChoice>().is_err(), "{wrong}");
        }
        let draft: DraftChoice = "tiny=bard".parse().expect("a draft");
        assert_eq!((draft.model.as_deref(), &draft.draft), (Some("tiny"), &ModelRef::Bard));

        let bard = || ModelSource::Bundled(&BARD);
        let wishes = Wishes { drafts: vec![(&draft, bard())], ..Wishes::default() };
        let refused = choose(vec![Located::bard()], wishes).expect_err("no such model");
        assert!(refused.to_string().contains("--draft tiny names no model"), "{refused}");
        let draft = DraftChoice { model: None, ..draft };
        let adapters = [plain.clone(), AdapterChoice { name: "poet".into(), ..plain.clone() }];
        let drafts = vec![(&draft, bard())];
        let wishes = Wishes { adapters: &adapters, drafts, ..Wishes::default() };
        let choices = choose(vec![Located::bard()], wishes).expect("the only model");
        assert_eq!((choices[0].adapters.len(), choices[0].draft.is_some()), (2, true));
        let adapters = [plain.clone(), plain];
        let wishes = Wishes { adapters: &adapters, ..Wishes::default() };
        assert!(choose(vec![Located::bard()], wishes).is_err(), "one name twice");
    }
}
