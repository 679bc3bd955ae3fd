//! Rules about files: what they open with, how long they are, what they are called.

use crate::tree::Source;

/// Production lines past which a module doc has to give the reason.
const LINES_AIM: usize = 400;
/// Lines that no file has, tests included.
const LINES_WALL: usize = 800;
/// The words with which a module doc gives the reason.
const LONG_BECAUSE: &str = "Long because";
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 6] = ["common", "util", "utils", "helpers", "types", "misc"];

/// A reader learns from the first line what a file is.
pub(crate) fn opens_with_documentation(source: &Source) -> Vec<String> {
    if source.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![source.violation(0, "open the file with `//!` and a sentence on what it is")]
}

/// A file that is too long holds more than one noun or verb.
pub(crate) fn stays_small(source: &Source) -> Vec<String> {
    let (all, production) = (source.text.lines().count(), source.production_lines());
    let mut doc = source
        .text
        .lines()
        .take_while(|line| line.starts_with("//!"));
    if all > LINES_WALL {
        let message = format!("{all} lines; {LINES_WALL} is the most a file has: split it");
        return vec![source.violation(0, &message)];
    }
    if production > LINES_AIM && !doc.any(|line| line.contains(LONG_BECAUSE)) {
        let message = format!(
            "{production} lines before its tests; split it, or say \"{LONG_BECAUSE} …\" in its module doc"
        );
        return vec![source.violation(0, &message)];
    }
    Vec::new()
}

/// No `mod.rs`, and no file or folder whose name would fit anything.
pub(crate) fn telling_paths(paths: &[String]) -> Vec<String> {
    let mut violations = Vec::new();
    for path in paths {
        if path.rsplit('/').next() == Some("mod.rs") {
            violations.push(format!(
                "{path}:1: name it after its folder, and put it beside it"
            ));
        }
        let stems = path
            .split('/')
            .map(|part| part.split('.').next().unwrap_or(part));
        for stem in stems.filter(|stem| is_empty_name(stem)) {
            violations.push(format!(
                "{path}:1: `{stem}` fits anything: name what is inside"
            ));
        }
    }
    violations
}

/// The same for modules that are written inside a file.
pub(crate) fn telling_modules(source: &Source) -> Vec<String> {
    let mut violations = Vec::new();
    for at in source.words("mod") {
        let name = source.code[at + "mod".len()..].trim_start();
        let name = name
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .next()
            .unwrap_or(name);
        if is_empty_name(name) {
            let message = format!("module `{name}` fits anything: name what is inside");
            violations.push(source.violation(at, &message));
        }
    }
    violations
}

/// Whether a name says nothing about what it names.
pub(crate) fn is_empty_name(name: &str) -> bool {
    EMPTY_NAMES.contains(&name)
}

#[test]
fn a_file_without_documentation_is_found() {
    let found = opens_with_documentation(&Source::new("a.rs", "// A.\nfn a() {}\n"));
    assert_eq!(
        found,
        ["a.rs:1: open the file with `//!` and a sentence on what it is"]
    );
    assert!(opens_with_documentation(&Source::new("a.rs", "//! A.\n")).is_empty());
}

#[test]
fn a_long_file_is_found() {
    let file = |doc: &str, lines: usize| format!("{doc}\n{}", "fn a() {}\n".repeat(lines - 1));
    let found = |path: &str, text: &str| stays_small(&Source::new(path, text)).len();
    assert_eq!(found("a.rs", &file("//! A.", 401)), 1);
    assert_eq!(found("a.rs", &file("//! A.", 400)), 0);
    assert_eq!(
        found("a.rs", &file("//! A. Long because it is one table.", 800)),
        0
    );
    assert_eq!(
        found("a.rs", &file("//! A. Long because it is one table.", 801)),
        1
    );
    assert_eq!(
        found("tests/a.rs", &file("//! A.", 800)),
        0,
        "tests are not production"
    );
    assert_eq!(found("tests/a.rs", &file("//! A.", 801)), 1);
    let tested = format!(
        "{}#[cfg(test)]\nmod tests {{\n{}",
        file("//! A.", 300),
        "}\n".repeat(200)
    );
    assert_eq!(found("a.rs", &tested), 0);
}

#[test]
fn an_empty_name_is_found() {
    let planted = [
        "node/src/mod.rs",
        "sim/src/utils/a.rs",
        "docs/misc.md",
        "node/src/commons.rs",
    ];
    let found = telling_paths(&planted.map(str::to_owned));
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        found[1].starts_with("sim/src/utils/a.rs:1: `utils`"),
        "{found:?}"
    );
    let inline = Source::new(
        "a.rs",
        "//! A.\n// mod util;\npub(crate) mod helpers {\n}\nmod typed {}\n",
    );
    assert_eq!(
        telling_modules(&inline),
        ["a.rs:3: module `helpers` fits anything: name what is inside"]
    );
}
