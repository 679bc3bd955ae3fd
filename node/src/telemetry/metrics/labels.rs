//! The labels of metrics, each from a closed set.

use paceline_protocol::TenantName;
use prometheus_client::encoding::EncodeLabelSet;

use super::{AtTheDoor, Protocol};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct VersionLabels {
    pub(super) model: String,
    pub(super) version: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) model: String,
    pub(super) version: u32,
    pub(super) protocol: &'static str,
    pub(super) code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct TenantLabels {
    pub(super) tenant: String,
    pub(super) outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StageLabels {
    pub(super) model: String,
    pub(super) version: u32,
    pub(super) stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CopyLabels {
    pub(super) model: String,
    pub(super) version: u32,
    pub(super) end: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct AgreementLabels {
    pub(super) model: String,
    pub(super) version: u32,
    pub(super) agreement: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DropLabels {
    pub(super) reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ExtraLabels {
    pub(super) why: &'static str,
}

impl TenantLabels {
    pub(super) fn of(tenant: &TenantName, outcome: AtTheDoor) -> Self {
        Self {
            tenant: tenant.to_string(),
            outcome: match outcome {
                AtTheDoor::Admitted => "admitted",
                AtTheDoor::Limited => "limited",
                AtTheDoor::Overloaded => "overloaded",
                AtTheDoor::Expired => "expired",
            },
        }
    }
}

impl RequestLabels {
    pub(super) fn of(labels: &VersionLabels, protocol: Protocol, code: &'static str) -> Self {
        let VersionLabels { model, version } = labels.clone();
        Self {
            model,
            version,
            protocol: protocol.name(),
            code,
        }
    }
}
