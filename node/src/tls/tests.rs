//! Pairs that can and cannot be used, and what becomes of connections while they change.

use std::fs;
use std::time::SystemTime;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio_rustls::TlsConnector;

use super::*;

/// A pair in files of their own, and the certificate as its own authority.
struct Files {
    folder: TempDir,
}

fn pair(from_days: i64, until_days: i64) -> (String, String) {
    let now = SystemTime::now();
    let at = |days: i64| {
        let span = Duration::from_secs(days.unsigned_abs() * 86_400);
        if days < 0 { now - span } else { now + span }
    };
    let mut parameters = CertificateParams::new(["localhost".to_owned()]).unwrap();
    parameters.not_before = at(from_days).into();
    parameters.not_after = at(until_days).into();
    let key = KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

impl Files {
    fn with((cert, key): (&str, &str)) -> Self {
        let files = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        files.write(cert, key);
        files
    }

    fn paths(&self) -> TlsFiles {
        TlsFiles {
            cert: self.folder.path().join("cert.pem"),
            key: self.folder.path().join("key.pem"),
        }
    }

    fn write(&self, cert: &str, key: &str) {
        fs::write(self.paths().cert, cert).unwrap();
        fs::write(self.paths().key, key).unwrap();
    }
}

fn client(cert: &str, protocols: &[&[u8]]) -> TlsConnector {
    use rustls::pki_types::pem::PemObject;
    let mut roots = RootCertStore::empty();
    let authority = rustls::pki_types::CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
    roots.add(authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// What a client that trusts `cert` agrees on with a door, if it does.
async fn agreed(door: &TlsDoor, cert: &str, protocols: &[&[u8]]) -> Option<Vec<u8>> {
    let (ours, theirs) = tokio::io::duplex(16 << 10);
    let name = ServerName::try_from("localhost").unwrap();
    let connector = client(cert, protocols);
    let (shaken, connected) = tokio::join!(door.accept(ours), connector.connect(name, theirs));
    connected.ok()?;
    let stream = shaken.ok()?;
    Some(stream.get_ref().1.alpn_protocol()?.to_vec())
}

#[test]
fn what_cannot_be_used_is_told_with_its_key_and_file() {
    let (cert, key) = pair(-1, 30);
    let refused = |cert: &str, key: &str, words: &[&str]| {
        let files = Files::with((cert, key));
        let told = files.paths().check().unwrap_err().to_string();
        for word in words {
            assert!(told.contains(word), "{word:?} is missing: {told}");
        }
    };
    refused("x", &key, &["tls.cert", "cert.pem", "certificate"]);
    refused("", &key, &["tls.cert", "certificate"]);
    refused(&key, &cert, &["tls.cert", "certificate"]);
    refused(&cert, "x", &["tls.key", "key.pem", "private key"]);
    refused(
        &cert,
        &pair(-1, 30).1,
        &["tls.key", "is not the key", "cert.pem"],
    );
    let (late, its_key) = pair(-30, -3);
    refused(&late, &its_key, &["cert.pem", "expired 3 d ago"]);
    let (early, its_key) = pair(2, 30);
    refused(&early, &its_key, &["cert.pem", "valid in 2 d"]);
    let files = Files::with((&cert, &key));
    files.paths().check().unwrap();
    fs::remove_file(files.paths().key).unwrap();
    let told = files.paths().check().unwrap_err().to_string();
    assert!(
        told.contains("tls.key") && told.contains("key.pem"),
        "{told}"
    );
}

#[tokio::test]
async fn a_new_pair_is_shown_and_a_broken_one_is_not() {
    let first = pair(-1, 60);
    let second = pair(-1, 5);
    let files = Files::with((&first.0, &first.1));
    let tls = Tls::load(files.paths(), Wall::System).unwrap();
    let door = tls.door(&[b"h2", b"http/1.1"]).unwrap();
    let both: [&[u8]; 2] = [b"http/1.1", b"h2"];
    assert_eq!(agreed(&door, &first.0, &both).await.unwrap(), b"h2");
    let old: [&[u8]; 1] = [b"http/1.1"];
    assert_eq!(agreed(&door, &first.0, &old).await.unwrap(), b"http/1.1");
    assert!(agreed(&door, &second.0, &both).await.is_none());
    assert!(tls.warnings().is_empty());

    // Half of a new pair: nothing is said before it has been seen twice.
    fs::write(files.paths().cert, &second.0).unwrap();
    tls.look();
    assert!(tls.warnings().is_empty());
    tls.look();
    assert_eq!(tls.warnings().len(), 1, "{:?}", tls.warnings());
    assert!(agreed(&door, &first.0, &both).await.is_some());
    fs::write(files.paths().key, &second.1).unwrap();
    tls.look();
    let warnings = tls.warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("ends within 5 d"),
        "{warnings:?}"
    );
    assert!(agreed(&door, &second.0, &both).await.is_some());
    assert!(agreed(&door, &first.0, &both).await.is_none());
    // A file that goes changes nothing, and one that comes back is as it was.
    fs::remove_file(files.paths().cert).unwrap();
    tls.look();
    tls.look();
    assert_eq!(tls.warnings().len(), 2);
    assert!(agreed(&door, &second.0, &both).await.is_some());
    fs::write(files.paths().cert, &second.0).unwrap();
    tls.look();
    assert_eq!(tls.warnings().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_left() {
    let (cert, key) = pair(-1, 60);
    let files = Files::with((&cert, &key));
    let door = Tls::load(files.paths(), Wall::System).unwrap();
    let door = door.door(&[b"h2"]).unwrap();
    let (silent, mine) = tokio::io::duplex(16);
    let refused = door.accept(silent).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
    drop(mine);
    let (plain, mut mine) = tokio::io::duplex(64);
    tokio::io::AsyncWriteExt::write_all(&mut mine, b"GET / HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    assert!(door.accept(plain).await.is_err());
}
