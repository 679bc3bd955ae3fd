//! The reader against its grammar, against serde_json and against exact decimal values.

use super::*;

/// Reads one value and wants nothing behind it.
fn check(document: &[u8]) -> Result<(), JsonError> {
    let mut reader = Reader::new(document);
    reader.skip()?;
    reader.end()
}

/// A small generator for inputs that must repeat: splitmix64 (Steele, Lea, Flood, 2014).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

#[test]
fn errors_name_the_place_and_what_was_found() {
    for &(document, message) in BROKEN {
        assert_eq!(
            check(document.as_bytes()).unwrap_err().to_string(),
            message,
            "{document}"
        );
    }
    let broken = check(b"\"ab\xff\"").unwrap_err();
    assert_eq!(broken.to_string(), "a string is not UTF-8 at byte 3");
    let lone = check(b"\"\\udc00\"").unwrap_err();
    assert_eq!(
        lone.to_string(),
        "half of a surrogate pair in a string at byte 3"
    );
}

#[test]
fn depth_is_bounded_whatever_the_brackets() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested =
            |depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth)).into_bytes();
        assert_eq!(check(&nested(JSON_DEPTH_MAX)), Ok(()));
        let refused = check(&nested(JSON_DEPTH_MAX + 1)).unwrap_err();
        assert_eq!(refused.problem, Problem::Depth);
        let message = refused.to_string();
        assert!(
            message.starts_with("the JSON is nested deeper than 32 at byte "),
            "{message}"
        );
        assert_eq!(
            check(open.repeat(10_000).as_bytes()).unwrap_err().problem,
            Problem::Depth
        );
    }
}

#[test]
fn strings_are_what_serde_json_reads() {
    let texts = [
        "",
        "plain",
        "a\"b\\c/d",
        "\u{8}\u{c}\n\r\t\u{0}\u{1f}",
        "ünïcödé 日本 🦀",
        "exactly8",
        "quote behind eight bytes \" and more text \\ to go on with",
    ];
    for text in texts {
        let written = serde_json::to_string(text).unwrap();
        assert_eq!(Reader::new(written.as_bytes()).string().unwrap(), text);
        let mut own = Vec::new();
        write::string(&mut own, text);
        assert_eq!(serde_json::from_slice::<String>(&own).unwrap(), text);
    }
    let escaped = r#""\u00fc\ud83e\udd80\/\b\f""#;
    assert_eq!(
        Reader::new(escaped.as_bytes()).string().unwrap(),
        "ü🦀/\u{8}\u{c}"
    );
    assert!(matches!(
        Reader::new(b"\"plain\"").string(),
        Ok(Cow::Borrowed("plain"))
    ));
}

#[test]
fn the_first_special_byte_is_found_at_every_offset() {
    for special in [b'"', b'\\', 0, 0x1f] {
        for length in 0..40 {
            for at in 0..length {
                let mut bytes = vec![0xc3; length];
                bytes[at] = special;
                bytes[at + 1..].fill(b'"');
                assert_eq!(string::first_special(&bytes), at);
            }
            assert_eq!(string::first_special(&vec![0x7f; length]), length);
            assert_eq!(string::first_special(&vec![0x80; length]), length);
        }
    }
}

fn same_as_reference(text: &str) {
    let number = Reader::new(text.as_bytes()).number().unwrap();
    let single: f32 = text.parse().unwrap();
    let double: f64 = text.parse().unwrap();
    let bits = number.to_f32().map(f32::to_bits);
    assert_eq!(
        bits,
        single.is_finite().then(|| single.to_bits()),
        "{text} as f32"
    );
    let bits = number.to_f64().map(f64::to_bits);
    assert_eq!(
        bits,
        double.is_finite().then(|| double.to_bits()),
        "{text} as f64"
    );
}

#[test]
fn floats_are_the_nearest_ones() {
    let awkward = [
        "0",
        "-0",
        "0.0",
        "-0.0e5",
        "1",
        "16777217",
        "16777216.999999999",
        "16777217.0000000001",
        "9007199254740993",
        "9007199254740992.5",
        "3.4028235e38",
        "3.4028235677973366e38",
        "3.4028235677973367e38",
        "1e39",
        "-1e400",
        "1.7976931348623157e308",
        "1e-45",
        "7e-46",
        "1.4012984643248170e-45",
        "1.17549435e-38",
        "5e-324",
        "2e-324",
        "0e99999999999",
        "1e-99999999999",
        "123456789012345678901234567890",
        "0.1",
        "0.30000000000000004",
        "12345678.5e-3",
        "1e22",
        "1e23",
        "1E+2",
        "9999999999999999999",
        "18446744073709551616",
    ];
    for text in awkward {
        same_as_reference(text);
    }
    let mut draw = Draw(7);
    for _ in 0..200_000 {
        // Midpoints between neighbours of f32, written exactly and a little off.
        let value = f32::from_bits(draw.next() as u32 & 0x7fff_ffff);
        if !value.is_finite() || !(1e-9..1e15).contains(&value) {
            continue;
        }
        let midpoint = (f64::from(value) + f64::from(value.next_up())) / 2.0;
        same_as_reference(&format!("{midpoint}"));
        same_as_reference(&format!("{midpoint:.9e}"));
        same_as_reference(&format!("{midpoint:.18e}"));
    }
    for _ in 0..100_000 {
        let any = f64::from_bits(draw.next());
        if any.is_finite() {
            same_as_reference(&format!("{any:e}"));
        }
        let unit = draw.next() as f64 / u64::MAX as f64;
        same_as_reference(&format!("{unit}"));
        same_as_reference(&format!("{}", unit as f32));
        let exponent = draw.below(60) as i64 - 30;
        same_as_reference(&format!("-{}.{}e{exponent}", draw.below(1000), draw.next()));
    }
}

#[test]
fn whole_numbers_are_exact_or_refused() {
    let integer = |text: &str| {
        let number = Reader::new(text.as_bytes()).number().unwrap();
        (number.to_u64(), number.to_i64())
    };
    assert_eq!(integer("0"), (Some(0), Some(0)));
    assert_eq!(integer("-0"), (Some(0), Some(0)));
    assert_eq!(integer("18446744073709551615"), (Some(u64::MAX), None));
    assert_eq!(integer("18446744073709551616"), (None, None));
    assert_eq!(integer("36893488147419103232"), (None, None));
    assert_eq!(integer("-9223372036854775808"), (None, Some(i64::MIN)));
    assert_eq!(integer("-9223372036854775809"), (None, None));
    assert_eq!(integer("12345678"), (Some(12_345_678), Some(12_345_678)));
    assert_eq!(integer("1.0"), (None, None));
    assert_eq!(integer("1e2"), (None, None));
}

#[test]
fn a_key_may_stand_once() {
    let mut keys = Keys::new(&["name", "shape"]);
    assert_eq!(keys.note("shape".into()), Ok(Some("shape")));
    assert_eq!(keys.note("x".into()), Ok(None));
    assert_eq!(keys.note("name".into()), Ok(Some("name")));
    assert_eq!(keys.note("shape".into()), Err("shape".into()));
    assert_eq!(keys.note("x".into()), Err("x".into()));
}

/// Whether serde_json takes a document, apart from its own limits on depth and exponents.
fn serde_takes(document: &[u8]) -> Option<bool> {
    match serde_json::from_slice::<serde_json::Value>(document) {
        Ok(_) => Some(true),
        Err(error) if error.to_string().contains("number out of range") => None,
        Err(error) if error.to_string().contains("recursion limit") => None,
        Err(_) => Some(false),
    }
}

fn random_value(draw: &mut Draw, depth: usize, out: &mut String) {
    match draw.below(if depth < 6 { 8 } else { 5 }) {
        0 => out.push_str(draw.pick(&["null", "true", "false"])),
        1 => out.push_str(&(draw.next() as i64).to_string()),
        2 => out.push_str(draw.pick(&["0", "-0.5", "1e5", "3.25E-7", "-12.5e+3", "9e99"])),
        3 | 4 => out.push_str(draw.pick(&[
            r#""""#,
            r#""abc""#,
            r#""\u00e9\n\"""#,
            r#""\ud83e\udd80""#,
            "\"é🦀 and more text\"",
        ])),
        5 | 6 => {
            out.push('[');
            for position in 0..draw.below(4) {
                out.push_str(if position > 0 {
                    draw.pick(&[",", " , ", ",\n"])
                } else {
                    ""
                });
                random_value(draw, depth + 1, out);
            }
            out.push(']');
        }
        _ => {
            out.push('{');
            for position in 0..draw.below(4) {
                out.push_str(if position > 0 { "," } else { "" });
                out.push_str(&format!("\"k{position}\"{}", draw.pick(&[":", " : "])));
                random_value(draw, depth + 1, out);
            }
            out.push('}');
        }
    }
}

#[test]
fn accepts_what_serde_json_accepts() {
    const PIECES: [&str; 20] = [
        "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u", "d800", "0", "-", ".", "e", "n", "true",
        " ", "\u{1}", "é", "NaN",
    ];
    let mut draw = Draw(42);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut text = String::new();
        random_value(&mut draw, 0, &mut text);
        assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
        for _ in 0..5 {
            let mut mutated = text.clone().into_bytes();
            for _ in 0..=draw.below(3) {
                let at = draw.below(mutated.len() + 1);
                match draw.below(4) {
                    0 => mutated.truncate(at),
                    1 if at < mutated.len() => drop(mutated.remove(at)),
                    2 if at < mutated.len() => mutated[at] = draw.next() as u8,
                    _ => drop(mutated.splice(at..at, draw.pick(&PIECES).bytes())),
                }
            }
            let Some(expected) = serde_takes(&mutated) else {
                continue;
            };
            let ours = check(&mutated);
            if ours.is_err_and(|error| error.problem == Problem::Depth) {
                continue;
            }
            let shown = String::from_utf8_lossy(&mutated);
            assert_eq!(ours.is_ok(), expected, "{ours:?} for {shown:?}");
            if expected { taken += 1 } else { refused += 1 }
        }
    }
    assert!(
        taken > 10_000 && refused > 30_000,
        "{taken} taken, {refused} refused"
    );
}

const BROKEN: &[(&str, &str)] = &[
    ("", "expected a JSON value at byte 0, found the end"),
    ("  ", "expected a JSON value at byte 2, found the end"),
    ("{\"a\" 1}", "expected ':' at byte 5, found '1'"),
    ("{a:1}", "expected a key in quotes at byte 1, found 'a'"),
    (
        "{\"a\":1,}",
        "expected a key in quotes at byte 7, found '}'",
    ),
    (
        "{\"a\":1 \"b\":2}",
        "expected ',' or '}' at byte 7, found '\"'",
    ),
    ("[1,]", "expected a JSON value at byte 3, found ']'"),
    ("[,1]", "expected a JSON value at byte 1, found ','"),
    ("[1 2]", "expected ',' or ']' at byte 3, found '2'"),
    ("[1}", "expected ',' or ']' at byte 2, found '}'"),
    ("[1", "expected ',' or ']' at byte 2, found the end"),
    ("1 2", "expected the end of the JSON at byte 2, found '2'"),
    (
        "\u{feff}1",
        "expected a JSON value at byte 0, found byte 0xef",
    ),
    ("nul", "expected a JSON value at byte 0, found 'n'"),
    ("True", "expected a JSON value at byte 0, found 'T'"),
    (
        "NaN",
        "JSON has no NaN or Infinity, send such values as binary data: byte 0",
    ),
    (
        "[-Infinity]",
        "JSON has no NaN or Infinity, send such values as binary data: byte 2",
    ),
    (
        "Infinity",
        "JSON has no NaN or Infinity, send such values as binary data: byte 0",
    ),
    (
        "01",
        "expected no digit after a leading 0 at byte 1, found '1'",
    ),
    (
        "-",
        "malformed number: expected a digit at byte 1, found the end",
    ),
    (
        "1.",
        "malformed number: expected a digit at byte 2, found the end",
    ),
    (
        "1.e5",
        "malformed number: expected a digit at byte 2, found 'e'",
    ),
    (
        "1e+",
        "malformed number: expected a digit at byte 3, found the end",
    ),
    (".5", "expected a JSON value at byte 0, found '.'"),
    ("+1", "expected a JSON value at byte 0, found '+'"),
    (
        "\"ab",
        "expected the end of a string at byte 3, found the end",
    ),
    (
        "\"a\nb\"",
        "unescaped control character in a string at byte 2",
    ),
    ("\"\\x\"", "unknown escape in a string at byte 2"),
    ("\"\\u12g4\"", "unknown escape in a string at byte 5"),
    (
        "\"\\ud800\"",
        "half of a surrogate pair in a string at byte 3",
    ),
    (
        "\"\\ud800\\ud800\"",
        "half of a surrogate pair in a string at byte 3",
    ),
];
