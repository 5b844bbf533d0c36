//! The node's ed25519 key and the file that holds it.
//!
//! The file is two lines, `secret HEX` and `public HEX`: the second lets a damaged file be told from
//! another node. It is created once, complete or not at all, readable by its owner only, and never
//! overwritten. On Unix a file that others can read is refused; elsewhere the folder's own
//! protection is all there is.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};
use talka_base::{Keypair, NodeId, hex};

/// Both lines are 143 bytes; anything much longer is another file and is not read in.
const FILE_BYTES_MAX: u64 = 1024;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in each message")]
pub enum IdentityError {
    /// The operating system refused.
    #[error("cannot {doing} the identity file {path}: {source}", path = path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    /// Others may have copied the key.
    #[error(
        "the identity file {path} has mode {mode:03o}, so others can read the node's secret key; \
         expected 600: run chmod 600 {path}, and if others use this machine, start anew without it",
        path = path.display()
    )]
    Exposed { path: PathBuf, mode: u32 },
    /// Not what this program writes.
    #[error(
        "the identity file {path} is damaged: {reason}; restore it from a backup, or move it away \
         to start as a new node",
        path = path.display()
    )]
    Damaged { path: PathBuf, reason: &'static str },
}

/// Who this node is. The secret half is never shown.
#[derive(Clone)]
pub struct Identity(Keypair);

impl Identity {
    /// Reads the key at `path`. If there is no such file, makes the key of `entropy` and stores it
    /// durably first; the folder must exist.
    ///
    /// `entropy` must come fresh from the operating system: who knows it is this node.
    ///
    /// # Errors
    /// [`IdentityError`]; an existing file is never changed.
    pub fn load_or_create(path: &Path, entropy: [u8; 32]) -> Result<Self, IdentityError> {
        if let Some(kept) = Self::load(path)? {
            return Ok(kept);
        }
        let keypair = Keypair::from_secret(&entropy);
        create(path, &text(&keypair)).map_err(failed("create", path))?;
        Ok(Self(keypair))
    }

    /// The identity kept in the file `path`; nothing if there is no such file.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load(path: &Path) -> Result<Option<Self>, IdentityError> {
        match File::open(path) {
            Ok(file) => Self::read(path, &file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed("open", path)(source)),
        }
    }

    /// The key pair, to sign with and to bind an endpoint.
    pub const fn keypair(&self) -> &Keypair {
        &self.0
    }

    /// The public half.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.0.public())
    }

    fn read(path: &Path, file: &File) -> Result<Self, IdentityError> {
        check_mode(path, file)?;
        let mut found = String::new();
        file.take(FILE_BYTES_MAX).read_to_string(&mut found).map_err(failed("read", path))?;
        parse(&found)
            .map(Self)
            .map_err(|reason| IdentityError::Damaged { path: path.into(), reason })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.node_id())
    }
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> IdentityError + 'a {
    move |source| IdentityError::Io { doing, path: path.into(), source }
}

fn text(keypair: &Keypair) -> String {
    format!("secret {}\npublic {}\n", hex::show(&keypair.secret()), hex::show(&keypair.public()))
}

fn parse(found: &str) -> Result<Keypair, &'static str> {
    let mut lines = found.lines();
    let mut line = |name| {
        lines
            .next()
            .and_then(|line| line.strip_prefix(name))
            .and_then(|digits| hex::parse::<32>(digits).ok())
    };
    let secret = line("secret ").ok_or("expected \"secret\" and 64 hexadecimal digits first")?;
    let public = line("public ").ok_or("expected \"public\" and 64 hexadecimal digits second")?;
    let keypair = Keypair::from_secret(&secret);
    if keypair.public() != public {
        return Err("its public key does not belong to its secret key");
    }
    if lines.next().is_some() {
        return Err("expected two lines, found more");
    }
    Ok(keypair)
}

/// Writes beside `path`, then moves into place unless a file appeared there meanwhile, so that a
/// crash leaves all or nothing. Temporary files have mode 0600 from the start.
fn create(path: &Path, text: &str) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    // The name is durable only once its folder is. Folders cannot be opened on Windows.
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

#[cfg(unix)]
fn check_mode(path: &Path, file: &File) -> Result<(), IdentityError> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = file.metadata().map_err(failed("inspect", path))?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(IdentityError::Exposed { path: path.into(), mode }) }
}

#[cfg(not(unix))]
fn check_mode(_path: &Path, _file: &File) -> Result<(), IdentityError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    #[test]
    fn is_created_once_and_then_loaded() {
        let folder = folder();
        let path = folder.path().join("identity.key");
        let created = Identity::load_or_create(&path, [1; 32]).expect("created");
        let loaded = Identity::load_or_create(&path, [2; 32]).expect("loaded");
        assert_eq!(created.node_id(), loaded.node_id());
        assert_eq!(created.node_id(), NodeId(Keypair::from_secret(&[1; 32]).public()));
        let names = fs::read_dir(folder.path()).expect("readable").count();
        assert_eq!(names, 1, "nothing but the key is left behind");
    }

    #[cfg(unix)]
    #[test]
    fn is_private_and_refused_once_exposed() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = folder();
        let path = folder.path().join("identity.key");
        Identity::load_or_create(&path, [1; 32]).expect("created");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("mode set");
        let error = Identity::load_or_create(&path, [1; 32]).expect_err("others can read it");
        assert!(matches!(error, IdentityError::Exposed { mode: 0o640, .. }), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    /// A file of `found` is refused, for a reason that contains `expected`, and left alone.
    fn check_damaged(found: &str, expected: &str) {
        let folder = folder();
        let path = folder.path().join("identity.key");
        create(&path, found).expect("written");
        let error = Identity::load_or_create(&path, [1; 32]).expect_err("damaged");
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("still there"), found);
    }

    #[test]
    fn a_damaged_file_is_named_and_left_alone() {
        let good = text(&Keypair::from_secret(&[1; 32]));
        let other = text(&Keypair::from_secret(&[2; 32]));
        check_damaged("", "\"secret\"");
        check_damaged(&good[..40], "\"secret\"");
        check_damaged(&good[..100], "\"public\"");
        check_damaged(&[&good[..72], &other[72..]].concat(), "does not belong");
        check_damaged(&[&good, "more"].concat(), "two lines");
    }

    #[test]
    fn a_missing_folder_is_an_error() {
        let path = folder().path().join("missing").join("identity.key");
        let error = Identity::load_or_create(&path, [1; 32]).expect_err("no folder");
        assert!(error.to_string().starts_with("cannot create the identity file"), "{error}");
    }

    #[test]
    fn the_secret_is_never_shown() {
        let identity = Identity(Keypair::from_secret(&[1; 32]));
        assert!(!format!("{identity:?}").contains(&hex::show(&[1; 32])));
    }
}
