//! What members of a job give each other, in files that are named by their hash.
//!
//! ```text
//! always/HASH         recipe, tokenizer, tokens
//! states/ROUND/HASH   weights and momentum that a round gave
//! updates/ROUND/HASH  what members learned in a round
//! parts/HASH          what is still fetched
//! ```
//!
//! A file appears under its name when it is whole, right and durable. Decides nothing about when a round is forgotten.

use crate::files::{self, FileError};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A BLAKE3 digest.
pub type Hash = [u8; blake3::OUT_LEN];

/// What a thing is, which says how long it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// As long as the job.
    Always,
    /// The shared state that this round gave.
    State(u64),
    /// An update, needed for this round.
    Update(u64),
}

impl Kind {
    fn folder(self, place: &Path) -> PathBuf {
        match self {
            Self::Always => place.join("always"),
            Self::State(round) => place.join("states").join(round.to_string()),
            Self::Update(round) => place.join("updates").join(round.to_string()),
        }
    }
}

/// The things of one job.
#[derive(Debug)]
pub struct Depot {
    place: PathBuf,
    things: Mutex<BTreeMap<Hash, Kind>>,
}

impl Depot {
    /// The depot in `place`, with what is there.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(place: &Path) -> Result<Self, FileError> {
        let parts = place.join("parts");
        fs::create_dir_all(&parts).map_err(|source| FileError::writing(&parts, source))?;
        let mut things = BTreeMap::new();
        add(&mut things, place, Kind::Always);
        for (name, kind) in
            [("states", Kind::State as fn(u64) -> Kind), ("updates", Kind::Update as _)]
        {
            for round in names(&place.join(name)).filter_map(|name| name.parse().ok()) {
                add(&mut things, place, kind(round));
            }
        }
        Ok(Self { place: place.to_owned(), things: Mutex::new(things) })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Hash, Kind>> {
        self.things.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the thing with this hash is here.
    pub fn has(&self, hash: &Hash) -> bool {
        self.lock().contains_key(hash)
    }

    fn path(&self, hash: &Hash) -> Option<PathBuf> {
        let kind = *self.lock().get(hash)?;
        Some(kind.folder(&self.place).join(name(hash)))
    }

    /// Keeps `bytes`, and says their hash.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn put(&self, kind: Kind, bytes: &[u8]) -> Result<Hash, FileError> {
        let hash = *blake3::hash(bytes).as_bytes();
        if !self.has(&hash) {
            let folder = kind.folder(&self.place);
            make(&folder)?;
            files::write(&folder.join(name(&hash)), bytes)?;
            self.lock().insert(hash, kind);
        }
        Ok(hash)
    }

    /// All of a thing; `None` if it is not here.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, hash: &Hash) -> Result<Option<Vec<u8>>, FileError> {
        self.path(hash).map(|path| files::read(&path)).transpose()
    }

    /// At most `len` bytes from `start` on; `None` if the thing is not here or ends before.
    ///
    /// # Errors
    /// Whatever the operating system reports.
    pub fn piece(&self, hash: &Hash, start: u64, len: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(path) = self.path(hash) else { return Ok(None) };
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(len as u64).read_to_end(&mut bytes)?;
        Ok((!bytes.is_empty()).then_some(bytes))
    }

    /// Bytes that came of a thing that is fetched.
    pub fn fetched(&self, hash: &Hash) -> u64 {
        fs::metadata(self.part(hash)).map_or(0, |file| file.len())
    }

    fn part(&self, hash: &Hash) -> PathBuf {
        self.place.join("parts").join(name(hash))
    }

    /// Adds what came next of a thing.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add(&self, hash: &Hash, bytes: &[u8]) -> Result<(), FileError> {
        let path = self.part(hash);
        let add = || OpenOptions::new().create(true).append(true).open(&path)?.write_all(bytes);
        add().map_err(|source| FileError::writing(&path, source))
    }

    /// Forgets what came of a thing.
    pub fn drop_part(&self, hash: &Hash) {
        // What is not there need not be removed; what cannot be is refused by its hash.
        let _ = fs::remove_file(self.part(hash));
    }

    /// Takes in a thing of which all came. False if it is another one, which is forgotten then.
    ///
    /// # Errors
    /// It cannot be read or moved.
    pub fn complete(&self, kind: Kind, hash: &Hash) -> Result<bool, FileError> {
        let path = self.part(hash);
        let mut hasher = blake3::Hasher::new();
        let read = File::open(&path).and_then(|file| {
            hasher.update_reader(&file)?;
            file.sync_all()
        });
        read.map_err(|source| FileError::reading(&path, source))?;
        if hasher.finalize() != *hash {
            self.drop_part(hash);
            return Ok(false);
        }
        let folder = kind.folder(&self.place);
        make(&folder)?;
        let moved = fs::rename(&path, folder.join(name(hash)));
        moved.map_err(|source| FileError::writing(&path, source))?;
        self.lock().insert(*hash, kind);
        Ok(true)
    }

    /// Removes the states and updates of rounds before these.
    ///
    /// # Errors
    /// They cannot be removed.
    pub fn forget(&self, states_before: u64, updates_before: u64) -> Result<(), FileError> {
        let is_old = |kind: &Kind| match *kind {
            Kind::Always => false,
            Kind::State(round) => round < states_before,
            Kind::Update(round) => round < updates_before,
        };
        let old: Vec<Kind> = {
            let mut things = self.lock();
            let mut old: Vec<_> = things.values().copied().filter(is_old).collect();
            things.retain(|_, kind| !is_old(kind));
            old.dedup();
            old
        };
        for folder in old.into_iter().map(|kind| kind.folder(&self.place)) {
            match fs::remove_dir_all(&folder) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(FileError::writing(&folder, source));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn make(folder: &Path) -> Result<(), FileError> {
    fs::create_dir_all(folder).map_err(|source| FileError::writing(folder, source))
}

fn name(hash: &Hash) -> String {
    blake3::Hash::from_bytes(*hash).to_string()
}

fn names(folder: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// What is there of a kind. Unfinished files have names that are no hashes.
fn add(things: &mut BTreeMap<Hash, Kind>, place: &Path, kind: Kind) {
    let hashes = names(&kind.folder(place)).filter_map(|name| blake3::Hash::from_hex(name).ok());
    things.extend(hashes.map(|hash| (*hash.as_bytes(), kind)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_outlive_a_restart_and_go_with_their_round() {
        let place = tempfile::tempdir().expect("a folder");
        let depot = Depot::open(place.path()).expect("opened");
        let kept = depot.put(Kind::Always, b"recipe").expect("kept");
        let states = [1, 2, 3].map(|n| depot.put(Kind::State(n), &[n as u8]).expect("kept"));
        let update = depot.put(Kind::Update(2), b"update").expect("kept");
        let depot = Depot::open(place.path()).expect("opened again");
        assert_eq!(depot.read(&states[2]).expect("read"), Some(vec![3]));
        depot.forget(3, 2).expect("removed");
        assert_eq!(states.map(|state| depot.has(&state)), [false, false, true]);
        assert!(depot.has(&kept) && depot.has(&update));
        let depot = Depot::open(place.path()).expect("opened again");
        assert_eq!(states.map(|state| depot.has(&state)), [false, false, true]);
        assert_eq!(depot.read(&states[0]).expect("looked"), None);
    }

    #[test]
    fn what_is_fetched_counts_once_it_is_whole_and_right() {
        let place = tempfile::tempdir().expect("a folder");
        let depot = Depot::open(place.path()).expect("opened");
        let hash = *blake3::hash(b"first second").as_bytes();
        depot.add(&hash, b"first ").expect("written");
        // It goes on after a restart.
        let depot = Depot::open(place.path()).expect("opened again");
        assert_eq!(depot.fetched(&hash), 6);
        depot.add(&hash, b"second").expect("written");
        assert!(!depot.has(&hash));
        assert!(depot.complete(Kind::Update(1), &hash).expect("complete"));
        assert_eq!(depot.piece(&hash, 6, 3).expect("read"), Some(b"sec".to_vec()));
        assert_eq!(depot.piece(&hash, 12, 3).expect("read"), None);
        let other = [7; 32];
        depot.add(&other, b"a lie").expect("written");
        assert!(!depot.complete(Kind::Always, &other).expect("looked"));
        assert_eq!((depot.has(&other), depot.fetched(&other)), (false, 0));
    }
}
