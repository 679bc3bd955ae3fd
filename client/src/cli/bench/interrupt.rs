//! Ctrl-C: the first one ends the load early, so that what was measured is reported; the second one
//! ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, process, thread};

/// Set once the first Ctrl-C has come.
///
/// # Errors
/// The system lets nobody listen.
pub(super) fn watch() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let heard = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    // It sleeps until then, and ends with the process.
    thread::Builder::new().spawn(move || {
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_err() {
                return;
            }
            heard.store(true, Ordering::Relaxed);
            if tokio::signal::ctrl_c().await.is_ok() {
                process::exit(INTERRUPTED);
            }
        });
    })?;
    Ok(stop)
}

/// What shells call a process that SIGINT has ended: 128 and its number.
const INTERRUPTED: i32 = 130;
