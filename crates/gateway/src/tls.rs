//! TLS: the node's certificate and key, read from files and read again when they change.
//!
//! Certificates that are renewed every few weeks need no restart. New files that cannot be used are logged, and the
//! old ones serve on.

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// The protocols offered, the better first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum TlsError {
    /// A file that is not there or not PEM.
    #[error("{what} {}: {reason}", path.display())]
    File { what: &'static str, path: PathBuf, reason: String },
    /// They do not go together, or are of an unknown kind.
    #[error("certificate {} and key {} cannot be used: {source}", cert.display(), key.display())]
    Pair { cert: PathBuf, key: PathBuf, source: rustls::Error },
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Tls {
    cert: PathBuf,
    key: PathBuf,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    /// When the files were written, as far as the system says.
    written: [Option<SystemTime>; 2],
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current").field("written", &self.written).finish_non_exhaustive()
    }
}

impl Tls {
    /// The certificate chain and the private key in two PEM files.
    ///
    /// # Errors
    /// [`TlsError`] names the file at fault.
    pub fn open(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let written = [cert, key].map(written);
        let config = config(cert, key)?;
        let current = Mutex::new(Current { config, written });
        Ok(Self { cert: cert.into(), key: key.into(), current })
    }

    /// The encrypted side of a connection.
    ///
    /// # Errors
    /// Whatever the caller did wrong.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.config()).accept(stream).await
    }

    /// What is in the files now, if it can be used. Asking when they were written costs microseconds.
    fn config(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let written = [&self.cert, &self.key].map(|path| written(path));
        if written != current.written {
            current.written = written;
            match config(&self.cert, &self.key) {
                Ok(config) => {
                    tracing::info!(cert = %self.cert.display(), "the certificate was read again");
                    current.config = config;
                }
                Err(error) => tracing::warn!(%error, "the old certificate serves on"),
            }
        }
        Arc::clone(&current.config)
    }
}

fn written(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|data| data.modified()).ok()
}

fn config(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let pair = |source| TlsError::Pair { cert: cert.into(), key: key.into(), source };
    let (chain, secret) = (chain(cert)?, secret(key)?);
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(pair)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason: String| TlsError::File { what: "certificate", path: path.into(), reason };
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates: Vec<_> = certificates.map_err(|error| wrong(error.to_string()))?;
    if certificates.is_empty() {
        return Err(wrong("it holds no certificate, expected PEM".into()));
    }
    Ok(certificates)
}

/// A message about a key file never shows what is in it.
fn secret(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    use rustls::pki_types::pem::Error;
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        let reason = match error {
            Error::Io(error) => error.to_string(),
            _ => "it holds no private key, expected PEM".into(),
        };
        TlsError::File { what: "key", path: path.into(), reason }
    })
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
