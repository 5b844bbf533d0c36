//! Pieces on the disk. A tensor is `N.part` while pieces come, in any order, and `N.tensor` when it is whole and
//! durable. What of a part is right is told by its hashes, so a crash at any moment loses a piece at most. Where
//! the outline has none, `N.hashes` has those of the pieces as they came.

use crate::core::fetch::PieceId;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use talka_engine::{PIECE_BYTES, PartialModel};

/// Of BLAKE3.
const HASH_BYTES: usize = 32;

/// The tensors of one fetch.
#[derive(Debug)]
pub(super) struct Pieces {
    model: Arc<PartialModel>,
    /// What each tensor still lacks.
    left: BTreeMap<u32, BTreeSet<u32>>,
    /// Bytes of all tensors wanted, and those of them that are here.
    bytes: u64,
    bytes_here: u64,
    /// Where the latter are written for others to see.
    seen: Arc<AtomicU64>,
}

impl Pieces {
    /// Looks what is here of the tensors with these numbers.
    ///
    /// # Errors
    /// Whatever the operating system reports.
    pub(super) fn open(
        model: Arc<PartialModel>,
        numbers: impl IntoIterator<Item = usize>,
    ) -> io::Result<Self> {
        let mut pieces =
            Self { model, left: BTreeMap::new(), bytes: 0, bytes_here: 0, seen: Arc::default() };
        for number in numbers {
            pieces.look(number)?;
        }
        Ok(pieces)
    }

    fn look(&mut self, number: usize) -> io::Result<()> {
        let model = Arc::clone(&self.model);
        let tensor = &model.outline().tensors()[number];
        self.bytes += tensor.bytes();
        let is_whole =
            fs::metadata(model.tensor_path(number)).is_ok_and(|file| file.len() == tensor.bytes());
        if is_whole || tensor.bytes() == 0 {
            self.bytes_here += tensor.bytes();
            return Ok(());
        }
        let mut left: BTreeSet<u32> = (0..).take(tensor.piece_count()).collect();
        let noted = match tensor.pieces() {
            [] => self.noted(number as u32)?,
            hashes => hashes.to_vec(),
        };
        if let Ok(mut file) = File::open(self.part(number as u32)) {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            for (count, hash) in (0..).zip(&noted).take(tensor.piece_count()) {
                piece.clear();
                (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
                if blake3::hash(&piece) == *hash {
                    left.remove(&count);
                    self.bytes_here += piece.len() as u64;
                }
            }
        }
        if left.is_empty() {
            return self.complete(number as u32);
        }
        self.left.insert(number as u32, left);
        Ok(())
    }

    fn part(&self, number: u32) -> PathBuf {
        self.model.folder().join(format!("{number}.part"))
    }

    /// The hashes of the pieces of a part as they came; zeros for those that did not.
    fn noted(&self, number: u32) -> io::Result<Vec<[u8; HASH_BYTES]>> {
        match fs::read(self.hashes(number)) {
            Ok(bytes) => Ok(bytes.as_chunks().0.to_vec()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn hashes(&self, number: u32) -> PathBuf {
        self.model.folder().join(format!("{number}.hashes"))
    }

    /// Where they are.
    pub(super) fn folder(&self) -> &Path {
        self.model.folder()
    }

    /// Bytes that are here, and those of all tensors wanted.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.bytes_here, self.bytes)
    }

    /// Has the bytes that are here written to `seen` whenever they become more.
    pub(super) fn watch(&mut self, seen: Arc<AtomicU64>) {
        self.seen = seen;
    }

    /// What is not here.
    pub(super) fn left(&self) -> Vec<PieceId> {
        let ids =
            self.left.iter().flat_map(|(tensor, left)| left.iter().map(|piece| (*tensor, *piece)));
        ids.map(|(tensor, piece)| PieceId { tensor, piece }).collect()
    }

    /// What is not here, with its hash by the outline.
    pub(super) fn missing(&self) -> Vec<(PieceId, [u8; 32])> {
        let tensors = self.model.outline().tensors();
        let hash =
            |id: &PieceId| tensors[id.tensor as usize].pieces().get(id.piece as usize).copied();
        self.left().into_iter().filter_map(|id| Some((id, hash(&id)?))).collect()
    }

    /// Keeps a piece that is right.
    ///
    /// # Errors
    /// Whatever the operating system reports, such as a full disk.
    pub(super) fn keep(&mut self, id: PieceId, bytes: &[u8]) -> io::Result<()> {
        let path = self.part(id.tensor);
        let mut file = File::options().create(true).truncate(false).write(true).open(path)?;
        file.seek(SeekFrom::Start(u64::from(id.piece) * PIECE_BYTES as u64))?;
        file.write_all(bytes)?;
        if self.model.outline().tensors()[id.tensor as usize].pieces().is_empty() {
            let path = self.hashes(id.tensor);
            let mut hashes = File::options().create(true).truncate(false).write(true).open(path)?;
            hashes.seek(SeekFrom::Start(u64::from(id.piece) * HASH_BYTES as u64))?;
            hashes.write_all(blake3::hash(bytes).as_bytes())?;
        }
        self.bytes_here += bytes.len() as u64;
        self.seen.store(self.bytes_here, Ordering::Relaxed);
        let Some(left) = self.left.get_mut(&id.tensor) else { return Ok(()) };
        left.remove(&id.piece);
        if left.is_empty() {
            self.left.remove(&id.tensor);
            self.complete(id.tensor)?;
        }
        Ok(())
    }

    /// Gives a whole tensor its name once its bytes are on the disk.
    fn complete(&self, number: u32) -> io::Result<()> {
        let part = self.part(number);
        let file = File::options().write(true).open(&part)?;
        file.set_len(self.model.outline().tensors()[number as usize].bytes())?;
        file.sync_all()?;
        fs::rename(part, self.model.tensor_path(number as usize))?;
        match fs::remove_file(self.hashes(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use talka_engine::{Model, ModelSource, Outline, Sample, Survey, header_bytes};

    fn partial(folder: &Path) -> (Model, Arc<PartialModel>) {
        let bard = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/models/bard");
        let source = ModelSource::Folder(bard);
        let outline = Outline::of(&source).expect("an outline");
        let model = Model::open(source).expect("the bundled model opens");
        (model, Arc::new(PartialModel::new("bard".into(), folder.into(), outline)))
    }

    fn bytes(model: &Model, partial: &PartialModel, id: PieceId) -> Vec<u8> {
        let tensor = &partial.outline().tensors()[id.tensor as usize];
        model.piece(tensor.name(), id.piece as usize).expect("it is there").to_vec()
    }

    /// Goal: what was kept counts after a restart, what a crash damaged does not.
    #[test]
    fn a_fetch_goes_on_where_it_was_cut() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (model, partial) = partial(folder.path());
        // The only tensor with more than one piece, and a small one.
        let long = partial.outline().tensors().iter().position(|t| t.pieces().len() > 1);
        let numbers = || [long.expect("the embedding"), 3];
        let open = || Pieces::open(Arc::clone(&partial), numbers()).expect("readable");
        let mut pieces = open();
        let missing = pieces.missing();
        assert_eq!((missing.len(), pieces.bytes_here), (3, 0));
        // Backwards: order does not matter.
        let (last, first) = (missing[missing.len() - 1].0, missing[0].0);
        let second = missing[1].0;
        for id in [last, second] {
            pieces.keep(id, &bytes(&model, &partial, id)).expect("kept");
        }
        let here = pieces.bytes_here;
        drop(pieces);
        let again = open();
        assert_eq!(again.bytes_here, here);
        assert_eq!(again.missing().iter().map(|(id, _)| *id).collect::<Vec<_>>(), [first]);
        let mut again = again;
        again.keep(first, &bytes(&model, &partial, first)).expect("kept");
        assert_eq!(again.bytes_here, again.bytes);
        assert_eq!(open().missing(), []);
        let whole = fs::read(partial.tensor_path(first.tensor as usize)).expect("whole");
        let pieces = (0..).map_while(|n| {
            model.piece(partial.outline().tensors()[first.tensor as usize].name(), n)
        });
        assert_eq!(whole, pieces.flatten().copied().collect::<Vec<u8>>());
    }

    #[test]
    fn a_damaged_piece_is_fetched_again() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (model, partial) = partial(folder.path());
        let long = partial.outline().tensors().iter().position(|t| t.pieces().len() > 1);
        let long = long.expect("the embedding");
        let mut pieces = Pieces::open(Arc::clone(&partial), [long]).expect("readable");
        let [(first, _), (second, _)] = pieces.missing()[..] else { panic!("two pieces") };
        pieces.keep(first, &bytes(&model, &partial, first)).expect("kept");
        let part = folder.path().join(format!("{long}.part"));
        let mut damaged = fs::read(&part).expect("begun");
        damaged[7] ^= 1;
        fs::write(&part, damaged).expect("written");
        let again = Pieces::open(partial, [long]).expect("readable");
        let missing: Vec<_> = again.missing().into_iter().map(|(id, _)| id).collect();
        assert_eq!(missing, [first, second]);
    }

    /// Goal: without hashes to go by, what came is told by the hashes it came with.
    #[test]
    fn what_came_without_hashes_is_found_again_if_it_is_sound() {
        let bard = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/models/bard");
        let weights = fs::read(bard.join("model.safetensors")).expect("weights");
        let (name, length) = ("model.safetensors", weights.len() as u64);
        let header = header_bytes(name, length, &weights[..8]).expect("a header") as usize;
        let header = (name.to_owned(), length, weights[..header].to_vec());
        let survey = Survey::new(&[header]).expect("a survey");
        let read = |sample: Sample| {
            weights[sample.range.start as usize..sample.range.end as usize].to_vec()
        };
        let samples = survey.samples().into_iter().map(read).collect();
        let surveyed = survey.finish(&bard, samples).expect("samples");
        let folder = tempfile::tempdir().expect("temporary folder");
        let outline = surveyed.outline().clone();
        let partial = Arc::new(PartialModel::new("bard".into(), folder.path().into(), outline));
        let tensors = partial.outline().tensors();
        let long = tensors.iter().position(|t| t.piece_count() == 2).expect("the embedding");
        let piece = |number: u32| {
            let start = surveyed.place(long).expect("a place").start as usize;
            let range = tensors[long].piece_range(number as usize).expect("a piece");
            &weights[start + range.start as usize..start + range.end as usize]
        };
        let open = || Pieces::open(Arc::clone(&partial), [long]).expect("readable");
        let id = |piece| PieceId { tensor: long as u32, piece };
        assert_eq!(open().left(), [id(0), id(1)]);
        open().keep(id(1), piece(1)).expect("kept");
        assert_eq!((open().left(), open().bytes_here), (vec![id(0)], piece(1).len() as u64));
        let part = folder.path().join(format!("{long}.part"));
        let mut damaged = fs::read(&part).expect("begun");
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        fs::write(&part, damaged).expect("written");
        let mut again = open();
        assert_eq!(again.left(), [id(0), id(1)]);
        for number in [0, 1] {
            again.keep(id(number), piece(number)).expect("kept");
        }
        assert_eq!(open().left(), []);
        let whole = fs::read(partial.tensor_path(long)).expect("whole");
        assert!(whole == [piece(0), piece(1)].concat());
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }
}
