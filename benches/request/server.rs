//! A server as a process of its own: a node, or one that somebody else has started.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use crate::http1::ask_once;
use crate::load::thread_cpu;

/// A server that is answering. It ends when this is dropped.
pub(crate) struct Server {
    /// Where it speaks HTTP.
    pub(crate) http: SocketAddr,
    /// Where it speaks gRPC.
    pub(crate) grpc: SocketAddr,
    /// Whose CPU time counts.
    pub(crate) process: u32,
    /// `None` if somebody else has started it, who ends it.
    pub(crate) child: Option<Child>,
    /// The node's data, which is removed with the server.
    pub(crate) _data: Option<TempDir>,
}

impl Server {
    /// A node as `paceline serve` starts it, with these arguments and this environment besides.
    /// Returns once `request` is answered.
    pub(crate) fn serving(
        arguments: &[&str],
        environment: &[(&str, &str)],
        request: &[u8],
    ) -> anyhow::Result<Self> {
        let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let folder = data.path().join("node");
        let log = data.path().join("stderr");
        let mut command = Command::new(env!("CARGO_BIN_EXE_paceline"));
        command
            .args(["serve", "--http-port", "0", "--data-dir"])
            .arg(&folder)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log)?);
        // A configuration of the caller's would be measured instead of the defaults.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PACELINE") {
                command.env_remove(name);
            }
        }
        command.envs(environment.iter().copied());
        let child = command.spawn().context("the node does not start")?;
        let mut server = Self {
            http: UNKNOWN,
            grpc: UNKNOWN,
            process: child.id(),
            child: Some(child),
            _data: Some(data),
        };
        server.wait_until_ready(&folder, request).with_context(|| {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            format!("the node is not ready; it said:\n{said}")
        })?;
        Ok(server)
    }

    /// CPU time that the server's threads have used. Threads that have ended do not count, and
    /// neither server ends any while it serves.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let threads = format!("/proc/{}/task", self.process);
        let threads = std::fs::read_dir(&threads)
            .with_context(|| format!("{threads}: CPU time needs Linux's /proc"))?;
        let mut sum = Duration::ZERO;
        for thread in threads {
            // One that ends between the listing and here is one that has ended.
            if let Ok(time) = thread_cpu(&thread?.path().join("schedstat")) {
                sum += time;
            }
        }
        Ok(sum)
    }

    fn wait_until_ready(&mut self, folder: &Path, request: &[u8]) -> anyhow::Result<()> {
        let until = Instant::now() + START_LIMIT;
        loop {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                bail!("it ended with {status}");
            }
            let missing = match addresses(folder) {
                Ok([http, grpc]) => {
                    (self.http, self.grpc) = (http, grpc);
                    match ask_once(http, request) {
                        Ok(_) => return Ok(()),
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            ensure!(Instant::now() < until, "{missing:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended already, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Of HTTP and of gRPC.
fn addresses(folder: &Path) -> anyhow::Result<[SocketAddr; 2]> {
    let path = folder.join("addresses.json");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let addresses: serde_json::Value = serde_json::from_str(&text)?;
    let address = |door: &str| {
        let address = addresses[door].as_str();
        let address = address.with_context(|| format!("there is no address of {door}"))?;
        anyhow::Ok(address.parse()?)
    };
    Ok([address("http")?, address("grpc")?])
}

/// Before it has said where it is.
pub(crate) const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// A node with the demo is ready in two seconds on a quiet machine.
const START_LIMIT: Duration = Duration::from_secs(60);
