//! The hub as this computer's settings have it, and the models fetched from it.

use crate::{env, exit::UsageError, progress::Progress, ranges::HubRanges};
use anyhow::Result;
use directories::BaseDirs;
use std::{
    fs,
    path::{Path, PathBuf},
};
use talka_hub::{Hub, HubConfig, HubRef, Needs, Pulled, Store, Token};

const ENDPOINT_DEFAULT: &str = "https://huggingface.co";

/// What may be fetched, and where to.
#[derive(Debug)]
pub struct Access {
    /// What is here.
    pub store: Store,
    /// Whether nothing may be fetched.
    pub offline: bool,
    /// Whether progress is shown.
    pub quiet: bool,
}

impl Access {
    /// The store of `data_dir`.
    pub fn new(data_dir: &Path, offline: bool, quiet: bool) -> Self {
        Self { store: Store::new(data_dir), offline, quiet }
    }

    /// The model that `reference` names, from the disk if it is there, else from the hub.
    ///
    /// # Errors
    /// [`talka_hub::HubError`], or [`UsageError`] if it would have to be fetched and may not be.
    pub async fn get(&self, reference: &HubRef) -> Result<Pulled> {
        match self.store.find(reference)? {
            Some(pulled) => Ok(pulled),
            None => self.pull(reference).await,
        }
    }

    /// The model that `reference` names as a node reads parts of it; `None` for one of which all shall be here,
    /// or is. Parts do where `is_cut`, or where all of it has more than `bytes_max`; and only of models in
    /// the Hugging Face layout.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn parts(
        &self,
        reference: &HubRef,
        is_cut: bool,
        bytes_max: u64,
    ) -> Result<Option<HubRanges>> {
        let in_parts = |bytes| is_cut || bytes > bytes_max;
        if self.store.find(reference)?.is_some() {
            return Ok(None);
        }
        let begun = self.store.begun(reference)?.filter(|begun| in_parts(begun.bytes()));
        let hub = if self.offline { None } else { Some(open()?) };
        if let Some(begun) = begun {
            return Ok(Some(HubRanges::new(hub, reference.clone(), begun)));
        }
        let Some(hub) = hub else { return Ok(None) };
        let offer = hub.offer(reference).await?;
        if offer.selection.needs != Needs::Folder || !in_parts(offer.bytes) {
            return Ok(None);
        }
        let progress = Progress::new(&format!("the small files of {reference}"), self.quiet);
        let begun = hub.begin(&self.store, reference, &|event| progress.show(event)).await;
        progress.end();
        Ok(Some(HubRanges::new(Some(hub), reference.clone(), begun?)))
    }

    /// The model that `reference` names, as the hub has it now.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn pull(&self, reference: &HubRef) -> Result<Pulled> {
        if self.offline {
            return Err(UsageError(format!(
                "{reference} is not on this computer, and --offline (or {}) forbids to fetch it: \
                 run `talka models pull {reference}` once without",
                env::HF_HUB_OFFLINE
            ))
            .into());
        }
        let progress = Progress::new(&reference.to_string(), self.quiet);
        let pulled = open()?.pull(&self.store, reference, &|event| progress.show(event)).await;
        progress.end();
        Ok(pulled?)
    }
}

/// The hub that the environment names.
///
/// # Errors
/// If its address or the token cannot be used.
pub fn open() -> Result<Hub> {
    crate::client::install_cryptography();
    let endpoint = env::read(env::HF_ENDPOINT).unwrap_or_else(|| ENDPOINT_DEFAULT.into());
    let token = token().map(|text| Token::new(&text)).transpose()?;
    Ok(Hub::new(HubConfig::new(endpoint, token))?)
}

/// Whether [`env::HF_HUB_OFFLINE`] forbids to fetch, for commands without the flag.
pub fn is_offline() -> bool {
    let denied = |value: &str| {
        let value = value.to_ascii_lowercase();
        ["0", "false", "no", "off", "n", "f"].contains(&value.as_str())
    };
    env::read(env::HF_HUB_OFFLINE).is_some_and(|value| !denied(&value))
}

/// The token from the environment, else from the file where the hub's own tools keep it.
fn token() -> Option<String> {
    env::read(env::HF_TOKEN)
        .or_else(|| fs::read_to_string(token_file()?).ok())
        .filter(|text| !text.trim().is_empty())
}

fn token_file() -> Option<PathBuf> {
    if let Some(path) = env::read(env::HF_TOKEN_PATH) {
        return Some(path.into());
    }
    let home = match (env::read(env::HF_HOME), env::read(env::XDG_CACHE_HOME)) {
        (Some(home), _) => PathBuf::from(home),
        (None, Some(caches)) => PathBuf::from(caches).join("huggingface"),
        // The hub's tools use this place on every system.
        (None, None) => BaseDirs::new()?.home_dir().join(".cache/huggingface"),
    };
    Some(home.join("token"))
}
