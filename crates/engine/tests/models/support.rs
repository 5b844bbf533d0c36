//! Where models are, copies of them to damage, and the kernels all tests share.

use safetensors::{Dtype, SafeTensors, View, tensor::TensorView};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};
use talka_base::LayerSpan;
use talka_engine::{
    LogitsWanted, Model, ModelError, ModelSource, Pipeline, Sampler, SamplingParams, StageOutput,
    generate,
    kernels::{Kernels, ThreadPool},
};

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub fn fixture(name: &str) -> PathBuf {
    root().join("fixtures/reference").join(name)
}

/// Kernels on two threads, shared: every pool holds threads of its own.
pub fn kernels() -> Kernels {
    static KERNELS: OnceLock<Kernels> = OnceLock::new();
    KERNELS.get_or_init(|| Kernels::detect(ThreadPool::new(2))).clone()
}

pub fn open(folder: &Path) -> Model {
    try_open(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
}

pub fn try_open(folder: &Path) -> Result<Model, ModelError> {
    Model::open(ModelSource::Folder(folder.to_owned()))
}

pub fn span(start: u32, end: u32) -> LayerSpan {
    LayerSpan::new(start, end).expect("a span")
}

/// The model in `stages` stages of nearly equal length, as far as it has layers.
pub fn pipeline(model: &Model, stages: u32) -> Pipeline {
    let layers = model.shape().layers;
    let border = |n| n * layers / stages;
    let spans = (0..stages).map(|n| span(border(n), border(n + 1)));
    let stages = spans.map(|span| model.stage(span, &kernels()).expect("a stage"));
    Pipeline::new(stages.collect(), model.shape().context).expect("a whole model")
}

pub fn logits(output: StageOutput) -> Vec<f32> {
    match output {
        StageOutput::Logits(logits) => logits,
        StageOutput::Hidden(_) => panic!("expected logits"),
    }
}

pub fn hidden(output: StageOutput) -> Vec<f32> {
    match output {
        StageOutput::Hidden(hidden) => hidden,
        StageOutput::Logits(_) => panic!("expected hidden states"),
    }
}

/// Logits `[T, V]` of a fresh sequence.
pub fn all_logits(model: &Model, tokens: &[u32]) -> Vec<f32> {
    logits(pipeline(model, 1).run(tokens, LogitsWanted::All).expect("runs"))
}

/// `count` likeliest tokens, one after the other.
pub fn greedy(pipeline: &mut Pipeline, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut tokens = Vec::new();
    let mut sampler = Sampler::new(SamplingParams::greedy(), prompt);
    generate(pipeline, prompt, &mut sampler, &[], count as u32, |token| {
        tokens.push(token);
        std::ops::ControlFlow::Continue(())
    })
    .expect("generates");
    tokens
}

/// A model folder to change.
pub struct Copy(tempfile::TempDir);

impl Copy {
    pub fn of(name: &str) -> Self {
        let copy = Self(tempfile::tempdir().expect("a folder"));
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            fs::copy(fixture(name).join(file), copy.path().join(file)).expect("a copy");
        }
        copy
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, file: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path().join(file), bytes).expect("written");
    }

    pub fn remove(&self, file: &str) {
        fs::remove_file(self.path().join(file)).expect("removed");
    }

    pub fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.path().join(file)).expect("read")
    }

    pub fn edit_json(
        &self,
        file: &str,
        edit: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>),
    ) {
        let mut fields = serde_json::from_slice(&self.read(file)).expect("an object");
        edit(&mut fields);
        self.write(file, serde_json::to_vec(&fields).expect("JSON"));
    }

    pub fn tensors(&self) -> BTreeMap<String, Stored> {
        tensors(&self.path().join("model.safetensors"))
    }

    pub fn write_tensors(&self, file: &str, tensors: &BTreeMap<String, Stored>) {
        self.write(file, safetensors::serialize(tensors, None).expect("safetensors"));
    }

    pub fn edit_tensors(&self, edit: impl FnOnce(&mut BTreeMap<String, Stored>)) {
        let mut tensors = self.tensors();
        edit(&mut tensors);
        self.write_tensors("model.safetensors", &tensors);
    }
}

/// A tensor as stored.
#[derive(Clone)]
pub struct Stored {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Stored {
    fn of(view: &TensorView<'_>) -> Self {
        Self { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: view.data().to_vec() }
    }

    pub fn f32s(&self) -> Vec<f32> {
        assert_eq!(self.dtype, Dtype::F32);
        self.bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    pub fn ids(&self) -> Vec<u32> {
        assert_eq!(self.dtype, Dtype::I64);
        let id = |b: &[u8; 8]| u32::try_from(i64::from_le_bytes(*b)).expect("an id");
        self.bytes.as_chunks().0.iter().map(id).collect()
    }
}

impl View for &Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

pub fn tensors(file: &Path) -> BTreeMap<String, Stored> {
    let bytes = fs::read(file).expect("a file");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    tensors.iter().map(|(name, view)| (name.to_owned(), Stored::of(&view))).collect()
}
