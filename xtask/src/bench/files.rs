//! The same random weights as a Hugging Face folder and as a GGUF file, written once.
//!
//! Only their speed is of interest, so the GGUF file does without what makes the two models equal in
//! meaning: the rows of queries and keys are not reordered for llama.cpp's way of rotating them.

use super::shape::{CONTEXT, NORM_EPSILON, ROPE_THETA, Shape, Tensor};
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

/// Where the two lie.
pub struct Files {
    pub folder: PathBuf,
    pub gguf: PathBuf,
}

/// The files of `shape` below `bench`, written if they are not there yet.
pub fn written(bench: &Path, shape: &Shape) -> Result<Files> {
    let folder = bench.join(shape.name);
    let files = Files { gguf: folder.join("model.gguf"), folder };
    if files.folder.exists() {
        return Ok(files);
    }
    eprintln!("writing random weights to {}", files.folder.display());
    // Complete or absent: an interrupted run leaves the other name behind.
    let partial = bench.join(format!("{}.partial", shape.name));
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    let write = |name: &str, contents: &dyn Fn(&mut dyn Write) -> std::io::Result<()>| {
        let path = partial.join(name);
        File::create(&path)
            .and_then(|file| {
                let mut file = BufWriter::with_capacity(1 << 20, file);
                contents(&mut file)?;
                file.flush()
            })
            .with_context(|| format!("cannot write {}", path.display()))
    };
    write("config.json", &|file| write!(file, "{}", config(shape)))?;
    write("tokenizer.json", &|file| write!(file, "{}", tokenizer()))?;
    write("model.safetensors", &|file| safetensors(file, shape))?;
    write("model.gguf", &|file| gguf(file, shape))?;
    fs::rename(&partial, &files.folder).context("cannot rename the finished folder")?;
    Ok(files)
}

fn config(shape: &Shape) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "intermediate_size": shape.ffn,
        "vocab_size": shape.vocab,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": NORM_EPSILON,
        "rope_theta": ROPE_THETA,
        "hidden_act": "silu",
        "tie_word_embeddings": true,
        "torch_dtype": "bfloat16",
    })
}

/// The least that is a tokenizer: one word.
fn tokenizer() -> Value {
    json!({
        "version": "1.0",
        "added_tokens": [],
        "model": { "type": "WordLevel", "vocab": { "a": 0 }, "unk_token": "a" },
    })
}

/// Format: <https://huggingface.co/docs/safetensors>.
fn safetensors(file: &mut dyn Write, shape: &Shape) -> std::io::Result<()> {
    let mut header = Map::new();
    let mut end = 0;
    for tensor in shape.tensors() {
        let start = end;
        end += 2 * tensor.elements();
        let entry = json!({ "dtype": "BF16", "shape": tensor.dims, "data_offsets": [start, end] });
        header.insert(tensor.hugging_face, entry);
    }
    let mut header = Value::Object(header).to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let tensors = shape.tensors();
    tensors.iter().enumerate().try_for_each(|(index, tensor)| {
        if tensor.is_norm() { ones(file, tensor, &ONE_BF16) } else { random(file, tensor, index) }
    })
}

/// Every tensor in a GGUF file starts on such a border.
const GGUF_ALIGNMENT: u64 = 32;

/// Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, version 3.
fn gguf(file: &mut dyn Write, shape: &Shape) -> std::io::Result<()> {
    let tensors = shape.tensors();
    let header = gguf_header(shape, &tensors);
    file.write_all(&header)?;
    let mut position = header.len() as u64;
    for (index, tensor) in tensors.iter().enumerate() {
        pad(file, &mut position)?;
        if tensor.is_norm() {
            ones(file, tensor, &1.0_f32.to_le_bytes())?;
        } else {
            random(file, tensor, index)?;
        }
        position += gguf_bytes(tensor);
    }
    pad(file, &mut position)
}

fn pad(file: &mut dyn Write, position: &mut u64) -> std::io::Result<()> {
    let missing = position.next_multiple_of(GGUF_ALIGNMENT) - *position;
    *position += missing;
    file.write_all(&vec![0; missing as usize])
}

fn gguf_bytes(tensor: &Tensor) -> u64 {
    tensor.elements() * if tensor.is_norm() { 4 } else { 2 }
}

/// Everything before the tensors' bytes.
fn gguf_header(shape: &Shape, tensors: &[Tensor]) -> Vec<u8> {
    const VERSION: u32 = 3;
    const TYPE_F32: u32 = 0;
    const TYPE_BF16: u32 = 30;
    let fields = gguf_fields(shape);
    let mut header = b"GGUF".to_vec();
    header.extend(VERSION.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((fields.len() as u64).to_le_bytes());
    for (name, field) in fields {
        text(&mut header, name);
        field.write(&mut header);
    }
    let mut offset = 0_u64;
    for tensor in tensors {
        text(&mut header, &tensor.gguf);
        header.extend((tensor.dims.len() as u32).to_le_bytes());
        // The fastest dimension comes first.
        tensor.dims.iter().rev().for_each(|dim| header.extend(dim.to_le_bytes()));
        header.extend((if tensor.is_norm() { TYPE_F32 } else { TYPE_BF16 }).to_le_bytes());
        header.extend(offset.to_le_bytes());
        offset = (offset + gguf_bytes(tensor)).next_multiple_of(GGUF_ALIGNMENT);
    }
    header
}

fn gguf_fields(shape: &Shape) -> Vec<(&'static str, Field)> {
    let number = |number: u64| Field::U32(number as u32);
    vec![
        ("general.architecture", Field::Text("llama")),
        ("general.alignment", number(GGUF_ALIGNMENT)),
        ("llama.block_count", number(shape.layers)),
        ("llama.context_length", number(CONTEXT)),
        ("llama.embedding_length", number(shape.hidden)),
        ("llama.feed_forward_length", number(shape.ffn)),
        ("llama.attention.head_count", number(shape.heads)),
        ("llama.attention.head_count_kv", number(shape.kv_heads)),
        ("llama.attention.layer_norm_rms_epsilon", Field::F32(NORM_EPSILON)),
        ("llama.rope.dimension_count", number(shape.head_dim())),
        ("llama.rope.freq_base", Field::F32(ROPE_THETA)),
        ("llama.vocab_size", number(shape.vocab)),
        ("tokenizer.ggml.model", Field::Text("no_vocab")),
    ]
}

enum Field {
    U32(u32),
    F32(f32),
    Text(&'static str),
}

impl Field {
    /// The number of its type, then its value.
    fn write(&self, header: &mut Vec<u8>) {
        match self {
            Self::U32(number) => {
                header.extend(4_u32.to_le_bytes());
                header.extend(number.to_le_bytes());
            }
            Self::F32(number) => {
                header.extend(6_u32.to_le_bytes());
                header.extend(number.to_le_bytes());
            }
            Self::Text(value) => {
                header.extend(8_u32.to_le_bytes());
                text(header, value);
            }
        }
    }
}

fn text(header: &mut Vec<u8>, text: &str) {
    header.extend((text.len() as u64).to_le_bytes());
    header.extend(text.as_bytes());
}

const ONE_BF16: [u8; 2] = 0x3f80_u16.to_le_bytes();

fn ones(file: &mut dyn Write, tensor: &Tensor, one: &[u8]) -> std::io::Result<()> {
    file.write_all(&one.repeat(tensor.elements() as usize))
}

/// bf16 numbers of either sign between 2⁻⁷ and 2⁻³, where activations stay within bounds; the same
/// for the same `seed`.
fn random(file: &mut dyn Write, tensor: &Tensor, seed: usize) -> std::io::Result<()> {
    const CHUNK: usize = 1 << 16;
    /// Sign, two lowest bits of the exponent, mantissa.
    const RANDOM: u64 = 0x81ff_81ff_81ff_81ff;
    const SMALLEST: u64 = 0x3c00_3c00_3c00_3c00;
    let mut state = seed as u64 + 1;
    let mut left = 2 * tensor.elements() as usize;
    let mut chunk = Vec::with_capacity(CHUNK);
    while left > 0 {
        chunk.clear();
        while chunk.len() < CHUNK {
            // Xorshift (Marsaglia, 2003).
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.extend(((state & RANDOM) | SMALLEST).to_le_bytes());
        }
        let part = &chunk[..left.min(CHUNK)];
        file.write_all(part)?;
        left -= part.len();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: Shape =
        Shape { name: "tiny", hidden: 8, layers: 2, heads: 2, kv_heads: 1, ffn: 12, vocab: 5 };

    #[test]
    fn safetensors_hold_what_their_header_says() {
        let mut file = Vec::new();
        safetensors(&mut file, &TINY).expect("written");
        let length = u64::from_le_bytes(file[..8].try_into().expect("eight bytes")) as usize;
        let header: Map<String, Value> =
            serde_json::from_slice(&file[8..8 + length]).expect("a header");
        let last = header.values().filter_map(|t| t["data_offsets"][1].as_u64()).max();
        assert_eq!(last, Some((file.len() - 8 - length) as u64));
        assert_eq!(header["model.layers.1.self_attn.k_proj.weight"]["shape"], json!([4, 8]));
    }

    #[test]
    fn gguf_tensors_start_on_their_borders() {
        let mut file = Vec::new();
        gguf(&mut file, &TINY).expect("written");
        let header = gguf_header(&TINY, &TINY.tensors()).len() as u64;
        let data: u64 =
            TINY.tensors().iter().map(|t| gguf_bytes(t).next_multiple_of(GGUF_ALIGNMENT)).sum();
        assert_eq!(file.len() as u64, header.next_multiple_of(GGUF_ALIGNMENT) + data);
        assert_eq!(file[..8], *b"GGUF\x03\0\0\0");
    }

    #[test]
    fn weights_are_reproducible_and_small() {
        let tensor = &TINY.tensors()[0];
        let bytes = |seed| {
            let mut file = Vec::new();
            random(&mut file, tensor, seed).expect("written");
            file
        };
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
        for bits in bytes(3).as_chunks::<2>().0 {
            let number = f32::from_bits(u32::from(u16::from_le_bytes(*bits)) << 16).abs();
            assert!((0.0078..0.125).contains(&number), "{number}");
        }
    }
}
