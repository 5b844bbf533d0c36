//! What the fuzz targets of model files share: a folder to write a file into, and what is done with a model
//! that opens.
//!
//! A target decides only where the bytes go. Nothing here checks a result: whatever the bytes are, opening,
//! loading and running must end in an answer or an error, in little time and memory.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{LazyLock, OnceLock},
};
use talka_engine::{
    LogitsWanted, Model, ModelKind, ModelSource, StageInput,
    kernels::{Kernels, ThreadPool},
};

/// Positions that a sequence gets: room for the tokens that are run.
const CONTEXT: u32 = 8;

/// The files of the small model that a target damages.
const FILES: [(&str, &[u8]); 3] = [
    ("config.json", include_bytes!("../../fixtures/fuzz/settings/config.json")),
    ("tokenizer.json", include_bytes!("../../fixtures/fuzz/settings/tokenizer.json")),
    ("model.safetensors", include_bytes!("../../fixtures/fuzz/safetensors/bf16.safetensors")),
];

/// A folder of this process, in memory where the system offers that: it is written at every run.
pub fn folder() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = place.join(format!("talka-fuzz-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        folder
    });
    &FOLDER
}

/// Opens the small model with `bytes` as its `file`, and uses it.
pub fn use_folder_with(file: &str, bytes: &[u8]) {
    static WRITTEN: OnceLock<()> = OnceLock::new();
    WRITTEN.get_or_init(|| FILES.iter().for_each(|(name, bytes)| write(name, bytes)));
    write(file, bytes);
    use_model(ModelSource::Folder(folder().into()));
    match FILES.iter().find(|(name, _)| *name == file) {
        Some((name, whole)) => write(name, whole),
        None => fs::remove_file(folder().join(file)).expect("it was written above"),
    }
}

/// Writes a file of [`folder`].
pub fn write(name: &str, bytes: &[u8]) {
    fs::write(folder().join(name), bytes).expect("written");
}

/// Opens a model; if that works describes it, cuts a text, loads all layers and runs two tokens.
pub fn use_model(source: ModelSource) {
    static KERNELS: LazyLock<Kernels> = LazyLock::new(|| Kernels::detect(ThreadPool::new(1)));
    let Ok(model) = Model::open(source) else { return };
    let _ = format!("{:?}", model.profile());
    let _ = model.check(model.shape().span());
    if let Ok(tokens) = model.tokenizer().encode("w1 Hello,\n it's  12 \u{1F980}", true) {
        let _ = model.tokenizer().decode(&tokens);
    }
    let Ok(mut stage) = model.stage(model.shape().span(), &KERNELS) else { return };
    let mut cache = stage.new_cache(model.shape().span(), CONTEXT.min(model.shape().context));
    let wanted = match model.kind() {
        ModelKind::Decoder => LogitsWanted::Last,
        ModelKind::Encoder => LogitsWanted::None,
    };
    let _ = stage.run(StageInput::Tokens(&[1, 2]), &mut cache, wanted);
}
