//! Policy of shadows: which requests are copied to a version that answers nobody.
//!
//! A request is drawn by its bucket under the salt of the shadow, as for a canary, whose salt is
//! another: the same request is copied or not wherever it is asked, and a growing share keeps what
//! was copied. A copy is of a request that the version that serves has answered: there is nothing
//! to compare else, and what kills an engine is not sent to a second one.

use paceline_protocol::traffic;

/// What is known of a shadow and of a request that might be copied for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The share of the requests that are copied, in units of 1/10,000.
    pub weight: u16,
    /// Whether a replica of the shadow is ready.
    pub is_ready: bool,
}

/// What becomes of a request beside its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Nothing.
    Alone,
    /// It is copied.
    Copied,
    /// It would be.
    Dropped(Dropped),
}

/// Why a request that was drawn is not copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// The shadow has no ready replica.
    NotReady,
    /// The shadow takes other inputs.
    Inputs,
    /// The version that serves has not answered it.
    Unanswered,
    /// As many copies are under way at the node as may be.
    Full,
}

/// Whether a request is copied. Its bucket is asked for only if that matters.
pub fn choose(offer: Offer, bucket: impl FnOnce() -> u16) -> Choice {
    if !traffic::is_in(bucket(), offer.weight) {
        return Choice::Alone;
    }
    match offer.is_ready {
        true => Choice::Copied,
        false => Choice::Dropped(Dropped::NotReady),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_copied_by_its_bucket_and_never_without_a_replica() {
        let choose = |weight, is_ready, bucket| {
            let offer = Offer { weight, is_ready };
            super::choose(offer, || bucket)
        };
        assert_eq!(choose(1_000, true, 999), Choice::Copied);
        assert_eq!(choose(1_000, true, 1_000), Choice::Alone);
        assert_eq!(choose(1_000, false, 1_000), Choice::Alone);
        let dropped = Choice::Dropped(Dropped::NotReady);
        assert_eq!(choose(1_000, false, 0), dropped);
        assert_eq!(choose(traffic::WEIGHT_ALL, true, 9_999), Choice::Copied);
    }
}
