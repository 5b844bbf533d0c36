//! Any bytes as a GGUF file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use talka_engine::ModelSource;

fuzz_target!(|bytes: &[u8]| {
    talka_fuzz::write("model.gguf", bytes);
    talka_fuzz::use_model(ModelSource::Gguf(talka_fuzz::folder().join("model.gguf")));
});
