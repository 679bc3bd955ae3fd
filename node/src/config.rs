//! A node's configuration: defaults, then a file, then the environment, then flags.
//!
//! Each component owns its options; this file composes them. Below them all lies the data
//! directory's own file, with what the node was given when it was made ([`Config::kept`]).
//! Unknown keys are errors. Values are checked before any port opens, and an error names the
//! key, the value and what is allowed. The effective configuration can be printed, and read back.

mod block;
mod check;
mod kept;
mod options;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::block::Block;
pub(crate) use self::kept::FILE as KEPT;
pub use self::options::{
    AdmissionOptions, DebugOptions, DeviceOptions, EngineKind, GrpcOptions, HttpOptions,
    MetricsOptions, NodeOptions, PeerOptions, RaftOptions, SdkOptions, TlsOptions,
};
use crate::telemetry::logging;
use crate::tls::TlsFault;

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The node itself.
    pub node: NodeOptions,
    /// HTTP inference and operator API.
    pub http: HttpOptions,
    /// gRPC inference.
    pub grpc: GrpcOptions,
    /// TLS on HTTP and gRPC.
    pub tls: TlsOptions,
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
    /// What is kept for finding bugs.
    pub debug: DebugOptions,
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
    /// A certificate or key that cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsFault),
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
        // Where the data are decides which file lies below all else.
        let directory = Self::deserialize(toml::Value::Table(table.clone()))
            .map_err(|error| syntax("effective configuration", &error))?
            .node
            .data_dir;
        let mut below = kept::read(&directory)?;
        kept::lay_over(&mut below, table);
        let mut config: Self = below
            .try_into()
            .map_err(|error| syntax("effective configuration", &error))?;
        config.settle();
        config.check()?;
        Ok(config)
    }

    /// The effective configuration as TOML that can be read back.
    pub fn print(&self) -> String {
        toml::to_string_pretty(self).expect("every option is a TOML value")
    }

    /// Other machines reach no loopback address: doors for them are where the node is advertised.
    fn settle(&mut self) {
        if let Some(advertise) = self.node.advertise {
            for listen in [&mut self.sdk.listen, &mut self.peer.listen] {
                if listen.ip().is_loopback() {
                    listen.set_ip(advertise);
                }
            }
        }
    }
}

fn read_file(path: &Path) -> Result<toml::Table, ConfigError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|cause| ConfigError::File {
        path: shown.clone(),
        cause,
    })?;
    // Checked alone, so that an error names the file and its line.
    toml::from_str::<Config>(&text).map_err(|error| syntax(&shown, &error))?;
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
        let cases: [(&str, &[&str]); 7] = [
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
                "[debug]\nrecord_bytes = 4096\n",
                &["debug.record_bytes", "4096", "0, or 262144 to 33554432"],
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
