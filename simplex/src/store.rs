//! A member's records in a file, each on disk before the next thing is done.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use talka_base::{Encoded, decode, encode};
use talka_ledger::{
    Block,
    order::{Batch, Record},
};

/// What was written to disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk {
    /// Waits until the disk has everything.
    pub syncs: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// Counts what a store writes.
#[derive(Debug, Default)]
pub struct Counts {
    syncs: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    /// Until now.
    pub fn read(&self) -> Disk {
        let [syncs, bytes] = [&self.syncs, &self.bytes].map(|count| count.load(Ordering::Relaxed));
        Disk { syncs, bytes }
    }
}

/// The file, and the final blocks in it.
#[derive(Debug)]
pub struct Store {
    file: File,
    counts: Arc<Counts>,
    /// By text: blocks that may become final.
    signed: BTreeMap<String, Batch>,
    /// By the height at which they begin.
    finals: BTreeMap<u64, Batch>,
}

impl Store {
    /// Opens the file, and gives what is in it, up to where it was torn.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn open(path: &Path, counts: Arc<Counts>) -> io::Result<(Self, Vec<Record>)> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut rest = bytes.as_slice();
        let mut records = Vec::new();
        while let Some((record, after)) = first(rest) {
            records.push(record);
            rest = after;
        }
        let whole = (bytes.len() - rest.len()) as u64;
        file.set_len(whole)?;
        file.seek(SeekFrom::Start(whole))?;
        let mut store = Self { file, counts, signed: BTreeMap::new(), finals: BTreeMap::new() };
        records.iter().for_each(|record| store.index(record));
        Ok((store, records))
    }

    /// Appends a record, and waits until the disk has it.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn put(&mut self, record: &Record) -> io::Result<()> {
        let body = encode(record);
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        let bytes = [length.to_le_bytes().as_slice(), &body].concat();
        self.file.write_all(&bytes)?;
        self.file.sync_data()?;
        self.counts.syncs.fetch_add(1, Ordering::Relaxed);
        self.counts.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.index(record);
        Ok(())
    }

    /// The final block that begins at a height.
    pub fn stored(&self, first: u64) -> Option<&Batch> {
        self.finals.get(&first)
    }

    fn index(&mut self, record: &Record) {
        match record {
            Record::Signed(batch) => {
                self.signed.insert(batch.note.text().into(), batch.clone());
            }
            Record::Final(note) => {
                if let Some(batch) = self.signed.remove(note.text()) {
                    self.keep(Batch { note: note.clone(), entries: batch.entries });
                }
            }
            Record::Taken(batch) => self.keep(batch.clone()),
            Record::Promised(_) | Record::Evidence(_) => {}
        }
    }

    fn keep(&mut self, batch: Batch) {
        if let Ok(block) = batch.note.text().parse::<Block>() {
            self.signed.retain(|text, _| {
                text.parse::<Block>().is_ok_and(|signed| signed.number > block.number)
            });
            self.finals.insert(block.first, batch);
        }
    }
}

/// The first record of `bytes`, and what follows it.
fn first(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if length > Record::SIZE_MAX {
        return None;
    }
    let (body, rest) = rest.split_at_checked(length)?;
    Some((decode(body).ok()?, rest))
}
