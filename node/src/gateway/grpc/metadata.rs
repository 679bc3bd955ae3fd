//! What a call says in its headers that gRPC itself defines.

use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName};
use paceline_protocol::{ErrorCode, Failure};

/// How messages of a call are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    /// The wrapper of zlib, as HTTP has it.
    Deflate,
}

/// How long the caller waits for the call's end, if it says so.
///
/// # Errors
/// `PARAMETER_INVALID` if the header is no time.
pub(super) fn budget(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let Some(value) = headers.get(TIMEOUT) else {
        return Ok(None);
    };
    let parsed = value.to_str().ok().and_then(duration);
    parsed.map(Some).ok_or_else(|| {
        let message = "grpc-timeout must be up to 8 digits and one of H, M, S, m, u, n";
        Failure::new(ErrorCode::ParameterInvalid, message)
    })
}

/// How its compressed messages are compressed.
///
/// # Errors
/// `UNSUPPORTED` for what this node does not take.
pub(super) fn encoding(headers: &HeaderMap) -> Result<Encoding, Failure> {
    match headers.get(ENCODING).map(|value| value.as_bytes()) {
        None | Some(b"identity") => Ok(Encoding::Identity),
        Some(b"gzip") => Ok(Encoding::Gzip),
        Some(b"deflate") => Ok(Encoding::Deflate),
        Some(_) => {
            let message = "grpc-encoding names what is not taken; allowed: identity, gzip, deflate";
            Err(Failure::new(ErrorCode::Unsupported, message))
        }
    }
}

fn duration(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = (1..=DIGITS_MAX).contains(&digits.len())
        && digits.bytes().all(|digit| digit.is_ascii_digit());
    let count: u64 = is_number.then(|| digits.parse().ok())??;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const DIGITS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_in_every_unit_and_nothing_else_is() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT, text.parse().unwrap());
            budget(&headers).map_err(|failure| failure.code)
        };
        let cases = [
            ("2H", 7_200_000_000_000),
            ("3M", 180_000_000_000),
            ("1S", 1_000_000_000),
            ("250m", 250_000_000),
            ("99999999u", 99_999_999_000),
            ("0n", 0),
        ];
        for (text, nanos) in cases {
            assert_eq!(read(text), Ok(Some(Duration::from_nanos(nanos))), "{text}");
        }
        for text in [
            "",
            "S",
            "1",
            "1s",
            "-1S",
            "+1S",
            "123456789n",
            "1 S",
            "\u{e4}",
        ] {
            assert_eq!(read(text), Err(ErrorCode::ParameterInvalid), "{text:?}");
        }
        assert_eq!(budget(&HeaderMap::new()), Ok(None));
    }
}
