//! A real encoder, all-MiniLM-L6-v2, against what sentence-transformers makes of the same texts.
//!
//! The model is too large to lie here. `TALKA_MINILM` names its folder; `fixtures/minilm/make_vectors.py`
//! says where to get it and how the expected vectors were made.

use crate::support::{open, pipeline, root};
use std::{fs, path::PathBuf};
use talka_engine::{Model, ModelKind, Pooling, embed::embed};

#[derive(serde::Deserialize)]
struct Expected {
    text: String,
    /// How often the text is said, with a space between.
    times: usize,
    vector: Vec<f32>,
}

fn model() -> Option<Model> {
    let folder = std::env::var_os("TALKA_MINILM").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("not run: TALKA_MINILM does not name the folder of all-MiniLM-L6-v2");
    }
    folder.map(|folder| open(&folder))
}

#[test]
fn vectors_equal_those_of_sentence_transformers() {
    let Some(model) = model() else { return };
    let file = root().join("fixtures/minilm/vectors.json");
    let expected: Vec<Expected> =
        serde_json::from_slice(&fs::read(file).expect("vectors")).expect("JSON");
    let rules = *model.embedding();
    assert_eq!((model.kind(), rules.pooling), (ModelKind::Encoder, Pooling::Mean));
    for stages in [1, 3] {
        let mut pipeline = pipeline(&model, stages);
        for Expected { text, times, vector } in &expected {
            let text = vec![text.as_str(); *times].join(" ");
            let tokens = model.embedding_tokens(&text, rules.tokens_max).expect("tokens");
            assert!(tokens.len() <= rules.tokens_max as usize);
            let found = embed(&mut pipeline, &tokens, rules.pooling).expect("a vector");
            let cosine: f64 = found.iter().zip(vector).map(|(a, b)| f64::from(a * b)).sum();
            assert!(cosine > 0.9999, "{cosine} in {stages} stages: {text:.40}");
        }
    }
}
