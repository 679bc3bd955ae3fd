//! Whom a machine believes that has nothing but a pin: a node whose certificate is signed by
//! the authority with the pinned key.

use std::sync::{Arc, Mutex, PoisonError};

use paceline_protocol::Digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage};

use crate::identity::authority::key_in_certificate;
use crate::identity::trust::{Trust, subject_in};

/// Believes one authority.
#[derive(Debug)]
pub(super) struct Pinned {
    pin: Digest,
    provider: Arc<CryptoProvider>,
    doubt: Mutex<Option<Doubt>>,
}

/// Why a node was not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Its chain does not lead to the pinned authority.
    OtherAuthority,
    /// Its certificate is not good now, or not a node's.
    Certificate(String),
}

impl Pinned {
    pub(super) fn new(pin: Digest, provider: Arc<CryptoProvider>) -> Self {
        Self {
            pin,
            provider,
            doubt: Mutex::new(None),
        }
    }

    /// Why the node was not believed, if it was not. TLS itself says it in words only.
    pub(super) fn doubt(&self) -> Option<Doubt> {
        let doubt = self.doubt.lock();
        doubt.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Doubt> {
        let is_pinned = |link: &&CertificateDer<'_>| key_in_certificate(link) == Some(self.pin);
        let authority = chain.iter().find(is_pinned);
        let authority = authority.ok_or(Doubt::OtherAuthority)?;
        let wrong = |error: String| Doubt::Certificate(error);
        let parsed = EndEntityCert::try_from(certificate);
        let parsed = parsed.map_err(|error| wrong(error.to_string()))?;
        let subject = subject_in(&parsed).ok_or_else(|| wrong("not a node's name".to_owned()))?;
        // Which cluster it is, the authority says: it signs for one only.
        Trust::new(authority, subject.cluster, self.provider.clone())
            .map_err(|error| wrong(error.to_string()))?
            .subject(certificate, KeyUsage::server_auth(), now)
            .map_err(|error| match error {
                // The chain names the authority, which has not signed this.
                Error::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::BadSignature,
                ) => Doubt::OtherAuthority,
                error => wrong(error.to_string()),
            })?;
        Ok(())
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.verify(end_entity, intermediates, now) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(doubt) => {
                let mut first = self.doubt.lock().unwrap_or_else(PoisonError::into_inner);
                *first = Some(doubt);
                Err(CertificateError::UnknownIssuer.into())
            }
        }
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
