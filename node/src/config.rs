//! A node's configuration: defaults, then a file, then the environment, then flags.
//!
//! Each component owns its options; this file composes them. Unknown keys are errors. Values
//! are checked before any port opens, and an error names the key, the value and what is
//! allowed. The effective configuration can be printed, and read back.

mod block;
mod options;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use paceline_protocol::limits::{BODY_BYTES_MAX, NAME_BYTES_MAX};
use serde::{Deserialize, Serialize};

pub use self::block::Block;
pub use self::options::{
    AdmissionOptions, DeviceOptions, HttpOptions, MetricsOptions, NodeOptions, PeerOptions,
    RaftOptions, SdkOptions,
};
use crate::telemetry::logging;

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The node itself.
    pub node: NodeOptions,
    /// HTTP inference and operator API.
    pub http: HttpOptions,
    /// Prometheus metrics.
    pub metrics: MetricsOptions,
    /// QUIC for SDKs and for nodes that join.
    pub sdk: SdkOptions,
    /// QUIC between nodes.
    pub peer: PeerOptions,
    /// How much is taken on at once.
    pub admission: AdmissionOptions,
    /// What models run on.
    pub device: DeviceOptions,
    /// The replicated log.
    pub raft: RaftOptions,
    /// Logs.
    pub log: logging::Options,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file '{path}' cannot be read: {cause}")]
    File {
        /// Which.
        path: String,
        /// What the operating system says.
        cause: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{source_name}: {cause}")]
    Syntax {
        /// The file, variable or flag.
        source_name: String,
        /// What is wrong, with the keys that are allowed.
        cause: String,
    },
    /// A value outside what is allowed.
    #[error("{key} = {value} is not allowed: {allowed}")]
    Value {
        /// The key, with its section.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: String,
    },
}

/// Where a configuration comes from, besides its defaults.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Variables: `PACELINE__SECTION__KEY` sets `section.key`.
    pub environment: Vec<(String, String)>,
    /// `section.key` and value, the strongest.
    pub flags: Vec<(String, String)>,
}

impl Config {
    /// Composes, reads and checks a configuration.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, key and value, and what is allowed.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut table = toml::Table::new();
        if let Some(path) = &sources.file {
            table = read_file(path)?;
            // Checked alone, so that an error names the file and its line.
            let text = std::fs::read_to_string(path).unwrap_or_default();
            toml::from_str::<Self>(&text)
                .map_err(|error| syntax(&path.display().to_string(), &error))?;
        }
        for (name, value) in &sources.environment {
            if let Some(key) = name.strip_prefix(ENVIRONMENT_PREFIX) {
                let key = key.to_ascii_lowercase().replace("__", ".");
                set(&mut table, name, &key, value)?;
            }
        }
        for (key, value) in &sources.flags {
            set(&mut table, &format!("--set {key}"), key, value)?;
        }
        let config: Self = table
            .try_into()
            .map_err(|error| syntax("effective configuration", &error))?;
        config.check()?;
        Ok(config)
    }

    /// The effective configuration as TOML that can be read back.
    pub fn print(&self) -> String {
        toml::to_string_pretty(self).expect("every option is a TOML value")
    }

    fn check(&self) -> Result<(), ConfigError> {
        check_name("node.name", &self.node.name)?;
        check_name("node.zone", &self.node.zone)?;
        check_range("node.stale_max_ms", self.node.stale_max_ms, 0, STALE_MAX_MS)?;
        check_range(
            "http.body_bytes_max",
            self.http.body_bytes_max as u64,
            1_024,
            BODY_BYTES_MAX as u64,
        )?;
        check_range(
            "http.connections_max",
            self.http.connections_max as u64,
            1,
            1_000_000,
        )?;
        check_range(
            "http.header_timeout_ms",
            self.http.header_timeout_ms,
            100,
            600_000,
        )?;
        check_range(
            "admission.permits",
            self.admission.permits.into(),
            1,
            1_000_000,
        )?;
        check_range("device.threads", self.device.threads.into(), 0, 1_024)?;
        check_range("raft.heartbeat_ms", self.raft.heartbeat_ms, 10, 10_000)?;
        let election_min = self.raft.heartbeat_ms * 4;
        check_range(
            "raft.election_min_ms",
            self.raft.election_min_ms,
            election_min,
            60_000,
        )?;
        let election_max = self.raft.election_min_ms + 1;
        check_range(
            "raft.election_max_ms",
            self.raft.election_max_ms,
            election_max,
            120_000,
        )?;
        check_range(
            "raft.snapshot_entries",
            self.raft.snapshot_entries,
            10,
            10_000_000,
        )?;
        check_exposure("http.listen", self.http.listen, self.node.insecure)?;
        check_exposure("metrics.listen", self.metrics.listen, self.node.insecure)?;
        check_exposure("sdk.listen", self.sdk.listen, self.node.insecure)?;
        // The peer port may be anywhere: both sides show certificates there.
        self.log.check().map_err(|error| ConfigError::Syntax {
            source_name: "effective configuration".to_owned(),
            cause: error.to_string(),
        })
    }
}

fn read_file(path: &Path) -> Result<toml::Table, ConfigError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|cause| ConfigError::File {
        path: shown.clone(),
        cause,
    })?;
    text.parse().map_err(|error| syntax(&shown, &error))
}

fn syntax(source: &str, error: &toml::de::Error) -> ConfigError {
    ConfigError::Syntax {
        source_name: source.to_owned(),
        cause: error.to_string(),
    }
}

/// Sets `section.key`; the value is read as TOML, and as a string if it is none.
fn set(table: &mut toml::Table, source: &str, key: &str, value: &str) -> Result<(), ConfigError> {
    let wrong = |cause: String| ConfigError::Syntax {
        source_name: source.to_owned(),
        cause,
    };
    let Some((section, field)) = key.split_once('.') else {
        return Err(wrong(format!(
            "'{key}' is not a key; keys look like section.key"
        )));
    };
    let parsed = format!("value = {value}").parse::<toml::Table>().ok();
    let value = parsed
        .and_then(|mut parsed| parsed.remove("value"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let section = table
        .entry(section)
        .or_insert_with(|| toml::Value::Table(toml::Table::new()))
        .as_table_mut()
        .ok_or_else(|| wrong(format!("'{section}' is a value, not a section")))?;
    section.insert(field.to_owned(), value);
    // Checked at once, so that the error names this source and the keys that are allowed.
    Config::deserialize(toml::Value::Table(table.clone()))
        .map(drop)
        .map_err(|error| wrong(error.to_string()))
}

fn check_name(key: &'static str, name: &str) -> Result<(), ConfigError> {
    paceline_protocol::ModelName::new(name)
        .map(drop)
        .map_err(|error| ConfigError::Value {
            key,
            value: format!("{name:?}"),
            allowed: format!("{error} (at most {NAME_BYTES_MAX} bytes)"),
        })
}

fn check_range(key: &'static str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let (value, allowed) = (value.to_string(), format!("{min} to {max}"));
    Err(ConfigError::Value {
        key,
        value,
        allowed,
    })
}

fn check_exposure(
    key: &'static str,
    listen: SocketAddr,
    insecure: bool,
) -> Result<(), ConfigError> {
    if listen.ip().is_loopback() || insecure {
        return Ok(());
    }
    let allowed = "a loopback address, since there are no TLS and no keys yet; \
                   or set node.insecure = true (--insecure) on a network that you trust";
    Err(ConfigError::Value {
        key,
        value: listen.to_string(),
        allowed: allowed.to_owned(),
    })
}

/// A year: whoever means for ever says 0.
const STALE_MAX_MS: u64 = 366 * 24 * 3_600_000;
const ENVIRONMENT_PREFIX: &str = "PACELINE__";

#[cfg(test)]
mod tests {
    use super::*;

    fn load(
        file: &str,
        environment: &[(&str, &str)],
        flags: &[(&str, &str)],
    ) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("paceline.toml");
        std::fs::write(&path, file).unwrap();
        let owned = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        Config::load(&Sources {
            file: Some(path),
            environment: owned(environment),
            flags: owned(flags),
        })
    }

    #[test]
    fn later_sources_win_and_the_rest_keeps_its_defaults() {
        let file = "[http]\nlisten = \"127.0.0.1:1\"\nbody_bytes_max = 2048\n";
        let environment = [("PACELINE__HTTP__BODY_BYTES_MAX", "4096"), ("HOME", "x")];
        let config = load(file, &environment, &[("http.listen", "127.0.0.1:3")]).unwrap();
        assert_eq!(config.http.listen.port(), 3);
        assert_eq!(config.http.body_bytes_max, 4_096);
        assert_eq!(config.raft, RaftOptions::default());
        assert_eq!(
            load(&config.print(), &[], &[]).unwrap(),
            config,
            "what is printed is read back"
        );
    }

    #[test]
    fn errors_name_the_key_the_value_and_what_is_allowed() {
        let cases: [(&str, &[&str]); 6] = [
            (
                "[http]\nlisten_on = 1\n",
                &["paceline.toml", "listen_on", "body_bytes_max"],
            ),
            ("[htp]\n", &["htp", "http"]),
            (
                "[admission]\npermits = 0\n",
                &["admission.permits", "0", "1 to 1000000"],
            ),
            (
                "[http]\nlisten = \"0.0.0.0:80\"\n",
                &["http.listen", "0.0.0.0:80", "loopback"],
            ),
            (
                "[node]\nname = \"../x\"\n",
                &["node.name", "../x", "[a-z0-9]"],
            ),
            (
                "[log]\nfilter = \"a=b=c\"\n",
                &["log.filter", "a=b=c", "warn"],
            ),
        ];
        for (file, words) in cases {
            let error = load(file, &[], &[]).unwrap_err().to_string();
            for word in words {
                assert!(error.contains(word), "{word:?} is missing in: {error}");
            }
        }
        let error = load("", &[("PACELINE__NODE__NAM", "x")], &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("PACELINE__NODE__NAM") && error.contains("zone"),
            "{error}"
        );
        let error = load("", &[], &[("raft.heartbeat_ms", "soon")])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("raft.heartbeat_ms") && error.contains("soon"),
            "{error}"
        );
    }
}
