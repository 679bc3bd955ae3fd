//! Models by what they give.

use super::{Routes, VersionRoute};

impl Routes {
    /// Models whose serving version gives an output of this name, in the order of their names.
    pub fn giving<'a>(&'a self, output: &'a str) -> impl Iterator<Item = &'a str> {
        let gives = move |version: &VersionRoute| {
            let mut outputs = version.signature.outputs.iter();
            outputs.any(|spec| spec.name == output)
        };
        let serving = self
            .models
            .values()
            .filter_map(|model| model.serving.as_deref());
        serving
            .filter(move |version| gives(version))
            .map(|version| version.model.as_str())
    }
}
