//! `paceline explain`: what an error code means and what to do about it. Asks no node.

use std::str::FromStr;

use clap::Args;
use paceline_protocol::ErrorCode;
use serde::Serialize;

use super::connection::Output;
use super::failure::Failure;
use super::table::{Side, Table, fields};
use super::terminal::Terminal;

/// Arguments of `paceline explain`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  paceline explain                     list every code
  paceline explain MODEL_NOT_READY
  paceline explain queue-full -o json")]
pub struct ExplainArgs {
    /// The code, in any case, with - or _; every code is listed without one
    code: Option<KnownCode>,
    #[command(flatten)]
    output: Output,
}

/// A code that this release knows.
#[derive(Clone, Copy, Debug)]
struct KnownCode(ErrorCode);

impl FromStr for KnownCode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.trim().to_ascii_uppercase().replace('-', "_");
        let known = ErrorCode::ALL.into_iter().find(|code| code.name() == name);
        known.map(Self).ok_or_else(|| {
            format!("this release knows no code '{name}'; `paceline explain` lists those it knows")
        })
    }
}

/// One code as JSON has it.
#[derive(Serialize)]
struct Explained {
    code: &'static str,
    http: u16,
    grpc: u8,
    retryable: bool,
    cause: &'static str,
    remedy: &'static str,
}

impl ExplainArgs {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        match self.code {
            Some(KnownCode(code)) => terminal.show(self.output.format, &explained(code), text),
            None => {
                let all: Vec<Explained> = ErrorCode::ALL.into_iter().map(explained).collect();
                terminal.show(self.output.format, &all, |all| list(all))
            }
        }
    }
}

fn explained(code: ErrorCode) -> Explained {
    let explanation = code.explain();
    Explained {
        code: explanation.name,
        http: explanation.http,
        grpc: explanation.grpc,
        retryable: explanation.retryable,
        cause: explanation.cause,
        remedy: explanation.remedy,
    }
}

fn text(code: &Explained) -> String {
    let retry = if code.retryable {
        "the same request may succeed if sent again"
    } else {
        "not worth it: the same request ends the same way, or is too late"
    };
    fields(&[
        ("code", code.code.to_owned()),
        ("cause", code.cause.to_owned()),
        ("remedy", code.remedy.to_owned()),
        ("retry", retry.to_owned()),
        ("HTTP", code.http.to_string()),
        ("gRPC", format!("{} {}", code.grpc, grpc_name(code.grpc))),
    ])
}

fn list(codes: &[Explained]) -> String {
    let mut table = Table::new([
        ("CODE", Side::Left),
        ("HTTP", Side::Right),
        ("GRPC", Side::Left),
        ("RETRY", Side::Left),
        ("CAUSE", Side::Left),
    ]);
    for code in codes {
        let retry = if code.retryable { "yes" } else { "no" };
        table.row([
            code.code.to_owned(),
            code.http.to_string(),
            grpc_name(code.grpc).to_owned(),
            retry.to_owned(),
            code.cause.to_owned(),
        ]);
    }
    table.render()
}

/// Status codes of gRPC by number (gRPC, doc/statuscodes.md).
fn grpc_name(number: u8) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    NAMES.get(usize::from(number)).copied().unwrap_or("UNKNOWN")
}
