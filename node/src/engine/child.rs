//! The process of an engine, as its node holds it.

use std::io::{BufRead, BufReader, IoSlice, Read, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{env, io, thread};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// What is run as an engine.
#[derive(Clone, Debug)]
pub(super) struct Program(PathBuf);

/// A process that is an engine. It ends when this is dropped, or by [`Child::end`].
pub(super) struct Child {
    /// The only thing that the process never outlives.
    control: UnixStream,
    process: Arc<Process>,
}

/// What the warden shares with whoever holds the process.
struct Process {
    id: u32,
    handle: Mutex<std::process::Child>,
    fate: Mutex<Fate>,
    has_ended: Condvar,
}

#[derive(Default)]
struct Fate {
    /// Why it was ended by hand, if it was.
    verdict: Option<String>,
    /// How it ended, once it has.
    end: Option<String>,
    /// Whom to tell; nobody, once the node is done with it.
    tell: Option<Box<dyn FnOnce(String) + Send>>,
}

impl Program {
    /// This very program, even if its file has been replaced meanwhile.
    pub(super) fn this() -> io::Result<Self> {
        let linux = PathBuf::from("/proc/self/exe");
        if linux.exists() {
            return Ok(Self(linux));
        }
        env::current_exe().map(Self)
    }

    /// Another one.
    #[cfg(test)]
    pub(super) fn named(path: &str) -> Self {
        Self(path.into())
    }
}

impl Child {
    /// Starts a process, with streams for so many batches at a time. It has nothing of the node's
    /// environment but what concerns computing, and signals from a terminal do not reach it: the
    /// node decides when it ends.
    pub(super) fn start(program: &Program, streams: usize) -> io::Result<(Self, Vec<UnixStream>)> {
        let (control, theirs) = UnixStream::pair()?;
        let mut command = Command::new(&program.0);
        command
            .arg0("paceline")
            .arg("engine")
            .env_clear()
            .envs(env::vars_os().filter(|(name, _)| is_of_computing(&name.to_string_lossy())))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut handle = command.spawn()?;
        // Their end of the control stream is closed here, or its end would never be seen there.
        drop(command);
        let id = handle.id();
        let errors = handle.stderr.take().expect("it was piped");
        let process = Arc::new(Process {
            id,
            handle: Mutex::new(handle),
            fate: Mutex::default(),
            has_ended: Condvar::new(),
        });
        let child = Self { control, process };
        let warden = child.process.clone();
        let name = format!("engine-{id}");
        let spawned = thread::Builder::new().name(name);
        spawned.spawn(move || warden.watch_over(errors))?;
        let ours = child.give_streams(streams)?;
        tracing::debug!(pid = id, "an engine's process was started");
        Ok((child, ours))
    }

    fn give_streams(&self, streams: usize) -> io::Result<Vec<UnixStream>> {
        let pairs: Vec<(UnixStream, UnixStream)> = (0..streams)
            .map(|_| UnixStream::pair())
            .collect::<io::Result<_>>()?;
        for some in pairs.chunks(STREAMS_AT_A_TIME) {
            let theirs: Vec<BorrowedFd<'_>> = some.iter().map(|(_, it)| it.as_fd()).collect();
            let mut space = [MaybeUninit::uninit(); STREAMS_SPACE];
            let mut rights = SendAncillaryBuffer::new(&mut space);
            let has_room = rights.push(SendAncillaryMessage::ScmRights(&theirs));
            assert!(has_room, "room for as many as are sent at a time");
            let count = [theirs.len() as u8];
            sendmsg(
                &self.control,
                &[IoSlice::new(&count)],
                &mut rights,
                SendFlags::empty(),
            )?;
        }
        // No more of them.
        (&self.control).write_all(&[0])?;
        Ok(pairs.into_iter().map(|(ours, _)| ours).collect())
    }

    /// The stream on which its version is brought to it.
    pub(super) fn control(&self) -> &UnixStream {
        &self.control
    }

    /// Which process it is.
    pub(super) fn id(&self) -> u32 {
        self.process.id
    }

    /// Has `tell` called with the reason once it has ended by itself, or does so now.
    pub(super) fn on_death(&self, tell: Box<dyn FnOnce(String) + Send>) {
        let mut fate = self.process.fate();
        match &fate.end {
            Some(end) => {
                let end = end.clone();
                drop(fate);
                tell(end);
            }
            None => fate.tell = Some(tell),
        }
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.process.fate().end.is_some()
    }

    /// Ends it at once, and whatever runs in it. The reason is told as that of its death.
    pub(super) fn end(&self, reason: String) {
        self.process.fate().verdict.get_or_insert(reason);
        self.process.kill();
    }

    /// How it ended; waits for that for a moment, and then ends it, since it has closed a stream that
    /// no engine closes.
    pub(super) fn how_it_ended(&self) -> String {
        let fate = self.process.fate();
        let (fate, _) = (self.process.has_ended)
            .wait_timeout_while(fate, DEATH_PATIENCE, |fate| fate.end.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(end) = &fate.end {
            return end.clone();
        }
        drop(fate);
        let reason = "its process broke off".to_owned();
        self.end(reason.clone());
        reason
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.process.fate().tell = None;
        self.process.kill();
    }
}

impl Process {
    /// The warden: passes on what the process has to say until it has ended, and reaps it.
    fn watch_over(&self, errors: ChildStderr) {
        let last = self.listen(errors);
        // Whatever closed its standard error is no engine any more.
        self.kill();
        let status = loop {
            let status = self.handle().try_wait();
            match status {
                Ok(Some(status)) => break Some(status),
                Ok(None) => thread::sleep(REAP_EVERY),
                // There is nothing to reap: somebody else has.
                Err(_) => break None,
            }
        };
        let mut fate = self.fate();
        let end = fate.verdict.clone().unwrap_or_else(|| {
            let status = status.map_or_else(|| "its process ended".to_owned(), told);
            match last {
                Some(last) => format!("{status}: {last}"),
                None => status,
            }
        });
        fate.end = Some(end.clone());
        let tell = fate.tell.take();
        drop(fate);
        self.has_ended.notify_all();
        if let Some(tell) = tell {
            tell(end);
        }
    }

    /// The last line that it said.
    fn listen(&self, errors: ChildStderr) -> Option<String> {
        let mut errors = BufReader::new(errors);
        let (mut line, mut last) = (Vec::new(), None);
        loop {
            line.clear();
            let read = errors
                .by_ref()
                .take(LINE_BYTES_MAX)
                .read_until(b'\n', &mut line);
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return last,
                Ok(_) => {
                    let said = String::from_utf8_lossy(&line).trim_end().to_owned();
                    tracing::warn!(pid = self.id, said, "from an engine's process");
                    // What Rust adds is advice.
                    let tells = !said.is_empty() && !said.starts_with("note: ");
                    last = Some(said).filter(|_| tells).or(last);
                }
            }
        }
    }

    fn kill(&self) {
        // It may have ended already.
        let _ = self.handle().kill();
    }

    fn handle(&self) -> MutexGuard<'_, std::process::Child> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(&self) -> MutexGuard<'_, Fate> {
        self.fate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a variable tells how to compute, or where libraries are, or (`HOME`) compiled kernels.
fn is_of_computing(name: &str) -> bool {
    let prefixes = [
        "HOME",
        "PACELINE_KERNELS",
        "RAYON_",
        "LD_LIBRARY_PATH",
        "CUDA_",
        "NVIDIA_",
    ];
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}

fn told(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("its process was ended by signal {signal}"),
        (None, Some(code)) => format!("its process ended with status {code}"),
        (None, None) => "its process ended".to_owned(),
    }
}

/// Descriptors in a message: the system takes 253.
pub(super) const STREAMS_AT_A_TIME: usize = 64;
/// Bytes that they need beside it.
pub(super) const STREAMS_SPACE: usize = rustix::cmsg_space!(ScmRights(STREAMS_AT_A_TIME));
/// From the end of its streams to that of the process: a core is written, or memory given back.
const DEATH_PATIENCE: Duration = Duration::from_millis(500);
/// Between looks at a process that is ending.
const REAP_EVERY: Duration = Duration::from_millis(2);
/// Of a line that it says; more is another line.
const LINE_BYTES_MAX: u64 = 1_024;
