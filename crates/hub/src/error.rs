//! What can keep a model from coming.

use crate::{digest::Digest, space::show};
use std::{io, path::PathBuf};

/// Why nothing was fetched. What had come stays on disk and is not asked for again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum HubError {
    /// The endpoint is no address.
    #[error(
        "the hub's address {found:?} is none: {reason}; expected such as https://huggingface.co in HF_ENDPOINT"
    )]
    Endpoint { found: String, reason: String },
    /// The token cannot be sent.
    #[error("the hub's token has characters that no token has; look at HF_TOKEN or the token file")]
    Token,
    /// Nobody answers, or only now and then.
    #[error(
        "cannot reach {host}: {reason}; check this computer's network and HF_ENDPOINT, then run the \
         same command again: what has come is kept, and models that are here need no hub"
    )]
    Unreachable { host: String, reason: String },
    /// The repository is not open to everybody.
    #[error(
        "{host} refuses {repo} ({status}): {}; open {page}, accept its licence there if it asks for \
         that, and {}", said(message), token_advice(*with_token)
    )]
    Refused {
        host: String,
        repo: String,
        page: String,
        status: u16,
        message: String,
        with_token: bool,
    },
    /// No such repository.
    #[error("{host} has no model {repo}: check the spelling at {page}")]
    NoRepo { host: String, repo: String, page: String },
    /// No such branch, tag or commit.
    #[error("{repo} has no revision {revision:?}, expected a branch, tag or commit such as main")]
    NoRevision { repo: String, revision: String },
    /// No such file.
    #[error("{repo} has no file {file:?}; {}", nearest_advice(nearest))]
    NoFile { repo: String, file: String, nearest: Vec<String> },
    /// Nothing there that could be run.
    #[error(
        "{repo} holds no model that can be run: expected config.json with model.safetensors (or its \
         shards and their index), or .gguf files, found {}", found.join(", ")
    )]
    NoModel { repo: String, found: Vec<String> },
    /// Several encodings and no way to choose.
    #[error(
        "{repo} holds {} models as .gguf, expected one to be chosen: add :FILE, such as {}\n  {}",
        files.len(), example, files.join("\n  ")
    )]
    ChooseFile { repo: String, example: String, files: Vec<String> },
    /// The server sent an error that has no meaning here.
    #[error("{url} answered {status}: {}; is HF_ENDPOINT a hub?", said(message))]
    Status { url: String, status: u16, message: String },
    /// The server sent something else than its interface promises.
    #[error("{url} does not answer like a hub: {reason}; is HF_ENDPOINT a hub?")]
    Answer { url: String, reason: String },
    /// The content is not what the repository names.
    #[error(
        "{file} has {found}, expected {expected}: it was damaged on its way, or somebody changed it; it was \
         thrown away, run the same command again"
    )]
    WrongDigest { file: String, expected: Digest, found: Digest },
    /// The server has another size in store than the repository names.
    #[error(
        "{file} has {found} bytes at the server, expected {expected}: run the same command again later"
    )]
    WrongSize { file: String, expected: u64, found: u64 },
    /// Only a model in the Hugging Face layout has headers that tell where its parts are.
    #[error("{reference} is no model of safetensors files, so parts of it cannot be fetched")]
    Parts { reference: String },
    /// Parts of a model cannot come from there.
    #[error(
        "{host} sends files whole only, so no part of a model can be fetched from it: fetch all of it with \
         `talka models pull`, or choose another hub with HF_ENDPOINT"
    )]
    NoRanges { host: String },
    /// Not enough room.
    #[error(
        "{} needs {} more, but {} has {} free: free some space, or choose another disk with --data-dir",
        what, show(*needed), place.display(), show(*free)
    )]
    DiskFull { what: String, place: PathBuf, needed: u64, free: u64 },
    /// It was enough when we began.
    #[error(
        "the disk became full while {} was written: free some space and run the same command again, \
         what has come is kept", path.display()
    )]
    DiskFilled { path: PathBuf },
    /// The operating system refused.
    #[error("cannot use {}: {source}", path.display())]
    Disk { path: PathBuf, source: io::Error },
    /// A record of the store is damaged.
    #[error("{} cannot be read: {reason}; remove that file and pull again", path.display())]
    Record { path: PathBuf, reason: String },
    /// Another process changes the same model now.
    #[error("another process is fetching {repo} now: wait for it, or stop it")]
    Busy { repo: String },
    /// Not here, so it cannot be removed.
    #[error("{reference} is not on this computer; `talka models list` shows what is")]
    NotHere { reference: String },
}

impl HubError {
    /// Whether asking again later, from the same place with the same rights, may succeed.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether the hub wants to know who asks.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

fn said(message: &str) -> &str {
    if message.is_empty() { "without a reason" } else { message }
}

fn token_advice(with_token: bool) -> &'static str {
    if with_token {
        "see that the token in HF_TOKEN belongs to the account that may read it"
    } else {
        "set HF_TOKEN to a token of your account; if it does not exist there, check the spelling"
    }
}

fn nearest_advice(nearest: &[String]) -> String {
    if nearest.is_empty() {
        return "it has no files at all".into();
    }
    format!("nearest are: {}", nearest.join(", "))
}
