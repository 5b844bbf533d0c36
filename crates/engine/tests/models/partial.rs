//! Models of which only an outline and some tensors are here.

use crate::support::{fixture, kernels, open, span};
use proptest::prelude::*;
use std::{fs, path::Path, sync::Arc};
use talka_base::LayerSpan;
use talka_engine::{
    Model, ModelError, ModelSource, Outline, OutlineError, PIECE_BYTES, PartialModel,
};

fn outline(name: &str) -> Outline {
    Outline::of(&ModelSource::Folder(fixture(name))).expect("an outline")
}

/// A model with the outline of `name` whose tensors are in `folder`.
fn partial(name: &str, folder: &Path) -> (Arc<PartialModel>, Model) {
    let partial = Arc::new(PartialModel::new(name.into(), folder.into(), outline(name)));
    let model = Model::open(ModelSource::Partial(Arc::clone(&partial))).expect("an outline opens");
    (partial, model)
}

/// Brings the tensors of `span` from `whole`, piece by piece.
fn fetch(whole: &Model, partial: &PartialModel, span: LayerSpan) -> u64 {
    let mut fetched = 0;
    for name in whole.tensors_of(span) {
        let number = partial.outline().number(&name).expect("it is in the outline");
        let tensor = &partial.outline().tensors()[number];
        let pieces = tensor.pieces().iter().enumerate().flat_map(|(piece, hash)| {
            let bytes = whole.piece(&name, piece).expect("it is there");
            assert_eq!(blake3::hash(bytes), *hash);
            bytes
        });
        let bytes: Vec<u8> = pieces.copied().collect();
        fetched += bytes.len() as u64;
        fs::write(partial.tensor_path(number), bytes).expect("written");
    }
    fetched
}

#[test]
fn an_outline_is_the_same_model_without_a_weight() {
    for name in ["llama", "llama-tied", "gpt2", "mixtral", "phi3", "bert"] {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (_, model) = partial(name, folder.path());
        let whole = open(&fixture(name));
        assert_eq!(model.id(), whole.id(), "{name}");
        assert_eq!(model.profile(), whole.profile(), "{name}");
        assert_eq!(model.embedding(), whole.embedding(), "{name}");
        let all = whole.shape().span();
        assert_eq!(model.tensors_of(all), whole.tensors_of(all), "{name}");
        model.check(all).expect("all tensors are described");
        let error = model.stage(all, &kernels()).expect_err("nothing is here");
        assert!(matches!(error, ModelError::NotFetched { .. }), "{name}: {error}");
    }
}

#[test]
fn a_stage_needs_its_own_tensors_and_no_others() {
    for name in ["llama", "llama-tied", "gpt2", "mixtral"] {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (partial, model) = partial(name, folder.path());
        let whole = open(&fixture(name));
        let layers = whole.shape().layers;
        let all = fetch_bytes(&whole, whole.shape().span());
        let half = fetch(&whole, &partial, span(0, 1));
        assert!(half < all, "{name}: {half} of {all}");
        // The same object sees what came meanwhile.
        model.stage(span(0, 1), &kernels()).expect("its tensors are here");
        assert!(model.stage(span(1, layers), &kernels()).is_err(), "{name}");
        let tensor = whole.tensors_of(span(0, 1)).pop_first().expect("a tensor");
        assert_eq!(model.piece(&tensor, 0), whole.piece(&tensor, 0));
        assert_eq!(whole.piece(&tensor, usize::MAX), None);
        assert_eq!(whole.piece("no such tensor", 0), None);
    }
}

fn fetch_bytes(whole: &Model, span: LayerSpan) -> u64 {
    let names = whole.tensors_of(span);
    let pieces = names.iter().flat_map(|name| (0..).map_while(move |n| whole.piece(name, n)));
    pieces.map(|piece| piece.len() as u64).sum()
}

#[test]
fn outlines_are_the_same_wherever_they_are_made() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (partial, _) = partial("llama", folder.path());
    let bytes = partial.outline().to_bytes().expect("small");
    let again = Outline::of(&ModelSource::Partial(partial)).expect("an outline");
    assert_eq!(again.to_bytes().expect("small"), bytes);
    assert_eq!(Outline::from_bytes(&bytes).expect("as sent"), again);
}

#[test]
fn gguf_files_have_no_outline() {
    let error = Outline::of(&ModelSource::Gguf("some/model.gguf".into())).expect_err("refused");
    assert!(matches!(&error, OutlineError::Gguf { name } if name == "model"), "{error}");
}

#[test]
fn a_cut_tensor_file_is_not_taken() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (partial, model) = partial("llama", folder.path());
    let whole = open(&fixture("llama"));
    fetch(&whole, &partial, span(0, 1));
    let name = whole.tensors_of(span(0, 1)).pop_first().expect("a tensor");
    let path = partial.tensor_path(partial.outline().number(&name).expect("known"));
    let bytes = fs::read(&path).expect("it was fetched");
    assert!(bytes.len() <= PIECE_BYTES, "fixtures are small");
    fs::write(&path, &bytes[1..]).expect("written");
    assert!(model.stage(span(0, 1), &kernels()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_damaged_outline_never_panics(at: prop::sample::Index, value: u8) {
        let mut bytes = outline("llama").to_bytes().expect("small");
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(outline) = Outline::from_bytes(&bytes) {
            let partial = PartialModel::new("damaged".into(), "nowhere".into(), outline);
            let _ = Model::open(ModelSource::Partial(Arc::new(partial)));
        }
        prop_assert!(Outline::from_bytes(&bytes[..at]).is_err());
    }
}
