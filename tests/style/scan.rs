//! Tells code, comments and literals of a Rust file apart, so that a rule about code does not
//! stumble over a comment that mentions it. It knows nested comments, raw strings, and the
//! difference between a character and a lifetime; it knows nothing else of the grammar.

/// A Rust text taken apart; offsets in each part are offsets in the text.
pub(crate) struct Scan {
    /// Code only: comments and the contents of literals are blanks.
    pub(crate) code: String,
    /// Comments only.
    pub(crate) comments: String,
    pub(crate) literals: Vec<Literal>,
}

/// A string literal, without its quotes and with its escapes as written.
pub(crate) struct Literal {
    pub(crate) at: usize,
    pub(crate) text: String,
}

impl Scan {
    pub(crate) fn of(text: &str) -> Self {
        let mut code = text.as_bytes().to_vec();
        let mut comments = blank(text.as_bytes());
        let mut literals = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            if let Some(end) = comment_end(rest) {
                comments[at..at + end].copy_from_slice(&text.as_bytes()[at..at + end]);
                code[at..at + end].copy_from_slice(&blank(&text.as_bytes()[at..at + end]));
                at += end;
            } else if let Some((open, close, end)) = string_bounds(&text[..at], rest) {
                let inside = at + open..at + close;
                code[inside.clone()].copy_from_slice(&blank(&text.as_bytes()[inside.clone()]));
                literals.push(Literal {
                    at: inside.start,
                    text: text[inside].to_owned(),
                });
                at += end;
            } else if let Some(end) = character_end(rest) {
                code[at..at + end].fill(b' ');
                at += end;
            } else {
                at += rest.chars().next().map_or(1, char::len_utf8);
            }
        }
        let whole = |bytes| String::from_utf8(bytes).expect("whole characters are blanked");
        Self {
            code: whole(code),
            comments: whole(comments),
            literals,
        }
    }
}

/// As many blanks as there are bytes, with the line ends kept.
fn blank(bytes: &[u8]) -> Vec<u8> {
    bytes
        .iter()
        .map(|&byte| if byte == b'\n' { b'\n' } else { b' ' })
        .collect()
}

/// Where the comment that `rest` opens with ends, if it opens with one.
fn comment_end(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    Some(rest.len())
}

/// Where the string that `rest` opens with has its first and last content, and where it ends.
fn string_bounds(before: &str, rest: &str) -> Option<(usize, usize, usize)> {
    if rest.starts_with('"') {
        let mut escaped = false;
        for (at, c) in rest.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return Some((1, at, at + 1)),
                _ => {}
            }
        }
        return Some((1, rest.len(), rest.len()));
    }
    // `r"…"`, `r#"…"#`, also after `b` or `c`; but `r` at the end of a name opens nothing.
    let hashes = rest
        .strip_prefix('r')?
        .chars()
        .take_while(|&c| c == '#')
        .count();
    let prefix = before.trim_end_matches(['b', 'c']);
    let in_name = prefix
        .chars()
        .next_back()
        .is_some_and(|c| c.is_alphanumeric() || c == '_');
    if in_name || before.len() - prefix.len() > 1 || !rest[1 + hashes..].starts_with('"') {
        return None;
    }
    let open = hashes + 2;
    let closing = format!("\"{}", "#".repeat(hashes));
    let close = rest[open..]
        .find(&closing)
        .map_or(rest.len(), |end| open + end);
    Some((open, close, rest.len().min(close + closing.len())))
}

/// Where the character literal that `rest` opens with ends; a lifetime is none.
fn character_end(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('\'')?;
    if inside.starts_with('\\') {
        // Past the quote, the backslash and the escaped character, which may itself be a quote.
        return rest.get(3..)?.find('\'').map(|end| end + 4);
    }
    let first = inside.chars().next()?;
    inside[first.len_utf8()..]
        .starts_with('\'')
        .then(|| first.len_utf8() + 2)
}

#[test]
fn comments_and_literals_are_told_from_code() {
    let text = "let a = \"x // \\\" y\"; // b \"c\"\n/* d /* e */ f */ g('\"', '\\'', 'é', &'static h);\n\
                i(r#\"j \"k\" // l\"#, b\"m\", br\"n\", for r in o {}); p";
    let Scan {
        code,
        comments,
        literals,
    } = Scan::of(text);
    assert_eq!(code.len(), text.len());
    assert_eq!(comments.len(), text.len());
    let words: Vec<&str> = code
        .split(|c: char| !c.is_alphanumeric())
        .filter(|w| !w.is_empty())
        .collect();
    assert_eq!(
        words,
        [
            "let", "a", "g", "static", "h", "i", "r", "b", "br", "for", "r", "in", "o", "p"
        ]
    );
    let said: Vec<&str> = comments.split_whitespace().collect();
    assert_eq!(
        said,
        ["//", "b", "\"c\"", "/*", "d", "/*", "e", "*/", "f", "*/"]
    );
    let texts: Vec<&str> = literals
        .iter()
        .map(|literal| literal.text.as_str())
        .collect();
    assert_eq!(texts, ["x // \\\" y", "j \"k\" // l", "m", "n"]);
    assert!(
        literals
            .iter()
            .all(|literal| text[literal.at..].starts_with(&literal.text))
    );
}
