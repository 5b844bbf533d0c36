//! Reads an adapter's files and finds the place of each of its tensors.

use super::{AdapterError, LowRank};
use crate::{
    arch::{Architecture, LayerPart, Part},
    config::Fields,
    error::ModelError,
    formats::ModelSource,
    kernels::{Kernels, Matrix},
    quant::{Encoding, is_finite},
};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::Path,
};
use talka_base::AdapterId;

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// What PEFT puts before the names of the base model's modules.
const WRAPPER: &str = "base_model.model.";

/// What an adapter's files hold.
pub(super) struct Read {
    pub id: AdapterId,
    pub name: String,
    pub warning: Option<String>,
    pub layers: Vec<BTreeMap<LayerPart, LowRank>>,
}

/// What `adapter_config.json` says.
struct Settings {
    rank: u32,
    scale: f32,
    /// The base model as the adapter's maker called it.
    base: Option<String>,
}

pub(super) fn read(
    folder: &Path,
    architecture: &Architecture,
    base: &str,
    kernels: &Kernels,
) -> Result<Read, AdapterError> {
    let source = ModelSource::Folder(folder.to_owned());
    let missing = |file: &str| AdapterError::MissingFile {
        file: file.into(),
        place: folder.display().to_string(),
    };
    let config = source.read(CONFIG, CONFIG_BYTES_MAX).map_err(small_file)?;
    let config = config.ok_or_else(|| missing(CONFIG))?;
    let config_bytes = config;
    let config: Map<String, Value> = serde_json::from_slice(&config_bytes)
        .map_err(|source| AdapterError::Json { file: CONFIG.into(), source })?;
    let settings = Settings::read(Fields::of(CONFIG, &config))?;
    let file = source.map(TENSORS).map_err(small_file)?.ok_or_else(|| missing(TENSORS))?;
    let tensors = SafeTensors::deserialize(&file)
        .map_err(|source| AdapterError::Header { file: TENSORS.into(), source })?;
    let layers = Places { tensors: &tensors, settings: &settings, architecture, kernels }.fill()?;
    // Repositories are named OWNER/NAME; a folder has the second.
    let last = |name: &str| name.rsplit(['/', '\\']).next().unwrap_or_default().to_lowercase();
    let other = settings.base.as_deref().filter(|made_for| last(made_for) != last(base));
    let warning = other.map(|other| {
        format!("the adapter says it was made for {other:.200}, and is used with {base}")
    });
    Ok(Read { id: id(&config_bytes, &file), name: source.name(), warning, layers })
}

/// What two nodes must have in common to run one session with an adapter.
fn id(config: &[u8], tensors: &[u8]) -> AdapterId {
    let mut hasher = blake3::Hasher::new_derive_key("talka adapter id, version 1");
    // The length first, so that no two adapters spell the same bytes.
    hasher.update(&(config.len() as u64).to_le_bytes()).update(config).update(tensors);
    AdapterId(*hasher.finalize().as_bytes())
}

/// Errors of reading a file, in an adapter's words.
fn small_file(error: ModelError) -> AdapterError {
    match error {
        ModelError::FileTooLarge { file, max } => AdapterError::FileTooLarge { file, max },
        ModelError::Read { file, source } => AdapterError::Read { file, source },
        other => {
            let source = std::io::Error::other(other.to_string());
            AdapterError::Read { file: CONFIG.into(), source }
        }
    }
}

impl Settings {
    fn read(fields: Fields<'_>) -> Result<Self, AdapterError> {
        fields.only("peft_type", "LORA".into())?;
        fields.only("bias", "none".into())?;
        fields.only("lora_bias", false.into())?;
        fields.only("use_dora", false.into())?;
        fields.only("use_qalora", false.into())?;
        // Variants that compute more than `x·Aᵀ·Bᵀ`, or only for some tokens.
        for variant in [
            "layer_replication",
            "alora_invocation_tokens",
            "arrow_config",
            "kasa_config",
            "use_bdlora",
            "velora_config",
        ] {
            fields.only(variant, Value::Null)?;
        }
        for pattern in ["rank_pattern", "alpha_pattern"] {
            fields.only(pattern, Map::new().into())?;
        }
        if let Some(modules) = fields.strings("modules_to_save")?.filter(|list| !list.is_empty()) {
            let found = modules.join(", ");
            return Err(fields.wrong("modules_to_save", found, "none").into());
        }
        let rank = fields.require_u32("r")?;
        if rank == 0 {
            return Err(fields.wrong("r", rank, "at least 1").into());
        }
        let alpha = fields.f64("lora_alpha")?.unwrap_or(8.0); // as in PEFT
        let divisor = match fields.bool("use_rslora")?.unwrap_or(false) {
            true => f64::from(rank).sqrt(),
            false => f64::from(rank),
        };
        let base = fields.str("base_model_name_or_path")?.map(str::to_owned);
        Ok(Self { rank, scale: (alpha / divisor) as f32, base })
    }

    /// For messages.
    fn base(&self) -> String {
        self.base.as_ref().map(|base| format!(" ({base:.200})")).unwrap_or_default()
    }
}

/// The rows of a linear map within a fused one, and how many that has; `None` if it stands alone.
type Fused = Option<(Range<usize>, usize)>;

/// Finds the tensors of each linear map.
struct Places<'a> {
    tensors: &'a SafeTensors<'a>,
    settings: &'a Settings,
    architecture: &'a Architecture,
    kernels: &'a Kernels,
}

impl Places<'_> {
    fn fill(&self) -> Result<Vec<BTreeMap<LayerPart, LowRank>>, AdapterError> {
        let mut unplaced: BTreeSet<&str> = self.tensors.names().into_iter().collect();
        if unplaced.is_empty() {
            return Err(AdapterError::Empty);
        }
        let mut layers = Vec::new();
        for layer in 0..self.architecture.shape.layers {
            let mut changes = BTreeMap::new();
            for part in LayerPart::LINEAR {
                let Some((names, rows)) = self.names(layer, part) else { continue };
                changes.insert(part, self.load(layer, part, &names, rows)?);
                names.iter().for_each(|name| {
                    unplaced.remove(name.as_str());
                });
            }
            layers.push(changes);
        }
        match unplaced.into_iter().next() {
            None => Ok(layers),
            Some(tensor) => Err(AdapterError::NoPlace {
                tensor: tensor.chars().take(200).collect(),
                base: self.settings.base(),
            }),
        }
    }

    /// The names of both matrices of a linear map, if the adapter has one of them, and where its
    /// outputs lie among those of a fused one.
    fn names(&self, layer: u32, part: LayerPart) -> Option<([String; 2], Fused)> {
        let architecture = self.architecture;
        if !architecture.has(layer, part) {
            return None;
        }
        let locate = architecture.published.unwrap_or(architecture.locate);
        let location = locate(architecture, Part::Layer(layer, part));
        let module = location.name.strip_suffix(".weight")?;
        architecture.spellings(module).into_iter().find_map(|module| {
            let names = ["A", "B"].map(|m| format!("{WRAPPER}{module}.lora_{m}.weight"));
            let is_there = names.iter().any(|name| self.tensors.tensor(name).is_ok());
            is_there.then(|| (names, location.rows.clone()))
        })
    }

    fn load(
        &self,
        layer: u32,
        part: LayerPart,
        [down, up]: &[String; 2],
        rows: Fused,
    ) -> Result<LowRank, AdapterError> {
        let rank = self.settings.rank as usize;
        let shape = self.architecture.dimensions(Part::Layer(layer, part));
        let (outputs, inputs) = (shape[0], shape[1]);
        let (rows, total) = rows.unwrap_or((0..outputs, outputs));
        Ok(LowRank {
            down: self.matrix(down, [rank, inputs], 0..rank)?,
            up: self.matrix(up, [total, rank], rows)?,
            scale: self.settings.scale,
        })
    }

    /// The rows `rows` of a matrix of shape `expected`.
    fn matrix(
        &self,
        name: &str,
        expected: [usize; 2],
        rows: Range<usize>,
    ) -> Result<Matrix, AdapterError> {
        let tensor = || name.to_owned();
        let Ok(view) = self.tensors.tensor(name) else {
            return Err(AdapterError::Missing { tensor: tensor() });
        };
        if view.shape() != expected {
            return Err(AdapterError::Shape {
                tensor: tensor(),
                found: view.shape().to_vec(),
                expected: expected.to_vec(),
                base: self.settings.base(),
            });
        }
        let kind = match view.dtype() {
            Dtype::F32 => Encoding::F32,
            Dtype::F16 => Encoding::F16,
            Dtype::BF16 => Encoding::Bf16,
            other => {
                return Err(AdapterError::Type { tensor: tensor(), found: other.to_string() });
            }
        };
        if !is_finite(kind, view.data()) {
            return Err(AdapterError::NotFinite { tensor: tensor() });
        }
        let row_bytes = view.data().len() / expected[0];
        let bytes = &view.data()[rows.start * row_bytes..rows.end * row_bytes];
        Matrix::pack(self.kernels.pool(), kind, [rows.len(), expected[1]], bytes)
            .map_err(|source| AdapterError::Matrix { tensor: tensor(), source })
    }
}
