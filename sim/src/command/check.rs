//! `paceline sim check`: whether scenarios can be run.

use std::io::Write;
use std::process::ExitCode;

use super::CheckArgs;
use super::open::Opened;

impl CheckArgs {
    pub(super) fn run(&self, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<ExitCode> {
        let mut is_good = true;
        for file in &self.files {
            let opened = match Opened::parse(file) {
                Ok(opened) => opened,
                Err(reason) => {
                    is_good = false;
                    writeln!(err, "{}", reason.trim_start())?;
                    continue;
                }
            };
            match opened.traces() {
                Err(unusable) => {
                    is_good = false;
                    writeln!(err, "{file}: {unusable}")?;
                }
                Ok(traces) => {
                    writeln!(out, "{file}: {}", opened.scenario.summary)?;
                    for (clients, summary) in traces.summaries() {
                        writeln!(out, "{file}: clients.{clients}: {summary}")?;
                    }
                }
            }
        }
        Ok(match is_good {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}
