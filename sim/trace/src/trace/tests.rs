//! Traces are read as they are, and what is wrong with them is said.

use super::*;
use crate::{Columns, TimeUnit, TraceFormat};

const AZURE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                     2023-11-16 23:59:59.9000000,4808,10\n\
                     2023-11-17 00:00:00.1500001,110,27\n\
                     2023-11-17 00:00:02.9000000,34,12";

/// SplitMix64: the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

fn options(format: TraceFormat) -> TraceOptions {
    TraceOptions::new("trace", format)
}

/// Times in milliseconds, in the column `ms`.
fn csv(rows: Option<&str>, tenant: Option<&str>) -> TraceOptions {
    TraceOptions {
        columns: Some(Columns {
            time: "ms".to_owned(),
            rows: rows.map(str::to_owned),
            tokens: None,
            tokens_out: None,
            bytes: None,
            tenant: tenant.map(str::to_owned),
        }),
        time_unit: Some(TimeUnit::Millis),
        ..options(TraceFormat::Csv)
    }
}

fn read(text: impl AsRef<[u8]>, options: &TraceOptions) -> Trace {
    Trace::read(text.as_ref(), options).unwrap()
}

fn refused(text: impl AsRef<[u8]>, options: &TraceOptions) -> String {
    Trace::read(text.as_ref(), options).unwrap_err().to_string()
}

fn times(trace: &Trace) -> Vec<u64> {
    trace.entries.iter().map(|entry| entry.at_nanos).collect()
}

#[test]
fn azure_is_known_by_name() {
    let trace = read(AZURE, &options(TraceFormat::AzureLlm2023));
    assert_eq!(times(&trace), [0, 250_000_100, 3_000_000_000]);
    let row = trace.row(1).unwrap();
    assert_eq!((row.tokens, row.tokens_out), (Some(110), Some(27)));
    assert_eq!((row.rows, row.bytes, row.tenant), (None, None, None));
    assert_eq!(trace.row(3), None);
    let expected = TraceSummary {
        lines: 3,
        taken: 3,
        span_ms: 3_000,
        whole: true,
        ..TraceSummary::default()
    };
    assert_eq!(trace.summary(), &expected);
    assert_eq!(
        expected.to_string(),
        "3 of 3 lines taken, 0 skipped, 0 outside of the part, 0 out of order; 3000 ms"
    );
}

#[test]
fn mooncake_is_known_by_name() {
    let text = r#"{"timestamp": 3000, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}
{"timestamp": 3001, "input_length": 7, "output_length": 1, "hash_ids": []}
"#;
    let trace = read(text, &options(TraceFormat::Mooncake));
    assert_eq!(times(&trace), [0, 1_000_000]);
    let row = trace.row(0).unwrap();
    assert_eq!((row.tokens, row.tokens_out), (Some(6_758), Some(500)));
}

#[test]
fn marks_ends_and_empty_lines_change_nothing() {
    let plain = read(AZURE, &options(TraceFormat::AzureLlm2023));
    let dressed = format!("\u{feff}{}\r\n\r\n", AZURE.replace('\n', "\r\n"));
    assert_eq!(read(dressed, &options(TraceFormat::AzureLlm2023)), plain);
    let quoted = AZURE
        .replace("TIMESTAMP", "\"TIMESTAMP\"")
        .replace("4808", "\"4808\"");
    assert_eq!(read(quoted, &options(TraceFormat::AzureLlm2023)), plain);
}

#[test]
fn a_part_of_a_trace_is_taken_faster_or_slower() {
    let text = "ms\n1000\n1100\n1200\n1300\n1400\n1500\n";
    let part = TraceOptions {
        from_ms: 100,
        to_ms: Some(400),
        speed_permille: 2_000,
        ..csv(None, None)
    };
    let trace = read(text, &part);
    assert_eq!(times(&trace), [0, 50_000_000, 100_000_000]);
    let summary = trace.summary();
    assert_eq!((summary.lines, summary.taken, summary.left_out), (5, 3, 2));
    assert!(!summary.whole, "what lies behind the part is not read");
    let slow = TraceOptions {
        speed_permille: 10,
        requests_max: Some(2),
        ..csv(None, None)
    };
    let trace = read(text, &slow);
    assert_eq!(times(&trace), [0, 10_000_000_000]);
    assert_eq!((trace.summary().lines, trace.summary().whole), (2, false));
}

#[test]
fn times_out_of_order_are_counted_and_moved_to_the_one_above() {
    let trace = read("ms\n50\n40\n70\n60\n65\n71\n", &csv(None, None));
    let expected = [0, 0, 20, 20, 20, 21].map(|ms| ms * NANOS_PER_MS);
    assert_eq!(times(&trace), expected);
    assert_eq!(trace.summary().out_of_order, 3);
}

#[test]
fn tenants_are_numbered_as_they_come() {
    let text = "who,ms,n\nb,0,1\na,1,2\nb,2,3\n";
    let trace = read(text, &csv(Some("n"), Some("who")));
    assert_eq!(trace.tenants(), ["b", "a"]);
    let tenants = (0..3).map(|index| trace.row(index).unwrap().tenant.unwrap());
    assert!(tenants.eq([0, 1, 0]));
    let many: String = (0..1_002).map(|n| format!("t{n},{n},1\n")).collect();
    let trace = read(format!("who,ms,n\n{many}"), &csv(Some("n"), Some("who")));
    assert_eq!(trace.summary().skipped, 2);
    assert_eq!(
        trace.summary().first_skipped[0].to_string(),
        "line 1002: tenant is one more than 1000; allowed: one of those above"
    );
}

#[test]
fn bad_lines_are_skipped_and_the_first_are_told() {
    let text = "ms,n\n0,1\nx,1\n5\n-1,1\n6,\"1\n7,99999999999999999999999\n8,0\n\0,1\n9,2\n\
                1e30,1\n10,1.5\n11,3\n4e10,3\n";
    let trace = read(text, &csv(Some("n"), None));
    let summary = trace.summary();
    assert_eq!((summary.lines, summary.taken, summary.skipped), (13, 3, 10));
    let told: Vec<String> = summary
        .first_skipped
        .iter()
        .map(|line| line.to_string())
        .collect();
    let number = "allowed: a whole number from 1 to 4294967295";
    let time = "allowed: milliseconds from 0 to 18446744073709";
    assert_eq!(
        told,
        [
            format!("line 3: time is \"x\"; {time}"),
            "line 4: the line has 1 values; allowed: at least 2, so that it has rows".to_owned(),
            format!("line 5: time is \"-1\"; {time}"),
            "line 6: value 2 has no closing quote; allowed: a value without quotes, or in quotes \
             with each quote inside doubled"
                .to_owned(),
            format!("line 7: rows is \"99999999999999999999999\"; {number}"),
            format!("line 8: rows is \"0\"; {number}"),
            "line 9: byte 1 of the line is '\\0'; allowed: text without control characters"
                .to_owned(),
            format!("line 11: time is \"1e30\"; {time}"),
        ]
    );
    let json = serde_json::to_value(summary).unwrap();
    assert_eq!(json["first_skipped"][0]["line"], 3);
    let late = read(
        "ms,n\n0,1\n31622400000,1\n31622400001,1\n",
        &csv(Some("n"), None),
    );
    assert_eq!(
        late.summary().first_skipped[0].to_string(),
        "line 4: time is 366 days after the first request; allowed: up to 366"
    );
}

#[test]
fn a_trace_of_nothing_is_refused_with_the_reason() {
    let azure = options(TraceFormat::AzureLlm2023);
    let empty = "the trace has no requests: it is empty, or only a header";
    assert_eq!(refused("", &azure), empty);
    assert_eq!(refused("\n\r\n", &azure), empty);
    assert_eq!(
        refused("TIMESTAMP,ContextTokens,GeneratedTokens", &azure),
        empty
    );
    assert_eq!(refused("", &options(TraceFormat::Mooncake)), empty);
    assert_eq!(
        refused("time,tokens\n1,2\n", &azure),
        "no column is called \"TIMESTAMP\", which time is to be read from; there are: \"time\", \
         \"tokens\""
    );
    assert_eq!(
        refused("\0\n", &azure),
        "the header cannot be read: byte 1 of the line is '\\0'; allowed: text without control \
         characters"
    );
    assert_eq!(
        refused("{\"time\": 1}\nnonsense\n", &options(TraceFormat::Mooncake)),
        "not one of 2 lines can be read\n  \
         line 1: the object has no \"timestamp\"; it has: \"time\"\n  \
         line 2: expected ident at line 1 column 2; allowed: a JSON object"
    );
    let part = TraceOptions {
        from_ms: 5,
        ..csv(None, None)
    };
    assert_eq!(
        refused("ms\n1\n2\nx\n", &part),
        "no request lies in the part that is asked for; 2 of 3 lines could be read, and the last \
         lies 1 ms after the first"
    );
    let zero = TraceOptions {
        speed_permille: 0,
        ..azure
    };
    assert_eq!(
        refused(AZURE, &zero),
        "trace.speed_permille is 0; allowed: 10 to 1000000"
    );
}

/// Gives a header, then fails.
struct Torn(bool);

impl std::io::Read for Torn {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if std::mem::replace(&mut self.0, true) {
            return Err(std::io::Error::other("the disk is gone"));
        }
        into[..3].copy_from_slice(b"ms\n");
        Ok(3)
    }
}

#[test]
fn a_reader_that_fails_is_told_from_an_end() {
    let torn = std::io::BufReader::new(Torn(false));
    let error = Trace::read(torn, &csv(None, None)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "reading failed after 1 lines: the disk is gone"
    );
}

/// Pieces of good and bad traces, put together at random: never a panic, and every line has its
/// place in the summary.
#[test]
fn whatever_a_trace_holds_it_is_read_or_refused() {
    let pieces: [&[u8]; 22] = [
        b"0",
        b"1",
        b"17",
        b"1e9",
        b"-3",
        b".",
        b"2023-11-16 18:17:03.97",
        b"18446744073709551615",
        b",",
        b",",
        b"\n",
        b"\n",
        b"\r\n",
        b"\"",
        b"\"\"",
        b"\0",
        b"\xff",
        b"ms,n",
        b"{\"ms\": 3}",
        b"{\"timestamp\": 1, \"input_length\": 2, \"output_length\": 3}",
        b"\xef\xbb\xbf",
        b"}",
    ];
    let mut random = Random(23);
    let (mut taken, mut refused) = (0, 0);
    for round in 0..20_000 {
        let mut bytes = b"ms,n\n3,4\n".to_vec();
        if round % 4 == 0 {
            bytes.clear();
        }
        for _ in 0..random.below(30) {
            bytes.extend_from_slice(pieces[random.below(22) as usize]);
        }
        let mut options = match round % 3 {
            0 => csv(Some("n"), None),
            1 => csv(None, Some("n")),
            _ => options(TraceFormat::Mooncake),
        };
        options.from_ms = random.below(3);
        options.to_ms = Some(options.from_ms + 1 + random.below(1_000));
        options.requests_max = Some(1 + random.below(4));
        options.speed_permille = 10 + random.below(5_000) as u32;
        match Trace::read(bytes.as_slice(), &options) {
            Ok(trace) => {
                taken += 1;
                let summary = trace.summary();
                assert_eq!(
                    summary.lines,
                    summary.taken + summary.skipped + summary.left_out
                );
                assert_eq!(summary.taken, trace.entries.len() as u64);
                assert!(times(&trace).is_sorted());
            }
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().contains('\0'));
            }
        }
    }
    assert!(taken > 2_000 && refused > 2_000, "{taken}, {refused}");
}
