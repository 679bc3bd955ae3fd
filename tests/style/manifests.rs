//! Rules about crates: which may depend on which, what core can never reach, and where versions
//! are written.

use std::process::Command;

use crate::shape::is_empty_name;
use crate::tree::Manifest;

/// What each crate may import from the house; ARCHITECTURE.md draws the same arrows. The root
/// package's tests and benchmarks may use every crate, so its development dependencies are free.
const ARROWS: [(&str, &[&str]); 8] = [
    ("paceline-protocol", &[]),
    ("paceline-trace", &[]),
    ("paceline-core", &["paceline-protocol"]),
    ("paceline-models", &["paceline-protocol"]),
    ("paceline-client", &["paceline-protocol", "paceline-trace"]),
    (
        "paceline-sim",
        &["paceline-core", "paceline-protocol", "paceline-trace"],
    ),
    (
        "paceline-node",
        &["paceline-core", "paceline-models", "paceline-protocol"],
    ),
    (
        "paceline",
        &["paceline-client", "paceline-node", "paceline-sim"],
    ),
];

/// Families of crates that would give core a clock, a socket, a thread or chance: the crate of
/// that name and those whose names go on with `-` or `_`.
const BARRED_FROM_CORE: [&str; 9] = [
    "tokio",
    "ractor",
    "quinn",
    "openraft",
    "candle",
    "rand",
    "getrandom",
    "rayon",
    "hyper",
];

/// The crates as Rust code names them, like `paceline_node`.
pub(crate) fn crate_idents(manifests: &[Manifest]) -> Vec<String> {
    manifests
        .iter()
        .filter_map(Manifest::package)
        .map(|name| name.replace('-', "_"))
        .collect()
}

/// Dependencies between our own crates that the design does not draw.
pub(crate) fn arrows(manifest: &Manifest) -> Vec<String> {
    let Some(package) = manifest.package() else {
        return Vec::new();
    };
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package) else {
        let message =
            format!("crate `{package}` has no place in the house: tests/style/manifests.rs");
        return vec![manifest.violation("name", &message)];
    };
    let mut violations = Vec::new();
    for (kind, name, _) in dependencies(&manifest.table) {
        let ours = name == "paceline" || name.starts_with("paceline-");
        let free = package == "paceline" && kind == "dev-dependencies";
        if ours && !free && !allowed.contains(&name.as_str()) {
            let message = format!("{package} → {name} is no arrow of the design");
            violations.push(manifest.violation(&name, &message));
        }
    }
    violations
}

/// Crates whose names would fit anything.
pub(crate) fn telling_names(manifest: &Manifest) -> Vec<String> {
    let name = manifest.package().unwrap_or_default();
    if !name.split('-').any(is_empty_name) {
        return Vec::new();
    }
    vec![manifest.violation(
        "name",
        &format!("crate `{name}` fits anything: name what is inside"),
    )]
}

/// Dependencies that name a version of their own, instead of the workspace's.
pub(crate) fn versions_once(manifest: &Manifest) -> Vec<String> {
    let mut violations = Vec::new();
    for (_, name, value) in dependencies(&manifest.table) {
        let shared = value.get("workspace").and_then(toml::Value::as_bool) == Some(true);
        let by_path = value.get("path").is_some() && value.get("version").is_none();
        if !shared && !by_path {
            let message =
                format!("write `{name}.workspace = true`; its version stands in the root");
            violations.push(manifest.violation(&name, &message));
        }
    }
    violations
}

/// What is compiled into `package` and into its build, one `name vX.Y.Z` a line. It asks for the
/// package alone: in the whole workspace cargo unifies features, and candle's choice of features
/// would then be counted against core.
pub(crate) fn packages_below(package: &str) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "tree",
            "--package",
            package,
            "--edges",
            "normal,build",
            "--prefix",
            "none",
        ])
        .args(["--no-dedupe", "--offline", "--locked", "--color", "never"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo, which started this test, starts");
    assert!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("package names are text")
}

/// The lines of `packages` that core must not have.
pub(crate) fn barred_from_core(packages: &str) -> Vec<String> {
    let is_barred = |name: &str| {
        let after = |family: &&str| name.strip_prefix(*family);
        BARRED_FROM_CORE
            .iter()
            .filter_map(after)
            .any(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
    };
    let barred = packages
        .lines()
        .filter(|line| line.split(' ').next().is_some_and(is_barred));
    let mut violations: Vec<String> = barred
        .map(|line| {
            format!(
                "node/core/Cargo.toml:1: {line} is in the tree of paceline-core, which only decides"
            )
        })
        .collect();
    violations.sort();
    violations.dedup();
    violations
}

/// Every dependency of every kind, for every target: its section, its package and its value.
fn dependencies(table: &toml::Table) -> Vec<(&'static str, String, toml::Value)> {
    let mut found = Vec::new();
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        for (key, value) in table
            .get(kind)
            .and_then(toml::Value::as_table)
            .into_iter()
            .flatten()
        {
            let name = value
                .get("package")
                .and_then(toml::Value::as_str)
                .unwrap_or(key);
            found.push((kind, name.to_owned(), value.clone()));
        }
    }
    let targets = table.get("target").and_then(toml::Value::as_table);
    for target in targets.into_iter().flat_map(|targets| targets.values()) {
        found.extend(target.as_table().into_iter().flat_map(dependencies));
    }
    found
}

#[test]
fn a_wrong_arrow_is_found() {
    let text = "[package]\nname = \"paceline-core\"\n[dependencies]\npaceline-protocol.workspace = true\n\
                paceline-models.workspace = true\n[target.'cfg(unix)'.dev-dependencies]\n\
                other = { package = \"paceline-node\", workspace = true }\n";
    let found = arrows(&Manifest::new("node/core/Cargo.toml", text));
    assert_eq!(
        found,
        [
            "node/core/Cargo.toml:5: paceline-core → paceline-models is no arrow of the design",
            "node/core/Cargo.toml:1: paceline-core → paceline-node is no arrow of the design",
        ]
    );
    let root = "[package]\nname = \"paceline\"\n[dependencies]\npaceline-core.workspace = true\n\
                [dev-dependencies]\npaceline-models.workspace = true\n";
    assert_eq!(
        arrows(&Manifest::new("Cargo.toml", root)).len(),
        1,
        "only tests reach past the arrows"
    );
    let stranger = Manifest::new("a/Cargo.toml", "[package]\nname = \"paceline-extra\"\n");
    assert_eq!(arrows(&stranger).len(), 1);
}

#[test]
fn every_crate_of_the_house_has_a_row() {
    let manifests = crate::tree::Tree::read().manifests;
    let packages: Vec<&str> = manifests.iter().filter_map(Manifest::package).collect();
    for (name, _) in ARROWS {
        assert!(
            packages.contains(&name),
            "{name} is in the table, but not in the tree"
        );
    }
    assert!(crate_idents(&manifests).contains(&"paceline_node".to_owned()));
}

#[test]
fn an_empty_crate_name_is_found() {
    let named =
        |name: &str| Manifest::new("a/Cargo.toml", &format!("[package]\nname = \"{name}\"\n"));
    assert_eq!(telling_names(&named("paceline-utils")).len(), 1);
    assert!(telling_names(&named("paceline-core")).is_empty());
}

#[test]
fn a_version_outside_the_workspace_is_found() {
    let text = "[package]\nname = \"a\"\n[dependencies]\nserde.workspace = true\nbytes = \"1\"\n\
                tokio = { workspace = true, features = [\"rt\"] }\nour = { path = \"../our\" }\n\
                [build-dependencies]\ncc = { version = \"1\", path = \"cc\" }\n";
    let found = versions_once(&Manifest::new("a/Cargo.toml", text));
    assert_eq!(
        found,
        [
            "a/Cargo.toml:5: write `bytes.workspace = true`; its version stands in the root",
            "a/Cargo.toml:9: write `cc.workspace = true`; its version stands in the root",
        ]
    );
}

#[test]
fn a_runtime_below_core_is_found() {
    let planted = "paceline-core v0.1.0 (node/core)\nserde v1.0.1\nrand_core v0.9.0\ntokio v1.2.3\n\
                   tokio v1.2.3\ncandle-core v0.11.1\nrandomize v3.0.0\nbytes v1.12.0\n";
    let found = barred_from_core(planted);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        found
            .iter()
            .any(|violation| violation.contains("tokio v1.2.3"))
    );
}
