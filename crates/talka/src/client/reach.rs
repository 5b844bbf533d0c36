//! Where a node is and whose certificates are believed there.

use crate::{cli::HTTP_DEFAULT, exit::UsageError};
use anyhow::{Context, Result};
use reqwest::{Certificate, ClientBuilder};
use std::{fs, net::SocketAddr, path::Path};

/// How to connect to a node.
#[derive(Debug, PartialEq, Eq)]
pub struct Reach {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// `HOST:PORT`.
    pub address: String,
}

/// What to connect to for `typed`, an address with or without a scheme. A node bound to every address is reached at
/// this computer's own.
///
/// # Errors
/// [`UsageError`] if `typed` is no address.
pub fn reachable(typed: &str) -> Result<Reach, UsageError> {
    let (scheme, address) = match typed.strip_prefix("https://") {
        Some(rest) => ("https", rest),
        None => ("http", typed.strip_prefix("http://").unwrap_or(typed)),
    };
    let address = address.trim_end_matches('/');
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    if address.contains('/') || port.is_none_or(|port| port == 0) {
        return Err(UsageError(format!(
            "the address of a node is HOST:PORT such as {HTTP_DEFAULT}, found {typed:?}"
        )));
    }
    let address = match address.parse::<SocketAddr>() {
        Ok(bound) if bound.ip().is_unspecified() && bound.is_ipv4() => {
            format!("127.0.0.1:{}", bound.port())
        }
        Ok(bound) if bound.ip().is_unspecified() => format!("[::1]:{}", bound.port()),
        _ => address.to_owned(),
    };
    Ok(Reach { scheme, address })
}

/// Whose certificates are believed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Trust<'a> {
    /// Those of the system's authorities, for the name that was typed.
    System,
    /// Also those in this file, or signed by them.
    Also(&'a Path),
    /// Those in this file only. Whoever named it knows the node, and no other name need be right.
    Only(&'a Path),
}

impl<'a> Trust<'a> {
    /// As `--tls-ca` says.
    pub fn of(ca: Option<&'a Path>) -> Self {
        ca.map_or(Self::System, Self::Also)
    }

    pub fn apply(self, builder: ClientBuilder) -> Result<ClientBuilder> {
        Ok(match self {
            Self::System => builder,
            Self::Also(path) => builder.tls_certs_merge(certificates(path)?),
            Self::Only(path) => builder
                .tls_certs_only(certificates(path)?)
                .tls_danger_accept_invalid_hostnames(true),
        })
    }
}

fn certificates(path: &Path) -> Result<Vec<Certificate>> {
    let shown = path.display();
    let pem = fs::read(path).with_context(|| format!("cannot read the certificates in {shown}"))?;
    let found = Certificate::from_pem_bundle(&pem);
    let found = found.with_context(|| format!("{shown} holds no certificates in PEM"))?;
    if found.is_empty() {
        return Err(UsageError(format!("{shown} holds no certificate, expected PEM")).into());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_with_or_without_a_scheme() {
        for (typed, scheme, address) in [
            ("127.0.0.1:4242", "http", "127.0.0.1:4242"),
            ("http://box.local:80/", "http", "box.local:80"),
            ("https://box.local:443", "https", "box.local:443"),
            ("0.0.0.0:4242", "http", "127.0.0.1:4242"),
            ("https://[::]:9", "https", "[::1]:9"),
        ] {
            assert_eq!(reachable(typed).expect(typed), Reach { scheme, address: address.into() });
        }
        for wrong in ["", "4242", "host", "ftp://host:1", "host:1/v1", "host:0", "host:x"] {
            assert!(reachable(wrong).is_err(), "{wrong}");
        }
    }
}
