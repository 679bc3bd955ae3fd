//! `paceline model push --precision`: how an encoder's factors are rounded, and what that gave.

use std::path::PathBuf;

use clap::Args;
use paceline_protocol::limits::CALIBRATION_TEXTS_MAX;
use paceline_protocol::operator::{Precision, PrecisionChoice, PrecisionReport};

use crate::cli::failure::Failure;
use crate::cli::units;

/// What may be said of precisions.
#[derive(Clone, Debug, Args)]
pub(super) struct PrecisionArgs {
    /// How an encoder rounds factors of products, f32 or bf16: the node measures both, and writes the
    /// choice into the model.toml of the version, never into the folder
    #[arg(long, value_name = "PRECISION", value_parser = parse)]
    precision: Option<Precision>,
    /// Texts to compare precisions by, one a line, instead of the node's own
    #[arg(long, value_name = "FILE", requires = "precision")]
    calibration: Option<PathBuf>,
    /// Publish it though its vectors turn by more than a cosine of 0.999 allows
    #[arg(long, requires = "precision")]
    force: bool,
}

impl PrecisionArgs {
    /// What the node is asked for.
    ///
    /// # Errors
    /// The file of texts cannot be read, or is no such file.
    pub(super) fn choice(&self) -> Result<Option<PrecisionChoice>, Failure> {
        let Some(precision) = self.precision else {
            return Ok(None);
        };
        let calibration = match &self.calibration {
            None => Vec::new(),
            Some(file) => texts(file)?,
        };
        Ok(Some(PrecisionChoice {
            precision,
            calibration,
            force: self.force,
        }))
    }
}

/// What precisions gave: the choice, the cosines, the speeds.
pub(super) fn told(report: &PrecisionReport) -> [String; 3] {
    let name = |precision| match precision {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
    };
    let cosine = |millionths: i32| f64::from(millionths) / 1e6;
    let rounded = match report.is_rounded {
        true => "",
        false => " (this node rounds nothing: it does not multiply bfloat16 faster)",
    };
    [
        name(report.precision).to_owned(),
        format!(
            "least {:.6}, mean {:.6}, of {}{rounded}",
            cosine(report.cosine_min_ppm),
            cosine(report.cosine_mean_ppm),
            units::counted(report.texts as usize, "text"),
        ),
        format!(
            "{} a text in f32, {} in bf16",
            units::nanoseconds(report.f32_text_ns),
            units::nanoseconds(report.bf16_text_ns)
        ),
    ]
}

/// Lines that are not empty.
fn texts(file: &PathBuf) -> Result<Vec<String>, Failure> {
    let shown = file.display();
    let read = std::fs::read_to_string(file);
    let read = read.map_err(|error| Failure::Usage(format!("--calibration {shown}: {error}")))?;
    let lines = read.lines().filter(|line| !line.trim().is_empty());
    let texts: Vec<String> = lines.map(str::to_owned).collect();
    match texts.len() {
        1..=CALIBRATION_TEXTS_MAX => Ok(texts),
        count => Err(Failure::Usage(format!(
            "--calibration {shown} has {count} texts; allowed: 1 to {CALIBRATION_TEXTS_MAX}, one a line"
        ))),
    }
}

fn parse(said: &str) -> Result<Precision, String> {
    match said {
        "f32" => Ok(Precision::F32),
        "bf16" => Ok(Precision::Bf16),
        other => Err(format!("'{other}' is no precision: f32 and bf16 are")),
    }
}
