//! What heads chose for the answers of the last minutes, a file for each.
//!
//! A file is a row of records, each its length (4 bytes, little endian) and its sealed encoding: first what was
//! asked, then what was chosen in each step. Records are handed to the operating system as they come and never waited
//! for: they outlive this process, and of a power failure only what it leaves. Reading ends at the first record
//! that is torn or altered. Decides nothing of what is kept.

use super::{StoreError, file::create_private_dir, seal};
use crate::core::resume::{Begun, Chosen};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use talka_base::{Encoded, RequestId, decode, encode};

/// How long an answer is kept after its last token.
pub const KEPT: Duration = Duration::from_secs(600);
/// Answers kept at most, the latest ones, whenever old ones are removed.
pub const ANSWERS_MAX: usize = 1_024;
/// The longest file that is read: some 10^5 steps.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The folder `answers` of a data directory.
#[derive(Debug)]
pub struct Journals {
    dir: PathBuf,
}

/// The open file of an answer under way.
#[derive(Debug)]
pub struct Journal {
    file: File,
    request: RequestId,
    /// Records so far.
    records: u32,
}

impl Journals {
    /// Opens or creates the folder.
    ///
    /// # Errors
    /// [`StoreError::DataDir`].
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let dir = data_dir.join("answers");
        match create_private_dir(&dir) {
            Ok(()) => Ok(Self { dir }),
            Err(source) => Err(StoreError::DataDir { dir, source }),
        }
    }

    /// Starts the file of `request` with what is known already, in place of any before.
    ///
    /// # Errors
    /// Whatever the disk says; a file from before is as it was.
    pub fn begin(
        &self,
        request: RequestId,
        begun: &Begun,
        chosen: &[Chosen],
    ) -> io::Result<Journal> {
        let unfinished = self.file(request).with_extension("new");
        let mut options = OpenOptions::new();
        let file = options.create(true).write(true).truncate(true).open(&unfinished)?;
        let mut journal = Journal { file, request, records: 0 };
        journal.write(begun)?;
        for chosen in chosen {
            journal.write(chosen)?;
        }
        fs::rename(unfinished, self.file(request))?;
        Ok(journal)
    }

    /// What is kept of the answer to `request`; `None` if nothing is.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn read(&self, request: RequestId) -> io::Result<Option<(Begun, Vec<Chosen>)>> {
        let file = match File::open(self.file(request)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(parse(request, &bytes))
    }

    /// Removes files that nothing was added to for [`KEPT`] before `now`, and the oldest of too many.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn sweep(&self, now: SystemTime) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if let Some(metadata) = unless_gone(entry.metadata())? {
                files.push((metadata.modified()?, entry.path()));
            }
        }
        files.sort();
        let too_many = files.len().saturating_sub(ANSWERS_MAX);
        for (at, (modified, file)) in files.into_iter().enumerate() {
            // A clock that was set back makes files of the future: those are new.
            let is_old = now.duration_since(modified).is_ok_and(|age| age > KEPT);
            if at < too_many || is_old {
                unless_gone(fs::remove_file(file))?;
            }
        }
        Ok(())
    }

    fn file(&self, request: RequestId) -> PathBuf {
        self.dir.join(request.to_string())
    }
}

impl Journal {
    /// Adds what a step chose.
    ///
    /// # Errors
    /// Whatever the disk says; what follows cannot be read any more.
    pub fn add(&mut self, chosen: &Chosen) -> io::Result<()> {
        self.write(chosen)
    }

    fn write<T: Encoded>(&mut self, value: &T) -> io::Result<()> {
        let record = seal::record(&key(self.request, self.records), &encode(value));
        self.records += 1;
        self.file.write_all(&record)
    }
}

/// What record `number` of an answer is sealed under.
fn key(request: RequestId, number: u32) -> Vec<u8> {
    [request.0.as_slice(), &number.to_le_bytes()].concat()
}

fn parse(request: RequestId, bytes: &[u8]) -> Option<(Begun, Vec<Chosen>)> {
    let mut rest = bytes;
    let begun = next(request, 0, &mut rest)?;
    let chosen = (1..).map_while(|number| next(request, number, &mut rest));
    Some((begun, chosen.collect()))
}

/// The record at the start of `rest`, which then begins after it.
fn next<T: Encoded>(request: RequestId, number: u32, rest: &mut &[u8]) -> Option<T> {
    decode(seal::next(&key(request, number), rest)?).ok()
}

/// A file that was renamed or removed between two looks is no fault: answers begin and end at any time.
fn unless_gone<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        done => done.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REQUEST: RequestId = RequestId([7; 16]);

    fn begun() -> Begun {
        Begun { question: [1; 32], session: RequestId([8; 16]) }
    }

    fn chosen(step: u32) -> Chosen {
        Chosen { tokens: vec![step, step + 1], draws: u64::from(step) }
    }

    fn journals() -> (tempfile::TempDir, Journals) {
        let dir = tempfile::tempdir().expect("a folder");
        let journals = Journals::open(dir.path()).expect("a new folder");
        (dir, journals)
    }

    #[test]
    fn what_was_added_is_read_and_begun_anew_in_its_place() {
        let (_dir, journals) = journals();
        assert_eq!(journals.read(REQUEST).expect("a folder"), None);
        let mut journal = journals.begin(REQUEST, &begun(), &[]).expect("a file");
        (0..3).for_each(|step| journal.add(&chosen(step)).expect("room"));
        let (asked, kept) = journals.read(REQUEST).expect("a file").expect("kept");
        assert_eq!((asked, kept.len()), (begun(), 3));

        let mut again = journals.begin(REQUEST, &begun(), &kept[..2]).expect("a file");
        again.add(&chosen(9)).expect("room");
        let kept = journals.read(REQUEST).expect("a file").expect("kept").1;
        assert_eq!(kept, [0, 1, 9].map(chosen));
    }

    #[test]
    fn a_file_of_another_answer_says_nothing() {
        let (_dir, journals) = journals();
        journals.begin(REQUEST, &begun(), &[chosen(1)]).expect("a file");
        let other = RequestId([9; 16]);
        fs::rename(journals.file(REQUEST), journals.file(other)).expect("renamed");
        assert_eq!(journals.read(other).expect("a file"), None);
    }

    #[test]
    fn old_answers_are_forgotten() {
        let (_dir, journals) = journals();
        journals.begin(REQUEST, &begun(), &[]).expect("a file");
        let is_kept = || journals.read(REQUEST).expect("a folder").is_some();
        let now = SystemTime::now();
        journals.sweep(now + KEPT / 2).expect("swept");
        assert!(is_kept());
        journals.sweep(now + 2 * KEPT).expect("swept");
        assert!(!is_kept());
    }

    proptest! {
        /// Whatever a crash or a disk makes of a file, reading gives the records before the damage.
        #[test]
        fn damage_hides_what_follows_it_only(cut in 0_usize..600, flip in 0_usize..600) {
            let (_dir, journals) = journals();
            let mut journal = journals.begin(REQUEST, &begun(), &[]).expect("a file");
            let mut ends = vec![fs::metadata(journals.file(REQUEST)).expect("a file").len() as usize];
            for step in 0..6 {
                journal.add(&chosen(step)).expect("room");
                ends.push(fs::metadata(journals.file(REQUEST)).expect("a file").len() as usize);
            }
            let mut bytes = fs::read(journals.file(REQUEST)).expect("a file");
            let (cut, flip) = (cut % bytes.len(), flip % bytes.len());
            bytes[flip] ^= 1;
            bytes.truncate(cut);
            let whole = ends.iter().filter(|end| **end <= cut && **end <= flip).count();
            let expected = (whole > 0).then(|| (begun(), (0..whole as u32 - 1).map(chosen).collect()));
            prop_assert_eq!(parse(REQUEST, &bytes), expected);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(parse(REQUEST, &bytes), None);
        }
    }
}
