//! What heads signed for stages here and have not settled: a file of vouchers.
//!
//! A record is its length (4 bytes, little endian) and the sealed encoding of a signed voucher. One is written for each
//! voucher that a stage takes, and handed to the operating system without waiting for the disk: a killed process
//! loses none. [`VoucherFile::flusher`] waits for the disk, now and then; a power failure takes what came after that, and the
//! next voucher of the lane makes it good. Reading ends at the first record that is torn or altered. Decides nothing
//! of what is kept: whoever does writes the file anew when it has grown.

use super::{StoreError, seal};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};
use talka_base::{RequestId, Signed, decode, encode};
use talka_ledger::Voucher;

/// The longest file that is read: more than is ever kept.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// A file that is no longer than this is never written anew.
const FILE_BYTES_MIN: u64 = 256 << 10;
/// What a record is sealed under: vouchers name themselves what they are for.
const KEY: &[u8] = b"voucher";

/// The file `vouchers` of a data directory, open for more.
#[derive(Debug)]
pub struct VoucherFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Its length when it was last written anew.
    bytes_at_first: u64,
    is_flushed: bool,
    /// A record is not there in full, and hides what follows.
    is_torn: bool,
}

impl VoucherFile {
    /// Opens or creates the file; also the highest voucher of each lane in it.
    ///
    /// # Errors
    /// [`StoreError::DataDir`].
    pub fn open(data_dir: &Path) -> Result<(Self, Vec<Signed<Voucher>>), StoreError> {
        let path = data_dir.join("vouchers");
        let opened = || -> io::Result<_> {
            let vouchers = match File::open(&path) {
                Ok(file) => {
                    let mut bytes = Vec::new();
                    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
                    highest(&bytes)
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                Err(error) => return Err(error),
            };
            // What follows damage could never be read: it goes.
            let (file, bytes) = write_anew(&path, &vouchers)?;
            let bytes_at_first = bytes;
            let path = path.clone();
            Ok((
                Self { path, file, bytes, bytes_at_first, is_flushed: true, is_torn: false },
                vouchers,
            ))
        };
        opened().map_err(|source| StoreError::DataDir { dir: data_dir.into(), source })
    }

    /// Adds a voucher. It outlives this process when this returns.
    ///
    /// # Errors
    /// Whatever the disk says; what follows cannot be read any more before the file is written anew.
    pub fn add(&mut self, voucher: &Signed<Voucher>) -> io::Result<()> {
        let record = record(voucher);
        self.file.write_all(&record).inspect_err(|_| self.is_torn = true)?;
        self.bytes += record.len() as u64;
        self.is_flushed = false;
        Ok(())
    }

    /// Whether so much was added that writing it anew is worth it, or something could not be.
    pub fn has_grown(&self) -> bool {
        self.is_torn || self.bytes > FILE_BYTES_MIN.max(2 * self.bytes_at_first)
    }

    /// Writes only these, in place of all.
    ///
    /// # Errors
    /// Whatever the disk says; the file is then as it was.
    pub fn rewrite(&mut self, vouchers: &[Signed<Voucher>]) -> io::Result<()> {
        let (file, bytes) = write_anew(&self.path, vouchers)?;
        (self.file, self.bytes, self.bytes_at_first) = (file, bytes, bytes);
        (self.is_flushed, self.is_torn) = (false, false);
        Ok(())
    }

    /// Something that waits until all that was added is on the disk; nothing if it was asked for before.
    ///
    /// # Errors
    /// Whatever the system says about one more handle.
    pub fn flusher(
        &mut self,
    ) -> io::Result<Option<impl FnOnce() -> io::Result<()> + Send + 'static>> {
        if std::mem::replace(&mut self.is_flushed, true) {
            return Ok(None);
        }
        let file = self.file.try_clone()?;
        Ok(Some(move || file.sync_data()))
    }
}

fn record(voucher: &Signed<Voucher>) -> Vec<u8> {
    seal::record(KEY, &encode(voucher))
}

fn write_anew(path: &Path, vouchers: &[Signed<Voucher>]) -> io::Result<(File, u64)> {
    let unfinished = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(&unfinished)?;
    let bytes: Vec<u8> = vouchers.iter().flat_map(record).collect();
    file.write_all(&bytes)?;
    file.sync_data()?;
    fs::rename(&unfinished, path)?;
    Ok((file, bytes.len() as u64))
}

/// The highest voucher of each lane, up to the first damage.
fn highest(mut rest: &[u8]) -> Vec<Signed<Voucher>> {
    let mut found = BTreeMap::<(RequestId, u16), Signed<Voucher>>::new();
    while let Some(voucher) = next(&mut rest) {
        let of = |voucher: &Signed<Voucher>| voucher.claimed_value().seq;
        let lane = (voucher.claimed_value().session, voucher.claimed_value().lane);
        if found.get(&lane).is_none_or(|before| of(before) < of(&voucher)) {
            found.insert(lane, voucher);
        }
    }
    found.into_values().collect()
}

/// The voucher at the start of `rest`, which then begins after it.
fn next(rest: &mut &[u8]) -> Option<Signed<Voucher>> {
    decode(seal::next(KEY, rest)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use talka_base::{Credits, Keypair, ModelId, NetworkId, NodeId, VoucherHash};

    fn voucher(session: u8, lane: u16, seq: u32) -> Signed<Voucher> {
        let voucher = Voucher {
            network: NetworkId([1; 32]),
            session: RequestId([session; 16]),
            lane,
            worker: NodeId([2; 32]),
            seq,
            amount: Credits(u64::from(seq) * 10),
            tokens_in: 1,
            tokens_out: seq,
            model: ModelId([3; 32]),
            route_root: [4; 32],
            commitment_root: [0; 32],
            previous: VoucherHash([0; 32]),
        };
        Keypair::from_secret(&[9; 32]).sign(voucher)
    }

    fn open(dir: &Path) -> (VoucherFile, Vec<Signed<Voucher>>) {
        VoucherFile::open(dir).expect("a folder")
    }

    #[test]
    fn the_highest_voucher_of_each_lane_is_read_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut file, kept) = open(dir.path());
        assert!(kept.is_empty());
        for (session, lane, seq) in [(1, 0, 1), (1, 1, 1), (1, 0, 2), (2, 0, 5), (1, 0, 3)] {
            file.add(&voucher(session, lane, seq)).expect("room");
        }
        drop(file);
        let expected = [voucher(1, 0, 3), voucher(1, 1, 1), voucher(2, 0, 5)];
        let (mut file, kept) = open(dir.path());
        assert_eq!(kept, expected);
        file.rewrite(&expected[1..]).expect("room");
        file.add(&voucher(3, 0, 1)).expect("room");
        let flush = file.flusher().expect("a handle").expect("something was added");
        flush().expect("a disk");
        assert!(file.flusher().expect("a handle").is_none(), "nothing since");
        drop(file);
        let kept = open(dir.path()).1;
        assert_eq!(kept, [voucher(1, 1, 1), voucher(2, 0, 5), voucher(3, 0, 1)]);
    }

    #[test]
    fn a_file_that_grew_is_written_anew_and_no_short_one_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut file, _) = open(dir.path());
        let one = voucher(1, 0, 1);
        let mut added = 0;
        while !file.has_grown() {
            file.add(&one).expect("room");
            added += 1;
        }
        assert!(added > 500, "{added} vouchers are no long file");
        file.rewrite(std::slice::from_ref(&one)).expect("room");
        assert!(!file.has_grown());
        assert_eq!(open(dir.path()).1, [one]);
    }

    proptest! {
        /// Whatever a crash or a disk makes of the file, what was before the damage is read, and more can be added.
        #[test]
        fn damage_hides_vouchers_that_follow_it_only(cut in 0_usize..2_000, flip in 0_usize..2_000) {
            let dir = tempfile::tempdir().expect("a folder");
            let (mut file, _) = open(dir.path());
            let mut ends = Vec::new();
            for lane in 0..5 {
                file.add(&voucher(1, lane, 1)).expect("room");
                ends.push(file.bytes as usize);
            }
            let path = dir.path().join("vouchers");
            let mut bytes = fs::read(&path).expect("a file");
            let (cut, flip) = (cut % bytes.len(), flip % bytes.len());
            bytes[flip] ^= 1;
            bytes.truncate(cut);
            fs::write(&path, &bytes).expect("written");
            let whole = ends.iter().filter(|end| **end <= cut && **end <= flip).count() as u16;
            let (mut file, kept) = open(dir.path());
            prop_assert_eq!(kept, (0..whole).map(|lane| voucher(1, lane, 1)).collect::<Vec<_>>());
            file.add(&voucher(1, 9, 1)).expect("room");
            prop_assert_eq!(open(dir.path()).1.len(), usize::from(whole) + 1);
        }
    }
}
