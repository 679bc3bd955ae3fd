//! The supervisor over real processes: a shell stands in for the node's program, and this
//! process answers over HTTP what nodes would.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use paceline_protocol::context::Context;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Notify;

use super::*;

/// Writes addresses that lead to this test and `identity.json`, notes how it was called, and
/// runs until its standard input ends. `fail` in its directory makes it fail instead, and
/// `stubborn` makes it outlive its pipe.
const PROGRAM: &str = r#"#!/bin/sh
echo "$@" >> "$(dirname "$0")/calls"
while [ $# -gt 0 ]; do
    [ "$1" = --data-dir ] && data=$2
    shift
done
if [ -e "$data/fail" ]; then
    echo "error: the port is in use"
    exit 1
fi
echo '{"http":"ADDRESS","metrics":"ADDRESS","sdk":"127.0.0.1:8003"}' > "$data/addresses.new"
touch "$data/identity.json"
mv "$data/addresses.new" "$data/addresses.json"
echo $$ > "$data/pid"
cat > /dev/null
[ -e "$data/stubborn" ] && exec sleep 60
exit 0
"#;

/// A place for a cluster, with its program.
struct Place {
    folder: TempDir,
    said: Said,
    stop: Arc<Notify>,
}

/// What the supervisor said, on both streams.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<String>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = std::str::from_utf8(bytes).unwrap();
        self.0.lock().unwrap().push_str(text);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = PROGRAM.replace("ADDRESS", &nodes().to_string());
        let path = folder.path().join("program");
        std::fs::write(&path, program).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
        Self {
            folder,
            said: Said::default(),
            stop: Arc::default(),
        }
    }

    fn cluster(&self, nodes: usize) -> Cluster {
        let options = Options {
            nodes: Some(nodes),
            data: self.data(),
            block: Block::at(8000).unwrap(),
            demo: false,
            engine: EngineKind::Kernels,
            program: self.folder.path().join("program"),
            policy: up::Options {
                backoff_min: Duration::from_millis(100),
                ..up::Options::default()
            },
        };
        let report = Report::new(Box::new(self.said.clone()), Box::new(self.said.clone()));
        Cluster::prepare(options, report).unwrap()
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    fn said(&self) -> String {
        self.said.0.lock().unwrap().clone()
    }

    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join("calls")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until the supervisor has said something so many times.
    async fn until_said(&self, words: &str, times: usize) {
        let waiting = async {
            while self.said().matches(words).count() < times {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        assert!(waited.is_ok(), "{words:?} is not in:\n{}", self.said());
    }

    /// Runs a cluster beside `script`, which works with it and then stops it.
    async fn run(&self, cluster: &mut Cluster, script: impl Future<Output = ()>) -> bool {
        let stop = self.stop.clone();
        let running = cluster.run(async || stop.notified().await);
        let (well, ()) = tokio::join!(running, script);
        well
    }
}

fn pid(data: &Path) -> u32 {
    let text = std::fs::read_to_string(data.join("pid")).unwrap();
    text.trim().parse().unwrap()
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn kill(pid: u32) {
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status();
    assert!(killed.unwrap().success());
}

/// Answers as ready nodes without models do, and makes tokens.
fn nodes() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _gone = stream.and_then(answer);
        }
    });
    address
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line)?;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        match header.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().unwrap();
            }
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let path = line.split(' ').nth(1).unwrap();
    let answer = match path {
        "/v2/health/ready" => r#"{"ready":true}"#,
        "/v2/paceline/models" => "[]",
        "/v2/paceline/status" => r#"{"raft":{"voters":[1,4,8]}}"#,
        "/v2/paceline/tokens" => {
            let request: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(request["uses"], 1);
            r#"{"token":"pcl1.secret","id":"t1","expires_ms":1}"#
        }
        other => panic!("nobody asks for {other}"),
    };
    let length = answer.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{answer}"
    )
}

#[tokio::test]
async fn a_cluster_is_founded_joined_kept_and_stopped() {
    let place = Place::new();
    let mut cluster = place.cluster(3);
    let data = place.data();
    let well = place
        .run(&mut cluster, async {
            place.until_said("ready   http://", 1).await;
            let killed = pid(&data.join("n1"));
            kill(killed);
            place.until_said("n1 was ended by signal 9", 1).await;
            place.until_said("n1 is ready again", 1).await;
            assert_ne!(pid(&data.join("n1")), killed);
            place.stop.notify_one();
        })
        .await;
    assert!(well, "{}", place.said());
    let calls = place.calls();
    let starts: Vec<&str> = calls
        .iter()
        .map(|call| call.split(" --data").next().unwrap())
        .collect();
    let join = "join 127.0.0.1:8003 --token pcl1.secret --keeper";
    assert_eq!(starts, ["serve --keeper", join, join, "serve --keeper"]);
    assert!(
        calls[3].contains("--name n1 --http-port 8010"),
        "{}",
        calls[3]
    );
    for node in 0..3 {
        assert!(!is_alive(pid(&home_of(&data, node))), "n{node} is left");
    }
    let context = std::fs::read_to_string(data.join("context.toml")).unwrap();
    let context: Context = toml::from_str(&context).unwrap();
    let names: Vec<&str> = context
        .nodes
        .iter()
        .map(|node| node.name.as_str())
        .collect();
    assert_eq!(names, ["n0", "n1", "n2"]);
    assert_eq!(context.nodes[2].sdk.as_deref(), Some("127.0.0.1:8003"));
    drop(cluster);

    // The next time all are members and are started together.
    let mut again = place.cluster(3);
    let well = place
        .run(&mut again, async {
            place.until_said("ready   http://", 2).await;
            place.stop.notify_one();
        })
        .await;
    assert!(well, "{}", place.said());
    let calls = place.calls();
    assert!(calls[4..].iter().all(|call| call.starts_with("serve ")));
    assert_eq!(calls.len(), 7);
}

fn home_of(data: &Path, node: usize) -> std::path::PathBuf {
    data.join(name(node))
}

#[tokio::test]
async fn a_node_that_fails_while_the_cluster_comes_up_ends_it_with_its_last_words() {
    let place = Place::new();
    let n1 = home_of(&place.data(), 1);
    let mut cluster = place.cluster(2);
    std::fs::create_dir_all(&n1).unwrap();
    std::fs::write(n1.join("fail"), "").unwrap();
    let well = place.run(&mut cluster, async {}).await;
    assert!(!well);
    let wanted = "n1 failed with exit code 1: error: the port is in use (log: ";
    assert!(place.said().contains(wanted), "{}", place.said());
    assert!(!place.said().contains("ready   "), "{}", place.said());
    assert!(!is_alive(pid(&home_of(&place.data(), 0))));
}

#[tokio::test]
async fn a_second_request_ends_what_does_not_stop() {
    let place = Place::new();
    let mut cluster = place.cluster(1);
    let n0 = home_of(&place.data(), 0);
    let well = place
        .run(&mut cluster, async {
            place.until_said("ready   ", 1).await;
            std::fs::write(n0.join("stubborn"), "").unwrap();
            place.stop.notify_one();
            place.until_said("stopping the cluster", 1).await;
            assert!(is_alive(pid(&n0)));
            place.stop.notify_one();
        })
        .await;
    assert!(!well);
    assert!(
        place.said().contains("n0 was ended by signal 9"),
        "{}",
        place.said()
    );
    assert!(!is_alive(pid(&n0)));
}

#[tokio::test]
async fn a_supervisor_that_is_gone_leaves_no_node() {
    let place = Place::new();
    let mut cluster = place.cluster(2);
    let running = cluster.run(async || std::future::pending().await);
    tokio::select! {
        _ = running => panic!("it runs for ever"),
        () = place.until_said("ready   ", 1) => {}
    }
    let pids: Vec<u32> = [0, 1].map(|node| pid(&home_of(&place.data(), node))).into();
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    drop(cluster);
    let ended = async {
        // What has ended and was not waited for is a zombie of this test.
        while !pids.iter().all(|pid| is_zombie(*pid)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(30), ended)
            .await
            .is_ok()
    );
}

fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.rsplit(')').next().unwrap().trim().starts_with('Z')
}
