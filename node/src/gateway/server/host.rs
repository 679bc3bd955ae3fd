//! Who may ask a node that asks for no keys: this machine, and its own pages.

use std::net::IpAddr;

use hyper::header::{self, HeaderMap};
use hyper::http::uri::Authority;
use paceline_protocol::{ErrorCode, Failure};

/// Refuses what a foreign web page could have sent here: without keys, only requests made to
/// this machine's own address, from a page of its own, are answered.
///
/// `authority` is what HTTP/2 has for Host, and what goes before it in HTTP/1.1 (RFC 9112, section
/// 3.2.2).
pub(in crate::gateway) fn check_host(
    authority: Option<&Authority>,
    headers: &HeaderMap,
) -> Result<(), Failure> {
    let refuse = |what: &str| {
        let message =
            format!("{what} is not a loopback address; nodes without keys answer no others");
        Failure::new(ErrorCode::HostRefused, message)
    };
    // Who is named before an '@' is no host.
    if authority.is_some_and(|named| named.as_str().contains('@') || !is_loopback(named.as_str())) {
        return Err(refuse("the request's authority"));
    }
    if let Some(host) = headers.get(header::HOST) {
        let host = host.to_str().unwrap_or_default();
        if !is_loopback(host) {
            return Err(refuse("the Host header"));
        }
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        let host = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        if !host.is_some_and(is_loopback) {
            return Err(refuse("the Origin header"));
        }
    }
    Ok(())
}

/// Whether `host[:port]` names this machine itself.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(name, _)| name),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::try_from(*value).unwrap(),
            )
        });
        pairs.collect()
    }

    #[test]
    fn only_loopback_hosts_and_origins_are_answered() {
        let good = [
            "127.0.0.1:8000",
            "localhost",
            "LOCALHOST:1",
            "[::1]:8000",
            "127.9.9.9",
        ];
        for host in good {
            assert!(
                check_host(None, &headers(&[("host", host)])).is_ok(),
                "{host}"
            );
            let origin = format!("http://{host}");
            assert!(
                check_host(None, &headers(&[("origin", &origin)])).is_ok(),
                "{origin}"
            );
        }
        for host in [
            "example.com",
            "127.0.0.1.example.com",
            "10.0.0.1:8000",
            "[::2]",
            "localhost.x",
            "",
        ] {
            assert!(
                check_host(None, &headers(&[("host", host)])).is_err(),
                "{host}"
            );
        }
        for origin in [
            "null",
            "http://example.com",
            "file://x",
            "http://localhost.example.com",
        ] {
            assert!(
                check_host(None, &headers(&[("origin", origin)])).is_err(),
                "{origin}"
            );
        }
        assert!(
            check_host(None, &headers(&[])).is_ok(),
            "HTTP/1.0 needs no Host"
        );
        let named = |authority: &'static str| {
            let authority = Authority::from_static(authority);
            check_host(Some(&authority), &headers(&[("host", "localhost")])).is_ok()
        };
        assert!(named("localhost:8000") && named("127.0.0.1"));
        assert!(!named("example.com") && !named("localhost@example.com:80"));
        assert!(!named("x@localhost"));
    }
}
