//! What has been fetched, on disk: `models/OWNER--REPO/COMMIT/FILE`.
//!
//! Beside the commits, `refs.json` says which commit each revision was when it was last complete;
//! in each commit's folder, `.talka.json` is what the repository held. So whether a model is here,
//! and whether all of it is, can be told without any network. Files keep their commit's folder for
//! as long as they exist: a revision that moves gets a new one, and what is mapped stays as it was.

use crate::{
    error::HubError,
    listing::{Listing, RemoteFile},
    reference::{HubRef, is_commit},
    select::{Needs, Selection},
};
use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{self, Read},
    path::{Path, PathBuf},
};

const LISTING_FILE: &str = ".talka.json";
const REFS_FILE: &str = "refs.json";
/// Outside of what they lock, which may be removed as a whole.
const LOCKS_FOLDER: &str = ".locks";
/// Both records are far smaller.
const RECORD_BYTES_MAX: u64 = 32 << 20;

/// The folder of fetched models.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// A model that is here, whole and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// What it is called: the repository's name, or the GGUF file's without its ending.
    pub name: String,
    /// The commit it is of.
    pub commit: String,
    /// The folder, or the (first) file.
    pub path: PathBuf,
    /// What `path` is.
    pub needs: Needs,
    /// Bytes of its files.
    pub bytes: u64,
}

impl Pulled {
    /// How to name it, given its revision.
    pub fn reference(&self, revision: &HubRef) -> HubRef {
        match &self.needs {
            Needs::Folder => revision.clone(),
            Needs::Gguf(file) | Needs::File(file) => revision.with_file(file),
        }
    }
}

/// One revision in the store, for listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// How to name it.
    pub reference: HubRef,
    /// The commit it is of.
    pub commit: String,
    /// Bytes of its files, those still under way left out.
    pub bytes: u64,
    /// Models in it that are whole. None: a download that did not end.
    pub models: Vec<Pulled>,
}

/// A model in the Hugging Face layout of which only the small files need be here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// What it is called: the repository's name.
    pub name: String,
    /// The commit it is of.
    pub commit: String,
    /// The folder of its small files, whole and checked.
    pub folder: PathBuf,
    /// Its other files.
    pub small: Vec<RemoteFile>,
    /// Its files of weights, each with its size.
    pub weights: Vec<RemoteFile>,
}

impl Begun {
    /// Bytes of all files, those of weights included.
    pub fn bytes(&self) -> u64 {
        self.small.iter().chain(&self.weights).filter_map(|file| file.bytes).sum()
    }
}

/// Held while a repository's folder changes; freed when dropped, however the process ends.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held, never read")] File);

impl Store {
    /// The store in `data_dir`, which need not exist yet.
    pub fn new(data_dir: &Path) -> Self {
        Self { root: data_dir.join("models") }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The model `reference` names, if all of it is here.
    ///
    /// # Errors
    /// A record is damaged, or the reference fits no file of what is here.
    pub fn find(&self, reference: &HubRef) -> Result<Option<Pulled>, HubError> {
        match self.listing(reference, &self.known_commit(reference)?)? {
            Some(listing) => self.pulled(reference, &listing),
            None => Ok(None),
        }
    }

    /// The model `reference` names, if at least its small files are here; `None` for one that is no folder in
    /// the Hugging Face layout.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn begun(&self, reference: &HubRef) -> Result<Option<Begun>, HubError> {
        match self.listing(reference, &self.known_commit(reference)?)? {
            Some(listing) => self.begun_of(reference, &listing),
            None => Ok(None),
        }
    }

    /// As [`Self::begun`], for what `listing` says.
    pub(crate) fn begun_of(
        &self,
        reference: &HubRef,
        listing: &Listing,
    ) -> Result<Option<Begun>, HubError> {
        let Selection { needs, files } = Selection::new(listing, reference)?;
        let folder = self.commit(reference, &listing.commit);
        let (weights, small): (Vec<_>, Vec<_>) =
            files.into_iter().partition(RemoteFile::is_weights);
        let is_begun = needs == Needs::Folder
            && small.iter().all(|file| is_here(&folder, file))
            && weights.iter().all(|file| file.bytes.is_some());
        let (name, commit) = (reference.repo().to_owned(), listing.commit.clone());
        Ok(is_begun.then_some(Begun { name, commit, folder, small, weights }))
    }

    /// The commit that `reference`'s revision was when it was last fetched, else the one it names itself.
    fn known_commit(&self, reference: &HubRef) -> Result<String, HubError> {
        let commit = read_refs(&self.repository(reference))?.remove(reference.revision());
        Ok(commit.unwrap_or_else(|| commit_folder(reference.revision())))
    }

    /// The model that `reference` chooses from `listing`, if its files are here.
    pub(crate) fn pulled(
        &self,
        reference: &HubRef,
        listing: &Listing,
    ) -> Result<Option<Pulled>, HubError> {
        let selection = Selection::new(listing, reference)?;
        let folder = self.commit(reference, &listing.commit);
        if !selection.files.iter().all(|file| is_here(&folder, file)) {
            return Ok(None);
        }
        let (name, path) = match &selection.needs {
            Needs::Folder => (reference.repo().to_owned(), folder),
            Needs::Gguf(file) => (gguf_name(file), folder.join(file)),
            Needs::File(file) => (file.clone(), folder.join(file)),
        };
        let bytes = selection.bytes();
        let commit = listing.commit.clone();
        Ok(Some(Pulled { name, commit, path, needs: selection.needs, bytes }))
    }

    /// Everything here, ordered by name.
    ///
    /// # Errors
    /// The folder cannot be read. A damaged record hides its revision's models, not the others.
    pub fn list(&self) -> Result<Vec<Kept>, HubError> {
        let mut kept = Vec::new();
        for repository in folders(&self.root)? {
            let refs = read_refs(&self.root.join(&repository)).unwrap_or_default();
            for commit in folders(&self.root.join(&repository))? {
                let named = refs.iter().find(|(_, known)| **known == commit);
                let revision = named.map_or(commit.as_str(), |(revision, _)| revision);
                let Some(reference) = HubRef::of_folder(&repository, revision) else { continue };
                let bytes = bytes_in(&self.commit(&reference, &commit));
                let models = self.models(&reference, &commit);
                kept.push(Kept { reference, commit, bytes, models });
            }
        }
        Ok(kept)
    }

    /// The whole models of one commit: the folder, and every GGUF model by itself.
    fn models(&self, reference: &HubRef, commit: &str) -> Vec<Pulled> {
        let Ok(Some(listing)) = self.listing(reference, commit) else { return Vec::new() };
        let ggufs = listing.files.iter().filter(|file| file.path.ends_with(".gguf"));
        let ggufs = ggufs.map(|file| reference.with_file(&file.path));
        let references = std::iter::once(reference.clone()).chain(ggufs);
        let found = references.filter_map(|r| self.pulled(&r, &listing).ok().flatten());
        let mut models: Vec<Pulled> = Vec::new();
        for model in found {
            if !models.iter().any(|other| other.path == model.path) {
                models.push(model);
            }
        }
        models
    }

    /// Removes what `reference` names and returns how many bytes that were: the repository, or one
    /// revision or one file of it if it names such.
    ///
    /// # Errors
    /// [`HubError::NotHere`], [`HubError::Busy`], or the system refuses.
    pub fn remove(&self, reference: &HubRef) -> Result<u64, HubError> {
        let absent = || HubError::NotHere { reference: reference.to_string() };
        let repository = self.repository(reference);
        if !repository.is_dir() {
            return Err(absent());
        }
        let lock = self.try_lock(reference)?;
        let Some(_lock) = lock else {
            return Err(HubError::Busy { repo: reference.repository() });
        };
        if reference.file().is_some() {
            return self.remove_file(reference, absent);
        }
        let target = match reference.revision_chosen() {
            Some(revision) => {
                let mut refs = read_refs(&repository)?;
                let commit = refs.remove(revision).unwrap_or_else(|| commit_folder(revision));
                refs.retain(|_, other| *other != commit);
                write_refs(&repository, &refs)?;
                self.commit(reference, &commit)
            }
            None => repository,
        };
        if !target.is_dir() {
            return Err(absent());
        }
        let bytes = bytes_in(&target);
        fs::remove_dir_all(&target).map_err(at(&target))?;
        Ok(bytes)
    }

    fn remove_file(
        &self,
        reference: &HubRef,
        absent: impl Fn() -> HubError,
    ) -> Result<u64, HubError> {
        let found = self.find(reference)?.ok_or_else(&absent)?;
        let listing = self.listing(reference, &found.commit)?.ok_or_else(&absent)?;
        let folder = self.commit(reference, &found.commit);
        for file in Selection::new(&listing, reference)?.files {
            let path = folder.join(&file.path);
            fs::remove_file(&path).map_err(at(&path))?;
        }
        Ok(found.bytes)
    }

    /// The lock on `reference`'s repository; `None` while another process holds it.
    pub(crate) fn try_lock(&self, reference: &HubRef) -> Result<Option<Lock>, HubError> {
        let folder = self.root.join(LOCKS_FOLDER);
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        let path = folder.join(reference.folder());
        let file = File::create(&path).map_err(at(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(HubError::Disk { path, source }),
        }
    }

    /// What the repository held at `commit`, if that was ever asked.
    pub(crate) fn listing(
        &self,
        reference: &HubRef,
        commit: &str,
    ) -> Result<Option<Listing>, HubError> {
        let path = self.commit(reference, commit).join(LISTING_FILE);
        let Some(bytes) = read_record(&path)? else { return Ok(None) };
        let read = Listing::from_json(&bytes);
        read.map(Some).map_err(|reason| HubError::Record { path, reason })
    }

    /// Keeps `listing` beside the files it describes.
    pub(crate) fn write_listing(
        &self,
        reference: &HubRef,
        listing: &Listing,
    ) -> Result<(), HubError> {
        let folder = self.commit(reference, &listing.commit);
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        replace(&folder.join(LISTING_FILE), &listing.to_json())
    }

    /// From now on `reference`'s revision is `commit`.
    pub(crate) fn point(&self, reference: &HubRef, commit: &str) -> Result<(), HubError> {
        let folder = self.repository(reference);
        let mut refs = read_refs(&folder)?;
        refs.insert(reference.revision().into(), commit_folder(commit));
        write_refs(&folder, &refs)
    }

    /// The folder of one commit's files.
    pub(crate) fn commit(&self, reference: &HubRef, commit: &str) -> PathBuf {
        self.repository(reference).join(commit_folder(commit))
    }

    /// `file` at another commit of the same repository, if it is there and the same.
    pub(crate) fn elsewhere(
        &self,
        reference: &HubRef,
        commit: &str,
        file: &RemoteFile,
    ) -> Option<PathBuf> {
        file.digest.as_ref()?;
        let others = folders(&self.repository(reference)).ok()?;
        let others = others.into_iter().filter(|other| *other != commit_folder(commit));
        let mut same = others.filter_map(|other| {
            let listing = self.listing(reference, &other).ok()??;
            let known = listing.get(&file.path)?;
            let folder = self.commit(reference, &other);
            let is_same = known.digest == file.digest && is_here(&folder, file);
            is_same.then(|| folder.join(&file.path))
        });
        same.next()
    }

    fn repository(&self, reference: &HubRef) -> PathBuf {
        self.root.join(reference.folder())
    }
}

/// A commit as a folder's name. Where a hub names no commits it is a revision, which may have `/`.
fn commit_folder(commit: &str) -> String {
    if is_commit(commit) { commit.into() } else { commit.replace('/', "--") }
}

/// Whether `file` is in `folder`. Its name was given to it only when it was whole and checked.
pub(crate) fn is_here(folder: &Path, file: &RemoteFile) -> bool {
    let found = fs::metadata(folder.join(&file.path));
    found.is_ok_and(|found| found.is_file() && Some(found.len()) == file.bytes)
}

/// A GGUF file's name without folders, ending and part number.
fn gguf_name(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let stem = name.strip_suffix(".gguf").unwrap_or(name);
    let whole = stem.rsplit_once("-of-").and_then(|(rest, _)| rest.rsplit_once('-'));
    whole.filter(|(_, number)| number.len() == 5).map_or(stem, |(name, _)| name).to_owned()
}

fn read_refs(repository: &Path) -> Result<BTreeMap<String, String>, HubError> {
    let path = repository.join(REFS_FILE);
    let Some(bytes) = read_record(&path)? else { return Ok(BTreeMap::new()) };
    let refs: BTreeMap<String, String> = serde_json::from_slice(&bytes)
        .map_err(|error| HubError::Record { path, reason: error.to_string() })?;
    // A name that is none could lead out of the store.
    Ok(refs.into_iter().filter(|(_, commit)| crate::reference::is_safe_path(commit)).collect())
}

fn write_refs(repository: &Path, refs: &BTreeMap<String, String>) -> Result<(), HubError> {
    replace(&repository.join(REFS_FILE), &serde_json::to_vec_pretty(refs).unwrap_or_default())
}

/// Writes a small file so that readers find the old one or the new one, never a part.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), HubError> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, bytes).map_err(at(&fresh))?;
    fs::rename(&fresh, path).map_err(at(path))
}

fn read_record(path: &Path) -> Result<Option<Vec<u8>>, HubError> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(RECORD_BYTES_MAX).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HubError::Disk { path: path.into(), source }),
    }
}

/// Names of the folders in `path`, ordered; none if it does not exist.
fn folders(path: &Path) -> Result<Vec<String>, HubError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(HubError::Disk { path: path.into(), source }),
    };
    let folders = entries.flatten().filter(|entry| entry.path().is_dir());
    let mut names: Vec<_> =
        folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    Ok(names)
}

/// Bytes of all files below `path`. Files under way have their full length from the start and are
/// left out.
fn bytes_in(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_in(&entry.path()),
        Ok(_) if entry.path().extension().is_some_and(|end| end == "partial") => 0,
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// What the system refused at `path`; a full disk is told as such.
pub(crate) fn at(path: &Path) -> impl Fn(io::Error) -> HubError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull => HubError::DiskFilled { path: path.clone() },
        _ => HubError::Disk { path: path.clone(), source },
    }
}
