//! `hf:OWNER/REPO[@REV][:FILE]`: how a model on the hub is named.

use std::{fmt, str::FromStr};

/// The prefix of every reference to a model on the hub.
const PREFIX: &str = "hf:";

/// The hub's own limit for each half of a repository's name.
const NAME_BYTES_MAX: usize = 96;
const REVISION_BYTES_MAX: usize = 200;
/// Room for a few folders and a long name; file systems stop at 255 a component.
const PATH_BYTES_MAX: usize = 512;
const COMPONENT_BYTES_MAX: usize = 200;

/// The branch that every repository has.
const REVISION_DEFAULT: &str = "main";

/// A model on the hub: a repository, perhaps a revision, perhaps one file of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubRef {
    owner: String,
    repo: String,
    revision: Option<String>,
    file: Option<String>,
}

/// Why text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found:?} has {fault}; expected hf:OWNER/REPO[@REV][:FILE] \
     such as hf:HuggingFaceTB/SmolLM2-135M-Instruct"
)]
pub struct HubRefError {
    found: String,
    fault: &'static str,
}

impl HubRef {
    /// The account and the repository in it: `OWNER/REPO`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.repo)
    }

    /// The repository in one path component.
    pub(crate) fn folder(&self) -> String {
        format!("{}--{}", self.owner, self.repo)
    }

    /// The two halves of the repository's name.
    pub(crate) fn halves(&self) -> [&str; 2] {
        [&self.owner, &self.repo]
    }

    /// The repository's own name, without its owner.
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// A branch, tag or commit; `main` unless chosen.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(REVISION_DEFAULT)
    }

    /// The revision as typed, if any was.
    pub fn revision_chosen(&self) -> Option<&str> {
        self.revision.as_deref()
    }

    /// The one file (or the encoding) asked for, if any was.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// The same repository and revision with `file`.
    #[must_use]
    pub fn with_file(&self, file: &str) -> Self {
        Self { file: Some(file.into()), ..self.clone() }
    }

    /// The reference to what a store keeps in the folder `OWNER--REPO`.
    pub(crate) fn of_folder(folder: &str, revision: &str) -> Option<Self> {
        let (owner, repo) = folder.split_once("--")?;
        let revision = (revision != REVISION_DEFAULT).then(|| format!("@{revision}"));
        format!("{PREFIX}{owner}/{repo}{}", revision.unwrap_or_default()).parse().ok()
    }
}

impl FromStr for HubRef {
    type Err = HubRefError;

    fn from_str(text: &str) -> Result<Self, HubRefError> {
        let wrong = |fault| HubRefError { found: text.chars().take(200).collect(), fault };
        let rest = text.strip_prefix(PREFIX).ok_or_else(|| wrong("no hf: in front"))?;
        let (rest, file) = match rest.split_once(':') {
            Some((rest, file)) => (rest, Some(file)),
            None => (rest, None),
        };
        let (name, revision) = match rest.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (rest, None),
        };
        let (owner, repo) = name.split_once('/').ok_or_else(|| wrong("no owner before a /"))?;
        if !is_name(owner) || !is_name(repo) {
            return Err(wrong("a name that no repository has"));
        }
        if revision.is_some_and(|revision| !is_revision(revision)) {
            return Err(wrong("a revision that is no branch, tag or commit"));
        }
        if file.is_some_and(|file| !is_safe_path(file)) {
            return Err(wrong("a file name that leads elsewhere"));
        }
        let [revision, file] = [revision, file].map(|part| part.map(String::from));
        Ok(Self { owner: owner.into(), repo: repo.into(), revision, file })
    }
}

impl fmt::Display for HubRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}/{}", self.owner, self.repo)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        match &self.file {
            Some(file) => write!(f, ":{file}"),
            None => Ok(()),
        }
    }
}

/// By the hub's rules. They forbid `--`, which makes `OWNER--REPO` one name and no other.
fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    text.len() <= NAME_BYTES_MAX
        && text.chars().all(plain)
        && edge(text.chars().next())
        && edge(text.chars().next_back())
        && !text.contains("--")
        && !text.contains("..")
}

fn is_revision(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '+');
    (1..=REVISION_BYTES_MAX).contains(&text.len())
        && text.chars().all(plain)
        && text.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
}

/// Whether `path` names a file below the folder it is joined to, on every system: no way up, no
/// drive, no hidden file (those are the store's own), nothing a shell or terminal would stumble on.
pub(crate) fn is_safe_path(path: &str) -> bool {
    let plain =
        |c: char| !c.is_control() && !matches!(c, '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    let component = |part: &str| {
        (1..=COMPONENT_BYTES_MAX).contains(&part.len())
            && !part.starts_with('.')
            && !part.ends_with(['.', ' '])
    };
    path.len() <= PATH_BYTES_MAX
        && path.chars().all(plain)
        && path.split('/').all(component)
        && !path.ends_with(crate::partial::SUFFIX)
        && !path.ends_with(crate::partial::STATE_SUFFIX)
}

/// Whether `text` is a commit's full name.
pub(crate) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::{Component, Path};

    #[test]
    fn every_part_is_found_and_shown_again() {
        let full = "hf:Qwen/Qwen3-4B-GGUF@refs/pr/1:Q4_K_M/a-00001-of-00002.gguf";
        let parsed: HubRef = full.parse().expect("a reference");
        assert_eq!(parsed.repository(), "Qwen/Qwen3-4B-GGUF");
        assert_eq!(parsed.revision(), "refs/pr/1");
        assert_eq!(parsed.file(), Some("Q4_K_M/a-00001-of-00002.gguf"));
        assert_eq!(parsed.to_string(), full);
        let plain: HubRef = "hf:a/b.c_d".parse().expect("a reference");
        assert_eq!((plain.revision(), plain.file()), ("main", None));
        assert_eq!(HubRef::of_folder(&plain.folder(), "main"), Some(plain));
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        for wrong in [
            "hf:",
            "hf:gpt2",
            "hf:a/",
            "hf:/b",
            "hf:../b",
            "hf:a/..",
            "hf:a/b/c",
            "hf:a--b/c",
            "hf:a/b@",
            "hf:a/b@../x",
            "hf:a/b@x//y",
            "hf:a/b:",
            "hf:a/b:../x",
            "hf:a/b:/etc/passwd",
            "hf:a/b:x\\y",
            "hf:a/b:C:x",
            "hf:a/b:.hidden",
            "hf:a/b:x/./y",
            "hf:a b/c",
            "a/b",
            "hf:a/b:x.partial",
        ] {
            let error = wrong.parse::<HubRef>().expect_err(wrong);
            assert!(error.to_string().contains("expected hf:OWNER/REPO"), "{error}");
        }
    }

    proptest! {
        /// Whatever is accepted stays below the folder it is joined to.
        #[test]
        fn safe_paths_stay_inside(path in "[a./\\\\:~ -]{0,12}") {
            if is_safe_path(&path) {
                let normal = |c| matches!(c, Component::Normal(_));
                prop_assert!(Path::new(&path).components().all(normal));
            }
        }

        #[test]
        fn what_is_parsed_is_shown_and_parsed_again(text in "hf:[a-z@:/.-]{3,16}") {
            if let Ok(parsed) = text.parse::<HubRef>() {
                prop_assert_eq!(parsed.to_string().parse::<HubRef>(), Ok(parsed));
            }
        }
    }
}
