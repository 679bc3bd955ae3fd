//! Which nodes a client believes: those that the cluster's authority has signed.
//!
//! A client does not know which node answers behind an address, and need not: any node of the
//! cluster will do. So what is checked is that the certificate was signed by the cluster's
//! authority, for a server, is in time, and names a node of Paceline.

use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use sha2::{Digest as _, Sha256};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use paceline_protocol::client::CLIENT_PROTOCOL;
use paceline_protocol::{Digest, Subject};

/// What nodes are checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The certificate of the cluster's authority, in PEM: `ca.crt` of a node's directory.
    Authority(String),
    /// SHA-256 of the authority's public key, as join tokens pin it. The node has to show the
    /// authority's certificate behind its own.
    Pin(Digest),
}

/// What nodes are checked against cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate of the cluster's authority cannot be used: {reason}")]
pub struct TrustError {
    /// What is wrong.
    pub reason: String,
}

#[derive(Debug)]
struct Verifier {
    believed: Believed,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
enum Believed {
    Anchor(TrustAnchor<'static>),
    Pin(Digest),
}

impl Trust {
    /// How QUIC checks a node.
    pub(crate) fn client_config(&self) -> Result<QuicClientConfig, TrustError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(Verifier {
            believed: self.believed()?,
            provider: provider.clone(),
        });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![CLIENT_PROTOCOL.to_vec()];
        // Early data can be replayed, and a resumed session would skip the check of a new
        // certificate.
        config.enable_early_data = false;
        config.resumption = Resumption::disabled();
        QuicClientConfig::try_from(config).map_err(unusable)
    }

    fn believed(&self) -> Result<Believed, TrustError> {
        match self {
            Self::Pin(pin) => Ok(Believed::Pin(*pin)),
            Self::Authority(pem) => {
                let certificate =
                    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(unusable)?;
                let anchor = anchor_from_trusted_cert(&certificate).map_err(unusable)?;
                Ok(Believed::Anchor(anchor.to_owned()))
            }
        }
    }
}

impl Verifier {
    fn verify(
        &self,
        shown: &CertificateDer<'_>,
        behind: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        match &self.believed {
            Believed::Anchor(anchor) => self.verify_under(shown, anchor, now),
            Believed::Pin(pin) => {
                let pinned = behind.iter().find(|shown| key_of(shown) == Some(*pin));
                let pinned = pinned.ok_or(CertificateError::UnknownIssuer)?;
                let anchor = anchor_from_trusted_cert(pinned).map_err(of_webpki)?;
                self.verify_under(shown, &anchor, now)
            }
        }
    }

    fn verify_under(
        &self,
        shown: &CertificateDer<'_>,
        anchor: &TrustAnchor<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = EndEntityCert::try_from(shown).map_err(of_webpki)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let anchors = std::slice::from_ref(anchor);
        let usage = KeyUsage::server_auth();
        parsed
            .verify_for_usage(algorithms, anchors, &[], now, usage, None, None)
            .map_err(of_webpki)?;
        subject_in(&parsed)
            .map(drop)
            .ok_or_else(|| CertificateError::NotValidForName.into())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("QUIC has no TLS 1.2".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// SHA-256 of a certificate's public key.
fn key_of(certificate: &CertificateDer<'_>) -> Option<Digest> {
    let parsed = EndEntityCert::try_from(certificate).ok()?;
    let key = parsed.subject_public_key_info();
    Some(Digest(Sha256::digest(key.as_ref()).into()))
}

/// Whose certificate it is: it has one name, and that is a node's.
fn subject_in(certificate: &EndEntityCert<'_>) -> Option<Subject> {
    let mut names = certificate.valid_dns_names();
    match (names.next(), names.next()) {
        (Some(name), None) => name.parse().ok(),
        _ => None,
    }
}

fn of_webpki(error: webpki::Error) -> Error {
    let certificate = match error {
        webpki::Error::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        _ => CertificateError::BadEncoding,
    };
    certificate.into()
}

fn unusable(error: impl std::fmt::Display) -> TrustError {
    TrustError {
        reason: error.to_string(),
    }
}
