//! What a node tells about itself: metrics and logs.

pub mod logging;
pub mod metrics;
pub mod statistics;
