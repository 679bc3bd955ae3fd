//! This run beside an earlier one: ratios of the figures that people look at.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::report::{Report, SCHEMA};

/// A report that was written before.
#[derive(Debug)]
pub(super) struct Earlier {
    name: String,
    report: Value,
}

/// Figures of this run as multiples of the earlier one's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Compared {
    /// When the earlier one was started.
    started: String,
    /// Pairs of a figure's name and its ratio; null where one of both has none, or has 0.
    ratios: Vec<(&'static str, Option<f64>)>,
    /// What of the load was different: then the ratios are not about the server alone.
    differences: Vec<String>,
}

/// Where the figures stand in a report.
const FIGURES: [(&str, &str); 7] = [
    ("good_per_second", "/good_per_second"),
    ("good_share", "/good_share"),
    ("p50", "/latency_ns/p50"),
    ("p90", "/latency_ns/p90"),
    ("p99", "/latency_ns/p99"),
    ("p99.9", "/latency_ns/p999"),
    ("max", "/latency_ns/max"),
];
/// What makes two loads the same.
const LOAD: [&str; 6] = [
    "model",
    "arrivals",
    "rate_due",
    "seed",
    "connections",
    "deadline_ns",
];

impl Earlier {
    /// Reads what `-o json` has written.
    ///
    /// # Errors
    /// It cannot be read, or is no such report.
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        let name = file.display().to_string();
        let input = File::open(file).map_err(|error| format!("cannot read {name}: {error}"))?;
        let report: Option<Value> = serde_json::from_reader(BufReader::new(input)).ok();
        match report {
            Some(report) if report["schema"] == SCHEMA => Ok(Self { name, report }),
            _ => Err(format!(
                "{name} is no report; allowed: what `paceline bench … -o json` writes, with schema {SCHEMA}"
            )),
        }
    }

    /// A report beside this one.
    pub(super) fn compare(&self, now: &Report) -> Compared {
        let now = serde_json::to_value(now).unwrap_or_default();
        let figure = |report: &Value, path| report.pointer(path).and_then(Value::as_f64);
        let ratios = FIGURES.map(|(name, path)| {
            let before = figure(&self.report, path).filter(|before| *before > 0.0);
            let ratio = figure(&now, path)
                .zip(before)
                .map(|(now, before)| now / before);
            (name, ratio)
        });
        let differences = LOAD.iter().filter(|key| now[**key] != self.report[**key]);
        let told = |key: &&str| format!("{key} was {}, is {}", self.report[*key], now[*key]);
        let started = self.report["provenance"]["started"].as_str();
        Compared {
            started: format!("{} ({})", started.unwrap_or("-"), self.name),
            ratios: ratios.into(),
            differences: differences.map(told).collect(),
        }
    }
}

impl Compared {
    /// Fields of a text.
    pub(super) fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![("compared", self.started.clone())];
        for (name, ratio) in &self.ratios {
            let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
            fields.push(("ratio", format!("{ratio} {name}")));
        }
        let differences = self.differences.iter();
        fields.extend(differences.map(|told| ("differs", told.clone())));
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::report::tests::report;

    fn read(text: &str) -> Result<Earlier, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.json");
        std::fs::write(&file, text).unwrap();
        Earlier::read(&file)
    }

    #[test]
    fn figures_are_multiples_of_the_earlier_ones() {
        let mut before = serde_json::to_value(report()).unwrap();
        before["latency_ns"]["p99"] = 40_000_000.into();
        before["good_per_second"] = 0.into();
        before["seed"] = 8.into();
        let compared = read(&before.to_string()).unwrap().compare(&report());
        let ratio = |name| {
            compared
                .ratios
                .iter()
                .find(|(its, _)| *its == name)
                .unwrap()
                .1
        };
        assert_eq!((ratio("p50"), ratio("good_per_second")), (Some(1.0), None));
        assert_eq!(ratio("p99"), Some(2.0));
        assert_eq!(compared.differences, ["seed was 8, is 7"]);
        let fields = compared.fields();
        assert!(
            fields.contains(&("ratio", "2.000 p99".to_owned())),
            "{fields:?}"
        );
    }

    #[test]
    fn what_is_no_report_is_told() {
        for text in ["", "{}", "{\"schema\": 2}"] {
            assert!(
                read(text)
                    .unwrap_err()
                    .contains("allowed: what `paceline bench"),
                "{text}"
            );
        }
    }
}
