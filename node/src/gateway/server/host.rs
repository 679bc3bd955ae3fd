//! Who may ask a node that asks for no keys: this machine, and its own pages.

use std::net::IpAddr;

use hyper::Uri;
use hyper::header::{self, HeaderMap};
use paceline_protocol::{ErrorCode, Failure};

/// Refuses what a foreign web page could have sent here: without keys, only requests made to
/// this machine's own address, from a page of its own, are answered.
pub(in crate::gateway) fn check_host(headers: &HeaderMap) -> Result<(), Failure> {
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

/// The same for HTTP/2, which says in `:authority` whom a request is for.
pub(in crate::gateway) fn check_authority(uri: &Uri) -> Result<(), Failure> {
    match uri.authority() {
        Some(authority) if !is_loopback(authority.as_str()) => Err(refuse("the authority")),
        _ => Ok(()),
    }
}

fn refuse(what: &str) -> Failure {
    let message = format!("{what} is not a loopback address; nodes without keys answer no others");
    Failure::new(ErrorCode::HostRefused, message)
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
            assert!(check_host(&headers(&[("host", host)])).is_ok(), "{host}");
            let origin = format!("http://{host}");
            assert!(
                check_host(&headers(&[("origin", &origin)])).is_ok(),
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
            assert!(check_host(&headers(&[("host", host)])).is_err(), "{host}");
        }
        for origin in [
            "null",
            "http://example.com",
            "file://x",
            "http://localhost.example.com",
        ] {
            assert!(
                check_host(&headers(&[("origin", origin)])).is_err(),
                "{origin}"
            );
        }
        assert!(check_host(&headers(&[])).is_ok(), "HTTP/1.0 needs no Host");
    }
}
