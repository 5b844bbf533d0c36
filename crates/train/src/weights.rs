//! Weights as files of llama's layout: `config.json` and `model.safetensors`, which `engine` and other programs read.
//!
//! Decides names, shapes and what a folder must hold. Files appear under their names only when they are whole.

use crate::config::{ConfigError, ModelConfig};
use crate::files::{self, FileError};
use crate::parameters::{Parameter, Parameters};
use half::bf16;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// In what width weights are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightWidth {
    /// As they are trained.
    #[default]
    F32,
    /// Half of it, rounded.
    Bf16,
}

/// Why weights were not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in the messages")]
pub enum WeightsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}: {reason}", path.display())]
    Format { path: PathBuf, reason: String },
    #[error("{} describes a model that cannot be trained: {source}", path.display())]
    Config { path: PathBuf, source: ConfigError },
}

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";

/// Writes `config.json` and `model.safetensors` into `folder`. `end` is the token that ends a document, where there is one.
///
/// # Errors
/// The folder cannot be written to.
///
/// # Panics
/// If `weights` are not as many as `model` has.
pub fn write_model(
    folder: &Path,
    model: &ModelConfig,
    weights: &[f32],
    width: WeightWidth,
    end: Option<u32>,
) -> Result<(), WeightsError> {
    let parameters = Parameters::new(model);
    assert_eq!(weights.len(), parameters.len(), "a model has all its weights");
    let bytes: Vec<Vec<u8>> = parameters
        .tensors()
        .iter()
        .map(|tensor| bytes(&weights[tensor.range.clone()], width))
        .collect();
    let dtype = match width {
        WeightWidth::F32 => Dtype::F32,
        WeightWidth::Bf16 => Dtype::BF16,
    };
    let path = folder.join(WEIGHTS);
    let wrong = |source: safetensors::SafeTensorError| WeightsError::Format {
        path: path.clone(),
        reason: source.to_string(),
    };
    let views = parameters.tensors().iter().zip(&bytes);
    let views: Vec<_> = views
        .map(|(tensor, bytes)| {
            Ok((tensor.name.as_str(), TensorView::new(dtype, shape(tensor), bytes)?))
        })
        .collect::<Result<_, _>>()
        .map_err(wrong)?;
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let file = safetensors::serialize(views, Some(metadata)).map_err(wrong)?;
    files::write(&path, &file)?;
    files::write(&folder.join(CONFIG), llama(model, width, end).to_string().as_bytes())?;
    Ok(())
}

/// The shape that llama's files give a tensor.
fn shape(tensor: &Parameter) -> Vec<usize> {
    match tensor.role {
        crate::parameters::Role::Norm => vec![tensor.cols],
        _ => vec![tensor.rows, tensor.cols],
    }
}

fn bytes(numbers: &[f32], width: WeightWidth) -> Vec<u8> {
    match width {
        WeightWidth::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        WeightWidth::Bf16 => {
            numbers.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect()
        }
    }
}

/// `config.json` of `model`.
fn llama(model: &ModelConfig, width: WeightWidth, end: Option<u32>) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": model.hidden,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim(),
        "intermediate_size": model.ffn,
        "vocab_size": model.vocab,
        "max_position_embeddings": model.context,
        "tie_word_embeddings": model.tied,
        "rms_norm_eps": model.norm_epsilon,
        "rope_theta": model.rope_theta,
        "hidden_act": "silu",
        "attention_bias": false,
        "mlp_bias": false,
        "bos_token_id": end,
        "eos_token_id": end,
        "torch_dtype": match width { WeightWidth::F32 => "float32", WeightWidth::Bf16 => "bfloat16" },
    })
}

/// Reads a model of llama's layout in one file of f32 or bf16.
///
/// # Errors
/// A file is missing or not what its name says, or the model is none that can be trained here.
pub fn read_model(folder: &Path) -> Result<(ModelConfig, Vec<f32>), WeightsError> {
    let path = folder.join(CONFIG);
    let text = files::read(&path)?;
    let model = serde_json::from_slice(&text)
        .map_err(|error| error.to_string())
        .and_then(|config: Value| model_of(&config));
    let model = model.map_err(|reason| WeightsError::Format { path: path.clone(), reason })?;
    model.validate().map_err(|source| WeightsError::Config { path, source })?;
    let path = folder.join(WEIGHTS);
    let bytes = files::read(&path)?;
    let weights = SafeTensors::deserialize(&bytes)
        .map_err(|error| error.to_string())
        .and_then(|file| numbers(&file, &Parameters::new(&model)));
    let weights = weights.map_err(|reason| WeightsError::Format { path, reason })?;
    Ok((model, weights))
}

fn model_of(config: &Value) -> Result<ModelConfig, String> {
    let number = |field: &str| {
        let found = config.get(field).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
        found.ok_or_else(|| format!("{field} is {:?}, expected a number", config.get(field)))
    };
    let theta =
        config.get("rope_theta").or_else(|| config.get("rope_parameters")?.get("rope_theta"));
    let heads = number("num_attention_heads")?;
    let model = ModelConfig {
        hidden: number("hidden_size")?,
        layers: number("num_hidden_layers")?,
        heads,
        kv_heads: number("num_key_value_heads").unwrap_or(heads),
        ffn: number("intermediate_size")?,
        vocab: number("vocab_size")?,
        context: number("max_position_embeddings")?,
        tied: config.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false),
        norm_epsilon: config.get("rms_norm_eps").and_then(Value::as_f64).unwrap_or(1e-6),
        rope_theta: theta.and_then(Value::as_f64).unwrap_or(10_000.0),
    };
    let dim = number("head_dim").ok().filter(|dim| heads > 0 && dim * heads != model.hidden);
    match dim {
        Some(dim) => {
            Err(format!("head_dim is {dim}, expected hidden_size over num_attention_heads"))
        }
        None => Ok(model),
    }
}

fn numbers(file: &SafeTensors<'_>, parameters: &Parameters) -> Result<Vec<f32>, String> {
    let mut weights = Vec::with_capacity(parameters.len());
    for parameter in parameters.tensors() {
        let tensor = file.tensor(&parameter.name).map_err(|error| error.to_string())?;
        if tensor.shape() != shape(parameter) {
            let (name, expected) = (&parameter.name, shape(parameter));
            return Err(format!("{name} is {:?}, expected {expected:?}", tensor.shape()));
        }
        let data = tensor.data();
        match tensor.dtype() {
            Dtype::F32 => weights.extend(data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
            Dtype::BF16 => {
                weights.extend(data.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()));
            }
            other => return Err(format!("{} is {other:?}, expected F32 or BF16", parameter.name)),
        }
    }
    Ok(weights)
}
