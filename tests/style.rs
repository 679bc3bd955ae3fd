//! The house style, held by a test: what a reviewer would otherwise have to say again and again.
//!
//! Each rule is a function from a file (or a manifest, or the lock file) to its violations, each
//! with `file:line` and the remedy. Beside every rule stands a test that plants a violation and
//! asserts that the rule finds it. Here every rule runs over the whole tree.

#[path = "style/code.rs"]
mod code;
#[path = "style/lints.rs"]
mod lints;
#[path = "style/lock.rs"]
mod lock;
#[path = "style/manifests.rs"]
mod manifests;
#[path = "style/metrics.rs"]
mod metrics;
#[path = "style/scan.rs"]
mod scan;
#[path = "style/shape.rs"]
mod shape;
#[path = "style/tree.rs"]
mod tree;

use tree::{Source, Tree};

/// Fails with every violation at once, so that one run shows all the work.
fn hold(violations: Vec<String>) {
    assert!(
        violations.is_empty(),
        "{} violation(s) of the house style:\n{}",
        violations.len(),
        violations.join("\n")
    );
}

fn hold_in_every_source(rule: fn(&Source) -> Vec<String>) {
    hold(Tree::read().sources.iter().flat_map(rule).collect());
}

#[test]
fn every_file_opens_with_its_documentation() {
    hold_in_every_source(shape::opens_with_documentation);
}

#[test]
fn files_stay_small() {
    hold_in_every_source(shape::stays_small);
}

#[test]
fn files_and_folders_say_what_they_hold() {
    hold(shape::telling_paths(&Tree::read().paths));
}

#[test]
fn modules_say_what_they_hold() {
    hold_in_every_source(shape::telling_modules);
}

#[test]
fn macros_are_not_defined_outside_tests() {
    hold_in_every_source(code::macros_outside_tests);
}

#[test]
fn getters_are_named_for_what_they_return() {
    hold_in_every_source(code::getters);
}

#[test]
fn ignored_tests_say_where_they_run() {
    hold_in_every_source(code::ignored_tests);
}

#[test]
fn nothing_is_left_for_later() {
    hold_in_every_source(code::leftovers);
}

#[test]
fn what_has_a_home_stays_there() {
    hold_in_every_source(code::outside_its_home);
}

#[test]
fn metric_names_live_in_one_file() {
    let tree = Tree::read();
    let crates = manifests::crate_idents(&tree.manifests);
    hold(
        tree.sources
            .iter()
            .flat_map(|source| metrics::names(source, &crates))
            .collect(),
    );
}

#[test]
fn crates_depend_only_along_the_arrows() {
    hold(
        Tree::read()
            .manifests
            .iter()
            .flat_map(manifests::arrows)
            .collect(),
    );
}

#[test]
fn crate_names_say_what_they_hold() {
    hold(
        Tree::read()
            .manifests
            .iter()
            .flat_map(manifests::telling_names)
            .collect(),
    );
}

#[test]
fn versions_stand_in_the_workspace_only() {
    hold(
        Tree::read()
            .manifests
            .iter()
            .flat_map(manifests::versions_once)
            .collect(),
    );
}

#[test]
fn core_cannot_reach_the_outside() {
    let packages = manifests::packages_below("paceline-core");
    assert!(
        packages
            .lines()
            .any(|line| line.starts_with("paceline-protocol ")),
        "{packages}"
    );
    hold(manifests::barred_from_core(&packages));
}

#[test]
fn locked_versions_are_above_known_faults() {
    hold(lock::below_floor(&Tree::read().lock));
}

#[test]
fn pinned_versions_are_locked_exactly() {
    let tree = Tree::read();
    hold(lock::off_pin(&tree.lock));
    let root = tree
        .manifests
        .iter()
        .find(|manifest| manifest.path == "Cargo.toml");
    hold(lock::not_pinned(root.expect("the root manifest was read")));
}

#[test]
fn core_repeats_the_lints_of_the_root() {
    let tree = Tree::read();
    hold(lints::not_repeated(
        &tree.text("clippy.toml"),
        &tree.text("node/core/clippy.toml"),
    ));
}
