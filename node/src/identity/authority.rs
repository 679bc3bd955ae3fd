//! The cluster's own certificate authority: signs who its nodes are.
//!
//! Its key lies on voters only, readable by its owner alone; it is in no log entry and no
//! snapshot. Signing needs no quorum.

use std::fmt;
use std::time::{Duration, SystemTime};

use paceline_protocol::Digest;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use sha2::{Digest as _, Sha256};

use paceline_protocol::Subject;

/// What signs the nodes of one cluster.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// Why something could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The request is too long to be looked at.
    #[error("a certificate request of {bytes} bytes; at most {REQUEST_BYTES_MAX} are read")]
    RequestTooLarge {
        /// How long it is.
        bytes: usize,
    },
    /// The request is malformed, or its own signature is wrong.
    #[error("the certificate request is not valid: {0}")]
    Request(rcgen::Error),
    /// The request is for a key of another kind than nodes have.
    #[error("the certificate request is for a key that is not of ECDSA on P-256")]
    KeyKind,
    /// A key or certificate could not be made or read.
    #[error("the cluster's authority cannot be used: {0}")]
    Key(rcgen::Error),
}

impl Authority {
    /// Makes the authority of a new cluster.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn found(cluster: u128) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Key)?;
        let mut parameters = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, format!("Paceline {cluster:032x}"));
        parameters.distinguished_name = name;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let signed = parameters.self_signed(&key).map_err(AuthorityError::Key)?;
        let certificate = signed.der().clone();
        let issuer = Issuer::new(parameters, key);
        Ok(Self {
            issuer,
            certificate,
        })
    }

    /// Takes the authority back from its certificate and its key in PEM.
    ///
    /// # Errors
    /// Either is malformed.
    pub fn load(
        certificate: CertificateDer<'static>,
        key_pem: &str,
    ) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(key_pem).map_err(AuthorityError::Key)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(AuthorityError::Key)?;
        Ok(Self {
            issuer,
            certificate,
        })
    }

    /// The certificate that every node trusts.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The private key in PEM. Whoever has it can be any node: it goes to voters only.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// What join tokens pin.
    pub fn pin(&self) -> Digest {
        digest_of(self.issuer.key())
    }

    /// Signs that the key of `request` (PKCS#10, DER) is `subject`'s for [`LIFETIME`] from
    /// `now` on. Nothing else of the request is taken over. Costs about 100 µs.
    ///
    /// # Errors
    /// The request is too long, malformed, not signed by its own key, or its key is of a kind
    /// that nodes do not have.
    pub fn sign(
        &self,
        request: &[u8],
        subject: Subject,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let mut request = parse(request)?;
        request.params = parameters(subject, now).map_err(AuthorityError::Key)?;
        let signed = request.signed_by(&self.issuer);
        Ok(signed.map_err(AuthorityError::Request)?.der().clone())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("pin", &self.pin())
            .finish_non_exhaustive()
    }
}

/// SHA-256 of the public key that `request` asks a certificate for, after a check that the
/// request is signed by that key. What the registry keeps of a node's key.
///
/// # Errors
/// The request is too long, malformed, not signed by its own key, or its key is of a kind that
/// nodes do not have.
pub fn key_in_request(request: &[u8]) -> Result<Digest, AuthorityError> {
    Ok(digest_of(&parse(request)?.public_key))
}

/// SHA-256 of a key pair's public half.
pub fn digest_of(key: &impl PublicKeyData) -> Digest {
    Digest(Sha256::digest(key.subject_public_key_info()).into())
}

/// SHA-256 of the public key in a certificate, if it is one.
pub fn key_in_certificate(certificate: &CertificateDer<'_>) -> Option<Digest> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    Some(Digest(
        Sha256::digest(parsed.subject_public_key_info()).into(),
    ))
}

fn parse(request: &[u8]) -> Result<CertificateSigningRequestParams, AuthorityError> {
    if request.len() > REQUEST_BYTES_MAX {
        return Err(AuthorityError::RequestTooLarge {
            bytes: request.len(),
        });
    }
    let request = CertificateSigningRequestDer::from(request);
    let request = CertificateSigningRequestParams::from_der(&request);
    let request = request.map_err(AuthorityError::Request)?;
    if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
        return Err(AuthorityError::KeyKind);
    }
    Ok(request)
}

/// Asks for a certificate of `key`: PKCS#10 in DER.
///
/// # Errors
/// The key cannot sign.
pub fn request(key: &KeyPair) -> Result<Vec<u8>, AuthorityError> {
    let parameters = CertificateParams::default();
    let request = parameters
        .serialize_request(key)
        .map_err(AuthorityError::Key)?;
    Ok(request.der().to_vec())
}

fn parameters(subject: Subject, now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(vec![subject.to_string()])?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, subject.to_string());
    parameters.distinguished_name = name;
    parameters.not_before = (now - BACKDATED).into();
    parameters.not_after = (now + LIFETIME).into();
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    Ok(parameters)
}

/// How long a certificate is good: short enough that a stolen one is soon worth nothing.
pub const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Clocks of nodes may differ by this much.
const BACKDATED: Duration = Duration::from_secs(300);
/// A request with an elliptic key takes some 300 bytes.
const REQUEST_BYTES_MAX: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaded_authority_is_the_same_one() {
        let founded = Authority::found(7).unwrap();
        let again = Authority::load(founded.certificate().clone(), &founded.key_pem()).unwrap();
        assert_eq!(again.pin(), founded.pin());
        assert_ne!(Authority::found(7).unwrap().pin(), founded.pin());
        let shown = format!("{founded:?}");
        assert!(!shown.contains("PRIVATE"), "{shown}");
    }

    #[test]
    fn requests_that_are_not_their_keys_own_are_refused() {
        let authority = Authority::found(7).unwrap();
        let subject = Subject {
            node: paceline_protocol::NodeId(3),
            cluster: 7,
        };
        let now = SystemTime::now();
        let key = KeyPair::generate().unwrap();
        let good = request(&key).unwrap();
        let key_of = |signed: &CertificateDer<'_>| {
            let parsed = webpki::EndEntityCert::try_from(signed).unwrap();
            parsed.subject_public_key_info().to_vec()
        };
        let signed = authority.sign(&good, subject, now).unwrap();
        assert_eq!(key_of(&signed), key.subject_public_key_info());
        let mut refused = 0;
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            // A few bytes say nothing that is taken over; no other key is ever signed.
            match authority.sign(&bad, subject, now) {
                Ok(signed) => assert_eq!(key_of(&signed), key.subject_public_key_info()),
                Err(_) => refused += 1,
            }
        }
        assert!(refused + 4 > good.len(), "{refused} of {}", good.len());
        let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let other = request(&other).unwrap();
        let refused = authority.sign(&other, subject, now);
        assert!(matches!(refused, Err(AuthorityError::KeyKind)));
        let long = vec![0x30; REQUEST_BYTES_MAX + 1];
        assert!(matches!(
            authority.sign(&long, subject, now),
            Err(AuthorityError::RequestTooLarge { .. })
        ));
    }
}
