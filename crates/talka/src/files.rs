//! Files that commands share: the data directory, the address a node leaves there, key files.

use crate::{cli::KeyArgs, env, exit::UsageError};
use anyhow::{Context, Result};
use directories::ProjectDirs;
use std::{
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Holds the address of the node that uses the data directory, while it runs.
const HTTP_FILE: &str = "http";

/// `chosen`, or this system's place for program data.
///
/// # Errors
/// [`UsageError`] if the system names no such place.
pub fn data_dir(chosen: Option<&Path>) -> Result<PathBuf, UsageError> {
    if let Some(chosen) = chosen {
        return Ok(chosen.to_owned());
    }
    let dirs = ProjectDirs::from("", "", "talka").ok_or_else(|| {
        UsageError(format!(
            "this system names no home directory: choose one with --data-dir or {}",
            env::DATA_DIR
        ))
    })?;
    Ok(dirs.data_dir().to_owned())
}

/// Leaves in `data_dir` where clients find the node, and the file of the certificate that it shows, if it does.
///
/// # Errors
/// If the file cannot be written.
pub fn write_http(data_dir: &Path, address: SocketAddr, cert: Option<&Path>) -> Result<()> {
    let path = data_dir.join(HTTP_FILE);
    let text = match cert {
        None => format!("{address}\n"),
        Some(cert) => {
            let cert = std::path::absolute(cert)
                .with_context(|| format!("cannot say where {} is", cert.display()))?;
            format!("https://{address}\n{}\n", cert.display())
        }
    };
    fs::write(&path, text)
        .with_context(|| format!("cannot write {}: is the folder writable?", path.display()))
}

/// Removes what [`write_http`] left.
pub fn remove_http(data_dir: &Path) {
    // Nothing depends on it: an address where nobody answers is noticed by every client.
    let _ = fs::remove_file(data_dir.join(HTTP_FILE));
}

/// Where the node of a data directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its address, with `https://` before it where it listens so.
    pub address: String,
    /// The file of the certificate that it shows.
    pub cert: Option<PathBuf>,
}

/// What [`write_http`] left in `data_dir`, if it did.
///
/// # Errors
/// If the file is there but cannot be read.
pub fn read_http(data_dir: &Path) -> Result<Option<Kept>> {
    let path = data_dir.join(HTTP_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let (address, cert) = text.trim().split_once('\n').unwrap_or((text.trim(), ""));
            let cert = Some(PathBuf::from(cert)).filter(|_| !cert.is_empty());
            Ok(Some(Kept { address: address.to_owned(), cert }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The API key from the file named, else from the environment, if either is given.
///
/// # Errors
/// If the file cannot be read or is empty.
pub fn api_key(args: &KeyArgs) -> Result<Option<String>> {
    let Some(path) = &args.api_key_file else {
        return Ok(env::read(env::API_KEY));
    };
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read the API key file {}", path.display()))?;
    let key = text.trim();
    if key.is_empty() {
        let path = path.display();
        return Err(UsageError(format!("{path} is empty, expected an API key")).into());
    }
    Ok(Some(key.to_owned()))
}

/// The invitation as typed, or that in the file that `@FILE` names.
///
/// # Errors
/// If the file cannot be read.
pub fn invitation(typed: String) -> Result<String> {
    let Some(path) = typed.strip_prefix('@') else { return Ok(typed) };
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read the invitation in the file {path}"))?;
    Ok(text.trim().to_owned())
}

/// Leaves `invite` in a file for its owner alone: whoever reads it may join.
///
/// # Errors
/// If it cannot be written.
pub fn write_invitation(path: &Path, invite: &str) -> Result<()> {
    let failed = || format!("cannot write the invitation to {}", path.display());
    // One that is there may be open to others, and stays so however it is written.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).with_context(failed)?,
        _ => {}
    }
    write_new(path, invite).with_context(failed)
}

/// Leaves the secret of a key in a new file for its owner alone.
///
/// # Errors
/// If it is there already, or cannot be written.
pub fn write_secret(path: &Path, secret: &str) -> Result<()> {
    write_new(path, secret).with_context(|| {
        format!("cannot write the key to {}: the file must be a new one", path.display())
    })
}

fn write_new(path: &Path, line: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    writeln!(options.open(path)?, "{line}")
}
