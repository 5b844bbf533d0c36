//! A file on its way: the bytes that came, and a record of which those are.
//!
//! `NAME.partial` has the full size from the start; `NAME.partial.state` says of each segment how
//! many of its bytes are in place. A counter is written after the bytes it counts, so that a process
//! may be killed at any moment and the next one asks for what is missing and for nothing else. After
//! a power failure the record may promise bytes that never reached the disk; the digest finds that.

use crate::listing::RemoteFile;
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// Of a file that is not complete.
pub(crate) const SUFFIX: &str = ".partial";
/// Of the record beside it.
pub(crate) const STATE_SUFFIX: &str = ".partial.state";

const MAGIC: &[u8; 8] = b"talkadl1";
/// Magic, the file's identity, the segments' size.
const HEADER_BYTES: usize = 8 + 32 + 8;
const COUNTER_BYTES: u64 = 8;

/// A run of bytes that one request may fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where its counter is; `None` if it is not recorded.
    pub number: Option<u64>,
    pub start: u64,
    pub end: u64,
    /// How many bytes from `start` on are in place.
    pub done: u64,
}

impl Segment {
    pub fn is_done(&self) -> bool {
        self.start + self.done >= self.end
    }
}

/// A file under way.
#[derive(Debug)]
pub(crate) struct Partial {
    data: PathBuf,
    state: PathBuf,
    pub segments: Vec<Segment>,
}

impl Partial {
    /// Goes on with what is at `path` if it belongs to `file` of `bytes`, else begins anew.
    pub fn open(path: &Path, file: &RemoteFile, bytes: u64, segment: u64) -> io::Result<Self> {
        let [data, state] = paths(path);
        let identity = identity(file, bytes);
        if let Some(segments) = resume(&data, &state, &identity, bytes)? {
            return Ok(Self { data, state, segments });
        }
        let segments = cut(bytes, segment.max(1));
        remove(&state)?;
        File::create(&data)?.set_len(bytes)?;
        let mut record = Vec::with_capacity(HEADER_BYTES + segments.len() * 8);
        record.extend_from_slice(MAGIC);
        record.extend_from_slice(&identity);
        record.extend_from_slice(&segment.max(1).to_le_bytes());
        record.resize(record.len() + segments.len() * 8, 0);
        // Under another name until it is whole: half a record is worse than none.
        let fresh = state.with_extension("new");
        fs::write(&fresh, &record)?;
        fs::rename(&fresh, &state)?;
        Ok(Self { data, state, segments })
    }

    /// Bytes in place.
    pub fn done(&self) -> u64 {
        self.segments.iter().map(|segment| segment.done).sum()
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Handles to write one segment with.
    pub fn writer(&self, segment: &Segment) -> io::Result<Writer> {
        let open = |path| OpenOptions::new().write(true).open(path);
        let mut data = open(&self.data)?;
        data.seek(SeekFrom::Start(segment.start + segment.done))?;
        let counter = match segment.number {
            Some(number) => {
                Some((open(&self.state)?, HEADER_BYTES as u64 + number * COUNTER_BYTES))
            }
            None => None,
        };
        Ok(Writer { data, counter, done: segment.done })
    }

    /// Gives the file its name, once its content is on the disk.
    pub fn finish(self, path: &Path) -> io::Result<()> {
        File::open(&self.data)?.sync_all()?;
        fs::rename(&self.data, path)?;
        remove(&self.state)
    }

    /// Throws away what came.
    pub fn discard(self) -> io::Result<()> {
        remove(&self.state)?;
        remove(&self.data)
    }
}

/// Writes one segment, front to back.
#[derive(Debug)]
pub(crate) struct Writer {
    data: File,
    counter: Option<(File, u64)>,
    done: u64,
}

impl Writer {
    /// Puts `bytes` in place, then counts them.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.data.write_all(bytes)?;
        self.done += bytes.len() as u64;
        if let Some((state, at)) = &mut self.counter {
            state.seek(SeekFrom::Start(*at))?;
            state.write_all(&self.done.to_le_bytes())?;
        }
        Ok(())
    }
}

/// Bytes already in place for the file that shall be at `path`.
pub(crate) fn bytes_in_place(path: &Path, file: &RemoteFile, bytes: u64) -> u64 {
    let [data, state] = paths(path);
    let resumed = resume(&data, &state, &identity(file, bytes), bytes).ok().flatten();
    resumed.map_or(0, |segments| segments.iter().map(|segment| segment.done).sum())
}

fn paths(path: &Path) -> [PathBuf; 2] {
    [SUFFIX, STATE_SUFFIX].map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    })
}

/// Two contents under one name never mix.
fn identity(file: &RemoteFile, bytes: u64) -> [u8; 32] {
    let digest = file.digest.as_ref().map(ToString::to_string).unwrap_or_default();
    Sha256::digest(format!("{}\n{bytes}\n{digest}", file.path)).into()
}

fn cut(bytes: u64, segment: u64) -> Vec<Segment> {
    let segments = (0..bytes.div_ceil(segment)).map(|number| {
        let start = number * segment;
        Segment { number: Some(number), start, end: bytes.min(start + segment), done: 0 }
    });
    segments.collect()
}

/// The segments as recorded; `None` if there is no record of this very file.
fn resume(
    data: &Path,
    state: &Path,
    identity: &[u8; 32],
    bytes: u64,
) -> io::Result<Option<Vec<Segment>>> {
    let Ok(mut opened) = File::open(state) else { return Ok(None) };
    if fs::metadata(data).map(|data| data.len()).ok() != Some(bytes) {
        return Ok(None);
    }
    let mut header = [0; HEADER_BYTES];
    if opened.read_exact(&mut header).is_err()
        || header[..8] != *MAGIC
        || header[8..40] != *identity
    {
        return Ok(None);
    }
    let segment = header[40..].iter().rev().fold(0, |n, byte| (n << 8) | u64::from(*byte));
    let expected = bytes.div_ceil(segment.max(1)) * COUNTER_BYTES;
    if segment == 0 || opened.metadata()?.len() != HEADER_BYTES as u64 + expected {
        return Ok(None);
    }
    let mut counters = Vec::new();
    opened.read_to_end(&mut counters)?;
    let mut segments = cut(bytes, segment);
    for (segment, counter) in segments.iter_mut().zip(counters.as_chunks::<8>().0) {
        segment.done = u64::from_le_bytes(*counter).min(segment.end - segment.start);
    }
    Ok(Some(segments))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file() -> RemoteFile {
        RemoteFile { path: "x".into(), bytes: Some(10), digest: None }
    }

    #[test]
    fn what_was_written_is_found_again_and_nothing_else_is() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("x");
        let partial = Partial::open(&path, &file(), 10, 4).expect("opens");
        let spans: Vec<_> = partial.segments.iter().map(|s| (s.start, s.end)).collect();
        assert_eq!(spans, [(0, 4), (4, 8), (8, 10)]);
        let mut writer = partial.writer(&partial.segments[1]).expect("a writer");
        writer.write(b"ef").expect("room");
        drop(writer);
        let again = Partial::open(&path, &file(), 10, 999).expect("opens");
        assert_eq!(again.segments.iter().map(|s| s.done).collect::<Vec<_>>(), [0, 2, 0]);
        assert_eq!(bytes_in_place(&path, &file(), 10), 2);

        let other = RemoteFile { digest: crate::Digest::of_text(&"a".repeat(40)), ..file() };
        assert_eq!(bytes_in_place(&path, &other, 10), 0, "another content");
        assert_eq!(Partial::open(&path, &other, 10, 4).expect("opens").done(), 0);
        assert_eq!(bytes_in_place(&path, &file(), 10), 0, "its record was replaced");
    }

    proptest! {
        /// A damaged record is no record, or a record within the file's bounds.
        #[test]
        fn damaged_records_never_lead_outside(at in 0_usize..72, byte: u8, keep in 0_usize..=72) {
            let folder = tempfile::tempdir().expect("temporary folder");
            let path = folder.path().join("x");
            drop(Partial::open(&path, &file(), 10, 4).expect("opens"));
            let [_, state] = paths(&path);
            let mut record = fs::read(&state).expect("a record");
            prop_assert_eq!(record.len(), 72);
            record[at] = byte;
            record.truncate(keep);
            fs::write(&state, record).expect("written");
            let partial = Partial::open(&path, &file(), 10, 4).expect("opens");
            prop_assert!(partial.segments.iter().all(|s| s.start + s.done <= s.end && s.end <= 10));
        }
    }
}
