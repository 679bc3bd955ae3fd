//! A scenario for the simulator around a measured cost: it runs as it is, and is there to be changed.

use std::fmt::Write;

use paceline_protocol::ModelName;

use super::fit::{Line, Size};
use crate::cli::bench::provenance::Provenance;

/// What a scenario says about one model on one kind of device.
pub(super) struct Calibrated<'a> {
    pub(super) model: &'a ModelName,
    pub(super) version: &'a str,
    pub(super) rows_max: u32,
    pub(super) lanes: u16,
    pub(super) memory_bytes: u64,
    pub(super) sizes: &'a [Size],
    pub(super) line: Line,
    pub(super) warning: Option<&'a str>,
    pub(super) provenance: &'a Provenance,
}

/// Of what full batches could carry, so much is sent, as in the simulator's `steady`.
const LOAD_PERCENT: f64 = 40.0;
/// Requests a second at most: more only takes the simulator longer.
const RATE_MAX: f64 = 5_000.0;
const DURATION_S: u64 = 10;

impl Calibrated<'_> {
    /// The file.
    pub(super) fn toml(&self) -> String {
        let line = self.line;
        let (model, rows_max) = (self.model, self.rows_max);
        let (fixed_ns, row_ns) = (line.fixed_ns.round() as u64, line.row_ns.round() as u64);
        let noise = line.noise_permille;
        let memory_mib = self.memory_bytes.div_ceil(1 << 20).max(1);
        let (lanes, rate) = (self.lanes.max(1), self.rate());
        let comment = self.comment();
        let answers_min = rate * DURATION_S / 2;
        let duration_ms = DURATION_S * 1_000;
        format!(
            "{comment}name = \"calibrated\"\n\
             summary = \"{model} on one node, with the cost that was measured\"\n\n\
             [cluster]\ngroups = [{{ count = 1, lanes = {lanes}, memory_mib = {} }}]\n\n\
             [[models]]\nname = \"{model}\"\nreplicas = \"each\"\n\n\
             [[models.versions]]\nrows_max = {rows_max}\n\
             cost = {{ fixed_ns = {fixed_ns}, row_ns = {row_ns}, noise_permille = {noise} }}\n\
             memory_mib = {memory_mib}\n\n\
             [[clients]]\nmodel = \"{model}\"\nbudget_min_us = 10_000_000\nbudget_max_us = 10_000_000\n\n\
             [clients.workload]\narrivals = {{ kind = \"poisson\", rate_per_s = {rate} }}\n\
             duration_ms = {duration_ms}\n\n\
             [expect]\nanswers_min = {answers_min}\n",
            memory_mib * 2
        )
    }

    /// Requests of one row a second that the device carries with ease.
    fn rate(&self) -> u64 {
        let batch_seconds = self.line.at(self.rows_max).max(1.0) / 1e9;
        let rows = f64::from(self.rows_max) * f64::from(self.lanes.max(1)) / batch_seconds;
        (rows * LOAD_PERCENT / 100.0).clamp(1.0, RATE_MAX) as u64
    }

    fn comment(&self) -> String {
        let line = self.line;
        let mut text = format!(
            "# What batches of {} (version {}) take, measured by\n#   {}\n# at {}, from engines' own times \
             of single batches.\n#\n# fixed_ns = {:.0} ± {:.0}, row_ns = {:.1} ± {:.1} (two standard errors)\n\
             # The line is {:.1} % off at most, at {} rows.\n",
            self.model,
            self.version,
            // A line break would end the comment.
            self.provenance.command.replace(char::is_control, " "),
            self.provenance.started,
            line.fixed_ns,
            line.fixed_error_ns,
            line.row_ns,
            line.row_error_ns,
            line.worst_share * 100.0,
            line.worst_rows
        );
        if let Some(warning) = self.warning {
            let _infallible = writeln!(text, "# WARNING: {warning}");
        }
        text.push_str("#\n#   rows   median_ns     line_ns  batches\n");
        for size in self.sizes {
            let (rows, median) = (size.rows, size.median());
            let told = line.at(rows);
            let batches = size.nanos.len();
            let _infallible =
                writeln!(text, "# {rows:>6} {median:>11.0} {told:>11.0} {batches:>8}");
        }
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_has_the_cost_and_says_how_good_it_is() {
        let sizes: Vec<Size> = [1, 8]
            .map(|rows| Size::new(rows, vec![20_000 + 500 * u64::from(rows)]))
            .into();
        let mut provenance = Provenance::of_process();
        provenance.command = "paceline bench 'a\nname = \"x\"'".to_owned();
        let calibrated = Calibrated {
            model: &ModelName::new("table").unwrap(),
            version: "3",
            rows_max: 8,
            lanes: 2,
            memory_bytes: (5 << 20) + 1,
            sizes: &sizes,
            line: Line::through(&sizes),
            warning: Some("steps"),
            provenance: &provenance,
        };
        let text = calibrated.toml();
        let table: toml::Table = text.parse().unwrap();
        let version = &table["models"][0]["versions"][0];
        let cost = toml::toml! { fixed_ns = 20000
        row_ns = 500
        noise_permille = 0 };
        assert_eq!(version["cost"], toml::Value::Table(cost), "{text}");
        assert_eq!(version["memory_mib"].as_integer(), Some(6));
        assert_eq!(table["name"].as_str(), Some("calibrated"));
        let arrivals = &table["clients"][0]["workload"]["arrivals"];
        assert_eq!(arrivals["rate_per_s"].as_integer(), Some(5_000));
        assert!(text.contains("# WARNING: steps\n"), "{text}");
        assert!(
            text.contains("#      8       24000       24000        1\n"),
            "{text}"
        );
    }
}
