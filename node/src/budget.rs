//! Steps [`paceline_core::budget`] in the tasks of requests that need another attempt.
//!
//! Off the hot path: a request that is answered at once never comes here.

use std::sync::{Arc, Mutex, PoisonError};

use paceline_core::budget::{Budget, Extra};
use tokio::sync::Notify;

use crate::admission;

/// The way in. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    admission: admission::Handle,
    budget: Arc<Mutex<Budget>>,
    freed: Arc<Notify>,
}

impl Handle {
    /// A budget of which nothing is taken; `admission` knows how many requests are active.
    pub fn new(admission: admission::Handle) -> Self {
        Self {
            admission,
            budget: Arc::default(),
            freed: Arc::default(),
        }
    }

    /// Lets a decision take from the budget, or give back to it.
    pub fn decide<T>(&self, decision: impl FnOnce(&mut Budget) -> T) -> T {
        let active = self.admission.in_flight();
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.set_active(active);
        let before = budget.under_way(Extra::Failover);
        let decided = decision(&mut budget);
        if budget.under_way(Extra::Failover) < before {
            self.freed.notify_one();
        }
        decided
    }

    /// Resolves when a failover has ended since somebody waited last.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }
}
