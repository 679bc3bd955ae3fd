//! Models by what they take and give.

use paceline_protocol::Signature;

use super::Routes;

impl Routes {
    /// Models whose serving version has a fitting signature, in the order of their names.
    pub fn with_signature<'a>(
        &'a self,
        fits: impl Fn(&Signature) -> bool + 'a,
    ) -> impl Iterator<Item = &'a str> {
        let serving = self
            .models
            .values()
            .filter_map(|model| model.serving.as_deref());
        serving
            .filter(move |version| fits(&version.signature))
            .map(|version| version.model.as_str())
    }
}
