//! One node's process: how it is started, how it is told to stop, and how it ended.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use paceline_core::up::Ending;

use crate::config::{DeviceOptions, EngineKind};
use crate::storage::RealDisk;

/// What one node is started with.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// The program.
    pub(crate) program: PathBuf,
    /// The node's name.
    pub(crate) name: String,
    /// Its directory.
    pub(crate) data: PathBuf,
    /// First port of its block.
    pub(crate) http_port: u16,
    /// Threads that run models.
    pub(crate) threads: usize,
    /// What computes encoders.
    pub(crate) engine: EngineKind,
    /// Whether it brings the demo's models along.
    pub(crate) demo: bool,
    /// How it comes into its cluster.
    pub(crate) entry: Entry,
}

/// How a node comes into its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It founds one, or is a member.
    Serve,
    /// It joins with a token, by a member's SDK address.
    Join { seed: String, token: String },
}

/// A node's process. It holds the other end of the pipe that keeps the node: closing it, also
/// by the death of this process, stops the node.
pub(crate) struct Process {
    child: Child,
    keeper: Option<ChildStdin>,
}

impl Launch {
    /// The arguments of the node's program: the whole of how a node is started.
    fn arguments(&self) -> Vec<OsString> {
        let mut all: Vec<OsString> = match &self.entry {
            Entry::Serve => vec!["serve".into()],
            Entry::Join { seed, token } => {
                vec!["join".into(), seed.into(), "--token".into(), token.into()]
            }
        };
        all.extend([
            "--keeper".into(),
            "--data-dir".into(),
            self.data.clone().into(),
        ]);
        all.extend(["--name".into(), self.name.clone().into()]);
        all.extend(["--http-port".into(), self.http_port.to_string().into()]);
        all.push("--set".into());
        all.push(format!("device.threads={}", self.threads).into());
        if self.engine != DeviceOptions::default().engine {
            all.extend(["--engine".into(), self.engine.name().into()]);
        }
        if self.demo && self.entry == Entry::Serve {
            all.push("--demo".into());
        }
        all
    }

    /// Starts the process, in a group of its own so that a terminal's Ctrl-C reaches only the
    /// supervisor.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn start(&self) -> io::Result<Process> {
        RealDisk::open(&self.data)?;
        // Of an earlier life: its ports may belong to somebody else now.
        match fs::remove_file(self.data.join(ADDRESSES)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let log = open_log(&self.data)?;
        let mut child = Command::new(&self.program)
            .args(self.arguments())
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        let keeper = child.stdin.take();
        Ok(Process { child, keeper })
    }
}

impl Process {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to stop.
    pub(crate) fn stop(&mut self) {
        self.keeper = None;
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself, which is as good.
        let _ended = self.child.kill();
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        // A child that cannot be waited for is one that is not there.
        self.child.try_wait().unwrap_or(None)
    }
}

/// What an exit status means for the cluster.
pub(crate) fn ending(status: ExitStatus) -> Ending {
    match (status.signal(), status.success()) {
        (Some(_), _) => Ending::Killed,
        (None, true) => Ending::Done,
        (None, false) => Ending::Failed,
    }
}

/// The same for people.
pub(crate) fn ended_how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, Some(0)) => "has ended".to_owned(),
        (None, Some(code)) => format!("failed with exit code {code}"),
        (None, None) => "has ended".to_owned(),
    }
}

/// The last thing that a node wrote, for the line about its end.
pub(crate) fn last_words(data: &Path) -> Option<String> {
    let mut file = File::open(data.join(LOG)).ok()?;
    let bytes = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(bytes.saturating_sub(TAIL_BYTES)))
        .ok()?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail).into_owned();
    let line = tail.lines().rfind(|line| !line.trim().is_empty())?;
    Some(line.trim().to_owned())
}

/// Opens the log for appending; one that has grown is put aside first.
fn open_log(data: &Path) -> io::Result<File> {
    let path = data.join(LOG);
    if fs::metadata(&path).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
        fs::rename(&path, data.join(LOG_BEFORE))?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

/// Where a node says what it listens on.
pub(crate) const ADDRESSES: &str = "addresses.json";
/// Where everything stands that a node says.
pub(crate) const LOG: &str = "log";
const LOG_BEFORE: &str = "log.1";
/// A log that is longer is put aside at the node's next start.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// How much of a log's end is looked at.
const TAIL_BYTES: u64 = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(entry: Entry) -> Launch {
        Launch {
            program: "/bin/false".into(),
            name: "n2".into(),
            data: "/data/n2".into(),
            http_port: 8020,
            threads: 4,
            engine: EngineKind::Kernels,
            demo: true,
            entry,
        }
    }

    fn line(entry: Entry) -> String {
        let arguments = launch(entry).arguments();
        let words: Vec<_> = arguments
            .iter()
            .map(|word| word.to_str().unwrap())
            .collect();
        words.join(" ")
    }

    #[test]
    fn a_node_is_started_as_a_person_would_start_it() {
        let rest = "--keeper --data-dir /data/n2 --name n2 --http-port 8020 --set device.threads=4";
        assert_eq!(line(Entry::Serve), format!("serve {rest} --demo"));
        let join = Entry::Join {
            seed: "127.0.0.1:8003".into(),
            token: "pcl1.x".into(),
        };
        assert_eq!(
            line(join),
            format!("join 127.0.0.1:8003 --token pcl1.x {rest}")
        );
    }

    #[test]
    fn a_log_is_put_aside_when_it_has_grown_and_its_end_is_quoted() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(last_words(data.path()), None);
        let log = data.path().join(LOG);
        fs::write(&log, "first\nerror: the port is in use\n\n").unwrap();
        let quoted = last_words(data.path());
        assert_eq!(quoted.as_deref(), Some("error: the port is in use"));
        File::options()
            .write(true)
            .open(&log)
            .unwrap()
            .set_len(LOG_BYTES_MAX + 1)
            .unwrap();
        drop(open_log(data.path()).unwrap());
        assert_eq!(fs::metadata(&log).unwrap().len(), 0);
        assert!(data.path().join(LOG_BEFORE).exists());
    }
}
