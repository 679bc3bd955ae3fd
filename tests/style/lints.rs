//! Clippy reads one configuration a crate and merges none, so core's has to repeat the root's.

/// What the root's clippy.toml says and core's does not.
pub(crate) fn not_repeated(root: &str, core: &str) -> Vec<String> {
    let parse = |text: &str| -> toml::Table {
        text.parse()
            .unwrap_or_else(|error| panic!("clippy.toml: {error}"))
    };
    let core = parse(core);
    let mut violations = Vec::new();
    for (key, value) in parse(root) {
        let repeated = match (
            value.as_array(),
            core.get(&key).and_then(toml::Value::as_array),
        ) {
            (Some(entries), Some(others)) => entries.iter().all(|entry| others.contains(entry)),
            _ => core.get(&key) == Some(&value),
        };
        if !repeated {
            violations.push(format!(
                "node/core/clippy.toml:1: repeat `{key}` of the root's clippy.toml"
            ));
        }
    }
    violations
}

#[test]
fn a_lint_that_core_lost_is_found() {
    let root = "a = 1\nb = [{ path = \"x\" }]\nc = []\nd = true\n";
    let core = "a = 2\nb = [{ path = \"x\" }, { path = \"y\" }]\nc = [{ path = \"z\" }]\n";
    let found = not_repeated(root, core);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].ends_with("repeat `a` of the root's clippy.toml"));
    assert!(found[1].ends_with("repeat `d` of the root's clippy.toml"));
    let core = "a = 1\nb = []\nc = []\nd = true\n";
    assert_eq!(
        not_repeated(root, core).len(),
        1,
        "a list is repeated entry by entry"
    );
}
