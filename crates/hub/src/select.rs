//! Which files of a repository a model needs.
//!
//! In: a listing and perhaps a file's name. Out: the files, or an error that lists the choices. The
//! Hugging Face layout wins over GGUF where a repository has both, since it is what the model's
//! authors published; among GGUF files only `q4_k_m` is chosen unasked, the encoding that most
//! people take.

use crate::{
    error::HubError,
    listing::{Listing, RemoteFile},
    reference::HubRef,
};

/// Beside the weights: what describes, tokenizes, prompts and pools. Each only where it is there.
const SMALL_FILES: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
];
const CONFIG: &str = "config.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Good answers at under a third of the size; nearly every GGUF repository has it.
const ENCODING_DEFAULT: &str = "q4_k_m";

/// Files whose names are shown in a message.
const SHOWN_MAX: usize = 40;
const NEAREST_SHOWN: usize = 5;
/// No model is cut into more.
const PARTS_MAX: usize = 1_000;

/// What the files of a selection are together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Needs {
    /// A folder in the Hugging Face layout.
    Folder,
    /// A GGUF model, named by its first file.
    Gguf(String),
    /// One file that is no model by itself.
    File(String),
}

/// The files of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// What they are together.
    pub needs: Needs,
    /// In the order they are listed.
    pub files: Vec<RemoteFile>,
}

impl Selection {
    /// What `reference` needs of `listing`.
    ///
    /// # Errors
    /// [`HubError::NoFile`], [`HubError::NoModel`] or [`HubError::ChooseFile`], each with what there
    /// is instead.
    pub fn new(listing: &Listing, reference: &HubRef) -> Result<Self, HubError> {
        match reference.file() {
            Some(file) => named(listing, reference, file),
            None if listing.get(CONFIG).is_some() && has_weights(listing) => Ok(folder(listing)),
            None => gguf(listing, reference),
        }
    }

    /// Bytes of all files, as far as they are known.
    pub fn bytes(&self) -> u64 {
        self.files.iter().filter_map(|file| file.bytes).sum()
    }
}

fn has_weights(listing: &Listing) -> bool {
    listing.get(SINGLE).is_some() || listing.get(INDEX).is_some()
}

/// The shards if there is an index: a reader that finds one asks for them.
fn folder(listing: &Listing) -> Selection {
    let is_indexed = listing.get(INDEX).is_some();
    let is_weights = |path: &str| match is_indexed {
        true => path == INDEX || (is_part(path, ".safetensors") && path.starts_with("model-")),
        false => path == SINGLE,
    };
    let wanted =
        |file: &&RemoteFile| SMALL_FILES.contains(&file.path.as_str()) || is_weights(&file.path);
    let files = listing.files.iter().filter(wanted).cloned().collect();
    Selection { needs: Needs::Folder, files }
}

/// `NAME-00001-of-00004EXTENSION` in the top folder.
fn is_part(path: &str, extension: &str) -> bool {
    !path.contains('/') && split_part(path.strip_suffix(extension).unwrap_or_default()).is_some()
}

/// `NAME-00001-of-00004` as name, number and count.
fn split_part(stem: &str) -> Option<(&str, usize, usize)> {
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(number) || !digits(count) {
        return None;
    }
    Some((name, number.parse().ok()?, count.parse().ok()?))
}

/// The first file of every GGUF model, vision projectors and quantiser statistics left out.
fn gguf_models(listing: &Listing) -> Vec<&RemoteFile> {
    let is_model = |file: &&RemoteFile| {
        let lower = file.path.to_ascii_lowercase();
        let part = lower.strip_suffix(".gguf").map(|stem| split_part(stem).map(|(_, n, _)| n));
        let other = lower.contains("mmproj") || lower.contains("imatrix");
        !other && part.is_some_and(|number| number.is_none_or(|n| n == 1))
    };
    listing.files.iter().filter(is_model).collect()
}

fn gguf(listing: &Listing, reference: &HubRef) -> Result<Selection, HubError> {
    let models = gguf_models(listing);
    let fitting = tagged(&models, ENCODING_DEFAULT);
    match (models.as_slice(), fitting.as_slice()) {
        ([], _) => Err(HubError::NoModel {
            repo: reference.repository(),
            found: listing.files.iter().take(SHOWN_MAX).map(|file| file.path.clone()).collect(),
        }),
        ([only], _) | (_, [only]) => with_parts(listing, reference, only),
        ([first, ..], _) => Err(HubError::ChooseFile {
            repo: reference.repository(),
            example: reference.with_file(&first.path).to_string(),
            files: models.iter().take(SHOWN_MAX).map(|file| file.path.clone()).collect(),
        }),
    }
}

/// Models whose name has `tag` as a word, in any case: `q4_k_m`, but not `q4_k_m_l`.
fn tagged<'a>(models: &[&'a RemoteFile], tag: &str) -> Vec<&'a RemoteFile> {
    let tag = tag.to_ascii_lowercase();
    let has = |path: &str| {
        let path = path.to_ascii_lowercase();
        let name = path.rsplit('/').next().unwrap_or_default();
        name.split(['-', '.']).any(|word| word == tag)
    };
    models.iter().filter(|file| has(&file.path)).copied().collect()
}

fn named(listing: &Listing, reference: &HubRef, name: &str) -> Result<Selection, HubError> {
    if let Some(file) = listing.get(name) {
        if name.to_ascii_lowercase().ends_with(".gguf") {
            return with_parts(listing, reference, file);
        }
        let needs = Needs::File(name.into());
        return Ok(Selection { needs, files: vec![file.clone()] });
    }
    match tagged(&gguf_models(listing), name).as_slice() {
        [only] => with_parts(listing, reference, only),
        _ => Err(absent(listing, reference, name)),
    }
}

/// A GGUF file, and the other parts if it is one of several.
fn with_parts(
    listing: &Listing,
    reference: &HubRef,
    file: &RemoteFile,
) -> Result<Selection, HubError> {
    let stem = &file.path[..file.path.len() - ".gguf".len()];
    let Some((name, _, count)) = split_part(stem) else {
        let needs = Needs::Gguf(file.path.clone());
        return Ok(Selection { needs, files: vec![file.clone()] });
    };
    let parts = (1..=count.clamp(1, PARTS_MAX)).map(|number| {
        let path = format!("{name}-{number:05}-of-{count:05}.gguf");
        listing.get(&path).cloned().ok_or_else(|| absent(listing, reference, &path))
    });
    let files: Vec<_> = parts.collect::<Result<_, _>>()?;
    Ok(Selection { needs: Needs::Gguf(files[0].path.clone()), files })
}

fn absent(listing: &Listing, reference: &HubRef, file: &str) -> HubError {
    let mut near: Vec<_> =
        listing.files.iter().map(|f| (distance(&f.path, file), &f.path)).collect();
    near.sort();
    let nearest = near.into_iter().take(NEAREST_SHOWN).map(|(_, path)| path.clone()).collect();
    HubError::NoFile { repo: reference.repository(), file: file.into(), nearest }
}

/// Characters to insert, remove or replace, whatever their case, until `a` is `b`.
fn distance(a: &str, b: &str) -> usize {
    let lower = |text: &str| text.to_lowercase().chars().collect::<Vec<_>>();
    let (a, b) = (lower(a), lower(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(reference: &str, paths: &[&str]) -> Result<(Needs, Vec<String>), String> {
        let mut paths = paths.to_vec();
        paths.sort_unstable();
        let file = |path: &&str| RemoteFile { path: (*path).into(), bytes: Some(1), digest: None };
        let listing = Listing { commit: "c".into(), files: paths.iter().map(file).collect() };
        let reference = reference.parse().expect("a reference");
        Selection::new(&listing, &reference)
            .map(|s| (s.needs, s.files.into_iter().map(|file| file.path).collect()))
            .map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check(reference: &str, paths: &[&str], needs: Needs, files: &[&str]) {
        let files = files.iter().map(|path| (*path).to_owned()).collect();
        assert_eq!(select(reference, paths), Ok((needs, files)));
    }

    #[test]
    fn a_folder_is_its_small_files_and_one_set_of_weights() {
        let small = ["config.json", "tokenizer.json", "README.md", "pytorch_model.bin"];
        check(
            "hf:a/b",
            &[&small[..], &["model.safetensors", "onnx/model.safetensors", "x.gguf"]].concat(),
            Needs::Folder,
            &["config.json", "model.safetensors", "tokenizer.json"],
        );
        let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        check(
            "hf:a/b",
            &[&small[..], &shards, &[INDEX, SINGLE, "consolidated-00001-of-00001.safetensors"]]
                .concat(),
            Needs::Folder,
            &["config.json", shards[0], shards[1], INDEX, "tokenizer.json"],
        );
    }

    #[test]
    fn one_gguf_or_the_usual_encoding_is_taken_and_else_asked() {
        let gguf = |name: &str| Needs::Gguf(name.into());
        check("hf:a/b", &["x.gguf", "mmproj-x.gguf"], gguf("x.gguf"), &["x.gguf"]);
        let many = ["x-Q8_0.gguf", "x-Q4_K_M.gguf", "x-Q4_K_S.gguf", "x-Q4_K_M_L.gguf"];
        check("hf:a/b", &many, gguf("x-Q4_K_M.gguf"), &["x-Q4_K_M.gguf"]);
        check("hf:a/b:q8_0", &many, gguf("x-Q8_0.gguf"), &["x-Q8_0.gguf"]);
        check("hf:a/b:x-Q4_K_S.gguf", &many, gguf("x-Q4_K_S.gguf"), &["x-Q4_K_S.gguf"]);
        let asked = select("hf:a/b", &["x-Q8_0.gguf", "x-Q4_0.gguf"]).expect_err("a choice");
        assert!(
            asked.contains("hf:a/b:x-Q4_0.gguf") && asked.contains("\n  x-Q8_0.gguf"),
            "{asked}"
        );
    }

    #[test]
    fn parts_come_together_or_not_at_all() {
        let parts = ["q/x-Q8_0-00001-of-00002.gguf", "q/x-Q8_0-00002-of-00002.gguf"];
        for reference in ["hf:a/b", "hf:a/b:q8_0", "hf:a/b:q/x-Q8_0-00002-of-00002.gguf"] {
            check(reference, &parts, Needs::Gguf(parts[0].into()), &parts);
        }
        let lacking = select("hf:a/b", &parts[..1]).expect_err("a part is missing");
        assert!(lacking.contains("x-Q8_0-00002-of-00002.gguf"), "{lacking}");
    }

    #[test]
    fn what_is_absent_is_answered_with_what_is_near() {
        let files = ["config.json", "x-Q8_0.gguf", "x-Q4_K_M.gguf"];
        let absent = select("hf:a/b:x-Q4_KM.gguf", &files).expect_err("absent");
        assert!(absent.contains("nearest are: x-Q4_K_M.gguf, x-Q8_0.gguf"), "{absent}");
        let nothing = select("hf:a/b", &["pytorch_model.bin", "config.json"]).expect_err("nothing");
        assert!(nothing.contains("pytorch_model.bin"), "{nothing}");
        check("hf:a/b:README.md", &["README.md"], Needs::File("README.md".into()), &["README.md"]);
        assert_eq!(distance("Kitten", "sitting"), 3);
    }
}
