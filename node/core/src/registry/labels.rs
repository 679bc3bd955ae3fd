//! What clients call versions of a model. A label moves in one entry; a version that has one is not
//! forgotten, but has replicas only as it would without.

use paceline_protocol::limits::LABELS_MAX;
use paceline_protocol::registry::Refusal;
use paceline_protocol::{Label, ModelName, VersionNumber};

use super::Registry;

impl Registry {
    pub(super) fn set_label(
        &mut self,
        name: &ModelName,
        label: &Label,
        version: Option<VersionNumber>,
    ) -> Result<(), Refusal> {
        let model = self.model_mut(name)?;
        let Some(version) = version else {
            return match model.labels.remove(label) {
                Some(_) => Ok(()),
                None => Err(Refusal::LabelUnknown {
                    model: name.clone(),
                    label: label.clone(),
                    known: model.labels_as_text(),
                }),
            };
        };
        model.check_version(name, version)?;
        if model.labels.len() >= LABELS_MAX && !model.labels.contains_key(label) {
            return Err(Refusal::Limit {
                what: format!("labels of model '{name}'"),
                limit: LABELS_MAX as u64,
            });
        }
        model.labels.insert(label.clone(), version);
        Ok(())
    }
}
