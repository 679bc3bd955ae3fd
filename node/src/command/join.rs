//! `paceline join`: this machine's node becomes a member, and then runs like any other.

mod cluster;

use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::arguments::ConfigArgs;
use super::serve::{Entry, Kept};

pub(super) use self::cluster::{JoinOptions, join_cluster};

/// `paceline join`
#[derive(Debug, Args)]
pub struct Join {
    /// A member's SDK address, three above its HTTP port: HOST:PORT.
    #[arg(value_name = "SEED", value_parser = parse_seed)]
    seed: String,
    /// What lets the node in, from `paceline token create`; it begins with pcl1.
    #[arg(long, value_name = "TOKEN", value_parser = parse_token)]
    token: String,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    kept: Kept,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  paceline join 10.0.0.5:8003 --token pcl1.… --advertise 10.0.0.6
  paceline join n0.internal:8003 --token pcl1.… --advertise 10.0.0.6 --name edge-3 --zone b
  paceline join 127.0.0.1:8003 --token pcl1.… --http-port 8010 --data-dir second    on one machine

The token pins the cluster's authority, and its secret leaves only for who holds that. Without
--name the node gets the first of n0, n1, … that is free. What it was given is kept in
DIR/node.toml, so that `paceline serve --data-dir DIR` starts it again.";

impl Join {
    pub(super) fn run(self) -> Result<ExitCode, String> {
        let config = self.config.load()?;
        let data = &config.node.data_dir;
        if is_member(data) {
            return Err(format!(
                "'{data}' belongs to a node that has a cluster; start it with \
                 `paceline serve --data-dir {data}`, or let a new one join with another directory",
                data = data.display()
            ));
        }
        let (seed, token) = (self.seed, self.token);
        self.kept
            .run(config, Entry::Join(JoinOptions { seed, token }))
    }
}

/// Whether the directory is that of a node that has a cluster.
pub(super) fn is_member(data: &Path) -> bool {
    data.join(IDENTITY).exists()
}

/// Host and port; the host may be a name, so it is looked up when it is used.
fn parse_seed(text: &str) -> Result<String, String> {
    let wrong = |what: &str| format!("{what}; allowed: HOST:PORT, as in 10.0.0.5:8003");
    if text.contains("://") {
        return Err(wrong("a seed has no scheme"));
    }
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| wrong("the port is missing"))?;
    if !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(wrong(&format!("'{port}' is no port")));
    }
    let number = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    let is_named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if !number && (host.is_empty() || !host.bytes().all(is_named)) {
        return Err(wrong(&format!("'{host}' is no host")));
    }
    Ok(text.to_owned())
}

/// Checked as far as can be seen without knowing secrets. The text is never repeated.
fn parse_token(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let token = text.trim();
    if token.len() > TOKEN_BYTES_MAX || !token.starts_with("pcl1.") || !token.bytes().all(plain) {
        return Err(
            "not a join token: those begin with pcl1., and `paceline token create` makes them"
                .to_owned(),
        );
    }
    Ok(token.to_owned())
}

/// A member's directory holds it.
const IDENTITY: &str = "identity.json";
/// Several times what a token has.
const TOKEN_BYTES_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_host_and_port() {
        for good in ["127.0.0.1:8003", "n0.internal:1", "[::1]:8003"] {
            assert_eq!(parse_seed(good), Ok(good.to_owned()));
        }
        for (bad, reason) in [
            ("10.0.0.5", "the port is missing"),
            ("10.0.0.5:0", "'0' is no port"),
            ("10.0.0.5:x", "'x' is no port"),
            ("http://a:1", "no scheme"),
            (":8003", "'' is no host"),
            ("a/b:8003", "'a/b' is no host"),
            ("::1:8003", "'::1' is no host"),
        ] {
            let refused = parse_seed(bad).unwrap_err();
            assert!(refused.contains(reason), "{bad}: {refused}");
        }
    }

    #[test]
    fn a_token_is_told_by_its_beginning_and_never_repeated() {
        assert!(parse_token(" pcl1.abc.DEF-9 ").is_ok());
        for bad in ["", "pk_secret", "pcl2.secret", "pcl1.se cret"] {
            let refused = parse_token(bad).unwrap_err();
            assert!(!refused.contains("cret"), "{refused}");
        }
        assert!(parse_token(&format!("pcl1.{}", "a".repeat(2_000))).is_err());
    }
}
