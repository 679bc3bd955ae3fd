//! A scenario as the command line names it: one that comes along, or a file.

use std::path::{Path, PathBuf};

use crate::scenario::Scenario;
use crate::traces::{Traces, UnusableTrace};

/// A scenario that can be run, and where it came from.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The scenario.
    pub scenario: Scenario,
    /// Its file, if it does not come along.
    pub file: Option<PathBuf>,
}

impl Opened {
    /// The scenario that `named` names: a file if it looks like one.
    pub(super) fn parse(named: &str) -> Result<Self, String> {
        let path = Path::new(named);
        let is_file = path.extension().is_some() || named.contains(std::path::MAIN_SEPARATOR);
        if !is_file {
            let scenario = Scenario::named(named).map_err(|unknown| unknown.to_string())?;
            return Ok(Self {
                scenario,
                file: None,
            });
        }
        let text = text_of(path)?;
        let scenario = Scenario::read(&text, named).map_err(|error| format!("\n{error}"))?;
        Ok(Self {
            scenario,
            file: Some(path.to_owned()),
        })
    }

    /// The traces that it replays; their paths are relative to its file.
    pub(super) fn traces(&self) -> Result<Traces, UnusableTrace> {
        let folder = self.file.as_deref().and_then(Path::parent);
        Traces::read(&self.scenario, folder.unwrap_or(Path::new("")))
    }

    /// What to type to have it again.
    pub(super) fn name(&self) -> String {
        match &self.file {
            Some(file) => file.display().to_string(),
            None => self.scenario.name.clone(),
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a scenario is read before its run begins"
)]
fn text_of(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if length.len() > FILE_BYTES_MAX {
        return Err(format!("a scenario has at most {FILE_BYTES_MAX} bytes"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// A few thousand faults.
const FILE_BYTES_MAX: u64 = 4 << 20;
