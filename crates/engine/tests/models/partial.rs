//! Models of which only an outline and some tensors are here.

use crate::support::{Copy, fixture, kernels, open, span};
use proptest::prelude::*;
use std::{fs, path::Path, sync::Arc};
use talka_base::LayerSpan;
use talka_engine::{
    HEADER_START_BYTES, Model, ModelError, ModelSource, Outline, OutlineError, PIECE_BYTES,
    PartialModel, Survey, Surveyed, header_bytes, weight_files,
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

/// What reading the headers and samples of the model in `folder` tells.
fn surveyed(folder: &Path) -> Surveyed {
    let files = weight_files(folder).expect("an index, or none");
    let bytes = |name: &String| fs::read(folder.join(name)).expect("a file of weights");
    let weights: Vec<Vec<u8>> = files.iter().map(bytes).collect();
    let header = |(name, bytes): (&String, &Vec<u8>)| {
        let (length, start) = (bytes.len() as u64, &bytes[..HEADER_START_BYTES as usize]);
        let header = header_bytes(name, length, start).expect("a header");
        (name.clone(), length, bytes[..header as usize].to_vec())
    };
    let headers: Vec<_> = files.iter().zip(&weights).map(header).collect();
    let survey = Survey::new(&headers).expect("headers");
    let samples = survey.samples();
    let read = samples.iter().map(|sample| {
        let range = sample.range.start as usize..sample.range.end as usize;
        weights[sample.file as usize][range].to_vec()
    });
    let read = read.collect();
    survey.finish(folder, read).expect("samples")
}

#[test]
fn headers_and_samples_tell_which_model_it_is() {
    for name in ["llama", "llama-tied", "gpt2", "mixtral", "bert"] {
        let (source, whole) = (fixture(name), open(&fixture(name)));
        let surveyed = surveyed(&source);
        let again = Surveyed::from_bytes(&surveyed.to_bytes().expect("small")).expect("as kept");
        assert_eq!(again, surveyed, "{name}");
        let place = tempfile::tempdir().expect("temporary folder");
        let outline = again.outline().clone();
        let partial = Arc::new(PartialModel::new(name.into(), place.path().into(), outline));
        let source = ModelSource::Partial(Arc::clone(&partial));
        let model = Model::open(source.clone()).expect("a survey opens");
        assert_eq!((model.id(), model.profile()), (whole.id(), whole.profile()), "{name}");
        assert!(matches!(Outline::of(&source), Err(OutlineError::Unhashed { .. })), "{name}");

        // Every tensor is where it is said to be.
        let file = fs::read(fixture(name).join(&surveyed.files()[0])).expect("weights");
        for (number, tensor) in partial.outline().tensors().iter().enumerate() {
            let start = surveyed.place(number).expect("a place").start as usize;
            let bytes = &file[start..start + tensor.bytes() as usize];
            assert_eq!(whole.piece(tensor.name(), 0), bytes.chunks(PIECE_BYTES).next());
            fs::write(partial.tensor_path(number), bytes).expect("written");
        }
        model.stage(whole.shape().span(), &kernels()).expect("all of it is here");
        let hashed = Outline::of(&ModelSource::Folder(fixture(name))).expect("an outline");
        assert!(Outline::from_bytes(&partial.outline().to_bytes().expect("small")).is_err());
        assert_eq!(hashed.tensors().len(), partial.outline().tensors().len());
    }
}

#[test]
fn shards_are_surveyed_together() {
    const SHARDS: [&str; 2] =
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let (whole, copy) = (fixture("llama"), Copy::of("llama"));
    let mut first = copy.tensors();
    let half = first.keys().nth(first.len() / 2).cloned().expect("many tensors");
    let second = first.split_off(&half);
    let mut index = serde_json::Map::new();
    for (shard, tensors) in SHARDS.into_iter().zip([&first, &second]) {
        copy.write_tensors(shard, tensors);
        index.extend(tensors.keys().map(|name| (name.clone(), shard.into())));
    }
    let index = serde_json::json!({ "weight_map": index });
    copy.write("model.safetensors.index.json", index.to_string());
    copy.remove("model.safetensors");
    let surveyed = surveyed(copy.path());
    assert_eq!(surveyed.files().len(), 2);
    let model = PartialModel::new("shards".into(), "nowhere".into(), surveyed.outline().clone());
    let model = Model::open(ModelSource::Partial(Arc::new(model))).expect("a survey opens");
    assert_eq!(model.id(), open(&whole).id());
    let files: Vec<_> = (0..).map_while(|number| surveyed.place(number)).map(|p| p.file).collect();
    assert!(files.contains(&0) && files.contains(&1), "{files:?}");
}

#[test]
fn a_piece_is_held_against_hash_or_samples() {
    let (hashed, surveyed) = (outline("llama"), surveyed(&fixture("llama")));
    let model = open(&fixture("llama"));
    for outline in [&hashed, surveyed.outline()] {
        for tensor in outline.tensors() {
            let bytes = model.piece(tensor.name(), 0).expect("it is there").to_vec();
            assert!(tensor.accepts(0, &bytes));
            assert!(!tensor.accepts(1, &bytes) && !tensor.accepts(0, &bytes[1..]));
            for at in [0, bytes.len() - 1] {
                let mut wrong = bytes.clone();
                wrong[at] ^= 1;
                assert!(!tensor.accepts(0, &wrong), "{}", tensor.name());
            }
        }
    }
}

#[test]
fn headers_that_lie_are_refused() {
    let bytes = fs::read(fixture("llama").join("model.safetensors")).expect("weights");
    let length = bytes.len() as u64;
    let header = header_bytes("x", length, &bytes[..8]).expect("a header") as usize;
    assert!(header_bytes("x", 100, &bytes[..8]).is_err(), "longer than its file");
    assert!(header_bytes("x", u64::MAX, &[255; 8]).is_err(), "longer than any");
    assert!(header_bytes("x", length, &bytes[..7]).is_err());
    let new = |name: &str, length, header: &[u8]| (name.to_owned(), length, header.to_vec());
    assert!(Survey::new(&[new("x", length + 1, &bytes[..header])]).is_err(), "a gap at the end");
    assert!(Survey::new(&[new("x", length, &bytes[..header - 1])]).is_err());
    let twice = ["x", "y"].map(|name| new(name, length, &bytes[..header]));
    assert!(Survey::new(&twice).is_err(), "each tensor twice");
    let survey = Survey::new(&twice[..1]).expect("one file");
    let error = survey.finish(&fixture("llama"), vec![]).expect_err("no samples");
    assert!(matches!(error, OutlineError::Places), "{error}");
}

#[test]
fn a_stamp_changes_with_the_files() {
    let place = tempfile::tempdir().expect("temporary folder");
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::copy(fixture("llama").join(name), place.path().join(name)).expect("copied");
    }
    let stamp = || Outline::stamp(&ModelSource::Folder(place.path().into())).expect("readable");
    let first = stamp();
    assert!(first.is_some() && first == stamp());
    fs::write(place.path().join("notes.txt"), "not a part of the model").expect("written");
    assert_eq!(stamp(), first);
    let weights = fs::File::options().write(true).open(place.path().join("model.safetensors"));
    let weights = weights.expect("a file");
    weights.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("a time");
    assert_ne!(stamp(), first);
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

    #[test]
    fn a_damaged_survey_never_panics(at: prop::sample::Index, value: u8) {
        let mut bytes = surveyed(&fixture("llama")).to_bytes().expect("small");
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(surveyed) = Surveyed::from_bytes(&bytes) {
            for (number, tensor) in surveyed.outline().tensors().iter().enumerate() {
                let place = surveyed.place(number).expect("one for each");
                prop_assert!(surveyed.files().get(place.file as usize).is_some());
                prop_assert!(place.start.checked_add(tensor.bytes()).is_some());
            }
        }
        prop_assert!(Surveyed::from_bytes(&bytes[..at]).is_err());
    }
}
