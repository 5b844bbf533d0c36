//! Any bytes as the weights of a model whose settings are sound.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| talka_fuzz::use_folder_with("model.safetensors", bytes));
