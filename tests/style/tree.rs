//! What the rules look at: the sources, manifests and paths of this repository.

use std::path::{Path, PathBuf};

use crate::scan::{Literal, Scan};

/// The repository as the rules see it. Build output, hidden folders and Python's virtual
/// environments are no part of it.
pub(crate) struct Tree {
    root: PathBuf,
    /// Every file, relative to the root, with `/` between folders.
    pub(crate) paths: Vec<String>,
    /// Every `.rs` file.
    pub(crate) sources: Vec<Source>,
    /// Every `Cargo.toml`.
    pub(crate) manifests: Vec<Manifest>,
    /// The text of `Cargo.lock`.
    pub(crate) lock: String,
}

impl Tree {
    /// Reads the whole tree; a run that saw none of the crates proves nothing and fails here.
    pub(crate) fn read() -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let mut paths = Vec::new();
        collect(&root, "", &mut paths);
        paths.sort();
        for crate_root in [
            "protocol",
            "node/core",
            "models",
            "node",
            "client",
            "sim/trace",
            "sim",
        ] {
            let lib = format!("{crate_root}/src/lib.rs");
            assert!(
                paths.contains(&lib),
                "{lib} was not found below {}",
                root.display()
            );
        }
        let text = |path: &String| read(&root.join(path));
        let sources = paths.iter().filter(|path| path.ends_with(".rs"));
        let manifests = paths
            .iter()
            .filter(|path| path.rsplit('/').next() == Some("Cargo.toml"));
        Self {
            sources: sources.map(|path| Source::new(path, &text(path))).collect(),
            manifests: manifests
                .map(|path| Manifest::new(path, &text(path)))
                .collect(),
            lock: read(&root.join("Cargo.lock")),
            paths,
            root,
        }
    }

    /// The text of one more file of the tree.
    pub(crate) fn text(&self, path: &str) -> String {
        read(&self.root.join(path))
    }
}

/// One Rust file, with its comments and literals told apart from its code.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text with comments and the contents of literals blanked; offsets are those of `text`.
    pub(crate) code: String,
    /// The text with everything but comments blanked; offsets are those of `text`.
    pub(crate) comments: String,
    pub(crate) literals: Vec<Literal>,
    /// Where the file's own `#[cfg(test)] mod … {` begins: its end, if there is none.
    tests_at: usize,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let Scan {
            code,
            comments,
            literals,
        } = Scan::of(text);
        let tests_at = if is_test_path(path) {
            0
        } else {
            tests_at(&code)
        };
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
            comments,
            literals,
            tests_at,
        }
    }

    /// Whether what stands at this offset is compiled for tests only.
    pub(crate) fn in_tests(&self, offset: usize) -> bool {
        offset >= self.tests_at
    }

    /// How many lines come before the file's tests; none, when all of the file is a test.
    pub(crate) fn production_lines(&self) -> usize {
        self.text[..self.tests_at].lines().count()
    }

    /// A violation at this offset, as `file:line: message`.
    pub(crate) fn violation(&self, offset: usize, message: &str) -> String {
        format!("{}:{}: {message}", self.path, line_of(&self.text, offset))
    }

    /// Where `word` stands in the code as a whole identifier.
    pub(crate) fn words(&self, word: &str) -> Vec<usize> {
        words(&self.code, word)
    }
}

/// One `Cargo.toml`.
pub(crate) struct Manifest {
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) table: toml::Table,
}

impl Manifest {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let table = text
            .parse()
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            table,
        }
    }

    /// The name of the package, if the manifest has one.
    pub(crate) fn package(&self) -> Option<&str> {
        self.table.get("package")?.get("name")?.as_str()
    }

    /// A violation by the line on which `key` is given a value, as `file:line: message`.
    pub(crate) fn violation(&self, key: &str, message: &str) -> String {
        let opens = |line: &str| {
            let rest = line.trim_start().strip_prefix(key);
            rest.is_some_and(|rest| rest.starts_with(['.', ' ', '=']))
        };
        let line = self
            .text
            .lines()
            .position(opens)
            .map_or(1, |index| index + 1);
        format!("{}:{line}: {message}", self.path)
    }
}

/// Where `word` stands in `text` with no letter, digit or underscore around it.
pub(crate) fn words(text: &str, word: &str) -> Vec<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let stands_alone = |at: usize| {
        !text[..at].chars().next_back().is_some_and(is_part)
            && !text[at + word.len()..].chars().next().is_some_and(is_part)
    };
    text.match_indices(word)
        .map(|(at, _)| at)
        .filter(|&at| stands_alone(at))
        .collect()
}

/// The number of the line, from 1, on which this offset lies.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

fn is_test_path(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs")
}

/// Where a test module with a body begins. `#[cfg(test)]` on anything else does not end the
/// production part of a file.
fn tests_at(code: &str) -> usize {
    let opens_module = |&(at, attribute): &(usize, &str)| {
        let mut rest = code[at + attribute.len()..].trim_start();
        while rest.starts_with("#[") {
            let end = rest.find(']').map_or(rest.len(), |end| end + 1);
            rest = rest[end..].trim_start();
        }
        let body = rest
            .find(['{', ';'])
            .filter(|&end| rest.as_bytes()[end] == b'{');
        body.is_some_and(|end| rest[..end].split_whitespace().any(|word| word == "mod"))
    };
    code.match_indices("#[cfg(test)]")
        .find(opens_module)
        .map_or(code.len(), |(at, _)| at)
}

fn collect(folder: &Path, prefix: &str, paths: &mut Vec<String>) {
    let entries = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("cannot list {}: {error}", folder.display()));
    for entry in entries {
        let entry = entry.expect("an entry of a folder that was just opened");
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if name.starts_with('.') || (prefix.is_empty() && name == "target") {
            continue;
        }
        if !path.is_dir() {
            paths.push(format!("{prefix}{name}"));
        } else if name != "__pycache__"
            && name != "node_modules"
            && !path.join("pyvenv.cfg").exists()
        {
            collect(&path, &format!("{prefix}{name}/"), paths);
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

#[test]
fn production_ends_where_the_test_module_begins() {
    let text = "//! A.\n#[cfg(test)]\nuse x;\nfn a() {}\n#[cfg(test)]\n#[path = \"b.rs\"]\nmod b;\n\
                #[cfg(test)]\n#[allow(x)]\nmod tests {\n}\n";
    let source = Source::new("node/src/a.rs", text);
    assert_eq!(source.production_lines(), 7);
    assert!(source.in_tests(text.find("mod tests").expect("planted above")));
    assert!(!source.in_tests(text.find("fn a").expect("planted above")));
    assert_eq!(Source::new("node/tests/a.rs", text).production_lines(), 0);
}

#[test]
fn a_word_is_not_part_of_another() {
    assert_eq!(words("unsafe_code is_unsafe unsafe{", "unsafe"), [22]);
    assert_eq!(line_of("a\nb\nc", 4), 3);
}
