//! Policy of the authority's key: voters have it, to sign nodes, and nobody else.

/// What a node knows of itself and of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Whether it has a vote; unknown until it has heard who the voters are.
    pub is_voter: Option<bool>,
    /// Whether it has the key.
    pub has_key: bool,
    /// Whether it is asking another voter for it.
    pub is_asking: bool,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask another voter for the key.
    Ask,
    /// Remove the key from disk and memory.
    Forget,
}

/// The next step, if there is one.
pub fn next(view: View) -> Option<Step> {
    match (view.is_voter?, view.has_key) {
        (true, false) if !view.is_asking => Some(Step::Ask),
        (false, true) => Some(Step::Forget),
        (true, _) | (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voters_ask_once_at_a_time_and_others_forget() {
        let step = |is_voter, has_key, is_asking| {
            next(View {
                is_voter,
                has_key,
                is_asking,
            })
        };
        assert_eq!(step(Some(true), false, false), Some(Step::Ask));
        assert_eq!(step(Some(true), false, true), None);
        assert_eq!(step(Some(true), true, false), None);
        assert_eq!(step(Some(false), true, false), Some(Step::Forget));
        assert_eq!(step(Some(false), false, false), None);
        assert_eq!(step(None, true, false), None, "nobody is known to vote yet");
    }
}
