//! What a node's part in the rounds of a job made durable: `records` in the job's folder.
//!
//! One record after the other: its length (u32), its bytes, and the first eight bytes of their BLAKE3. Each is on the disk before
//! anything that follows from it is done. A crash may cut the last one off, which nothing followed from then.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};
use talka_base::{decode, encode};
use talka_train::{
    files::{self, FileError},
    round::Record,
};

const NAME: &str = "records";
const CHECK_BYTES: usize = 8;
/// A longer file is replaced by what gives the same machine.
const LONG_BYTES: u64 = 1 << 20;

/// The file, to add to.
pub(super) struct Records {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Records {
    /// The file in `folder`, and the records that it has.
    pub(super) fn open(folder: &Path) -> Result<(Self, Vec<Record>), FileError> {
        let path = folder.join(NAME);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(|source| FileError::reading(&path, source))?,
        };
        let mut records = Vec::new();
        let mut rest = &bytes[..];
        while let Some((record, after)) = first(rest) {
            records.push(record);
            rest = after;
        }
        let whole = (bytes.len() - rest.len()) as u64;
        let opened = open(&path).and_then(|file| {
            file.set_len(whole)?;
            Ok(file)
        });
        let file = opened.map_err(|source| FileError::writing(&path, source))?;
        Ok((Self { path, file, bytes: whole }, records))
    }

    /// Makes `record` durable.
    pub(super) fn add(&mut self, record: &Record) -> Result<(), FileError> {
        let line = line(record);
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        written.map_err(|source| FileError::writing(&self.path, source))?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Whether so much is there that it had better be said anew.
    pub(super) fn is_long(&self) -> bool {
        self.bytes > LONG_BYTES
    }

    /// Puts `records` in the place of all that is there.
    pub(super) fn replace(&mut self, records: &[Record]) -> Result<(), FileError> {
        let lines: Vec<u8> = records.iter().flat_map(line).collect();
        files::write(&self.path, &lines)?;
        self.file = open(&self.path).map_err(|source| FileError::writing(&self.path, source))?;
        self.bytes = lines.len() as u64;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn line(record: &Record) -> Vec<u8> {
    let bytes = encode(record);
    let check = blake3::hash(&bytes);
    let mut line = (bytes.len() as u32).to_le_bytes().to_vec();
    line.extend(&bytes);
    line.extend(&check.as_bytes()[..CHECK_BYTES]);
    line
}

fn first(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (record, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let (check, rest) = rest.split_at_checked(CHECK_BYTES)?;
    let is_right = blake3::hash(record).as_bytes().starts_with(check);
    Some((is_right.then(|| decode(record).ok())??, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use talka_base::WeightsHash;

    #[test]
    fn records_outlive_a_crash_at_any_byte() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut records, none) = Records::open(folder.path()).expect("opened");
        assert!(none.is_empty());
        let all: Vec<_> = (0..4).map(|n| Record::Took(n, WeightsHash([n as u8; 32]))).collect();
        let mut ends = vec![0];
        for record in &all {
            records.add(record).expect("written");
            ends.push(records.bytes as usize);
        }
        let path = folder.path().join(NAME);
        let whole = fs::read(&path).expect("read");
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).expect("written");
            let (mut records, found) = Records::open(folder.path()).expect("opened");
            let expected = ends.iter().rposition(|end| *end <= cut).expect("the first is 0");
            assert_eq!(found, all[..expected], "cut at {cut}");
            // What is added then stands behind what was whole.
            records.add(&all[0]).expect("written");
            let (_, found) = Records::open(folder.path()).expect("opened");
            assert_eq!(found.len(), expected + 1);
        }
        let (mut records, _) = Records::open(folder.path()).expect("opened");
        records.replace(&all[2..]).expect("replaced");
        records.add(&all[0]).expect("written");
        let (_, found) = Records::open(folder.path()).expect("opened");
        assert_eq!(found, [all[2].clone(), all[3].clone(), all[0].clone()]);
    }
}
