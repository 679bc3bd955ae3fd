//! A certificate and its private key, read from files and checked.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::TlsFiles;

/// A pair that can be used.
pub(super) struct Pair {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) validity: Validity,
}

/// From when until when a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its first second.
    pub from_s: u64,
    /// Its last one.
    pub until_s: u64,
}

/// Which files were there: another one has another stamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp([Option<(u64, u64, i64, i64)>; 2]);

/// Why a pair cannot be used. Each names the key of the configuration and its file.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// A file cannot be read.
    #[error("{key} = {file} cannot be read: {cause}")]
    Unreadable {
        /// Which.
        key: &'static str,
        /// Where it should be.
        file: String,
        /// What the operating system says.
        cause: io::Error,
    },
    /// A file holds something else.
    #[error("{key} = {file} holds no {wanted} in PEM")]
    NotPem {
        /// Which.
        key: &'static str,
        /// Where it is.
        file: String,
        /// What it should hold.
        wanted: &'static str,
    },
    /// The certificate is none, or of a kind that is not offered.
    #[error("tls.cert = {file}: {reason}")]
    Certificate {
        /// Where it is.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The key is of a kind that is not offered.
    #[error("tls.key = {file}: {reason}")]
    Key {
        /// Where it is.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// They do not belong together.
    #[error("tls.key = {key} is not the key of the certificate in tls.cert = {cert}")]
    Mismatch {
        /// The certificate.
        cert: String,
        /// The other certificate's key.
        key: String,
    },
    /// It is over.
    #[error("tls.cert = {file} has expired {days} d ago")]
    Expired {
        /// Where it is.
        file: String,
        /// Since when.
        days: u64,
    },
    /// It has not begun.
    #[error("tls.cert = {file} is valid in {days} d only; is the clock right?")]
    NotYet {
        /// Where it is.
        file: String,
        /// Until then.
        days: u64,
    },
}

impl Pair {
    /// Reads and checks a pair.
    ///
    /// # Errors
    /// What is wrong with it, and in which file.
    pub(super) fn load(files: &TlsFiles, now_ms: u64) -> Result<Self, TlsFault> {
        let shown = |path: &Path| path.display().to_string();
        let (cert_file, key_file) = (shown(&files.cert), shown(&files.key));
        let pem = read("tls.cert", &files.cert)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| TlsFault::NotPem {
            key: "tls.cert",
            file: cert_file.clone(),
            wanted: "certificate",
        })?;
        let validity = validity(&chain[0], &cert_file)?;
        let key = PrivateKeyDer::from_pem_slice(&read("tls.key", &files.key)?);
        let key = key.map_err(|_| TlsFault::NotPem {
            key: "tls.key",
            file: key_file.clone(),
            wanted: "private key without a password",
        })?;
        let now_s = now_ms / 1_000;
        if now_s > validity.until_s {
            let days = (now_s - validity.until_s) / DAY_S;
            return Err(TlsFault::Expired {
                file: cert_file,
                days,
            });
        }
        if now_s < validity.from_s {
            let days = (validity.from_s - now_s).div_ceil(DAY_S);
            return Err(TlsFault::NotYet {
                file: cert_file,
                days,
            });
        }
        let provider = ring::default_provider();
        let signer = provider.key_provider.load_private_key(key);
        let signer = signer.map_err(|error| TlsFault::Key {
            file: key_file.clone(),
            reason: error.to_string(),
        })?;
        let pair = CertifiedKey::new(chain, signer);
        match pair.keys_match() {
            // Keys of some kinds do not say what their public half is; the handshake would.
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
                Ok(Self {
                    key: Arc::new(pair),
                    validity,
                })
            }
            Err(rustls::Error::InconsistentKeys(_)) => Err(TlsFault::Mismatch {
                cert: cert_file,
                key: key_file,
            }),
            Err(error) => Err(TlsFault::Certificate {
                file: cert_file,
                reason: error.to_string(),
            }),
        }
    }
}

impl Stamp {
    /// Files that are not there have a stamp, too.
    pub(super) fn of(files: &TlsFiles) -> Self {
        let of_one = |path: &Path| {
            let data = fs::metadata(path).ok()?;
            Some((data.ino(), data.size(), data.mtime(), data.mtime_nsec()))
        };
        Self([of_one(&files.cert), of_one(&files.key)])
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsFault> {
    let mut bytes = Vec::new();
    let file = File::open(path);
    let read = file.and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    read.map_err(|cause| TlsFault::Unreadable {
        key,
        file: path.display().to_string(),
        cause,
    })?;
    Ok(bytes)
}

fn validity(der: &CertificateDer<'_>, file: &str) -> Result<Validity, TlsFault> {
    let (_, parsed) = X509Certificate::from_der(der).map_err(|error| TlsFault::Certificate {
        file: file.to_owned(),
        reason: error.to_string(),
    })?;
    let seconds = |time: x509_parser::time::ASN1Time| time.timestamp().try_into().unwrap_or(0);
    Ok(Validity {
        from_s: seconds(parsed.validity().not_before),
        until_s: seconds(parsed.validity().not_after),
    })
}

const DAY_S: u64 = 86_400;
/// What is read of a file: a chain of RSA certificates has 20 KiB at most.
const FILE_BYTES_MAX: u64 = 1 << 20;
