//! Writes JSON text into a byte vector: strings, integers, floats, members.

use bytes::Bytes;

use super::string::first_special;

/// Writes `text` in quotes, escaped where JSON asks for it and nowhere else.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (plain, behind) = rest.split_at(first_special(rest));
        out.extend_from_slice(plain);
        let Some((special, behind)) = behind.split_first() else {
            break;
        };
        escape(out, *special);
        rest = behind;
    }
    out.push(b'"');
}

/// Writes `"name":` behind a comma, which the first member of an object does not have.
pub(crate) fn key(out: &mut Vec<u8>, name: &str) {
    if !out.ends_with(b"{") {
        out.push(b',');
    }
    string(out, name);
    out.push(b':');
}

/// Writes a member that is a string.
pub(crate) fn string_member(out: &mut Vec<u8>, name: &str, value: &str) {
    key(out, name);
    string(out, value);
}

/// A document of one object.
pub(crate) fn document(members: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::new();
    object(&mut out, members);
    out.into()
}

/// Writes an object.
pub(crate) fn object(out: &mut Vec<u8>, members: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'{');
    members(out);
    out.push(b'}');
}

/// Writes an array.
pub(crate) fn list<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    write: impl Fn(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (position, item) in items.into_iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// Writes a member that is true or false.
pub(crate) fn flag(out: &mut Vec<u8>, name: &str, value: bool) {
    key(out, name);
    boolean(out, value);
}

/// Writes a member that is a whole number.
pub(crate) fn count(out: &mut Vec<u8>, name: &str, value: u64) {
    key(out, name);
    unsigned(out, value);
}

/// Writes `true` or `false`.
pub(crate) fn boolean(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// Writes a whole number.
pub(crate) fn signed(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    unsigned(out, value.unsigned_abs());
}

/// Writes a whole number.
pub(crate) fn unsigned(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Writes the shortest decimal that reads back as this f32 (R. Giulietti, "The Schubfach way to
/// render doubles", 2020); `false`, writing nothing, if it is not finite.
#[inline]
pub(crate) fn float(out: &mut Vec<u8>, value: f32) -> bool {
    if value.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    }
    value.is_finite()
}

/// The same for f64.
#[inline]
pub(crate) fn double(out: &mut Vec<u8>, value: f64) -> bool {
    if value.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    }
    value.is_finite()
}

fn escape(out: &mut Vec<u8>, special: u8) {
    const HEXADECIMAL: &[u8; 16] = b"0123456789abcdef";
    match special {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        control => {
            out.extend_from_slice(b"\\u00");
            out.push(HEXADECIMAL[usize::from(control >> 4)]);
            out.push(HEXADECIMAL[usize::from(control & 15)]);
        }
    }
}
