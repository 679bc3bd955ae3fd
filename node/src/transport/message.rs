//! Messages on a stream: a length, a schema number, and a value of the wire format.

use std::io;

use paceline_protocol::wire;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How the messages of one plane are written.
pub(crate) struct Dialect {
    /// What they are about, for errors.
    pub(crate) what: &'static str,
    /// Rises when old readers would misread.
    pub(crate) schema: u16,
    /// The largest one, without its length.
    pub(crate) bytes_max: usize,
}

impl Dialect {
    /// Writes one message.
    pub(crate) async fn send<T: Serialize>(
        &self,
        out: &mut (impl AsyncWrite + Unpin + ?Sized),
        message: &T,
    ) -> io::Result<()> {
        let encoded = wire::encode(message).map_err(io::Error::other)?;
        let length = encoded.len() + SCHEMA_BYTES;
        if length > self.bytes_max {
            return Err(self.refusal(format!("of {length} bytes is too large to be sent")));
        }
        let mut bytes = Vec::with_capacity(length + 4);
        bytes.extend_from_slice(&(length as u32).to_le_bytes());
        bytes.extend_from_slice(&self.schema.to_le_bytes());
        bytes.extend_from_slice(&encoded);
        out.write_all(&bytes).await
    }

    /// Reads one message; nothing is allocated for a length over the limit.
    ///
    /// Not to be dropped half-way: what was read of the message would be lost.
    pub(crate) async fn receive<T: DeserializeOwned>(
        &self,
        from: &mut (impl AsyncRead + Unpin + ?Sized),
    ) -> io::Result<T> {
        let length = self.length(from).await?;
        self.body(from, length).await
    }

    /// Reads how long the next message is, for who makes room before it is read.
    pub(crate) async fn length(
        &self,
        from: &mut (impl AsyncRead + Unpin + ?Sized),
    ) -> io::Result<usize> {
        let length = from.read_u32_le().await? as usize;
        if !(SCHEMA_BYTES..=self.bytes_max).contains(&length) {
            let limit = self.bytes_max;
            return Err(self.refusal(format!("of {length} bytes; at most {limit} are read")));
        }
        Ok(length)
    }

    /// Reads a message of this length.
    pub(crate) async fn body<T: DeserializeOwned>(
        &self,
        from: &mut (impl AsyncRead + Unpin + ?Sized),
        length: usize,
    ) -> io::Result<T> {
        let schema = from.read_u16_le().await?;
        if schema != self.schema {
            let known = self.schema;
            return Err(self.refusal(format!("in schema {schema}; this node reads {known}")));
        }
        let bytes = exactly(from, (length - SCHEMA_BYTES) as u64).await?;
        wire::decode(&bytes, self.bytes_max).map_err(|error| self.refusal(error.to_string()))
    }

    fn refusal(&self, reason: String) -> io::Error {
        let what = self.what;
        let reason = format!("a message about {what} {reason}");
        io::Error::new(io::ErrorKind::InvalidData, reason)
    }
}

/// Reads `length` bytes. What the peer really sends decides how much is taken, not what it has
/// announced.
pub(crate) async fn exactly(
    from: &mut (impl AsyncRead + Unpin + ?Sized),
    length: u64,
) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(length).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

const SCHEMA_BYTES: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const DIALECT: Dialect = Dialect {
        what: "tests",
        schema: 3,
        bytes_max: 64,
    };

    async fn read(bytes: &[u8]) -> io::Result<(u32, String)> {
        DIALECT.receive(&mut &*bytes).await
    }

    #[tokio::test]
    async fn hostile_bytes_are_refused_before_anything_is_taken() {
        let value = (7, "seven".to_owned());
        let mut good = Vec::new();
        DIALECT.send(&mut good, &value).await.unwrap();
        assert_eq!(read(&good).await.unwrap(), value);
        for length in [0, 1, 65, u32::MAX] {
            let mut bytes = good.clone();
            bytes[..4].copy_from_slice(&length.to_le_bytes());
            let refused = read(&bytes).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "{length}");
        }
        let mut later = good.clone();
        later[4] = 9;
        let refused = read(&later).await.unwrap_err().to_string();
        assert!(refused.contains("schema 9"), "{refused}");
        let cut = read(&good[..good.len() - 1]).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
        let large = (7, "x".repeat(100));
        assert!(DIALECT.send(&mut Vec::new(), &large).await.is_err());
    }
}
