//! What a node keeps of its configuration: the data directory's own file, `node.toml`.
//!
//! Written when the node is made, by `join` or by founding a cluster, with what it was given and
//! is not the default; from then on the directory suffices to start it. It is a configuration
//! file like any other and its owner's to edit. It lies below all other sources: a file, variable
//! or flag of one start wins for that start, and changes nothing here.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use toml::{Table, Value};

use super::{Config, ConfigError, read_file};

/// The file's name in the data directory.
pub(crate) const FILE: &str = "node.toml";

impl Config {
    /// What the data directory shall keep: every option that is not the default, but where the
    /// directory is. Empty if there is none.
    pub(crate) fn kept(&self) -> String {
        let mut given = self.clone();
        // Written as it was given, so that another --advertise moves these doors as well.
        if let Some(advertise) = self.node.advertise {
            let home = match advertise {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            };
            for listen in [&mut given.sdk.listen, &mut given.peer.listen] {
                if listen.ip() == advertise {
                    listen.set_ip(home);
                }
            }
        }
        given.node.data_dir = Self::default().node.data_dir;
        let mut table = Table::try_from(&given).expect("every option is a TOML value");
        let defaults = Table::try_from(Self::default()).expect("every option is a TOML value");
        for (section, options) in &mut table {
            if let (Value::Table(options), Some(Value::Table(defaults))) =
                (options, defaults.get(section))
            {
                options.retain(|key, value| defaults.get(key) != Some(value));
            }
        }
        table.retain(|_, options| {
            options
                .as_table()
                .is_some_and(|options| !options.is_empty())
        });
        if table.is_empty() {
            return String::new();
        }
        let text = toml::to_string_pretty(&table).expect("it was a table before");
        format!("{HEADING}\n{text}")
    }
}

/// What the directory keeps; nothing, if it is not there or keeps nothing.
///
/// # Errors
/// The file cannot be read, is no configuration, or says that the data are elsewhere.
pub(super) fn read(directory: &Path) -> Result<Table, ConfigError> {
    let table = match read_file(&directory.join(FILE)) {
        Err(ConfigError::File { cause, .. }) if is_absent(&cause) => return Ok(Table::new()),
        read => read?,
    };
    let elsewhere = table.get("node").and_then(|node| node.get("data_dir"));
    if let Some(elsewhere) = elsewhere {
        return Err(ConfigError::Value {
            key: "node.data_dir",
            value: elsewhere.to_string(),
            allowed: format!(
                "nothing, in '{}': that directory is the node's",
                directory.join(FILE).display()
            ),
        });
    }
    Ok(table)
}

/// Sets in `below` every option that `above` has.
pub(super) fn lay_over(below: &mut Table, above: Table) {
    for (section, options) in above {
        match (below.get_mut(&section), options) {
            (Some(Value::Table(below)), Value::Table(options)) => below.extend(options),
            (_, options) => {
                below.insert(section, options);
            }
        }
    }
}

fn is_absent(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

const HEADING: &str = "\
# What this node was given when it was made; yours to edit. Options of --config FILE, of\n\
# PACELINE__SECTION__KEY variables and of flags win over it. `paceline config print` shows all.\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn load(directory: &Path, flags: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let data = Value::String(directory.display().to_string()).to_string();
        let mut flags: Vec<_> = flags
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        flags.push(("node.data_dir".to_owned(), data));
        Config::load(&Sources {
            flags,
            ..Sources::default()
        })
    }

    #[test]
    fn what_a_node_was_given_is_kept_and_lies_below_all_else() {
        let directory = tempfile::tempdir().unwrap();
        let given = [
            ("node.name", "n7"),
            ("node.advertise", "10.0.0.5"),
            ("peer.listen", "127.0.0.1:9004"),
            ("device.threads", "3"),
        ];
        let given = load(directory.path(), &given).unwrap();
        assert_eq!(given.sdk.listen.to_string(), "10.0.0.5:8003");
        assert_eq!(given.peer.listen.to_string(), "10.0.0.5:9004");
        assert!(given.http.listen.ip().is_loopback());
        let kept = given.kept();
        std::fs::write(directory.path().join(FILE), &kept).unwrap();
        assert_eq!(load(directory.path(), &[]).unwrap(), given);
        for left_out in ["data_dir", "zone", "election_min_ms"] {
            assert!(!kept.contains(left_out), "{kept}");
        }
        // The machine moved: one flag moves all doors.
        let moved = load(directory.path(), &[("node.advertise", "10.0.0.9")]).unwrap();
        assert_eq!(moved.peer.listen.to_string(), "10.0.0.9:9004");
        assert_eq!((moved.node.name.as_str(), moved.device.threads), ("n7", 3));
        assert_eq!(Config::default().kept(), "");
    }

    #[test]
    fn a_file_that_is_wrong_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let refused = |text: &str| {
            std::fs::write(directory.path().join(FILE), text).unwrap();
            load(directory.path(), &[]).unwrap_err().to_string()
        };
        let unknown = refused("[node]\nnam = 'x'\n");
        assert!(
            unknown.contains("node.toml") && unknown.contains("zone"),
            "{unknown}"
        );
        let elsewhere = refused("[node]\ndata_dir = '/elsewhere'\n");
        assert!(elsewhere.contains("/elsewhere"), "{elsewhere}");
        assert!(elsewhere.contains("node.toml"), "{elsewhere}");
    }
}
