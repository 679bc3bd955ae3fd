//! Rules about Cargo.lock: versions above known faults, and exact pins where only one was tried.
//! The tables work without a network; `cargo deny check advisories` in scripts/verify-long asks
//! the advisory database itself.

use crate::tree::{Manifest, line_of};

/// The lowest versions without a fault that touches us: crate, one floor a maintained line (the
/// last is also the floor of all later lines), advisories.
const FLOORS: [(&str, &[&str], &str); 11] = [
    (
        "quinn-proto",
        &["0.11.15"],
        "RUSTSEC-2026-0185, RUSTSEC-2026-0037, RUSTSEC-2024-0373",
    ),
    (
        "rustls",
        &["0.23.45"],
        "RUSTSEC-2026-0285, RUSTSEC-2024-0399",
    ),
    (
        "rustls-webpki",
        &["0.103.13"],
        "RUSTSEC-2026-0049, RUSTSEC-2026-0098, RUSTSEC-2026-0099, RUSTSEC-2026-0104",
    ),
    ("h2", &["0.4.16"], "RUSTSEC-2026-0258"),
    ("tonic", &["0.12.3"], "RUSTSEC-2024-0376"),
    ("bytes", &["1.11.1"], "RUSTSEC-2026-0007"),
    ("tar", &["0.4.45"], "RUSTSEC-2026-0067, RUSTSEC-2026-0068"),
    ("zip", &["2.3.0"], "GHSA-94vh-gphv-8pm8"),
    ("memmap2", &["0.9.11"], "RUSTSEC-2026-0186"),
    ("lz4_flex", &["0.11.6", "0.12.1"], "RUSTSEC-2026-0041"),
    (
        "aws-lc-sys",
        &["0.39.0"],
        "RUSTSEC-2026-0044 to RUSTSEC-2026-0048",
    ),
];

/// Crates of which exactly one version is known to do what we rely on.
const PINS: [(&str, &str, &str); 4] = [
    ("bincode", "2.0.1", "the wire format; 3.0.0 holds no code"),
    (
        "openraft",
        "0.10.0-alpha.37",
        "a pre-release, whose storage contract we tested in this version",
    ),
    (
        "ractor",
        "0.16.5",
        "supervision and cluster semantics were tested in this version",
    ),
    (
        "candle-core",
        "0.11.1",
        "its file parsers have the limits that we rely on",
    ),
];

/// A package of the lock file and the line of its version.
struct Locked {
    name: String,
    version: String,
    line: usize,
}

/// A release, ordered as semantic versioning orders it; a pre-release comes before its release.
/// Pre-releases of one release are not told apart: no floor is one.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    major: u64,
    minor: u64,
    patch: u64,
    released: bool,
}

impl Version {
    fn parse(text: &str) -> Self {
        let plain = text.split('+').next().unwrap_or(text);
        let (numbers, pre) = plain
            .split_once('-')
            .map_or((plain, None), |(n, p)| (n, Some(p)));
        let mut parts = numbers.split('.').map(|part| {
            part.parse()
                .unwrap_or_else(|error| panic!("version {text}: {part}: {error}"))
        });
        let mut next = || {
            parts
                .next()
                .unwrap_or_else(|| panic!("version {text} has three parts"))
        };
        Self {
            major: next(),
            minor: next(),
            patch: next(),
            released: pre.is_none(),
        }
    }

    /// Whether this is at or above the floor of its own line, or of the last line.
    fn is_above(&self, floors: &[&str]) -> bool {
        let same_line = |floor: &Self| (floor.major, floor.minor) == (self.major, self.minor);
        let parsed: Vec<Self> = floors.iter().map(|floor| Self::parse(floor)).collect();
        let own = parsed
            .iter()
            .find(|floor| same_line(floor))
            .or(parsed.last());
        own.is_some_and(|floor| self >= floor)
    }
}

/// Locked versions with a known fault.
pub(crate) fn below_floor(lock: &str) -> Vec<String> {
    let mut violations = Vec::new();
    for Locked {
        name,
        version,
        line,
    } in packages(lock)
    {
        let row = FLOORS.iter().find(|(known, ..)| *known == name);
        if let Some((_, floors, advisories)) =
            row.filter(|row| !Version::parse(&version).is_above(row.1))
        {
            let floors = floors.join(" or ");
            violations.push(format!(
                "Cargo.lock:{line}: {name} {version} is below {floors} ({advisories}): cargo update -p {name}"
            ));
        }
    }
    violations
}

/// Locked versions that differ from a pin; a pinned crate that is not locked at all is one too.
pub(crate) fn off_pin(lock: &str) -> Vec<String> {
    let packages = packages(lock);
    let mut violations = Vec::new();
    for (name, pin, why) in PINS {
        let found: Vec<&Locked> = packages
            .iter()
            .filter(|package| package.name == name)
            .collect();
        if found.is_empty() {
            violations.push(format!(
                "Cargo.lock:1: {name} is pinned to {pin}, and not locked"
            ));
        }
        for package in found.iter().filter(|package| package.version != pin) {
            let (line, version) = (package.line, &package.version);
            violations.push(format!(
                "Cargo.lock:{line}: {name} {version} instead of {pin}: {why}"
            ));
        }
    }
    violations
}

/// Pins that the root manifest does not write with `=`.
pub(crate) fn not_pinned(root: &Manifest) -> Vec<String> {
    let shared = root
        .table
        .get("workspace")
        .and_then(|workspace| workspace.get("dependencies"));
    let mut violations = Vec::new();
    for (name, pin, why) in PINS {
        let value = shared.and_then(|shared| shared.get(name));
        let version =
            value.and_then(|value| value.as_str().or_else(|| value.get("version")?.as_str()));
        if version != Some(&format!("={pin}")) {
            violations.push(root.violation(name, &format!("write {name} = \"={pin}\": {why}")));
        }
    }
    violations
}

fn packages(lock: &str) -> Vec<Locked> {
    let table: toml::Table = lock
        .parse()
        .unwrap_or_else(|error| panic!("Cargo.lock: {error}"));
    let rows = table
        .get("package")
        .and_then(toml::Value::as_array)
        .expect("a lock file lists packages");
    let text = |row: &toml::Value, key: &str| {
        row.get(key)
            .and_then(toml::Value::as_str)
            .expect("a package has a name and a version")
            .to_owned()
    };
    let locked = |row: &toml::Value| {
        let (name, version) = (text(row, "name"), text(row, "version"));
        let at = lock.find(&format!("name = \"{name}\"\nversion = \"{version}\""));
        let line = at.map_or(1, |at| line_of(lock, at) + 1);
        Locked {
            name,
            version,
            line,
        }
    };
    rows.iter().map(locked).collect()
}

#[cfg(test)]
fn planted(packages: &[(&str, &str)]) -> String {
    let row = |(name, version): &(&str, &str)| {
        format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n\n")
    };
    format!(
        "version = 4\n\n{}",
        packages.iter().map(row).collect::<String>()
    )
}

#[test]
fn a_version_with_a_known_fault_is_found() {
    let lock = planted(&[
        ("bytes", "1.11.0"),
        ("bytes", "1.11.1"),
        ("lz4_flex", "0.11.6"),
        ("lz4_flex", "0.12.0"),
        ("lz4_flex", "0.13.0"),
        ("lz4_flex", "0.10.9"),
        ("h2", "0.4.16-rc.1"),
        ("zip", "9.8.1"),
        ("aws-lc-sys", "0.39.0+fips"),
    ]);
    let found = below_floor(&lock);
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found[0].starts_with("Cargo.lock:5: bytes 1.11.0 is below 1.11.1 (RUSTSEC-2026-0007)"));
    assert!(found[1].contains("lz4_flex 0.12.0"), "{found:?}");
    assert!(found[2].contains("lz4_flex 0.10.9"), "{found:?}");
    assert!(found[3].contains("h2 0.4.16-rc.1"), "{found:?}");
}

#[test]
fn versions_are_ordered_by_number() {
    assert!(Version::parse("0.10.0") > Version::parse("0.9.99"));
    assert!(Version::parse("1.0.0-rc.1") < Version::parse("1.0.0"));
    assert!(Version::parse("1.0.0-rc.1") > Version::parse("0.99.0"));
}

#[test]
fn a_version_off_its_pin_is_found() {
    let lock = planted(&[
        ("bincode", "3.0.0"),
        ("openraft", "0.10.0-alpha.37"),
        ("ractor", "0.16.5"),
    ]);
    let found = off_pin(&lock);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].starts_with("Cargo.lock:5: bincode 3.0.0 instead of 2.0.1"),
        "{found:?}"
    );
    assert!(
        found[1].starts_with("Cargo.lock:1: candle-core is pinned"),
        "{found:?}"
    );
}

#[test]
fn a_loose_requirement_of_a_pinned_crate_is_found() {
    let text = "[workspace.dependencies]\nbincode = { version = \"=2.0.1\" }\nractor = \"0.16.5\"\n\
                openraft = \"=0.10.0-alpha.37\"\ncandle-core = { version = \"=0.11.1\" }\n";
    let found = not_pinned(&Manifest::new("Cargo.toml", text));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("Cargo.toml:3: write ractor = \"=0.16.5\""),
        "{found:?}"
    );
}
