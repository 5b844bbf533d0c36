//! Whole models against what others computed for them: the transformers library for the tiny models of
//! `fixtures/reference`, and golden continuations of real ones.
//!
//! One program, so that it links once. How to add a family: put its folder under
//! `fixtures/reference` and its name into `reference::FAMILIES`.

mod choose;
mod damage;
mod gguf;
mod gguf_damage;
mod gguf_file;
mod gguf_tokenizer;
mod golden;
mod lora;
mod minilm;
mod partial;
mod reference;
mod support;

/// Stages move between threads; models and templates are shared by them.
#[test]
fn models_are_shared_and_stages_are_sent_between_threads() {
    fn sent<T: Send>() {}
    fn shared<T: Send + Sync>() {}
    sent::<talka_engine::Stage>();
    sent::<talka_engine::KvCache>();
    shared::<talka_engine::Model>();
    shared::<talka_engine::GrammarCompiler>();
    sent::<talka_engine::Chooser>();
    sent::<talka_engine::Guesser>();
}
