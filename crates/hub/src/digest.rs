//! What proves that a file is the one its repository names.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
};

const READ_BYTES: usize = 1 << 20;

/// A file's digest, lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Digest {
    /// SHA-256 of the content: of large files, which the hub keeps outside git.
    Sha256(String),
    /// git's name for the content: SHA-1 of `blob SIZE\0` and the content.
    GitBlob(String),
}

impl Digest {
    /// By its length; `None` if `text` is neither.
    pub(crate) fn of_text(text: &str) -> Option<Self> {
        let text = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
        if !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        match text.len() {
            64 => Some(Self::Sha256(text)),
            40 => Some(Self::GitBlob(text)),
            _ => None,
        }
    }

    /// The digest of the file at `path`, of the same kind as this one.
    pub(crate) fn of_file(&self, path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let mut buffer = vec![0; READ_BYTES];
        match self {
            Self::Sha256(_) => {
                let mut sha = Sha256::new();
                each(&mut file, &mut buffer, |piece| sha.update(piece))?;
                let hex = sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
                Ok(Self::Sha256(hex))
            }
            Self::GitBlob(_) => {
                let mut sha = sha1_smol::Sha1::from(format!("blob {bytes}\0"));
                each(&mut file, &mut buffer, |piece| sha.update(piece))?;
                Ok(Self::GitBlob(sha.digest().to_string()))
            }
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(hex) => write!(f, "SHA-256 {hex}"),
            Self::GitBlob(hex) => write!(f, "git blob {hex}"),
        }
    }
}

fn each(file: &mut File, buffer: &mut [u8], mut take: impl FnMut(&[u8])) -> io::Result<()> {
    loop {
        match file.read(buffer)? {
            0 => return Ok(()),
            n => take(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_told_by_length_and_agree_with_the_tools_that_made_them() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("x");
        std::fs::write(&path, "hello\n").expect("a file");
        // `sha256sum` and `git hash-object`.
        for text in [
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
            "ce013625030ba8dba906f756967f9e9ca394464a",
        ] {
            let digest = Digest::of_text(text).expect("a digest");
            assert_eq!(digest.of_file(&path).expect("readable"), digest);
        }
        assert_eq!(Digest::of_text("ce01"), None);
        assert_eq!(Digest::of_text(&"g".repeat(64)), None);
    }
}
