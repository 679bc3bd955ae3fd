//! The bytes that hide a token's secret on one connection: only its two ends can derive them,
//! and only with the secret's digest (RFC 5705; [`paceline_protocol::join`] says why).

use paceline_protocol::join::CHANNEL_LABEL;
use paceline_protocol::{Digest, Secret};

/// Hides a secret, or reveals what was hidden: the same step twice is none. `None` if the
/// connection has no keys.
pub(super) fn apply(
    connection: &quinn::Connection,
    digest: &Digest,
    secret: &Secret,
) -> Option<Secret> {
    let mut bytes = [0; 32];
    let exported = connection.export_keying_material(&mut bytes, CHANNEL_LABEL, &digest.0);
    exported.ok()?;
    for (byte, other) in bytes.iter_mut().zip(secret.reveal()) {
        *byte ^= other;
    }
    Some(Secret::new(bytes))
}
