//! Whom the certificates of nodes must lead to that are reached over TLS.

use std::sync::Arc;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

/// Certificates of authorities that a client trusts; it trusts no others. Cheap to clone.
#[derive(Clone)]
pub struct Authority(Arc<Vec<Certificate<'static>>>);

/// A file without a certificate in PEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no certificate in PEM in it")]
pub struct NoCertificate;

impl Authority {
    /// Takes all certificates of a PEM file.
    ///
    /// # Errors
    /// There is none.
    pub fn from_pem(pem: &[u8]) -> Result<Self, NoCertificate> {
        let certificates = parse_pem(pem).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        });
        let certificates: Vec<_> = certificates.collect();
        if certificates.is_empty() {
            return Err(NoCertificate);
        }
        Ok(Self(Arc::new(certificates)))
    }

    /// What a client of HTTP is given: these authorities, and ring, whatever the process has.
    pub(super) fn tls(authority: Option<&Self>) -> TlsConfig {
        let certificates = authority.map(|authority| authority.0.clone());
        TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::Specific(certificates.unwrap_or_default()))
            .build()
    }
}

impl PartialEq for Authority {
    fn eq(&self, other: &Self) -> bool {
        let der = |authority: &Self| -> Vec<Vec<u8>> {
            let certificates = authority.0.iter();
            certificates.map(|one| one.der().to_vec()).collect()
        };
        der(self) == der(other)
    }
}

impl Eq for Authority {}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({} certificates)", self.0.len())
    }
}
