//! Files of weights mapped into memory.
//!
//! A model's weights are read straight from the page cache: opening costs nothing, several processes
//! share one copy, and pages that no stage touches are never read.
//!
//! The file must not be shortened or rewritten while it is mapped. No platform offers a way to
//! enforce this: a shortened file kills the process on the next read, a rewritten one changes the
//! weights. Downloaders must write elsewhere and rename.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

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

    /// Gives back the memory of pages that nobody will read soon: weights that were packed. They come
    /// again from the file if somebody does.
    pub fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        {
            use memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the mapping is of a file and never written: a page that was dropped comes back with
            // the same bytes. That the advice is not followed costs memory alone.
            let _ = unsafe { self.0.unchecked_advise_range(DontNeed, range.start, range.len()) };
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_mapped_file_shows_its_bytes() {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        for number in [1.0_f32, -2.5] {
            file.write_all(&number.to_le_bytes()).expect("written");
        }
        let mapped = MappedFile::open(file.path()).expect("mapped");
        assert_eq!(*mapped, [0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0]);
    }

    #[test]
    fn a_missing_file_is_an_error() {
        assert!(MappedFile::open(Path::new("/nowhere/at/all")).is_err());
    }
}
