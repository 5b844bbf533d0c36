//! The model that comes with the program, so that the first answer needs no download.

use talka_node::BundledModel;

macro_rules! bard {
    ($name:literal) => {
        ($name, include_bytes!(concat!("../../../assets/models/bard/", $name)))
    };
}

/// 2.6 M parameters trained on public-domain text; its card is `assets/models/bard/README.md`.
pub static BARD: BundledModel = BundledModel {
    name: "bard",
    files: &[
        bard!("config.json"),
        bard!("model.safetensors"),
        bard!("tokenizer.json"),
        bard!("tokenizer_config.json"),
    ],
};
