//! Writes GGUF files.

use std::fs;
use talka_engine::{Model, ModelError, ModelSource};

/// A GGUF file in the making.
#[derive(Default)]
pub struct Writer {
    pub version: u32,
    pub metadata: Vec<(String, Field)>,
    pub tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
}

/// A value of metadata.
#[derive(Clone)]
pub enum Field {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Floats(Vec<f32>),
    Ints(Vec<i32>),
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl Field {
    fn write(&self, out: &mut Vec<u8>) {
        let kind = |out: &mut Vec<u8>, kind: u32| out.extend(kind.to_le_bytes());
        let list = |out: &mut Vec<u8>, of: u32, length: usize| {
            kind(out, 9);
            kind(out, of);
            out.extend((length as u64).to_le_bytes());
        };
        match self {
            Self::U32(n) => {
                kind(out, 4);
                out.extend(n.to_le_bytes());
            }
            Self::F32(x) => {
                kind(out, 6);
                out.extend(x.to_le_bytes());
            }
            Self::Bool(b) => {
                kind(out, 7);
                out.push(u8::from(*b));
            }
            Self::Text(t) => {
                kind(out, 8);
                text(out, t);
            }
            Self::Texts(all) => {
                list(out, 8, all.len());
                all.iter().for_each(|t| text(out, t));
            }
            Self::Floats(all) => {
                list(out, 6, all.len());
                all.iter().for_each(|x| out.extend(x.to_le_bytes()));
            }
            Self::Ints(all) => {
                list(out, 5, all.len());
                all.iter().for_each(|n| out.extend(n.to_le_bytes()));
            }
        }
    }
}

impl Writer {
    pub fn set(&mut self, key: &str, field: Field) {
        self.metadata.push((key.into(), field));
    }

    /// The bytes of the file, and where its header ends.
    pub fn bytes(&self) -> (Vec<u8>, usize) {
        let mut out = b"GGUF".to_vec();
        out.extend((if self.version == 0 { 3 } else { self.version }).to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, field) in &self.metadata {
            text(&mut out, key);
            field.write(&mut out);
        }
        let mut offset = 0_usize;
        for (name, shape, numbers) in &self.tensors {
            text(&mut out, name);
            out.extend((shape.len() as u32).to_le_bytes());
            shape.iter().rev().for_each(|n| out.extend((*n as u64).to_le_bytes()));
            out.extend(0_u32.to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset = (offset + numbers.len() * 4).next_multiple_of(32);
        }
        let header = out.len();
        for (_, _, numbers) in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            numbers.iter().for_each(|x| out.extend(x.to_le_bytes()));
        }
        (out, header)
    }

    pub fn open(&self) -> Result<Model, ModelError> {
        open_bytes(&self.bytes().0)
    }
}

pub fn open_bytes(bytes: &[u8]) -> Result<Model, ModelError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    fs::write(&path, bytes).expect("written");
    Model::open(ModelSource::Gguf(path))
}
