//! Where a node is reached: `[https://]HOST[:PORT]`, in the spellings that people type.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// The HTTP port of a node that was started without saying otherwise.
pub const DEFAULT_PORT: u16 = 8000;

/// The HTTP door of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// Name or number; an IPv6 number stands without its brackets.
    host: String,
    port: u16,
    is_secure: bool,
}

/// Why a text is not an address. Each names the text and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing was given.
    #[error("the address is empty; allowed: {ALLOWED}")]
    Empty,
    /// Another scheme than `http` and `https`.
    #[error("'{scheme}://' is not offered, only http:// and https://; allowed: {ALLOWED}")]
    Scheme {
        /// What stood before `://`.
        scheme: String,
    },
    /// Something follows the port.
    #[error("'{rest}' does not belong in an address; allowed: {ALLOWED}")]
    Rest {
        /// What follows.
        rest: String,
    },
    /// The port is not a number from 1 to 65535.
    #[error("'{port}' is not a port from 1 to 65535")]
    Port {
        /// What was given.
        port: String,
    },
    /// The host has characters that no host has.
    #[error("'{host}' is neither a host name nor an IP address; allowed: {ALLOWED}")]
    Host {
        /// What was given.
        host: String,
    },
}

const ALLOWED: &str =
    "HOST, HOST:PORT, :PORT, PORT, [IPV6]:PORT, each with or without http:// or https://";

impl NodeAddress {
    /// The absolute URL of `path`, which begins with `/`.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.is_secure { "" } else { "http://" };
        format!("{scheme}{self}{path}")
    }

    /// Whether it is reached over TLS.
    pub fn is_secure(&self) -> bool {
        self.is_secure
    }
}

impl Default for NodeAddress {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: DEFAULT_PORT,
            is_secure: false,
        }
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            port,
            is_secure,
        } = self;
        if *is_secure {
            f.write_str("https://")?;
        }
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

impl FromStr for NodeAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        let mut is_secure = false;
        let bare = match text.split_once("://") {
            Some(("http", bare)) => bare,
            Some(("https", bare)) => {
                is_secure = true;
                bare
            }
            Some((scheme, _)) => {
                let scheme = scheme.to_owned();
                return Err(AddressError::Scheme { scheme });
            }
            None => text,
        };
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        if bare.is_empty() {
            return Err(AddressError::Empty);
        }
        if let Some(at) = bare.find(['/', '?', '#', '@']) {
            let rest = bare[at..].to_owned();
            return Err(AddressError::Rest { rest });
        }
        let (host, port) = parts(bare)?;
        Ok(Self {
            host: checked_host(host)?,
            port: port.map_or(Ok(DEFAULT_PORT), checked_port)?,
            is_secure,
        })
    }
}

/// Splits host and port; an IPv6 number has colons of its own, so it is told apart first.
fn parts(bare: &str) -> Result<(&str, Option<&str>), AddressError> {
    if let Some(inner) = bare.strip_prefix('[') {
        let wrong = || AddressError::Host {
            host: bare.to_owned(),
        };
        let (host, rest) = inner.split_once(']').ok_or_else(wrong)?;
        host.parse::<Ipv6Addr>().map_err(|_| wrong())?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(wrong()),
        };
    }
    if bare.parse::<Ipv6Addr>().is_ok() {
        return Ok((bare, None));
    }
    if bare.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(("", Some(bare)));
    }
    match bare.rsplit_once(':') {
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((bare, None)),
    }
}

/// A node on this machine is the usual one to ask, so a host left out means loopback.
fn checked_host(host: &str) -> Result<String, AddressError> {
    let is_named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if host.is_empty() {
        Ok(NodeAddress::default().host)
    } else if host.bytes().all(is_named) || host.parse::<Ipv6Addr>().is_ok() {
        Ok(host.to_owned())
    } else {
        let host = host.to_owned();
        Err(AddressError::Host { host })
    }
}

fn checked_port(port: &str) -> Result<u16, AddressError> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(number) if digits && number > 0 => Ok(number),
        _ => Err(AddressError::Port {
            port: port.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_names_host_and_port() {
        for (text, wanted) in [
            ("127.0.0.1:8010", "127.0.0.1:8010"),
            ("http://127.0.0.1:8010", "127.0.0.1:8010"),
            ("http://node-1.example:81/", "node-1.example:81"),
            ("node-1", "node-1:8000"),
            (" localhost ", "localhost:8000"),
            (":8020", "127.0.0.1:8020"),
            ("8020", "127.0.0.1:8020"),
            ("[::1]:8030", "[::1]:8030"),
            ("::1", "[::1]:8000"),
            ("http://[fe80::2]", "[fe80::2]:8000"),
            ("https://node-1", "https://node-1:8000"),
            ("https://[::1]:443/", "https://[::1]:443"),
        ] {
            let address: NodeAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), wanted, "{text}");
        }
        assert_eq!(NodeAddress::default().to_string(), "127.0.0.1:8000");
        let address: NodeAddress = "[::1]".parse().unwrap();
        assert_eq!(address.url("/v2"), "http://[::1]:8000/v2");
        let address: NodeAddress = "https://a:9".parse().unwrap();
        assert_eq!(address.url("/v2"), "https://a:9/v2");
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_offence() {
        for (text, wanted) in [
            ("", "is empty"),
            ("http://", "is empty"),
            ("ftp://a", "'ftp://' is not offered"),
            ("a:0", "'0' is not a port"),
            ("a:65536", "'65536' is not a port"),
            ("a:+80", "'+80' is not a port"),
            ("a:", "'' is not a port"),
            ("99999", "'99999' is not a port"),
            ("a/v2", "'/v2' does not belong"),
            ("me@a:80", "'@a:80' does not belong"),
            ("a b:80", "'a b' is neither"),
            ("[::1", "'[::1' is neither"),
            ("[::1]80", "'[::1]80' is neither"),
            ("a\r\nHost: b:80", "is neither"),
        ] {
            let refused = text.parse::<NodeAddress>().unwrap_err().to_string();
            assert!(refused.contains(wanted), "{text:?} gave {refused:?}");
        }
    }
}
