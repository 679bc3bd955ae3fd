//! A scenario as TOML: read with every error at its line, and written.

use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Scenario;
use super::check::Problem;

/// What keeps a text from being a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioError {
    /// What it was read from, for people.
    pub from: String,
    /// Each with its line, from 1, where there is one.
    pub problems: Vec<(Option<usize>, String)>,
}

impl Scenario {
    /// Reads a scenario; `from` names the text in errors.
    ///
    /// # Errors
    /// [`ScenarioError`]: not TOML, not a scenario, or one with settings that are not allowed, all
    /// of which are named.
    pub fn read(text: &str, from: &str) -> Result<Self, ScenarioError> {
        let error = |problems| ScenarioError {
            from: from.to_owned(),
            problems,
        };
        let scenario: Self = toml::from_str(text).map_err(|wrong| {
            let line = wrong.span().map(|span| line_of(text, span.start));
            error(vec![(line, wrong.message().to_owned())])
        })?;
        let problems = scenario.problems();
        if problems.is_empty() {
            return Ok(scenario);
        }
        let table = DeTable::parse(text).ok();
        let placed = problems.iter().map(|problem| {
            let at = table.as_ref().and_then(|table| place(table, &problem.path));
            (at.map(|at| line_of(text, at)), problem.to_string())
        });
        Err(error(placed.collect()))
    }

    /// The scenario as a text that [`Scenario::read`] reads.
    pub fn write(&self) -> String {
        toml::to_string(self).expect("names, numbers, lists and tables are TOML")
    }
}

/// Where a path stands, or as much of it as there is.
fn place(table: &Spanned<DeTable<'_>>, path: &[String]) -> Option<usize> {
    let (first, rest) = path.split_first()?;
    let (key, value) = table.get_ref().get_key_value(first.as_str())?;
    Some(within(value, rest).unwrap_or(key.span().start))
}

fn within(value: &Spanned<DeValue<'_>>, path: &[String]) -> Option<usize> {
    let Some((first, rest)) = path.split_first() else {
        return Some(value.span().start);
    };
    match value.get_ref() {
        DeValue::Table(table) => match table.get_key_value(first.as_str()) {
            Some((key, value)) => Some(within(value, rest).unwrap_or(key.span().start)),
            // What is wrong is a default, or stands beside it.
            None => Some(value.span().start),
        },
        DeValue::Array(array) => {
            let value = array.get(first.parse::<usize>().ok()?)?;
            within(value, rest)
        }
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => None,
    }
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text[..at.min(text.len())].matches('\n').count()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, value, allowed) = (self.path.join("."), &self.value, &self.allowed);
        write!(f, "{path} is {value}; allowed: {allowed}")
    }
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (line, what)) in self.problems.iter().enumerate() {
            if position > 0 {
                writeln!(f)?;
            }
            match line {
                Some(line) => write!(f, "{}:{line}: {what}", self.from)?,
                None => write!(f, "{}: {what}", self.from)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ScenarioError {}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"name = "mine"
summary = "a node"

[cluster]
groups = [{ count = 1 }]

[[models]]
name = "m"
versions = [{ rows_max = 8, cost = { fixed_ns = 1000, row_ns = 10 } }]

[[clients]]
model = "m"
budget_min_us = 1000
budget_max_us = 2000
workload = { arrivals = { kind = "poisson", rate_per_s = 100 }, duration_ms = 1000 }

[[faults]]
at_ms = 5000
for_ms = 10
what = { kind = "stall", node = "n0" }

[expect]
answers_min = 1
"#;

    /// What is said of the good text with one change.
    fn said(from: &str, to: &str) -> String {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD, "{from}");
        Scenario::read(&text, "mine.toml").unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let scenario = Scenario::read(GOOD, "mine.toml").unwrap();
        let again = Scenario::read(&scenario.write(), "written").unwrap();
        assert_eq!(scenario, again);
    }

    #[test]
    fn every_error_names_its_line_the_value_and_what_is_allowed() {
        let table = [
            (
                "count = 1",
                "count = 0",
                "mine.toml:5: cluster.groups is 0; allowed: 1 to 1000",
            ),
            (
                "n0",
                "n1",
                "mine.toml:20: faults.0.what is n1; allowed: n0 to n0, or leader",
            ),
            (
                "model = \"m\"",
                "model = \"x\"",
                "mine.toml:12: clients.0.model is x; allowed: m",
            ),
            (
                "budget_max_us = 2000",
                "budget_max_us = 5",
                "mine.toml:14: clients.0.budget_max_us is 5; allowed: 1000 to 600000000",
            ),
            (
                "rate_per_s = 100",
                "rate_per_s = 0",
                "mine.toml:15: clients.0.workload.arrivals.rate_per_s is 0; allowed: 1 to 1000000000",
            ),
        ];
        for (from, to, expected) in table {
            let said = said(from, to);
            assert!(said.starts_with(expected), "{said}");
        }
    }

    #[test]
    fn what_is_no_scenario_is_told_with_its_line() {
        let unknown = said("answers_min", "answer_min");
        let starts = "mine.toml:23: unknown field `answer_min`, expected one of `answers_min`";
        assert!(unknown.starts_with(starts), "{unknown}");
        let missing = said("budget_min_us = 1000\n", "");
        assert!(
            missing.contains("missing field `budget_min_us`"),
            "{missing}"
        );
        let kind = said("\"stall\"", "\"explode\"");
        assert!(
            kind.starts_with("mine.toml:20: unknown variant `explode`"),
            "{kind}"
        );
        let broken = said("[cluster]", "[cluster");
        assert!(broken.starts_with("mine.toml:4: "), "{broken}");
    }

    #[test]
    fn all_problems_are_named_at_once() {
        let text = GOOD
            .replace("rows_max = 8", "rows_max = 0")
            .replace("for_ms = 10", "for_ms = 0");
        let error = Scenario::read(&text, "mine.toml").unwrap_err();
        assert_eq!(error.problems.len(), 2, "{error}");
    }
}
