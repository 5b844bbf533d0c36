//! Any bytes as one of the small files of a model whose weights are sound. The first byte says which.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// The order is that of the first bytes of the seeds: letters, so that a seed stays readable.
const FILES: [(u8, &str); 6] = [
    (b'{', "config.json"),
    (b't', "tokenizer.json"),
    (b'c', "tokenizer_config.json"),
    (b'g', "generation_config.json"),
    (b'i', "model.safetensors.index.json"),
    (b'j', "chat_template.jinja"),
];

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let Some((_, file)) = FILES.iter().find(|(letter, _)| letter == first) else { return };
    // A configuration begins with its letter anyway.
    let bytes = if *first == b'{' { bytes } else { rest };
    talka_fuzz::use_folder_with(file, bytes);
});
