//! Lines of bounded length, out of anything that can be read.

use std::io::{self, BufRead};

use crate::limits::TRACE_LINE_BYTES_MAX;

/// Reads line by line. Memory: one line of at most 64 KiB, however long the lines are.
pub(super) struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            buffer: Vec::new(),
            number: 0,
        }
    }

    /// The last line's number, from 1; 0 before the first.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The next line without its end (LF or CRLF) and without a byte order mark, or why it
    /// cannot be looked at. A last line needs no end. Nothing after the last.
    pub(super) fn next(&mut self) -> io::Result<Option<Result<&str, String>>> {
        self.buffer.clear();
        let Some(length) = self.fill()? else {
            return Ok(None);
        };
        self.number += 1;
        if length > TRACE_LINE_BYTES_MAX as u64 {
            let what =
                format!("the line has {length} bytes; allowed: up to {TRACE_LINE_BYTES_MAX}");
            return Ok(Some(Err(what)));
        }
        let mut line = self.buffer.as_slice();
        line = line.strip_suffix(b"\n").unwrap_or(line);
        line = line.strip_suffix(b"\r").unwrap_or(line);
        if self.number == 1 {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        let text = std::str::from_utf8(line).map_err(|error| {
            let place = error.valid_up_to() + 1;
            format!("byte {place} of the line is not UTF-8; allowed: UTF-8")
        });
        Ok(Some(text.and_then(printable)))
    }

    /// Reads up to the end of a line, keeps what may be kept of it, and says how long it is.
    fn fill(&mut self) -> io::Result<Option<u64>> {
        let mut length = 0u64;
        loop {
            let chunk = match self.input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() {
                return Ok((length > 0).then_some(length));
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(chunk.len(), |end| end + 1);
            length += taken as u64;
            if length <= TRACE_LINE_BYTES_MAX as u64 {
                self.buffer.extend_from_slice(&chunk[..taken]);
            }
            self.input.consume(taken);
            if end.is_some() {
                return Ok(Some(length));
            }
        }
    }
}

/// Text without what no trace writes: a NUL byte says that the file is damaged.
fn printable(line: &str) -> Result<&str, String> {
    let control = |(_, c): &(usize, char)| c.is_control() && *c != '\t';
    match line.char_indices().find(control) {
        Some((place, c)) => Err(format!(
            "byte {} of the line is {c:?}; allowed: text without control characters",
            place + 1
        )),
        None => Ok(line),
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn read(bytes: &[u8]) -> Vec<Result<String, String>> {
        // A buffer of 7 bytes: lines come in pieces.
        let mut lines = Lines::new(BufReader::with_capacity(7, bytes));
        let mut read = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            read.push(line.map(str::to_owned));
        }
        assert_eq!(lines.number(), read.len() as u64);
        read
    }

    #[test]
    fn ends_of_lines_and_byte_order_marks_are_no_content() {
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(read(b""), []);
        assert_eq!(read(b"a"), [ok("a")]);
        assert_eq!(
            read(b"\xef\xbb\xbfone,two\r\n\nthree"),
            [ok("one,two"), ok(""), ok("three")]
        );
    }

    #[test]
    fn what_is_no_text_is_said_and_the_next_line_is_read() {
        let read = read(b"a\0b\n\xff\xfe\nc\n");
        assert_eq!(
            read[0].as_ref().unwrap_err(),
            "byte 2 of the line is '\\0'; allowed: text without control characters"
        );
        assert_eq!(
            read[1].as_ref().unwrap_err(),
            "byte 1 of the line is not UTF-8; allowed: UTF-8"
        );
        assert_eq!(read[2], Ok("c".to_owned()));
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut long = vec![b'x'; 10_000_000];
        long.extend_from_slice(b"\nshort\n");
        let mut lines = Lines::new(BufReader::new(long.as_slice()));
        assert_eq!(
            lines.next().unwrap().unwrap().unwrap_err(),
            "the line has 10000001 bytes; allowed: up to 65536"
        );
        assert!(lines.buffer.capacity() <= 2 * TRACE_LINE_BYTES_MAX);
        assert_eq!(lines.next().unwrap(), Some(Ok("short")));
    }
}
