//! Finds the end of an answer in what a connection has brought so far.

use anyhow::{Context, ensure};

/// Where an answer's head and body end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Bytes of status line and headers.
    pub(crate) head: usize,
    /// Bytes of the body.
    pub(crate) body: usize,
}

/// The extent of the answer that `bytes` begin with, or `None` while its head is incomplete.
///
/// # Errors
/// It is not a 200, or does not say how long it is.
pub(crate) fn extent(bytes: &[u8]) -> anyhow::Result<Option<Extent>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = &bytes[..end];
    let text = || String::from_utf8_lossy(bytes).into_owned();
    ensure!(head.starts_with(b"HTTP/1.1 200 "), "answered {}", text());
    let mut lines = head.split(|byte| *byte == b'\n');
    let length = lines.find_map(|line| {
        let (name, value) = line.split_at_checked(CONTENT_LENGTH.len())?;
        name.eq_ignore_ascii_case(CONTENT_LENGTH)
            .then(|| value.trim_ascii())
    });
    let length = length.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    Ok(Some(Extent {
        head: end + 4,
        body: length.with_context(|| format!("no length in {}", text()))?,
    }))
}

const CONTENT_LENGTH: &[u8] = b"content-length:";
