//! Against a client that nobody here wrote, over a real socket.

use super::*;
use crate::listen::{Limits, listen};
use axum::{Router, routing::get};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use std::net::SocketAddr;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsConnector;

/// A self-signed certificate for `localhost` in `dir`, in place of any before; what to trust.
fn certificate(dir: &TempDir) -> RootCertStore {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(dir.path().join("cert.pem"), made.cert.pem()).expect("written");
    fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).expect("written");
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a certificate");
    roots
}

fn opened(dir: &TempDir) -> Result<Tls, TlsError> {
    Tls::open(&dir.path().join("cert.pem"), &dir.path().join("key.pem"))
}

/// What a client that trusts `roots` is answered.
async fn ask(address: SocketAddr, roots: RootCertStore) -> io::Result<String> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TcpStream::connect(address).await?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(b"GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    Ok(reply)
}

/// Goal: a client that trusts the certificate is answered, one that does not is not, plain HTTP is not, and a new
/// certificate is used without a restart. Method: two self-signed certificates, one after the other.
#[tokio::test]
async fn a_certificate_serves_and_is_replaced_while_the_node_runs() {
    let dir = tempfile::tempdir().expect("a folder");
    let roots = certificate(&dir);
    let tls = Arc::new(opened(&dir).expect("usable"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let routes = Router::new().route("/x", get(async || "over TLS"));
    tokio::spawn(listen(listener, Some(tls), routes, Limits::default(), std::future::pending()));

    let reply = ask(address, roots.clone()).await.expect("an answer");
    assert!(reply.starts_with("HTTP/1.1 200 ") && reply.ends_with("over TLS"), "{reply}");
    assert!(ask(address, RootCertStore::empty()).await.is_err());
    let mut plain = TcpStream::connect(address).await.expect("connects");
    plain.write_all(b"GET /x HTTP/1.1\r\n\r\n").await.expect("sends");
    let mut reply = Vec::new();
    let _ = plain.read_to_end(&mut reply).await;
    assert!(!reply.starts_with(b"HTTP"), "{reply:?}");

    // One that is half written is not used; the old one serves on.
    let whole = fs::read(dir.path().join("cert.pem")).expect("reads");
    let in_a_minute = SystemTime::now() + std::time::Duration::from_secs(60);
    let touch = |bytes: &[u8], at: SystemTime| {
        let path = dir.path().join("cert.pem");
        fs::write(&path, bytes).expect("written");
        fs::File::options().write(true).open(path).and_then(|f| f.set_modified(at)).expect("dated");
    };
    touch(&whole[..40], in_a_minute);
    ask(address, roots.clone()).await.expect("an answer by the old one");

    let renewed = certificate(&dir);
    let whole = fs::read(dir.path().join("cert.pem")).expect("reads");
    touch(&whole, in_a_minute + std::time::Duration::from_secs(60));
    ask(address, renewed).await.expect("an answer by the new one");
    assert!(ask(address, roots).await.is_err());
}

#[test]
fn files_that_cannot_be_used_are_named_and_keys_are_not_shown() {
    let dir = tempfile::tempdir().expect("a folder");
    let missing = opened(&dir).expect_err("no files").to_string();
    assert!(missing.contains("cert.pem"), "{missing}");
    certificate(&dir);
    let key = fs::read(dir.path().join("key.pem")).expect("reads");
    fs::write(dir.path().join("key.pem"), b"-----BEGIN PRIVATE KEY-----\nsecret\n")
        .expect("written");
    let wrong = opened(&dir).expect_err("no key").to_string();
    assert!(wrong.contains("key.pem") && !wrong.contains("secret"), "{wrong}");

    certificate(&dir);
    fs::write(dir.path().join("key.pem"), key).expect("written");
    let other = opened(&dir).expect_err("the key of another").to_string();
    assert!(other.contains("cert.pem") && other.contains("key.pem"), "{other}");
}
