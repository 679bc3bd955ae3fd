//! `paceline model deploy NAME@V --canary …`: what is written on the command line of a canary's
//! stages and guards.

use std::time::Duration;

use clap::Args;
use paceline_protocol::operator::{CanaryRequest, Committed};
use paceline_protocol::registry::{CanaryGuards, CanaryStage, ReplicaTarget};
use paceline_protocol::traffic::WEIGHT_ALL;
use paceline_protocol::{ModelName, OpId, VersionNumber};
use serde::Serialize;

use crate::api::OperatorClient;
use crate::cli::failure::Failure;
use crate::cli::operation::{committed, unsettled};
use crate::cli::units;

/// How a version is tried before it serves.
#[derive(Clone, Debug, Args)]
pub(crate) struct Trial {
    /// Try the version beside the one that serves: its share of the requests, or one after another
    #[arg(long, value_name = "P%[,P%…]", value_delimiter = ',', value_parser = parse_share)]
    canary: Vec<u16>,
    /// How long each share is held at least
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, requires = "canary", default_value = "60s")]
    hold: Duration,
    /// Abort when so many more of its requests fail than of the version that serves, beyond chance
    #[arg(long, value_name = "P%", value_parser = parse_failures, requires = "canary", default_value = "1%")]
    max_errors: u16,
    /// Abort when its p99 is longer than so much of that of the version that serves, beyond chance
    #[arg(long, value_name = "P%", value_parser = parse_latency, requires = "canary", default_value = "200%")]
    max_latency: u16,
    /// Requests that a share is judged by at least, before the next one
    #[arg(long, value_name = "N", requires = "canary", default_value_t = 100)]
    min_requests: u32,
}

/// A canary that has begun, as JSON has it.
#[derive(Debug, Serialize)]
pub(crate) struct Begun {
    pub(crate) model: ModelName,
    pub(crate) version: VersionNumber,
    pub(crate) stages: Vec<CanaryStage>,
    pub(crate) guards: CanaryGuards,
    #[serde(flatten)]
    pub(crate) committed: Committed,
}

impl Trial {
    /// Whether one is wished for.
    pub(crate) fn is_given(&self) -> bool {
        !self.canary.is_empty()
    }

    /// Commits its beginning; the cluster does the rest.
    pub(crate) fn begin(
        &self,
        client: &OperatorClient,
        (name, version): (ModelName, VersionNumber),
        replicas: Option<ReplicaTarget>,
        op: OpId,
    ) -> Result<Begun, Failure> {
        let hold_ms = u64::try_from(self.hold.as_millis()).unwrap_or(u64::MAX);
        let stage = |&weight: &u16| CanaryStage { weight, hold_ms };
        let request = CanaryRequest {
            version: Some(version),
            replicas,
            stages: self.canary.iter().map(stage).collect(),
            guards: CanaryGuards {
                failures_permille_max: self.max_errors,
                latency_percent_max: self.max_latency,
                requests_min: self.min_requests,
            },
            op,
        };
        let shares: Vec<String> = self.canary.iter().copied().map(share).collect();
        let command = format!(
            "model deploy {name}@{version} --canary {}",
            shares.join(",")
        );
        let begun = client.begin_canary(&name, &request);
        Ok(Begun {
            committed: begun.map_err(unsettled(&command, op))?,
            model: name,
            version,
            stages: request.stages,
            guards: request.guards,
        })
    }
}

impl Begun {
    /// One line for people.
    pub(crate) fn sentence(&self) -> String {
        let shares = self.stages.iter().map(|stage| share(stage.weight));
        let shares: Vec<String> = shares.collect();
        let (model, version) = (&self.model, self.version);
        format!(
            "{model}@{version} is tried with {} of the requests as soon as its replicas are ready: {}; \
             `paceline model show {model}` tells how it is",
            shares.join(", then "),
            committed(&self.committed)
        )
    }
}

/// A weight, for people.
pub(in crate::cli) fn share(weight: u16) -> String {
    format!("{}%", f64::from(weight) / 100.0)
}

/// `10%` in units of 1/10,000.
pub(in crate::cli) fn parse_share(text: &str) -> Result<u16, String> {
    let weight = percent(text).map(|percent| percent * 100.0);
    let allowed = || format!("'{text}' is no share; allowed are 0.01% to 100%, with two decimals");
    let weight = weight.filter(|weight| (1.0..=f64::from(WEIGHT_ALL)).contains(weight));
    whole(weight).ok_or_else(allowed)
}

fn parse_failures(text: &str) -> Result<u16, String> {
    let permille = percent(text).map(|percent| percent * 10.0);
    let permille = permille.filter(|permille| (1.0..=1_000.0).contains(permille));
    whole(permille).ok_or_else(|| {
        format!("'{text}' is no guard on failures; allowed are 0.1% to 100%, with one decimal")
    })
}

fn parse_latency(text: &str) -> Result<u16, String> {
    let percent = percent(text).filter(|percent| (101.0..=10_000.0).contains(percent));
    whole(percent).ok_or_else(|| {
        format!("'{text}' is no guard on latency; allowed are 101% to 10000%, as in 150%")
    })
}

fn percent(text: &str) -> Option<f64> {
    text.strip_suffix('%')?.parse().ok()
}

/// What is written with more decimals than it is kept with is not rounded in silence.
fn whole(value: Option<f64>) -> Option<u16> {
    let value = value?;
    let rounded = value.round();
    ((value - rounded).abs() < 1e-6).then_some(rounded as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_guards_are_read_exactly_or_refused_by_what_is_allowed() {
        assert_eq!(parse_share("10%"), Ok(1_000));
        assert_eq!(parse_share("0.01%"), Ok(1));
        assert_eq!(parse_share("33.33%"), Ok(3_333));
        assert_eq!(parse_share("100%"), Ok(10_000));
        for wrong in [
            "10", "0%", "0.001%", "33.333%", "100.01%", "-1%", "NaN%", "%", "",
        ] {
            let refused = parse_share(wrong).unwrap_err();
            assert!(
                refused.contains("allowed are 0.01% to 100%"),
                "{wrong}: {refused}"
            );
        }
        assert_eq!(
            (parse_failures("1%"), parse_failures("0.5%")),
            (Ok(10), Ok(5))
        );
        assert!(parse_failures("0.05%").is_err() && parse_failures("101%").is_err());
        assert_eq!(parse_latency("150%"), Ok(150));
        assert!(parse_latency("100%").is_err() && parse_latency("99999%").is_err());
        assert_eq!(
            (share(1_000), share(1)),
            ("10%".to_owned(), "0.01%".to_owned())
        );
    }
}
