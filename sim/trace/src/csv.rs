//! Values between commas: one line of RFC 4180, whose quotes cannot reach into the next line.

/// The values of a line.
///
/// # Errors
/// Where a quote stands that no quoted value has.
pub(super) fn split(line: &str) -> Result<Vec<String>, String> {
    let mut values = Vec::new();
    let mut rest = line;
    loop {
        let (value, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                quoted_value(quoted).ok_or_else(|| wrong(values.len(), "has no closing quote"))?
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        if !rest.starts_with('"') && value.contains('"') {
            return Err(wrong(values.len(), "has a quote inside"));
        }
        values.push(value);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(values),
            None => return Err(wrong(values.len() - 1, "goes on after its closing quote")),
        }
    }
}

/// The value up to its closing quote, two quotes being one, and what comes after.
fn quoted_value(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = quoted;
    loop {
        let (before, after) = rest.split_once('"')?;
        value.push_str(before);
        match after.strip_prefix('"') {
            Some(next) => {
                value.push('"');
                rest = next;
            }
            None => return Some((value, after)),
        }
    }
}

fn wrong(index: usize, what: &str) -> String {
    let allowed = "a value without quotes, or in quotes with each quote inside doubled";
    format!("value {} {what}; allowed: {allowed}", index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_between_commas_or_quotes() {
        for (line, values) in [
            ("", vec![""]),
            ("a,b", vec!["a", "b"]),
            (",", vec!["", ""]),
            (r#""a,b",c"#, vec!["a,b", "c"]),
            (r#""say ""a""","""#, vec![r#"say "a""#, ""]),
            (r#""""#, vec![""]),
        ] {
            assert_eq!(split(line).unwrap(), values, "{line}");
        }
    }

    #[test]
    fn misplaced_quotes_are_said() {
        let what = |line| split(line).unwrap_err();
        assert!(what(r#"a,"b"#).starts_with("value 2 has no closing quote; allowed:"));
        assert!(what(r#"a"b,c"#).starts_with("value 1 has a quote inside"));
        assert!(what(r#""a"b,c"#).starts_with("value 1 goes on after its closing quote"));
    }
}
