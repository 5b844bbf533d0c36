//! Files of weights mapped into memory, and their bytes seen as numbers.
//!
//! A model's weights are read straight from the page cache: opening costs nothing, several processes
//! share one copy, and pages that no stage touches are never read.
//!
//! The file must not be shortened or rewritten while it is mapped. No platform offers a way to
//! enforce this: a shortened file kills the process on the next read, a rewritten one changes the
//! weights. Downloaders must write elsewhere and rename.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use half::{bf16, f16};
use memmap2::Mmap;

/// A whole file, mapped read-only. Dereferences to its bytes; the first byte lies on a page border.
#[derive(Debug)]
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// Whatever opening or mapping reports, an empty file included.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the mapping is read-only and private to this value. That the file is not changed
        // meanwhile is demanded of its owner in the module documentation.
        let map = unsafe { Mmap::map(&file) }?;
        Ok(Self(map))
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// A number that any bit pattern spells and that is stored little-endian in files of weights.
trait Plain: Copy {}
impl Plain for f32 {}
impl Plain for f16 {}
impl Plain for bf16 {}

fn view<T: Plain>(bytes: &[u8]) -> Option<&[T]> {
    if cfg!(target_endian = "big") {
        return None;
    }
    // SAFETY: every bit pattern is a valid `T` (see `Plain`), and `align_to` keeps the middle
    // aligned and inside `bytes`.
    let (before, middle, after) = unsafe { bytes.align_to::<T>() };
    (before.is_empty() && after.is_empty()).then_some(middle)
}

/// `bytes` as little-endian f32, or `None` if misaligned, of odd length or on a big-endian machine:
/// then the caller must copy.
pub fn view_f32(bytes: &[u8]) -> Option<&[f32]> {
    view(bytes)
}

/// `bytes` as little-endian f16; `None` as for [`view_f32`].
pub fn view_f16(bytes: &[u8]) -> Option<&[f16]> {
    view(bytes)
}

/// `bytes` as little-endian bf16; `None` as for [`view_f32`].
pub fn view_bf16(bytes: &[u8]) -> Option<&[bf16]> {
    view(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_mapped_file_shows_its_numbers() {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        for number in [1.0_f32, -2.5] {
            file.write_all(&number.to_le_bytes()).expect("written");
        }
        let mapped = MappedFile::open(file.path()).expect("mapped");
        assert_eq!(view_f32(&mapped), Some([1.0, -2.5].as_slice()));
        assert_eq!(view_bf16(&mapped).map(<[bf16]>::len), Some(4));
        assert_eq!(view_f16(&mapped[2..4]), Some([f16::from_bits(0x3f80)].as_slice()));
    }

    #[test]
    fn misaligned_or_ragged_bytes_are_refused() {
        let aligned = [0.0_f32; 4];
        // SAFETY: four floats are sixteen bytes.
        let bytes = unsafe { std::slice::from_raw_parts(aligned.as_ptr().cast::<u8>(), 16) };
        assert!(view_f32(bytes).is_some());
        assert!(view_f32(&bytes[1..13]).is_none());
        assert!(view_f32(&bytes[..7]).is_none());
        assert!(view_bf16(&bytes[1..3]).is_none());
        assert_eq!(view_f32(&bytes[..0]).map(<[f32]>::len), Some(0));
    }

    #[test]
    fn a_missing_file_is_an_error() {
        assert!(MappedFile::open(Path::new("/nowhere/at/all")).is_err());
    }
}
