//! Whom a node believes: certificates of its own cluster's authority, with a name of its own
//! cluster, in time, and not burnt.
//!
//! **When time and quorum disagree.** An expired certificate is refused, unless this node has no
//! contact to a quorum: then nobody can renew anything, and one that is not burnt is accepted up
//! to [`EXPIRED_MAX`] past its end, so that a cluster whose clocks stood still can meet again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use paceline_protocol::NodeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use paceline_protocol::Subject;

/// What a node's connections are checked against. Cheap to clone; the clones share what changes.
#[derive(Clone, Debug)]
pub struct Trust {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    authority: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
    cluster: u128,
    provider: Arc<CryptoProvider>,
    burnt: ArcSwap<BTreeSet<NodeId>>,
    has_quorum: AtomicBool,
}

/// The cluster's certificate is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cluster's certificate cannot be read: {reason}")]
pub struct AnchorError {
    /// What is wrong.
    pub reason: String,
}

impl Trust {
    /// Trust in the authority with this certificate, for one cluster.
    ///
    /// # Errors
    /// The certificate cannot be read.
    pub fn new(
        authority: &CertificateDer<'_>,
        cluster: u128,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, AnchorError> {
        let anchor = anchor_from_trusted_cert(authority).map_err(|error| AnchorError {
            reason: error.to_string(),
        })?;
        Ok(Self {
            inner: Arc::new(Inner {
                authority: authority.clone().into_owned(),
                anchor: anchor.to_owned(),
                cluster,
                provider,
                burnt: ArcSwap::default(),
                has_quorum: AtomicBool::new(true),
            }),
        })
    }

    /// The certificate of the authority.
    pub fn authority(&self) -> &CertificateDer<'static> {
        &self.inner.authority
    }

    /// Says which ids are never believed again.
    pub fn set_burnt(&self, burnt: BTreeSet<NodeId>) {
        self.inner.burnt.store(Arc::new(burnt));
    }

    /// Says whether this node is in contact with a quorum.
    pub fn set_quorum(&self, has_quorum: bool) {
        self.inner.has_quorum.store(has_quorum, Ordering::Relaxed);
    }

    /// Who a certificate says it is, if it can be believed at `now`.
    ///
    /// # Errors
    /// What is wrong with it, as TLS says it.
    pub fn subject(
        &self,
        certificate: &CertificateDer<'_>,
        usage: KeyUsage,
        now: UnixTime,
    ) -> Result<Subject, Error> {
        let parsed = EndEntityCert::try_from(certificate).map_err(|error| of_webpki(&error))?;
        match self.verify(&parsed, usage, now) {
            Err(webpki::Error::CertExpired { not_after, .. })
                if self.may_be_late(now, not_after) =>
            {
                self.verify(&parsed, usage, not_after)
                    .map_err(|error| of_webpki(&error))?;
                let late_s = now.as_secs() - not_after.as_secs();
                tracing::warn!(
                    late_s,
                    "an expired certificate is accepted: there is no quorum"
                );
            }
            verified => verified.map_err(|error| of_webpki(&error))?,
        }
        self.named(&parsed)
    }

    /// Whose a certificate is or has been: as [`Trust::subject`], but however late. Enough to
    /// sign the same key once more, and for nothing else.
    ///
    /// # Errors
    /// What is wrong with it, as TLS says it.
    pub fn owner(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Result<Subject, Error> {
        let parsed = EndEntityCert::try_from(certificate).map_err(|error| of_webpki(&error))?;
        let usage = KeyUsage::client_auth();
        match self.verify(&parsed, usage, now) {
            Err(webpki::Error::CertExpired { not_after, .. }) => {
                self.verify(&parsed, usage, not_after)
            }
            verified => verified,
        }
        .map_err(|error| of_webpki(&error))?;
        self.named(&parsed)
    }

    /// Until when a certificate is good, if it is of this authority at all.
    pub fn good_until(&self, certificate: &CertificateDer<'_>) -> Option<UnixTime> {
        let parsed = EndEntityCert::try_from(certificate).ok()?;
        let for_ever = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
        match self.verify(&parsed, KeyUsage::client_auth(), for_ever) {
            Err(webpki::Error::CertExpired { not_after, .. }) => Some(not_after),
            _ => None,
        }
    }

    fn named(&self, certificate: &EndEntityCert<'_>) -> Result<Subject, Error> {
        match subject_in(certificate) {
            Some(subject) if subject.cluster == self.inner.cluster => {
                if self.inner.burnt.load().contains(&subject.node) {
                    return Err(CertificateError::Revoked.into());
                }
                Ok(subject)
            }
            _ => Err(CertificateError::NotValidForName.into()),
        }
    }

    fn verify(
        &self,
        certificate: &EndEntityCert<'_>,
        usage: KeyUsage,
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let algorithms = self.inner.provider.signature_verification_algorithms.all;
        let anchors = std::slice::from_ref(&self.inner.anchor);
        // The authority signs nodes directly: a chain with anything between is not ours.
        let verified =
            certificate.verify_for_usage(algorithms, anchors, &[], now, usage, None, None);
        verified.map(drop)
    }

    fn may_be_late(&self, now: UnixTime, not_after: UnixTime) -> bool {
        let is_recent = now.as_secs() <= not_after.as_secs() + EXPIRED_MAX.as_secs();
        is_recent && !self.inner.has_quorum.load(Ordering::Relaxed)
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.inner.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = self.inner.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Trust {
    /// A peer that was dialled must be the one that was meant, not just any node.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let subject = self.subject(end_entity, KeyUsage::server_auth(), now)?;
        let is_meant = matches!(server_name, ServerName::DnsName(name) if name.as_ref() == subject.to_string());
        if !is_meant {
            return Err(CertificateError::NotValidForName.into());
        }
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
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Trust {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.subject(end_entity, KeyUsage::client_auth(), now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

/// The one name in a certificate, if it is a node's.
pub(crate) fn subject_in(certificate: &EndEntityCert<'_>) -> Option<Subject> {
    let mut names = certificate.valid_dns_names();
    match (names.next(), names.next()) {
        (Some(name), None) => name.parse().ok(),
        _ => None,
    }
}

fn of_webpki(error: &webpki::Error) -> Error {
    let certificate = match error {
        webpki::Error::CertExpired { time, not_after } => CertificateError::ExpiredContext {
            time: *time,
            not_after: *not_after,
        },
        webpki::Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext {
                time: *time,
                not_before: *not_before,
            }
        }
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        _ => CertificateError::BadEncoding,
    };
    certificate.into()
}

/// How far past its end a certificate may be where no quorum can renew it.
pub const EXPIRED_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

#[cfg(test)]
mod tests;
