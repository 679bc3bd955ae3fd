//! When a process is asked to stop: by a signal, or by the silence of whoever kept it.

use std::io::Read;
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Requests to stop. Signals that arrive while nobody waits are kept, so that a second Ctrl-C
/// is never lost.
pub(super) struct Stop {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    /// Hears once that the keeper is gone.
    keeper: Option<oneshot::Receiver<()>>,
    keeper_limit: Duration,
}

impl Stop {
    /// This process's signals: SIGINT and SIGTERM. Needs a runtime. A process whose
    /// keeper has gone ends by force after `keeper_limit`.
    pub(super) fn of_process(keeper_limit: Duration) -> Self {
        // A signal that cannot be heard keeps its default, which ends the process.
        Self {
            interrupt: signal(SignalKind::interrupt()).ok(),
            terminate: signal(SignalKind::terminate()).ok(),
            keeper: None,
            keeper_limit,
        }
    }

    /// The end of standard input is a request, too.
    ///
    /// # Errors
    /// The thread that waits for it does not start.
    pub(super) fn hold_to_stdin(&mut self) -> std::io::Result<()> {
        let (tell, told) = oneshot::channel();
        let limit = self.keeper_limit;
        thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || {
                wait_for_end(std::io::stdin().lock());
                // The other side may have ended already.
                let _ended = tell.send(());
                thread::sleep(limit);
                // Whoever could have ended a stuck process is gone.
                std::process::exit(1);
            })?;
        self.keeper = Some(told);
        Ok(())
    }

    /// Resolves at each request. May be dropped at any time without losing one.
    pub(super) async fn asked(&mut self) {
        let keeper = async {
            match &mut self.keeper {
                Some(told) => drop(told.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = next(&mut self.interrupt) => return,
            () = next(&mut self.terminate) => return,
            () = keeper => {}
        }
        self.keeper = None;
    }
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Reads until there is nothing more to come. What arrives means nothing; an error is an end.
fn wait_for_end(mut pipe: impl Read) {
    let mut buffer = [0; 64];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_end_of_the_pipe_is_waited_for_and_nothing_else() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let waiting = thread::spawn(move || wait_for_end(reader));
        writer.write_all(&[7; 200]).unwrap();
        thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished(), "bytes are no end");
        drop(writer);
        waiting.join().unwrap();
    }

    #[tokio::test]
    async fn a_keeper_is_heard_once() {
        let (tell, told) = oneshot::channel();
        let mut stop = Stop::of_process(Duration::from_secs(1));
        stop.keeper = Some(told);
        tell.send(()).unwrap();
        stop.asked().await;
        let again = tokio::time::timeout(Duration::from_millis(20), stop.asked());
        assert!(again.await.is_err(), "afterwards only signals count");
    }
}
