//! A node's own key and certificate, and the TLS that its connections speak.
//!
//! A certificate is replaced while the node runs: connections that are made from then on show
//! the new one.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use paceline_core::renewal::Life;
use paceline_protocol::Digest;
use rcgen::KeyPair;
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};
use tokio::sync::watch;

use super::authority::{self, AuthorityError};
use super::trust::Trust;
use paceline_protocol::Subject;

/// Who this node is towards others. Cheap to clone; the clones share the certificate.
#[derive(Clone)]
pub struct Credentials {
    inner: Arc<Inner>,
}

struct Inner {
    subject: Subject,
    key: KeyPair,
    provider: Arc<CryptoProvider>,
    trust: Trust,
    shown: ArcSwap<CertifiedKey>,
    is_disowned: watch::Sender<bool>,
}

/// Shows whatever certificate the node has now.
struct Resolver {
    inner: Arc<Inner>,
}

impl Credentials {
    /// The credentials of `subject`, whose key was signed with `certificate`.
    ///
    /// # Errors
    /// The key cannot be used, or the certificate is another key's.
    pub fn new(
        subject: Subject,
        key: KeyPair,
        certificate: CertificateDer<'static>,
        trust: Trust,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let shown = certified(&key, certificate, (&provider, &trust))?;
        Ok(Self {
            inner: Arc::new(Inner {
                subject,
                key,
                provider,
                trust,
                shown: ArcSwap::from_pointee(shown),
                is_disowned: watch::Sender::new(false),
            }),
        })
    }

    /// Who the node is.
    pub fn subject(&self) -> Subject {
        self.inner.subject
    }

    /// Whom the node believes.
    pub fn trust(&self) -> &Trust {
        &self.inner.trust
    }

    /// The certificate that is shown now.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.inner.shown.load().cert[0].clone()
    }

    /// From when until when that certificate is good, but for what it is backdated.
    pub fn life(&self) -> Life {
        let until = self.inner.trust.good_until(&self.certificate());
        // A certificate of another authority is good for nothing: renew it at once.
        let until_s = until.map_or(0, |until| until.as_secs());
        Life {
            from_s: until_s.saturating_sub(authority::LIFETIME.as_secs()),
            until_s,
        }
    }

    /// SHA-256 of the node's public key, as the registry knows it.
    pub fn key_sha256(&self) -> Digest {
        authority::digest_of(&self.inner.key)
    }

    /// Asks for a new certificate of the node's key: PKCS#10 in DER.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn request(&self) -> Result<Vec<u8>, AuthorityError> {
        authority::request(&self.inner.key)
    }

    /// Shows another certificate from now on.
    ///
    /// # Errors
    /// It is another key's.
    pub fn renew(&self, certificate: CertificateDer<'static>) -> Result<(), rustls::Error> {
        let with = (self.inner.provider.as_ref(), &self.inner.trust);
        let shown = certified(&self.inner.key, certificate, with)?;
        self.inner.shown.store(Arc::new(shown));
        Ok(())
    }

    /// A member of the cluster has refused this node as one that was removed.
    pub(crate) fn disown(&self) {
        self.inner.is_disowned.send_replace(true);
    }

    /// Waits until a member of the cluster has refused this node as one that was removed.
    pub(crate) async fn disowned(&self) {
        let mut disowned = self.inner.is_disowned.subscribe();
        // It does not fail: the sender is as old as this.
        let _ = disowned.wait_for(|is_disowned| *is_disowned).await;
    }

    /// How peers are let in: with a certificate that can be believed, over one of `protocols`.
    ///
    /// # Errors
    /// The provider does not speak TLS 1.3.
    pub fn peer_server(&self, protocols: Vec<Vec<u8>>) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(self.inner.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(self.inner.trust.clone()))
            .with_cert_resolver(self.resolver());
        config.alpn_protocols = protocols;
        // Early data can be replayed by whoever saw it.
        config.max_early_data_size = 0;
        Ok(config)
    }

    /// How a peer is dialled, for `protocol`.
    ///
    /// # Errors
    /// The provider does not speak TLS 1.3.
    pub fn peer_client(&self, protocol: Vec<u8>) -> Result<ClientConfig, rustls::Error> {
        let mut config = ClientConfig::builder_with_provider(self.inner.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.inner.trust.clone()))
            .with_client_cert_resolver(self.resolver());
        config.alpn_protocols = vec![protocol];
        config.enable_early_data = false;
        // A resumed session would show an old certificate, and skip the check of a new one.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    /// How clients are served, who show no certificate, over one of `protocols`.
    ///
    /// # Errors
    /// The provider does not speak TLS 1.3.
    pub fn client_server(&self, protocols: Vec<Vec<u8>>) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(self.inner.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(self.resolver());
        config.alpn_protocols = protocols;
        config.max_early_data_size = 0;
        Ok(config)
    }

    fn resolver(&self) -> Arc<Resolver> {
        Arc::new(Resolver {
            inner: self.inner.clone(),
        })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.inner.subject)
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resolver({})", self.inner.subject)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.inner.shown.load_full())
    }
}

impl ResolvesClientCert for Resolver {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.inner.shown.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn certified(
    key: &KeyPair,
    certificate: CertificateDer<'static>,
    (provider, trust): (&CryptoProvider, &Trust),
) -> Result<CertifiedKey, rustls::Error> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // Who has nothing but a token sees in the chain whether it leads to the pinned authority.
    let chain = vec![certificate, trust.authority().clone()];
    let certified = CertifiedKey::from_der(chain, key, provider)?;
    certified.keys_match()?;
    Ok(certified)
}

#[cfg(test)]
mod tests;
