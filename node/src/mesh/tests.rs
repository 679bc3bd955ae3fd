//! The mesh between two processes, over QUIC under mutual TLS.
//!
//! Ractor's groups belong to the process, so the second node is this test binary once more,
//! started with one test that does nothing in other runs.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use paceline_protocol::Epoch;
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::identity::authority::{Authority, request};
use crate::identity::credentials::Credentials;
use crate::identity::trust::Trust;
use crate::transport::quic::QuicTransport;
use paceline_protocol::Subject;

const CLUSTER: u128 = 0xc1;
const FIRST: NodeId = NodeId(1);
const SECOND: NodeId = NodeId(2);
/// Where the second process finds its folder; unset in every other run.
const FOLDER: &str = "PACELINE_MESH_TEST_FOLDER";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_hear_each_other_lose_each_other_and_find_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::found(CLUSTER).unwrap();
    for node in [FIRST, SECOND] {
        let key = KeyPair::generate().unwrap();
        let subject = Subject {
            node,
            cluster: CLUSTER,
        };
        let signed = authority.sign(&request(&key).unwrap(), subject, SystemTime::now());
        fs::write(
            folder.path().join(format!("{node}.key")),
            key.serialize_pem(),
        )
        .unwrap();
        fs::write(folder.path().join(format!("{node}.cert")), signed.unwrap()).unwrap();
    }
    fs::write(folder.path().join("authority"), authority.certificate()).unwrap();
    let transport = transport(folder.path(), FIRST);
    let mesh = mesh(transport.clone()).await;
    mesh.set_peers([FIRST, SECOND].into());
    mesh.publish(report(FIRST, 1));

    let second = Second::start(folder.path());
    meet(&transport, folder.path(), SECOND).await;
    heard(&mesh, Some(1)).await;
    // It answers each epoch with the next one.
    for epoch in [4, 14, 24] {
        mesh.publish(report(FIRST, epoch));
        heard(&mesh, Some(epoch + 1)).await;
    }
    let at = Instant::now();
    sleep(Duration::from_millis(1_500)).await;
    let confirmed = mesh.reports().borrow()[&SECOND].heard_at;
    assert!(confirmed > at, "what does not change is confirmed");

    // What a session that ended late has taken along is told again, though nothing changed.
    mesh.shared.board.forget(SECOND);
    heard(&mesh, None).await;
    heard(&mesh, Some(25)).await;

    // The session ends, and another one follows.
    let mut reports = mesh.reports();
    reports.mark_unchanged();
    transport.disconnect(SECOND);
    in_time(reports.wait_for(|reports| reports.is_empty()))
        .await
        .unwrap();
    heard(&mesh, Some(25)).await;

    // The process dies, and another one follows.
    drop(second);
    heard(&mesh, None).await;
    let _second = Second::start(folder.path());
    meet(&transport, folder.path(), SECOND).await;
    heard(&mesh, Some(25)).await;

    mesh.set_peers([FIRST].into());
    heard(&mesh, None).await;
    mesh.close();
}

/// The second process; a test only in the eyes of the harness.
#[test]
fn second_node() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = Path::new(&folder).to_owned();
    // Ends with the first process, whatever becomes of that.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let transport = transport(&folder, SECOND);
        let mesh = mesh(transport.clone()).await;
        mesh.set_peers([FIRST, SECOND].into());
        mesh.publish(report(SECOND, 1));
        meet(&transport, &folder, FIRST).await;
        let mut reports = mesh.reports();
        loop {
            in_time(reports.changed()).await.unwrap();
            let first = reports.borrow_and_update().get(&FIRST).cloned();
            let epoch = first.map_or(1, |known| known.report.epoch.0);
            if epoch > 1 {
                mesh.publish(report(SECOND, epoch + 1));
            }
        }
    });
}

/// Killed when dropped.
struct Second {
    child: Child,
}

impl Second {
    fn start(folder: &Path) -> Self {
        let _ = fs::remove_file(folder.join(format!("{SECOND}.address")));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "mesh::tests::second_node", "--nocapture"])
            .env(FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child }
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A node's transport; says where it is in the folder.
fn transport(folder: &Path, node: NodeId) -> Arc<QuicTransport> {
    let read = |name: String| fs::read(folder.join(name)).unwrap();
    let key = String::from_utf8(read(format!("{node}.key"))).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let authority = CertificateDer::from(read("authority".to_owned()));
    let trust = Trust::new(&authority, CLUSTER, provider).unwrap();
    let subject = Subject {
        node,
        cluster: CLUSTER,
    };
    let key = KeyPair::from_pem(&key).unwrap();
    let certificate = CertificateDer::from(read(format!("{node}.cert")));
    let credentials = Credentials::new(subject, key, certificate, trust).unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let transport = QuicTransport::start(socket, credentials).unwrap();
    let (unnamed, named) = (
        folder.join(format!("{node}.new")),
        folder.join(format!("{node}.address")),
    );
    fs::write(&unnamed, transport.address().unwrap().to_string()).unwrap();
    fs::rename(unnamed, named).unwrap();
    transport
}

async fn mesh(transport: Arc<QuicTransport>) -> Mesh {
    let options = MeshOptions {
        cookie: [7; 32],
        cluster: CLUSTER,
        life: u64::from(std::process::id()),
        health: crate::supervisor::Health::default(),
    };
    Mesh::start(transport, options).await.unwrap()
}

/// Waits until `peer` has said where it is, and lets the transport know.
async fn meet(transport: &QuicTransport, folder: &Path, peer: NodeId) {
    let address = folder.join(format!("{peer}.address"));
    let named = async {
        loop {
            if let Ok(address) = fs::read_to_string(&address) {
                return address.parse::<SocketAddr>().unwrap();
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    transport.set_peers([(peer, in_time(named).await)].into());
}

async fn heard(mesh: &Mesh, epoch: Option<u64>) {
    let mut reports = mesh.reports();
    let wanted = |reports: &Arc<Reports>| {
        let known = reports.get(&SECOND);
        known.map(|known| known.report.epoch.0) == epoch
    };
    in_time(reports.wait_for(wanted)).await.unwrap();
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), what)
        .await
        .expect("in time")
}

fn report(node: NodeId, epoch: u64) -> NodeReport {
    NodeReport {
        node,
        epoch: Epoch(epoch),
        ready: true,
        draining: None,
        pid: std::process::id(),
        replicas: vec![],
        demands: Vec::new(),
        canaries: Vec::new(),
    }
}
