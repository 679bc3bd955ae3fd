//! `paceline explain`: what an error code means and what to do about it. Asks no node.

use std::str::FromStr;

use clap::Args;
use paceline_protocol::ErrorCode;
use paceline_protocol::operator::ErrorView;

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

impl ExplainArgs {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        match self.code {
            Some(KnownCode(code)) => {
                terminal.show(self.output.format, &ErrorView::from(code), text)
            }
            None => {
                let all = ErrorView::all();
                terminal.show(self.output.format, &all, |all| list(all))
            }
        }
    }
}

fn text(code: &ErrorView) -> String {
    let retry = if code.retryable {
        "the same request may succeed if sent again"
    } else {
        "not worth it: the same request ends the same way, or is too late"
    };
    fields(&[
        ("code", code.code.clone()),
        ("cause", code.cause.clone()),
        ("remedy", code.remedy.clone()),
        ("retry", retry.to_owned()),
        ("HTTP", code.http.to_string()),
        ("gRPC", format!("{} {}", code.grpc, code.status)),
    ])
}

fn list(codes: &[ErrorView]) -> String {
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
            code.code.clone(),
            code.http.to_string(),
            code.status.clone(),
            retry.to_owned(),
            code.cause.clone(),
        ]);
    }
    table.render()
}
