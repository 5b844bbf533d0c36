//! Files that are there whole or not at all.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What went wrong with a file.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be {what}: {source}", path.display())]
pub struct FileError {
    path: PathBuf,
    what: &'static str,
    source: std::io::Error,
}

impl FileError {
    /// What a failed attempt to write is told as.
    pub fn writing(path: &Path, source: std::io::Error) -> Self {
        Self { path: path.to_owned(), what: "written", source }
    }

    /// What a failed attempt to read is told as.
    pub fn reading(path: &Path, source: std::io::Error) -> Self {
        Self { path: path.to_owned(), what: "read", source }
    }
}

/// Writes `contents` beside `path`, waits until the disk has them, and then gives them the name: after a crash the old
/// file or the new one is there.
///
/// # Errors
/// The file cannot be written; an old one is still there.
pub fn write(path: &Path, contents: &[u8]) -> Result<(), FileError> {
    let write = || {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let part = path.with_file_name(name);
        let mut file = File::create(&part)?;
        file.write_all(contents)?;
        file.sync_all()?;
        std::fs::rename(&part, path)?;
        // The name itself lasts once the folder was written.
        match path.parent() {
            Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
            _ => Ok(()),
        }
    };
    write().map_err(|source| FileError::writing(path, source))
}

/// All of a file.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(|source| FileError::reading(path, source))
}
