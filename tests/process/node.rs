//! Real nodes: started, waited for, stopped, killed, and never left behind.
//!
//! Each node has a keeper: a shell that waits on a pipe from this process and kills the node,
//! by its process id, once the pipe is closed, however this process ends.

use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::http::{Answer, Connection, Request};

/// How long a node may take to be ready: seconds on an idle machine, but others compile.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long a command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(10);

/// A running node.
pub(crate) struct Node {
    process: Process,
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) data: PathBuf,
}

/// A process of the binary, with what it says, killed when dropped.
pub(crate) struct Process {
    child: Child,
    keeper: Child,
    stdout: Captured,
    stderr: Captured,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// What a process writes, read by a thread until the pipe is closed.
struct Captured {
    text: Arc<Mutex<String>>,
    reader: Option<thread::JoinHandle<()>>,
}

/// A place for data that is removed afterwards.
pub(crate) fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target directory is writable")
}

/// Where the example models lie.
pub(crate) fn example(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/models")
        .join(model)
}

/// Runs the binary to its end.
pub(crate) fn paceline<S: AsRef<str>>(arguments: &[S]) -> Finished {
    let process = Process::start(arguments, None);
    process.finish(COMMAND_LIMIT)
}

impl Node {
    /// The node that all tests share which change nothing: with the demo's models.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Node> = OnceLock::new();
        SHARED.get_or_init(|| {
            // Statics are never dropped: the keeper removes the directory, too.
            let home = directory().keep();
            let node = Self::ready(&home, &["--demo"], Some(&home));
            assert!(node.data.starts_with(&home));
            node
        })
    }

    /// A node with the demo's models.
    pub(crate) fn demo(data: &Path) -> Self {
        Self::start(data, &["--demo"])
    }

    /// A node with arguments of its own.
    pub(crate) fn start(data: &Path, arguments: &[&str]) -> Self {
        Self::ready(data, arguments, None)
    }

    /// A new node of the cluster that `seed` is a member of.
    pub(crate) fn join(data: &Path, seed: &str, arguments: &[&str]) -> Self {
        let text = data.to_str().expect("temporary paths are text");
        let words = ["join", seed, "--http-port", "0", "--data-dir", text];
        let words = [&words[..], arguments].concat();
        Self::when_ready(data, Process::start(&words, None))
    }

    /// A node that was here before, from what its directory keeps.
    pub(crate) fn again(data: &Path, arguments: &[&str]) -> Self {
        let text = data.to_str().expect("temporary paths are text");
        let words = [&["serve", "--data-dir", text][..], arguments].concat();
        // Of its last life.
        let _ = std::fs::remove_file(data.join("addresses.json"));
        Self::when_ready(data, Process::start(&words, None))
    }

    fn ready(data: &Path, arguments: &[&str], remove: Option<&Path>) -> Self {
        Self::when_ready(data, Process::start(&serve(data, arguments), remove))
    }

    fn when_ready(data: &Path, mut process: Process) -> Self {
        let data = data.to_owned();
        let deadline = Instant::now() + READY_LIMIT;
        while !process.stdout.text().starts_with("ready ") {
            let ended = process.child.try_wait().expect("a child can be waited for");
            let late = Instant::now() > deadline;
            if ended.is_some() || late {
                let said = process.stderr.text();
                panic!("the node did not become ready; ended: {ended:?}; it said:\n{said}");
            }
            thread::sleep(POLL);
        }
        Self {
            http: address(&data, "http"),
            grpc: address(&data, "grpc"),
            metrics: address(&data, "metrics"),
            process,
            data,
        }
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, request: &Request) -> Answer {
        self.connect().ask(request)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(&Request::get(path))
    }

    pub(crate) fn post(&self, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.ask(&Request::post(path, body))
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.http)
    }

    /// The text that Prometheus reads.
    pub(crate) fn scrape(&self) -> String {
        let answer = Connection::open(self.metrics).ask(&Request::get("/metrics"));
        assert_eq!(answer.status, 200);
        answer.text().to_owned()
    }

    /// Runs a command of an operator against this node.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Finished {
        let address = self.http.to_string();
        let mut all = arguments.to_vec();
        all.extend(["--addr", &address]);
        paceline(&all)
    }

    /// What an operator's command says as JSON; it must succeed.
    pub(crate) fn cli_json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        let finished = self.cli(&all);
        assert!(finished.status.success(), "{arguments:?}: {finished:?}");
        serde_json::from_str(&finished.stdout).expect("the command prints JSON")
    }

    /// Ends the node as a loss of power of the process would.
    pub(crate) fn kill9(self) {
        drop(self);
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Waits for the node to end by itself.
    pub(crate) fn finish(self, limit: Duration) -> Finished {
        self.process.finish(limit)
    }

    /// Waits until `is_so` holds for the answer to `path`.
    pub(crate) fn wait_for(&self, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            let answer = self.get(path);
            let body = answer.json();
            if answer.status == 200 && is_so(&body) {
                return body;
            }
            if Instant::now() >= deadline {
                let nodes = self.get("/v2/paceline/nodes").json();
                let said = self.process.stderr.text();
                panic!("{path} stays at {body}\n{nodes}\n{said}");
            }
            thread::sleep(POLL);
        }
    }
}

/// Where one of a node's doors was last.
pub(crate) fn address(data: &Path, door: &str) -> SocketAddr {
    let addresses = std::fs::read(data.join("addresses.json")).expect("addresses are written");
    let addresses: Value = serde_json::from_slice(&addresses).expect("addresses are JSON");
    let address = addresses[door].as_str().expect("an address");
    address.parse().expect("an address")
}

/// Waits until something holds.
pub(crate) fn until(limit: Duration, what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        thread::sleep(POLL);
    }
}

/// Ends the load, also when what runs beside it panics: its threads are waited for.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The arguments that serve `data` on free ports.
pub(crate) fn serve(data: &Path, arguments: &[&str]) -> Vec<String> {
    let data = data.to_str().expect("temporary paths are text");
    let mut all = vec!["serve", "--http-port", "0", "--data-dir", data];
    all.extend(arguments);
    all.into_iter().map(str::to_owned).collect()
}

impl Process {
    /// Starts the binary, without this process's own configuration of it.
    pub(crate) fn start<S: AsRef<str>>(arguments: &[S], remove: Option<&Path>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_paceline"));
        command
            .args(arguments.iter().map(AsRef::as_ref))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PACELINE") {
                command.env_remove(name);
            }
        }
        let mut child = command.spawn().expect("the binary starts");
        let keeper = keep(child.id(), remove);
        let stdout = Captured::from(child.stdout.take().expect("stdout is piped"));
        let stderr = Captured::from(child.stderr.take().expect("stderr is piped"));
        Self {
            child,
            keeper,
            stdout,
            stderr,
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.expect("there is a kill command").success());
    }

    /// What it has written to standard output so far.
    pub(crate) fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Waits until it has said something so many times, on either stream.
    pub(crate) fn until_said(&self, words: &str, times: usize) {
        let said = || format!("{}\n{}", self.stdout.text(), self.stderr.text());
        let deadline = Instant::now() + READY_LIMIT;
        while said().matches(words).count() < times {
            assert!(
                Instant::now() < deadline,
                "{words:?} is not in:\n{}",
                said()
            );
            thread::sleep(POLL);
        }
    }

    /// Waits for the end, for at most `limit`.
    pub(crate) fn finish(mut self, limit: Duration) -> Finished {
        let deadline = Instant::now() + limit;
        let status = loop {
            match self.child.try_wait().expect("a child can be waited for") {
                Some(status) => break status,
                None if Instant::now() < deadline => thread::sleep(POLL),
                None => panic!(
                    "still running after {limit:?}; it said:\n{}",
                    self.stderr.text()
                ),
            }
        };
        let (stdout, stderr) = (self.stdout.whole(), self.stderr.whole());
        Finished {
            status,
            stdout,
            stderr,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The keeper first: afterwards the process id may belong to another.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Finished {
    /// Exit code and standard error of a command that must have failed.
    pub(crate) fn failed(&self) -> (i32, &str) {
        let code = self.status.code().expect("it ended by itself");
        assert_ne!(code, 0, "{self:?}");
        (code, &self.stderr)
    }
}

impl Captured {
    fn from(mut pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let seen = text.clone();
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = pipe.read(&mut buffer) {
                let part = String::from_utf8_lossy(&buffer[..read]);
                seen.lock().expect("nobody panics with it").push_str(&part);
            }
        });
        Self {
            text,
            reader: Some(reader),
        }
    }

    fn text(&self) -> String {
        self.text.lock().expect("nobody panics with it").clone()
    }

    /// All of it, once the process has ended.
    fn whole(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading does not panic");
        }
        self.text()
    }
}

/// Kills `pid` once this process is gone, and removes a directory then.
fn keep(pid: u32, remove: Option<&Path>) -> Child {
    let script = "read -r _; kill -9 \"$1\" 2>/dev/null; [ -z \"$2\" ] || rm -rf -- \"$2\"";
    let remove = remove.map_or("".as_ref(), Path::as_os_str);
    Command::new("sh")
        .args(["-c", script, "keeper", &pid.to_string()])
        .arg(remove)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("there is a shell")
}
