//! Rules about code: what is not written, what is not left behind, and what has one home.

use crate::tree::{Source, words};

/// Something that only some files may hold.
struct Home {
    /// The identifier that gives it away.
    word: &'static str,
    /// Paths that it may stand under; one that ends in `/` is a folder.
    paths: &'static [&'static str],
    why: &'static str,
}

const HOMES: [Home; 3] = [
    Home {
        word: "unsafe",
        paths: &[
            "models/src/kernel/",
            "models/src/cuda/",
            // Replaces the operating system's entropy with a seeded one.
            "tests/whole_node/entropy.rs",
            // Count allocations with an allocator of their own.
            "benches/allocations.rs",
            "protocol/tests/allocations.rs",
        ],
        why: "only kernels and device bindings are worth a proof of memory safety",
    },
    Home {
        word: "pg",
        paths: &["node/src/mesh/", "node/src/mesh.rs"],
        why: "ractor's process groups are statics of the process, and a process has many nodes",
    },
    Home {
        word: "openraft",
        paths: &["node/src/raft/", "node/src/raft.rs"],
        why: "a pre-release is kept behind one module, so that moving on touches one module",
    },
];

/// Where what has a home stands outside of it.
pub(crate) fn outside_its_home(source: &Source) -> Vec<String> {
    let mut violations = Vec::new();
    for home in &HOMES {
        if home.paths.iter().any(|path| is_under(&source.path, path)) {
            continue;
        }
        let message = format!(
            "`{}` belongs in {}: {}",
            home.word,
            home.paths.join(", "),
            home.why
        );
        violations.extend(
            source
                .words(home.word)
                .iter()
                .map(|&at| source.violation(at, &message)),
        );
    }
    violations
}

/// A macro is a language of its own: a reader pays for it, and tests alone are worth that.
pub(crate) fn macros_outside_tests(source: &Source) -> Vec<String> {
    let places = source
        .words("macro_rules")
        .into_iter()
        .filter(|&at| !source.in_tests(at));
    places
        .map(|at| source.violation(at, "write a function: macros are for tests"))
        .collect()
}

/// `replica.state()`, not `replica.get_state()`. Methods of other people's traits are not `pub`.
pub(crate) fn getters(source: &Source) -> Vec<String> {
    let mut violations = Vec::new();
    for at in source.words("fn") {
        let line_start = source.code[..at].rfind('\n').map_or(0, |end| end + 1);
        let name = source.code[at + "fn".len()..].trim_start();
        if name.starts_with("get_") && source.code[line_start..at].trim_start().starts_with("pub") {
            violations.push(source.violation(at, "name it for what it returns, without `get_`"));
        }
    }
    violations
}

/// A test that runs nowhere proves nothing: each ignored one names the script that runs it.
pub(crate) fn ignored_tests(source: &Source) -> Vec<String> {
    let mut violations = Vec::new();
    for (at, _) in source.code.match_indices("#[") {
        let end = source.code[at..]
            .find(']')
            .map_or(source.code.len(), |end| at + end);
        let ignores = !words(&source.code[at..end], "ignore").is_empty();
        if ignores && !source.text[at..end].contains("scripts/verify-long") {
            let message = "say in the reason which step of scripts/verify-long runs it";
            violations.push(source.violation(at, message));
        }
    }
    violations
}

/// What is committed is finished.
pub(crate) fn leftovers(source: &Source) -> Vec<String> {
    let mut violations = Vec::new();
    for name in ["todo", "unimplemented", "dbg"] {
        let calls = |at: &usize| source.code[at + name.len()..].starts_with('!');
        for at in source.words(name).into_iter().filter(calls) {
            violations.push(source.violation(at, &format!("finish it: `{name}!` is left over")));
        }
    }
    for mark in ["FIXME", "XXX"] {
        for at in words(&source.comments, mark) {
            violations
                .push(source.violation(at, &format!("do it or drop it: `{mark}` is left over")));
        }
    }
    violations
}

fn is_under(path: &str, home: &str) -> bool {
    if home.ends_with('/') {
        path.starts_with(home)
    } else {
        path == home
    }
}

#[test]
fn what_left_its_home_is_found() {
    let text = "//! Not unsafe.\nfn a() { unsafe { b() } }\n#![allow(unsafe_code)]\n";
    let found = outside_its_home(&Source::new("node/src/a.rs", text));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("node/src/a.rs:2: `unsafe` belongs in models/src/kernel/"));
    assert!(outside_its_home(&Source::new("models/src/kernel/a.rs", text)).is_empty());
    assert!(outside_its_home(&Source::new("benches/allocations.rs", text)).is_empty());
    let mesh = "//! A.\nuse ractor::{Actor, pg};\n";
    assert_eq!(
        outside_its_home(&Source::new("node/src/router.rs", mesh)).len(),
        1
    );
    assert!(outside_its_home(&Source::new("node/src/mesh/groups.rs", mesh)).is_empty());
    let raft = "//! A.\nuse openraft::Raft;\n";
    assert_eq!(
        outside_its_home(&Source::new("node/src/registry.rs", raft)).len(),
        1
    );
    assert!(outside_its_home(&Source::new("node/src/raft/store.rs", raft)).is_empty());
}

#[test]
fn a_macro_in_production_is_found() {
    let text =
        "//! A.\nmacro_rules! a { () => {} }\n#[cfg(test)]\nmod tests {\nmacro_rules! b {}\n}\n";
    let found = macros_outside_tests(&Source::new("a.rs", text));
    assert_eq!(found, ["a.rs:2: write a function: macros are for tests"]);
    assert!(macros_outside_tests(&Source::new("sim/tests/a.rs", text)).is_empty());
}

#[test]
fn a_getter_is_found() {
    let text =
        "//! A.\npub(crate) async fn get_a() {}\nfn get_log_state() {}\npub fn getter() {}\n";
    let found = getters(&Source::new("a.rs", text));
    assert_eq!(
        found,
        ["a.rs:2: name it for what it returns, without `get_`"]
    );
}

#[test]
fn an_ignored_test_without_a_place_is_found() {
    let text = "//! A.\n#[test]\n#[ignore]\nfn a() {}\n#[ignore = \"slow\"]\nfn b() {}\n\
                #[ignore = \"a minute: scripts/verify-long --only soak\"]\nfn c() {}\n\
                #[cfg_attr(debug_assertions, ignore = \"slow\")]\nfn d() {}\n";
    let found = ignored_tests(&Source::new("tests/a.rs", text));
    let lines: Vec<&str> = found
        .iter()
        .filter_map(|violation| violation.split(':').nth(1))
        .collect();
    assert_eq!(lines, ["3", "5", "9"]);
}

#[test]
fn a_leftover_is_found() {
    let text = "//! A.\nfn a() { todo!() }\n// todo!() is not allowed\nlet b = dbg!(c);\n\
                unimplemented!(\"d\");\n// FIXME: e\nlet f = \"XXX\"; // XXX\nlet todo = g;\n";
    let found = leftovers(&Source::new("a.rs", text));
    let mut lines: Vec<&str> = found
        .iter()
        .filter_map(|violation| violation.split(':').nth(1))
        .collect();
    lines.sort_unstable();
    assert_eq!(lines, ["2", "4", "5", "6", "7"], "{found:?}");
}
