//! What a node's identity is made of, in its data directory.
//!
//! | File | What | Who has it |
//! |---|---|---|
//! | `node.key` | the node's private key: it *is* the node | every node |
//! | `node.crt` | its certificate | every node |
//! | `ca.crt` | the cluster's authority | every node |
//! | `ca.key` | the authority's private key | voters |
//! | `mesh.cookie` | what opens the mesh | every node |
//!
//! All are PEM (the cookie hexadecimal), readable by their owner only, and replaced whole. A
//! joining node writes its key first and `identity.json` last: whatever interrupts it, it can
//! ask again with the same key, and gets the same id.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use data_encoding::{BASE64, HEXLOWER};
use paceline_protocol::{NodeId, Secret};
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::authority::{self, Authority, AuthorityError};
use super::credentials::Credentials;
use super::replace;
use super::trust::{AnchorError, Trust};
use crate::storage::disk::{Disk, read_file};
use paceline_protocol::Subject;

/// The files of one node's identity. Calls block.
#[derive(Clone)]
pub struct Files {
    disk: Arc<dyn Disk>,
}

/// What a node needs to speak to others.
#[derive(Debug)]
pub struct Loaded {
    /// Its key and its certificate, which may have expired meanwhile unless it is a voter.
    pub credentials: Credentials,
    /// What signs nodes, on voters.
    pub authority: Option<Arc<Authority>>,
    /// What opens the mesh.
    pub cookie: Secret,
}

/// What a node was given when it joined.
#[derive(Debug)]
pub(crate) struct Given<'a> {
    /// The certificate of its key.
    pub certificate: &'a CertificateDer<'static>,
    /// The certificate of the authority.
    pub authority: &'a CertificateDer<'static>,
    /// What opens the mesh.
    pub cookie: &'a Secret,
}

/// Why the files cannot be used. Never holds what is in them.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file is missing, or the disk fails.
    #[error("'{place}/{file}' cannot be used: {cause}")]
    Io {
        /// The directory.
        place: String,
        /// The file.
        file: &'static str,
        /// What the operating system says.
        cause: io::Error,
    },
    /// A file holds something else.
    #[error("'{place}/{file}' is damaged: {reason}")]
    Damaged {
        /// The directory.
        place: String,
        /// The file.
        file: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A key cannot be made, or something cannot be signed.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The authority's certificate cannot be trusted.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
}

impl Files {
    /// The files on `disk`.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk }
    }

    /// All that `subject` has. The founder makes what is missing when it starts for the first
    /// time. Who has the authority signs itself anew: a voter whose certificate expired while
    /// it stood still needs nobody.
    ///
    /// # Errors
    /// A file is missing, damaged, or another node's.
    pub fn load(&self, subject: Subject, now: SystemTime) -> Result<Loaded, FilesError> {
        if subject.node == NodeId::FOUNDER && self.read(AUTHORITY)?.is_none() {
            self.found(subject.cluster)?;
        }
        let certificate = self.certificate(AUTHORITY)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = Trust::new(&certificate, subject.cluster, provider)?;
        let authority = self.authority(certificate)?.map(Arc::new);
        let key = self.key()?;
        if let Some(authority) = &authority {
            let request = authority::request(&key)?;
            let signed = authority.sign(&request, subject, now)?;
            self.save_certificate(&signed)?;
        }
        let own = self.certificate(CERTIFICATE)?;
        let credentials = Credentials::new(subject, key, own, trust)
            .map_err(|error| self.damaged(CERTIFICATE, error.to_string()))?;
        Ok(Loaded {
            credentials,
            authority,
            cookie: self.cookie()?,
        })
    }

    /// The node's key, made if there is none yet.
    ///
    /// # Errors
    /// The file is damaged, or cannot be written.
    pub(crate) fn key(&self) -> Result<KeyPair, FilesError> {
        if let Some(pem) = self.read(KEY)? {
            // What the parser says could repeat what it has read.
            let damaged = || self.damaged(KEY, "not a private key in PEM".to_owned());
            return String::from_utf8(pem)
                .ok()
                .and_then(|pem| KeyPair::from_pem(&pem).ok())
                .ok_or_else(damaged);
        }
        let key = KeyPair::generate().map_err(AuthorityError::Key)?;
        self.write(KEY, key.serialize_pem().as_bytes())?;
        Ok(key)
    }

    /// Keeps what was given to a node that joined.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn save_given(&self, given: &Given<'_>) -> Result<(), FilesError> {
        self.write(AUTHORITY, pem("CERTIFICATE", given.authority).as_bytes())?;
        self.write(COOKIE, HEXLOWER.encode(given.cookie.reveal()).as_bytes())?;
        self.save_certificate(given.certificate)
    }

    /// Keeps a new certificate of the node.
    ///
    /// # Errors
    /// What the disk says.
    pub fn save_certificate(&self, certificate: &CertificateDer<'_>) -> Result<(), FilesError> {
        self.write(CERTIFICATE, pem("CERTIFICATE", certificate).as_bytes())
    }

    /// Keeps the authority's key: this node becomes a voter.
    ///
    /// # Errors
    /// The key is not that of the cluster's authority, or the disk fails.
    pub fn save_authority_key(&self, key_pem: &str) -> Result<Authority, FilesError> {
        let authority = Authority::load(self.certificate(AUTHORITY)?, key_pem)?;
        self.check_authority(&authority)?;
        self.write(AUTHORITY_KEY, key_pem.as_bytes())?;
        Ok(authority)
    }

    /// Removes the authority's key: this node is a voter no more.
    ///
    /// # Errors
    /// What the disk says.
    pub fn forget_authority_key(&self) -> Result<(), FilesError> {
        let removed = match self.disk.remove(AUTHORITY_KEY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| self.disk.sync_dir()),
        };
        removed.map_err(|cause| self.io(AUTHORITY_KEY, cause))
    }

    /// Makes what only the founder can. `ca.crt` is written last: without it nobody has relied
    /// on the rest yet.
    fn found(&self, cluster: u128) -> Result<(), FilesError> {
        let authority = Authority::found(cluster)?;
        let mut cookie = [0; 32];
        getrandom::fill(&mut cookie).map_err(|error| self.io(COOKIE, io::Error::other(error)))?;
        self.write(COOKIE, HEXLOWER.encode(&cookie).as_bytes())?;
        self.write(AUTHORITY_KEY, authority.key_pem().as_bytes())?;
        self.write(
            AUTHORITY,
            pem("CERTIFICATE", authority.certificate()).as_bytes(),
        )
    }

    fn authority(
        &self,
        certificate: CertificateDer<'static>,
    ) -> Result<Option<Authority>, FilesError> {
        let Some(pem) = self.read(AUTHORITY_KEY)? else {
            return Ok(None);
        };
        let damaged = || self.damaged(AUTHORITY_KEY, "not a private key in PEM".to_owned());
        let authority = String::from_utf8(pem)
            .ok()
            .and_then(|pem| Authority::load(certificate, &pem).ok())
            .ok_or_else(damaged)?;
        self.check_authority(&authority)?;
        Ok(Some(authority))
    }

    fn check_authority(&self, authority: &Authority) -> Result<(), FilesError> {
        let certified = authority::key_in_certificate(authority.certificate());
        if certified != Some(authority.pin()) {
            let reason = "it is not the key of the authority in ca.crt".to_owned();
            return Err(self.damaged(AUTHORITY_KEY, reason));
        }
        Ok(())
    }

    fn certificate(&self, file: &'static str) -> Result<CertificateDer<'static>, FilesError> {
        let missing = || self.io(file, io::ErrorKind::NotFound.into());
        let pem = self.read(file)?.ok_or_else(missing)?;
        CertificateDer::from_pem_slice(&pem)
            .map_err(|_| self.damaged(file, "not a certificate in PEM".to_owned()))
    }

    fn cookie(&self) -> Result<Secret, FilesError> {
        let missing = || self.io(COOKIE, io::ErrorKind::NotFound.into());
        let text = self.read(COOKIE)?.ok_or_else(missing)?;
        let bytes = HEXLOWER.decode(&text).ok();
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Secret::new)
            .ok_or_else(|| self.damaged(COOKIE, "not 64 hexadecimal digits".to_owned()))
    }

    fn read(&self, file: &'static str) -> Result<Option<Vec<u8>>, FilesError> {
        match read_file(&self.disk, file, FILE_BYTES_MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(self.io(file, cause)),
        }
    }

    fn write(&self, file: &'static str, content: &[u8]) -> Result<(), FilesError> {
        replace(&self.disk, file, content).map_err(|cause| self.io(file, cause))
    }

    fn io(&self, file: &'static str, cause: io::Error) -> FilesError {
        let place = self.disk.place();
        FilesError::Io { place, file, cause }
    }

    fn damaged(&self, file: &'static str, reason: String) -> FilesError {
        FilesError::Damaged {
            place: self.disk.place(),
            file,
            reason,
        }
    }
}

/// DER as text (RFC 7468).
pub fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in BASE64.encode(der).as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

/// The node's key: where it lies without an identity, a node has begun to join.
pub(super) const KEY: &str = "node.key";
const CERTIFICATE: &str = "node.crt";
const AUTHORITY: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
const COOKIE: &str = "mesh.cookie";
/// What may lie in a directory before its identity does.
pub(super) const OURS: [&str; 4] = [KEY, CERTIFICATE, AUTHORITY, COOKIE];
/// A key or certificate takes some 800 bytes.
const FILE_BYTES_MAX: u64 = 16 << 10;

#[cfg(test)]
mod tests;
