//! A model that is computed in a process of its own.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use paceline_core::watchdog::Watchdog;
use paceline_models::{
    Batch, Front, LoadError, LoadedModel, MemoryUse, ModelDescription, Reservation, RunError,
    TextReader,
};
use paceline_protocol::Tensor;

use super::child::Child;
use super::{Options, failed, wire};

/// What reads requests stays here; what computes them is there.
pub(super) struct Elsewhere {
    front: Front,
    memory: MemoryUse,
    child: Child,
    /// Those on which no batch is under way.
    idle: Mutex<Vec<UnixStream>>,
    is_idle: Condvar,
    hung_after: Duration,
    watchdog: Mutex<Watchdog>,
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
        front: Front,
        (memory, reservation): (MemoryUse, Reservation),
        (child, streams): (Child, Vec<UnixStream>),
        options: Options,
    ) -> Self {
        Self {
            front,
            memory,
            child,
            idle: Mutex::new(streams),
            is_idle: Condvar::new(),
            hung_after: options.hung_after,
            watchdog: Mutex::default(),
            company: RwLock::default(),
            _reservation: reservation,
        }
    }

    /// Brings the version's files there, and waits until it is loaded.
    ///
    /// # Errors
    /// What the engine says; how its process ended.
    pub(super) fn load(&self, order: &wire::Order, files: &[Bytes]) -> Result<(), LoadError> {
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
        let run = wire::Run {
            requests,
            threads_max: batch.threads_max(),
        };
        let mut begun = Begun(stream, false);
        let sent = (stream.set_write_timeout(Some(limit)))
            .and_then(|()| stream.set_read_timeout(Some(limit)))
            .and_then(|()| wire::send(&mut begun, &run, &blobs));
        if let Err(error) = sent {
            return match error.kind() {
                ErrorKind::InvalidInput => {
                    let message = error.to_string();
                    Ok((wire::Ran::Failed(RunError::Engine { message }), vec![]))
                }
                _ if wire::is_late(&error) => Err(Fault::Hung),
                _ if begun.1 => Err(Fault::Ended),
                _ => Err(Fault::Unsent),
            };
        }
        wire::receive(&mut stream, ANSWERS_BYTES_MAX).map_err(|error| match wire::is_late(&error) {
            true => Fault::Hung,
            false => Fault::Ended,
        })
    }

    fn run_there(&self, batch: &Batch<'_>) -> Result<Vec<Vec<Tensor>>, RunError> {
        let limit = self.watchdog().limit(self.hung_after).min(LIMIT_MAX);
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
        let took = started.elapsed();
        match ran {
            wire::Ran::Answers { answers, threads } => {
                self.watchdog().ended(took);
                batch.divide(threads);
                wire::put_together(answers, blobs).map_err(|message| RunError::Engine { message })
            }
            wire::Ran::Failed(error) => Err(error),
        }
    }

    fn watchdog(&self) -> MutexGuard<'_, Watchdog> {
        self.watchdog.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn reader(&self) -> Option<&TextReader> {
        self.front.reader()
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
        self.memory
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

/// For a version to load: 3 GiB, read and packed by a busy core.
const LOAD_LIMIT: Duration = Duration::from_secs(300);
/// No batch takes longer: clients do not wait for so long.
const LIMIT_MAX: Duration = Duration::from_secs(3_600);
/// Largest answers of a batch.
const ANSWERS_BYTES_MAX: u64 = 4 << 30;

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::thread;

    use paceline_models::{Account, Backend, CpuEngine, Engine as _, ModelSource};

    use super::super::child::Program;
    use super::*;

    const HUNG_AFTER: Duration = Duration::from_millis(30);

    /// A model behind one stream, whose other end is the test's. Its process is one that never
    /// ends by itself and reads nothing.
    fn behind_one_stream() -> (Elsewhere, UnixStream) {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/models/identity");
        let source = ModelSource::from_dir(&PathBuf::from(folder)).unwrap();
        let (child, _) = Child::start(&Program::named("/usr/bin/yes"), 0).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (device, memory) = (CpuEngine::new(1).device(), MemoryUse::default());
        let reservation = Account::default().reserve(&device, memory).unwrap();
        let options = Options {
            device,
            backend: Backend::Kernels,
            process_bytes_max: 0,
            hung_after: HUNG_AFTER,
        };
        let front = Front::read(&source, options.backend).unwrap();
        let streams = (child, vec![ours]);
        let elsewhere = Elsewhere::new(front, (memory, reservation), streams, options);
        // As after a warm-up, whose batches have more time.
        (0..20).for_each(|_| elsewhere.watchdog().ended(Duration::ZERO));
        (elsewhere, theirs)
    }

    /// The inputs, as the example answers.
    fn answered(run: wire::Run) -> wire::Ran {
        wire::Ran::Answers {
            answers: run.requests,
            threads: 3,
        }
    }

    #[test]
    fn an_answer_that_comes_late_is_nobodys() {
        let (model, mut theirs) = behind_one_stream();
        let row = [Tensor::from_f32(4, &[0.5; 4])];
        let engine = thread::spawn(move || {
            let (run, blobs) = wire::receive::<wire::Run>(&mut theirs, 1 << 20).unwrap();
            thread::sleep(HUNG_AFTER * 10);
            let late = answered(run);
            wire::send(&mut theirs, &late, &blobs)
        });
        let hung = model.run(&Batch::new(&[&row]));
        assert!(matches!(hung, Err(RunError::Died { .. })), "{hung:?}");
        // The stream is free again, and nothing may come on it.
        let after = model.run(&Batch::new(&[&row]));
        assert!(matches!(after, Err(RunError::Gone)), "{after:?}");
        let refused = engine.join().unwrap().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_batch_that_takes_as_long_as_others_did_is_waited_for() {
        let (model, mut theirs) = behind_one_stream();
        model.watchdog().ended(HUNG_AFTER);
        let row = [Tensor::from_f32(4, &[0.5; 4])];
        thread::spawn(move || {
            let (run, blobs) = wire::receive::<wire::Run>(&mut theirs, 1 << 20).unwrap();
            thread::sleep(HUNG_AFTER * 3);
            wire::send(&mut theirs, &answered(run), &blobs)
        });
        let requests: [&[Tensor]; 1] = [&row];
        let batch = Batch::new(&requests);
        assert_eq!(model.run(&batch).unwrap(), [row.to_vec()]);
        assert_eq!(batch.threads(), 3);
        let limit = model.watchdog().limit(HUNG_AFTER);
        assert!(limit >= HUNG_AFTER * 3 * 20, "{limit:?}");
    }
}
