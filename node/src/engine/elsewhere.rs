//! A model that is computed in a process of its own.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use paceline_core::watchdog;
use paceline_models::{
    Batch, Front, LoadError, LoadedModel, MemoryUse, ModelDescription, Prepared, Reservation,
    RunError, TextFacts, Token,
};
use paceline_protocol::Tensor;

use super::child::Child;
use super::{Options, failed, wire};

/// What reads requests stays here; what computes them is there.
pub(super) struct Elsewhere {
    front: Front,
    child: Child,
    /// Those on which no batch is under way.
    idle: Mutex<Vec<UnixStream>>,
    is_idle: Condvar,
    hung_after: Duration,
    longest_nanos: AtomicU64,
    /// Held by each batch; exclusively by one that may end the process under all others.
    company: RwLock<()>,
    _reservation: Reservation,
}

/// How far a batch came.
enum Fault {
    /// Nothing of it was sent, so nothing of it ran.
    Unsent,
    /// It was sent, or part of it, and the stream ended: reading it may be what it died of.
    Ended,
    /// It was sent, or part of it, and nothing came back in time.
    Hung,
}

/// A stream, and whether anything was written to it.
struct Begun<'a>(&'a UnixStream, bool);

impl Elsewhere {
    pub(super) fn new(
        (front, reservation): (Front, Reservation),
        (child, streams): (Child, Vec<UnixStream>),
        options: Options,
    ) -> Self {
        Self {
            front,
            child,
            idle: Mutex::new(streams),
            is_idle: Condvar::new(),
            hung_after: options.hung_after,
            longest_nanos: AtomicU64::new(0),
            company: RwLock::default(),
            _reservation: reservation,
        }
    }

    /// Brings the version's files there, and waits until it is loaded.
    ///
    /// # Errors
    /// What the engine says; how its process ended.
    pub(super) fn load(&self, order: &wire::Load, files: &[Bytes]) -> Result<(), LoadError> {
        let mut control = self.child.control();
        let died = |_| LoadError::Engine {
            message: self.child.how_it_ended(),
        };
        control.set_read_timeout(Some(LOAD_LIMIT)).map_err(failed)?;
        control
            .set_write_timeout(Some(LOAD_LIMIT))
            .map_err(failed)?;
        wire::send(&mut control, order, files).map_err(died)?;
        let (loading, _) = wire::receive(&mut control, 0).map_err(died)?;
        match loading {
            wire::Loading::Loaded => Ok(()),
            wire::Loading::Refused(message) => Err(LoadError::Engine { message }),
        }
    }

    fn ask(
        &self,
        mut stream: &UnixStream,
        batch: &Batch<'_>,
        limit: Duration,
    ) -> Result<(wire::Ran, Vec<Bytes>), Fault> {
        let (requests, blobs) = wire::taken_apart(batch.requests().iter().copied());
        let mut begun = Begun(stream, false);
        let sent = (stream.set_write_timeout(Some(limit)))
            .and_then(|()| stream.set_read_timeout(Some(limit)))
            .and_then(|()| wire::send(&mut begun, &wire::Run { requests }, &blobs));
        if let Err(error) = sent {
            return match error.kind() {
                ErrorKind::InvalidInput => {
                    let message = error.to_string();
                    Ok((wire::Ran::Failed(RunError::Engine { message }), vec![]))
                }
                _ if is_late(&error) => Err(Fault::Hung),
                _ if begun.1 => Err(Fault::Ended),
                _ => Err(Fault::Unsent),
            };
        }
        wire::receive(&mut stream, ANSWERS_BYTES_MAX).map_err(|error| match is_late(&error) {
            true => Fault::Hung,
            false => Fault::Ended,
        })
    }

    fn run_there(&self, batch: &Batch<'_>) -> Result<Vec<Vec<Tensor>>, RunError> {
        let longest = Duration::from_nanos(self.longest_nanos.load(Ordering::Relaxed));
        let limit = watchdog::limit(self.hung_after, longest).min(LIMIT_MAX);
        let stream = self.take();
        let started = Instant::now();
        let asked = match self.child.has_ended() {
            true => Err(Fault::Unsent),
            false => self.ask(&stream, batch, limit),
        };
        if asked.is_err() {
            // An answer that comes late must not be taken for that of the next batch. Who has the
            // stream next learns from it that the engine has gone.
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.give_back(stream);
        let (ran, blobs) = asked.map_err(|fault| match fault {
            Fault::Unsent => RunError::Gone,
            Fault::Ended => RunError::Died {
                message: self.child.how_it_ended(),
            },
            Fault::Hung => {
                let rows = batch.rows();
                let message = format!("a batch of {rows} rows had not ended after {limit:?}");
                tracing::error!(
                    pid = self.child.id(),
                    rows,
                    ?limit,
                    "an engine hangs; it is ended"
                );
                self.child.end(message.clone());
                RunError::Died { message }
            }
        })?;
        let took = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.longest_nanos.fetch_max(took, Ordering::Relaxed);
        match ran {
            wire::Ran::Answers(answers) => {
                wire::put_together(answers, blobs).map_err(|message| RunError::Engine { message })
            }
            wire::Ran::Failed(error) => Err(error),
        }
    }

    /// One is free as soon as a batch ends: there are as many as lanes, and one for canaries.
    fn take(&self) -> UnixStream {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(stream) = idle.pop() {
                return stream;
            }
            idle = self
                .is_idle
                .wait(idle)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(&self, stream: UnixStream) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(stream);
        drop(idle);
        self.is_idle.notify_one();
    }
}

impl LoadedModel for Elsewhere {
    fn description(&self) -> &ModelDescription {
        self.front.description()
    }

    fn prepare(&self, inputs: &[Tensor]) -> Result<Prepared, RunError> {
        self.front.prepare(inputs)
    }

    fn prepare_ends(&self, inputs: &[Tensor]) -> Result<Prepared, RunError> {
        self.front.prepare_ends(inputs)
    }

    fn text_facts(&self) -> Option<TextFacts> {
        self.front.text_facts()
    }

    fn tokens(&self, inputs: &[Tensor]) -> Option<u64> {
        self.front.tokens(inputs)
    }

    fn tokens_max(&self) -> Option<u32> {
        self.front.tokens_max()
    }

    fn tokenize(&self, text: &str) -> Option<Result<Vec<Token>, RunError>> {
        self.front.tokenize(text)
    }

    fn sample(&self, rows: u32) -> Option<Vec<Tensor>> {
        self.front.sample(rows)
    }

    fn is_elsewhere(&self) -> bool {
        true
    }

    fn on_death(&self, tell: Box<dyn FnOnce(String) + Send>) {
        self.child.on_death(tell);
    }

    fn run(&self, batch: &Batch<'_>) -> Result<Vec<Vec<Tensor>>, RunError> {
        let _company = self.company.read().unwrap_or_else(PoisonError::into_inner);
        self.run_there(batch)
    }

    fn run_suspect(&self, batch: &Batch<'_>) -> Result<Vec<Vec<Tensor>>, RunError> {
        let _solitude = self.company.write().unwrap_or_else(PoisonError::into_inner);
        self.run_there(batch)
    }

    fn bytes(&self) -> MemoryUse {
        self.front.memory()
    }
}

impl Write for Begun<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .write(bytes)
            .inspect(|written| self.1 |= *written > 0)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = self.0.write_vectored(parts);
        written.inspect(|written| self.1 |= *written > 0)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// For a version to load: 3 GiB, read and packed by a busy core.
const LOAD_LIMIT: Duration = Duration::from_secs(300);
/// No batch takes longer: clients do not wait for so long.
const LIMIT_MAX: Duration = Duration::from_secs(3_600);
/// Largest answers of a batch.
const ANSWERS_BYTES_MAX: u64 = 4 << 30;
