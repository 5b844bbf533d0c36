//! What the metadata of a GGUF file says of its model, as a Hugging Face configuration would say it.
//!
//! Decides which keys become which fields, and where llama.cpp's converter puts each tensor
//! ([`locate`]). The families then read the fields as they read a `config.json`.

use super::{
    ModelSource, TensorTable,
    gguf::{Gguf, GgufError, Value},
    gguf_tokenizer, map,
};
use crate::{
    arch::{Architecture, LayerPart, Location, Part, Placement},
    config::ConfigError,
    error::ModelError,
};
use serde_json::{Map, Value as Json, json};
use std::{collections::BTreeMap, path::Path};

/// A model read from GGUF files.
pub(crate) struct GgufModel {
    pub config: Map<String, Json>,
    pub architecture: Architecture,
    pub table: TensorTable,
    /// As a `tokenizer.json`.
    pub tokenizer: Vec<u8>,
    /// What a `tokenizer_config.json` would hold.
    pub tokenizer_config: Map<String, Json>,
    pub eos_ids: Vec<u32>,
}

/// Architectures by llama.cpp's name, and the family that reads them.
const ARCHITECTURES: [(&str, &str); 11] = [
    ("llama", "llama"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen3"),
    ("qwen3moe", "qwen3_moe"),
    ("gemma2", "gemma2"),
    ("gemma3", "gemma3_text"),
    ("phi3", "phi3"),
    ("olmo2", "olmo2"),
    ("gpt2", "gpt2"),
    ("bert", "bert"),
    ("neurollm", "neurollm"),
];

const SPLIT_NO: &str = "split.no";
const SPLIT_COUNT: &str = "split.count";

/// Opens the file at `path` and the other parts of its model.
pub(crate) fn open(path: &Path) -> Result<GgufModel, ModelError> {
    let file = path.display().to_string();
    let wrong = |source| ModelError::Gguf { file: file.clone(), source };
    let first = read(path)?;
    let metadata = Metadata(first.metadata.clone());
    let table = join(path, first, &metadata)?;
    let config = config(&metadata, &table).map_err(|error| error.name(&file))?;
    let architecture = architecture(&metadata, &config, &table).map_err(|e| e.name(&file))?;
    let tokenizer = gguf_tokenizer::read(&metadata).map_err(wrong)?;
    let eos_ids = gguf_tokenizer::eos_ids(&metadata).map_err(wrong)?;
    let tokenizer_config = gguf_tokenizer::config(&metadata).map_err(wrong)?;
    Ok(GgufModel { config, architecture, table, tokenizer, tokenizer_config, eos_ids })
}

/// The tensors of `first` and of the parts that it announces, which must be those that their names say.
fn join(path: &Path, first: Gguf, metadata: &Metadata) -> Result<TensorTable, ModelError> {
    let wrong = |source| ModelError::Gguf { file: path.display().to_string(), source };
    let count = metadata.unsigned(SPLIT_COUNT).map_err(wrong)?.unwrap_or(1);
    let mut table = TensorTable::default();
    let mut tensors = first.tensors.len() as u64;
    first.move_into(&mut table)?;
    if count <= 1 {
        return Ok(table);
    }
    let found = metadata.unsigned(SPLIT_NO).map_err(wrong)?.unwrap_or(0);
    if found != 0 {
        return Err(wrong(GgufError::Part { found, count, expected: "part 0".into() }));
    }
    for part in 1..count {
        let path = part_path(path, part, count).ok_or_else(|| {
            let expected = "a name that ends in -00001-of-0000N.gguf".into();
            wrong(GgufError::Part { found, count, expected })
        })?;
        let gguf = read(&path)?;
        check_part(&gguf, part, count)
            .map_err(|source| ModelError::Gguf { file: path.display().to_string(), source })?;
        tensors += gguf.tensors.len() as u64;
        gguf.move_into(&mut table)?;
    }
    match metadata.unsigned("split.tensors.count").map_err(wrong)? {
        Some(expected) if expected != tensors => {
            Err(wrong(GgufError::TensorCount { expected, found: tensors }))
        }
        _ => Ok(table),
    }
}

/// Whether a part says of itself what its name does.
fn check_part(gguf: &Gguf, part: u64, count: u64) -> Result<(), GgufError> {
    let metadata = Metadata(gguf.metadata.clone());
    let number = |key| Ok::<_, GgufError>(metadata.unsigned(key)?.unwrap_or(0));
    let found = [number(SPLIT_NO)?, number(SPLIT_COUNT)?];
    if found == [part, count] {
        return Ok(());
    }
    let expected = format!("{part} of {count}");
    Err(GgufError::OtherPart { found: found[0], count: found[1], expected })
}

fn read(path: &Path) -> Result<Gguf, ModelError> {
    let file = path.display().to_string();
    let lacks = || ModelSource::Gguf(path.into()).lacks(&file);
    let bytes = map(path, &file)?.ok_or_else(lacks)?;
    Gguf::read(bytes).map_err(|source| ModelError::Gguf { file, source })
}

/// The path of part `part` (from 0) of `count`, by that of the first.
fn part_path(first: &Path, part: u64, count: u64) -> Option<std::path::PathBuf> {
    let name = first.file_name()?.to_str()?;
    let stem = name.strip_suffix(&format!("-00001-of-{count:05}.gguf"))?;
    Some(first.with_file_name(format!("{stem}-{:05}-of-{count:05}.gguf", part + 1)))
}

/// What can go wrong between metadata and fields.
enum Trouble {
    Gguf(GgufError),
    Model(ModelError),
}

impl Trouble {
    fn name(self, file: &str) -> ModelError {
        match self {
            Self::Gguf(source) => ModelError::Gguf { file: file.into(), source },
            Self::Model(error) => error,
        }
    }
}

impl From<GgufError> for Trouble {
    fn from(error: GgufError) -> Self {
        Self::Gguf(error)
    }
}

impl From<ConfigError> for Trouble {
    fn from(error: ConfigError) -> Self {
        Self::Model(error.into())
    }
}

/// Metadata with its types checked.
pub(super) struct Metadata(BTreeMap<String, Value>);

impl Metadata {
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    pub fn wrong(&self, key: &str, expected: &'static str) -> GgufError {
        let mut found = format!("{:?}", self.get(key));
        if let Some((end, _)) = found.char_indices().nth(100) {
            found.truncate(end);
        }
        GgufError::Wrong { key: key.into(), found, expected }
    }

    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Unsigned(n)) => Ok(Some(*n)),
            Some(Value::Signed(n)) if *n >= 0 => Ok(Some(n.cast_unsigned())),
            Some(_) => Err(self.wrong(key, "a whole number")),
        }
    }

    pub fn float(&self, key: &str) -> Result<Option<f64>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Float(x)) => Ok(Some(*x)),
            Some(_) => Err(self.wrong(key, "a number")),
        }
    }

    pub fn text(&self, key: &str) -> Result<Option<&str>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "a text")),
        }
    }

    pub fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, GgufError> {
        const EXPECTED: &str = "a list of texts";
        let Some(value) = self.get(key) else { return Ok(None) };
        let Value::Array(list) = value else { return Err(self.wrong(key, EXPECTED)) };
        let mut texts = Vec::with_capacity(list.len());
        for value in list {
            let Value::Text(text) = value else { return Err(self.wrong(key, EXPECTED)) };
            texts.push(text.as_str());
        }
        Ok(Some(texts))
    }

    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>, GgufError> {
        const EXPECTED: &str = "a list of numbers";
        let Some(value) = self.get(key) else { return Ok(None) };
        let Value::Array(list) = value else { return Err(self.wrong(key, EXPECTED)) };
        let number = |value: &Value| match value {
            Value::Float(x) => Ok(*x),
            Value::Unsigned(n) => Ok(*n as f64),
            Value::Signed(n) => Ok(*n as f64),
            _ => Err(self.wrong(key, EXPECTED)),
        };
        list.iter().map(number).collect::<Result<_, _>>().map(Some)
    }

    /// A number that may be given for each layer, if it is the same for all.
    fn uniform(&self, key: &str) -> Result<Option<u64>, GgufError> {
        let Some(Value::Array(list)) = self.get(key) else { return self.unsigned(key) };
        match list.first() {
            Some(Value::Unsigned(n)) if list.iter().all(|v| *v == Value::Unsigned(*n)) => {
                Ok(Some(*n))
            }
            Some(Value::Signed(n)) if *n >= 0 && list.iter().all(|v| *v == Value::Signed(*n)) => {
                Ok(Some(n.cast_unsigned()))
            }
            _ => Err(self.wrong(key, "the same number for all layers")),
        }
    }
}

/// The fields of a `config.json` with the same meaning.
fn config(metadata: &Metadata, table: &TensorTable) -> Result<Map<String, Json>, Trouble> {
    const KEY: &str = "general.architecture";
    let expected = "the name of an architecture";
    let missing = || GgufError::Missing { key: KEY.into(), expected };
    let name = metadata.text(KEY)?.ok_or_else(missing)?;
    let Some((_, family)) = ARCHITECTURES.iter().find(|(known, _)| *known == name) else {
        let found = name.chars().take(100).collect();
        let supported = ARCHITECTURES.map(|(name, _)| name).join(", ");
        return Err(ConfigError::UnknownFamily { found, supported }.into());
    };
    let key = |rest: &str| format!("{name}.{rest}");
    let experts = metadata.unsigned(&key("expert_count"))?.unwrap_or(0);
    let family = if name == "llama" && experts > 0 { "mixtral" } else { family };
    let mut config = Map::new();
    let mut put = |field: &str, value: Option<Json>| {
        if let Some(value) = value {
            config.insert(field.into(), value);
        }
    };
    put("model_type", Some(json!(family)));
    let number = |rest: &str| metadata.uniform(&key(rest)).map(|n| n.map(|n| json!(n)));
    let float = |rest: &str| metadata.float(&key(rest)).map(|x| x.map(|x| json!(x)));
    let [layers, context, hidden, heads, ffn] = match family {
        "gpt2" => ["n_layer", "n_positions", "n_embd", "n_head", "n_inner"],
        _ => [
            "num_hidden_layers",
            "max_position_embeddings",
            "hidden_size",
            "num_attention_heads",
            "intermediate_size",
        ],
    };
    put(layers, number("block_count")?);
    put(context, number("context_length")?);
    put(hidden, number("embedding_length")?);
    put(heads, number("attention.head_count")?);
    put(ffn, number("feed_forward_length")?);
    put("num_key_value_heads", number("attention.head_count_kv")?);
    put("head_dim", number("attention.key_length")?);
    put("rms_norm_eps", float("attention.layer_norm_rms_epsilon")?);
    put("layer_norm_eps", float("attention.layer_norm_epsilon")?);
    put("layer_norm_epsilon", float("attention.layer_norm_epsilon")?);
    put("rope_theta", float("rope.freq_base")?);
    put("rope_local_base_freq", float("rope.freq_base_swa")?);
    put("sliding_window", number("attention.sliding_window")?.filter(|n| *n != json!(0)));
    put("attn_logit_softcapping", Some(float("attn_logit_softcapping")?.unwrap_or(Json::Null)));
    put("final_logit_softcapping", Some(float("final_logit_softcapping")?.unwrap_or(Json::Null)));
    put("num_experts", (experts > 0).then(|| json!(experts)));
    put("num_local_experts", (experts > 0).then(|| json!(experts)));
    put("num_experts_per_tok", number("expert_used_count")?);
    put("moe_intermediate_size", number("expert_feed_forward_length")?);
    put("norm_topk_prob", Some(json!(true)));
    put("rope_scaling", scaling(metadata, name)?);
    put("type_vocab_size", rows(table, "token_types.weight"));
    // A file may hold a vocabulary alone.
    let tokens = || match metadata.get("tokenizer.ggml.tokens") {
        Some(Value::Array(list)) => Some(json!(list.len())),
        _ => None,
    };
    put("vocab_size", rows(table, "token_embd.weight").or_else(tokens));
    put("tie_word_embeddings", Some(json!(table.get("output.weight").is_none())));
    put("attention_bias", Some(json!(table.get("blk.0.attn_q.bias").is_some())));
    if family.starts_with("gemma") {
        let divisor = gemma_scalar(&config);
        config.insert("query_pre_attn_scalar".into(), json!(divisor));
    }
    Ok(config)
}

/// What Gemma's scores are divided by the root of. The file does not tell; llama.cpp knows the 27 B models,
/// the only ones that differ, by their layers.
fn gemma_scalar(config: &Map<String, Json>) -> u64 {
    const LAYERS_OF_27B: [u64; 2] = [46, 62];
    let field = |name: &str| config.get(name).and_then(Json::as_u64).unwrap_or(0);
    let heads = field("num_attention_heads").max(1);
    if LAYERS_OF_27B.contains(&field("num_hidden_layers")) {
        field("hidden_size") / heads
    } else {
        field("head_dim").max(1)
    }
}

fn rows(table: &TensorTable, name: &str) -> Option<Json> {
    table.get(name).map(|tensor| json!(tensor.shape[0]))
}

fn scaling(metadata: &Metadata, name: &str) -> Result<Option<Json>, GgufError> {
    let key = |rest: &str| format!("{name}.rope.scaling.{rest}");
    let Some(kind) = metadata.text(&key("type"))? else { return Ok(None) };
    let factor = metadata.float(&key("factor"))?;
    Ok(match kind {
        "none" => None,
        "yarn" => {
            let original = metadata.unsigned(&key("original_context_length"))?;
            Some(json!({
                "rope_type": "yarn",
                "factor": factor,
                "original_max_position_embeddings": original,
            }))
        }
        other => Some(json!({ "rope_type": other, "factor": factor })),
    })
}

fn architecture(
    metadata: &Metadata,
    config: &Map<String, Json>,
    table: &TensorTable,
) -> Result<Architecture, Trouble> {
    let mut architecture = Architecture::read(config, table.precision())?;
    architecture.published = Some(architecture.locate);
    architecture.locate = locate;
    architecture.prefixes = &[""];
    // The converter adds the one that these families store their norms less of.
    architecture.norm.offset = 0.0;
    for name in ["rope_factors_long.weight", "rope_factors_short.weight"] {
        if table.get(name).is_some() {
            let expected =
                "no tensor rope_factors_long: this scaling of positions is not supported";
            let key = format!(
                "{}.rope.scaling.type",
                metadata.text("general.architecture")?.unwrap_or("")
            );
            return Err(metadata.wrong(&key, expected).into());
        }
    }
    if let Some(factors) = table.get("rope_freqs.weight") {
        let pairs = architecture.shape.head_dim as usize / 2;
        let crate::formats::StoredKind::Known(encoding) = factors.kind else {
            return Err(Trouble::Model(ModelError::TensorType {
                name: "rope_freqs.weight".into(),
                found: factors.kind.to_string(),
            }));
        };
        if factors.shape != [pairs] {
            return Err(Trouble::Model(ModelError::TensorShape {
                name: "rope_freqs.weight".into(),
                found: factors.shape.clone(),
                expected: vec![pairs],
            }));
        }
        let mut slower = vec![0.0; pairs];
        crate::quant::widen(encoding, factors.bytes().map_err(Trouble::Model)?, &mut slower);
        architecture.ropes.iter_mut().for_each(|rope| rope.slow(&slower));
    }
    Ok(architecture)
}

/// Where llama.cpp's converter puts a part.
fn locate(architecture: &Architecture, part: Part) -> Location {
    let Part::Layer(layer, part) = part else {
        let name = match part {
            Part::Embedding => "token_embd.weight",
            Part::Positions => "position_embd.weight",
            Part::Types => "token_types.weight",
            Part::InputNorm => "token_embd_norm.weight",
            Part::InputNormBias => "token_embd_norm.bias",
            Part::FinalNorm => "output_norm.weight",
            Part::FinalNormBias => "output_norm.bias",
            Part::Head | Part::Layer(..) => "output.weight",
        };
        return Location::whole(name.into());
    };
    let shape = &architecture.shape;
    let mut location = Location::whole(format!("blk.{layer}.{}", layer_name(architecture, part)));
    // The first llamas turn neighbours; the converter reorders rows for that.
    if matches!(architecture.family, "llama" | "mixtral" | "neurollm") {
        location.interleaved_heads = match part {
            LayerPart::Query | LayerPart::QueryBias => Some(shape.heads as usize),
            LayerPart::Key | LayerPart::KeyBias => Some(shape.kv_heads as usize),
            _ => None,
        };
    }
    if let Some(experts) = &architecture.feed_forward.experts {
        location.expert = match part {
            LayerPart::ExpertGate(e) | LayerPart::ExpertUp(e) | LayerPart::ExpertDown(e) => {
                Some((e as usize, experts.count as usize))
            }
            _ => None,
        };
    }
    if matches!(architecture.family, "phi3" | "gpt2") {
        fuse(architecture, part, &mut location);
    }
    location
}

/// Families whose matrices are stored together.
fn fuse(architecture: &Architecture, part: LayerPart, location: &mut Location) {
    use LayerPart as P;
    let shape = &architecture.shape;
    let query = (shape.heads * shape.head_dim) as usize;
    let key = (shape.kv_heads * shape.head_dim) as usize;
    let ffn = architecture.feed_forward.width as usize;
    let total = query + 2 * key;
    location.rows = match part {
        P::Query | P::QueryBias => Some((0..query, total)),
        P::Key | P::KeyBias => Some((query..query + key, total)),
        P::Value | P::ValueBias => Some((query + key..total, total)),
        P::Gate => Some((0..ffn, 2 * ffn)),
        P::Up if architecture.feed_forward.gated => Some((ffn..2 * ffn, 2 * ffn)),
        _ => None,
    };
    let blk = location.name.rsplit_once(".attn").or(location.name.rsplit_once(".ffn"));
    let prefix = blk.map_or(String::new(), |(prefix, _)| prefix.to_owned());
    match part {
        P::Query | P::Key | P::Value => location.name = format!("{prefix}.attn_qkv.weight"),
        P::QueryBias | P::KeyBias | P::ValueBias => {
            location.name = format!("{prefix}.attn_qkv.bias")
        }
        P::Gate => location.name = format!("{prefix}.ffn_up.weight"),
        _ => {}
    }
}

fn layer_name(architecture: &Architecture, part: LayerPart) -> &'static str {
    use LayerPart as P;
    let residual = architecture.placement == Placement::Residual;
    match part {
        P::AttentionNorm if residual => "attn_output_norm.weight",
        P::AttentionNormBias if residual => "attn_output_norm.bias",
        P::FfnNorm if residual => "layer_output_norm.weight",
        P::FfnNormBias if residual => "layer_output_norm.bias",
        P::AttentionNorm => "attn_norm.weight",
        P::AttentionNormBias => "attn_norm.bias",
        P::FfnNorm => "ffn_norm.weight",
        P::FfnNormBias => "ffn_norm.bias",
        P::AttentionOutputNorm => "post_attention_norm.weight",
        P::FfnOutputNorm => "post_ffw_norm.weight",
        P::Query => "attn_q.weight",
        P::QueryBias => "attn_q.bias",
        P::QueryNorm => "attn_q_norm.weight",
        P::Key => "attn_k.weight",
        P::KeyBias => "attn_k.bias",
        P::KeyNorm => "attn_k_norm.weight",
        P::Value => "attn_v.weight",
        P::ValueBias => "attn_v.bias",
        P::AttentionOutput => "attn_output.weight",
        P::AttentionOutputBias => "attn_output.bias",
        P::Gate => "ffn_gate.weight",
        P::GateBias => "ffn_gate.bias",
        P::Up => "ffn_up.weight",
        P::UpBias => "ffn_up.bias",
        P::Down => "ffn_down.weight",
        P::DownBias => "ffn_down.bias",
        P::Router => "ffn_gate_inp.weight",
        P::ExpertGate(_) => "ffn_gate_exps.weight",
        P::ExpertUp(_) => "ffn_up_exps.weight",
        P::ExpertDown(_) => "ffn_down_exps.weight",
    }
}
