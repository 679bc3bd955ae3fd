//! Recorded requests, read so that they can be sent again: in invented time by the simulator, in real
//! time by `paceline bench`.
//!
//! ```text
//!   CSV ──────────┐
//!                 ├─▶ Trace ─▶ Row, Row, Row, …   when, and how large
//!   JSON lines ───┘     └────▶ TraceSummary       what became of the lines
//! ```
//!
//! Read [`TraceOptions`] first, then [`Trace`]. Times are whole nanoseconds from the first request.
//!
//! Deliberately absent: opening files, and sending anything.

mod csv;
mod decimal;
mod error;
mod limits;
mod lines;
mod options;
mod record;
mod setting;
mod summary;
mod time;
mod trace;

pub use error::TraceError;
pub use limits::TENANTS_MAX;
pub use options::{Columns, TimeUnit, TraceFormat, TraceOptions};
pub use record::is_tenant_name;
pub use setting::{InvalidSetting, within};
pub use summary::{SkippedLine, TraceSummary};
pub use trace::{Row, Trace};
