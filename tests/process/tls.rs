//! TLS on the HTTP port: what clients agree on, who is refused, and certificates that change.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use hyper::StatusCode;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, IpAddr, Ipv4Addr, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::cluster::ROW;
use crate::http::PATIENCE;
use crate::http2::{Http2, small_runtime};
use crate::metrics::samples;
use crate::node::{Finished, Node, directory, paceline, until};

const PATH: &str = "/v2/models/machine-failure/infer";

/// A folder with `cert.pem` and `key.pem`.
struct Pair {
    folder: TempDir,
}

impl Pair {
    fn new() -> Self {
        let pair = Self {
            folder: directory(),
        };
        pair.renew();
        pair
    }

    /// Another certificate in the same files.
    fn renew(&self) {
        let parameters = CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address");
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        std::fs::write(self.cert(), certificate.pem()).expect("it is written");
        std::fs::write(self.key(), key.serialize_pem()).expect("it is written");
    }

    fn cert(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// The flags that name it.
    fn flags(&self) -> [String; 4] {
        let text = |path: PathBuf| path.display().to_string();
        let [cert, key] = [self.cert(), self.key()].map(text);
        ["--tls-cert".into(), cert, "--tls-key".into(), key]
    }

    /// A client that trusts it and offers these protocols.
    fn connector(&self, protocols: &[&[u8]]) -> TlsConnector {
        let pem = std::fs::read(self.cert()).expect("it is there");
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(&pem).expect("a certificate");
        roots.add(authority).expect("it is one");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring offers some")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

async fn shake(node: &Node, connector: &TlsConnector) -> Option<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(node.http)
        .await
        .expect("the node listens");
    let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([127, 0, 0, 1])));
    connector.connect(name, stream).await.ok()
}

fn start(home: &Path, pair: &Pair) -> Node {
    let flags = pair.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Node::start(home, &[&["--demo"], &flags[..]].concat())
}

#[test]
fn http_1_and_2_are_spoken_under_tls_and_nothing_else_is() {
    let (home, pair) = (directory(), Pair::new());
    let node = start(home.path(), &pair);
    small_runtime().block_on(async {
        let both = pair.connector(&[b"h2", b"http/1.1"]);
        let stream = shake(&node, &both).await.expect("it is trusted");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let client = Http2::over(stream, node.http).await;
        let answer = client.ask(client.post(PATH, ROW)).await;
        assert_eq!(answer.head.status, StatusCode::OK);
        // Who names no protocol speaks HTTP/1.1.
        let none = pair.connector(&[]);
        let stream = shake(&node, &none).await.expect("it is trusted");
        assert_eq!(stream.get_ref().1.alpn_protocol(), None);
        let other = Pair::new().connector(&[b"h2"]);
        assert!(shake(&node, &other).await.is_none(), "another authority's");
        let strange = pair.connector(&[b"paceline-join/1"]);
        assert!(shake(&node, &strange).await.is_none(), "another protocol");
    });
    // Who speaks HTTP without TLS is closed.
    let mut plain = std::net::TcpStream::connect(node.http).expect("the node listens");
    plain.set_read_timeout(Some(PATIENCE)).expect("a limit");
    plain
        .write_all(b"GET /v2 HTTP/1.1\r\n\r\n")
        .expect("it is taken");
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said);
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    on_the_command_line(&node, &pair);
    by_curl(&node, &pair);
}

fn on_the_command_line(node: &Node, pair: &Pair) {
    let address = format!("https://{}", node.http);
    let ca = pair.cert().display().to_string();
    let status = |more: &[&str]| paceline(&[&["status", "--addr", &address], more].concat());
    let finished = status(&["--ca", &ca]);
    assert!(finished.status.success(), "{finished:?}");
    let (code, reason) = (status(&[]), "--ca");
    assert!(
        code.failed().0 == 2 && code.failed().1.contains(reason),
        "{code:?}"
    );
    let other = Pair::new().cert().display().to_string();
    let empty = status(&["--ca", &other]);
    assert_eq!(empty.failed().0, 2, "the file has gone with its folder");
    let other = Pair::new();
    let untrusted = status(&[
        "--ca",
        &other.cert().display().to_string(),
        "--timeout",
        "2s",
    ]);
    assert!(untrusted.failed().1.contains("TLS"), "{untrusted:?}");
    let context = pair.folder.path().join("context.toml");
    let text = format!("http_ca = 'cert.pem'\n[[nodes]]\nname = 'n0'\nhttp = '{address}'\n");
    std::fs::write(&context, text).expect("it is written");
    let context = context.display().to_string();
    let asked = [
        "infer",
        "machine-failure",
        "--row",
        "1,0,0,302.3,311.5,1282,60.7,216",
    ];
    let finished = paceline(&[&asked[..], &["--context", &context]].concat());
    assert!(finished.status.success(), "{finished:?}");
    let bench = paceline(&["bench", "identity", "--row", "1", "--context", &context]);
    assert!(bench.failed().1.contains("without TLS"), "{bench:?}");
}

fn by_curl(node: &Node, pair: &Pair) {
    let version = Command::new("curl").arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    if !version.is_ok_and(|text| text.contains("HTTP2") && text.contains("SSL")) {
        eprintln!("skipped: no curl with HTTP/2 and TLS here");
        return;
    }
    for (flag, spoken) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let output = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--noproxy",
                "*",
                "--max-time",
                "30",
                flag,
            ])
            .args([
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_version} %{http_code}",
            ])
            .arg("--cacert")
            .arg(pair.cert())
            .args(["-d", ROW, &format!("https://{}{PATH}", node.http)])
            .output()
            .expect("curl runs");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(told, format!("{spoken} 200"), "{output:?}");
    }
}

#[test]
fn a_certificate_is_renewed_while_the_node_serves() {
    let (home, pair) = (directory(), Pair::new());
    let node = start(home.path(), &pair);
    let warnings = |ca: &Path| {
        let address = format!("https://{}", node.http);
        let ca = ca.display().to_string();
        let asked = ["status", "--addr", &address, "--ca", &ca, "-o", "json"];
        let finished = paceline(&asked);
        assert!(finished.status.success(), "{finished:?}");
        finished.stdout
    };
    // Each with sessions of its own: one that is resumed shows no certificate.
    let [before, never_used] = [(), ()].map(|()| pair.connector(&[b"h2"]));
    let first = directory();
    let first_ca = first.path().join("ca.pem");
    std::fs::copy(pair.cert(), &first_ca).expect("it is copied");
    let runtime = small_runtime();
    let kept = runtime.block_on(async {
        let stream = shake(&node, &before).await.expect("it is trusted");
        Http2::over(stream, node.http).await
    });
    // A broken one is not taken, and said once.
    std::fs::write(pair.key(), "no key").expect("it is written");
    until(PATIENCE, "it warns", || {
        warnings(&first_ca).contains("certificate or key cannot be used")
    });
    assert!(runtime.block_on(shake(&node, &before)).is_some());
    pair.renew();
    let after = pair.connector(&[b"h2"]);
    until(PATIENCE, "the new one is shown", || {
        runtime.block_on(shake(&node, &after)).is_some()
    });
    assert!(runtime.block_on(shake(&node, &never_used)).is_none());
    assert!(!warnings(&pair.cert()).contains("certificate or key"));
    // A connection keeps what it began with.
    let answer = runtime.block_on(kept.ask(kept.post(PATH, ROW)));
    assert_eq!(answer.head.status, StatusCode::OK);
    let scraped = samples(&node.scrape());
    let expires = scraped
        .iter()
        .find(|sample| sample.name == "paceline_gateway_certificate_expires_seconds");
    assert!(expires.expect("it is counted").value > 1.7e9);
}

#[test]
fn a_public_address_needs_tls_and_keys_and_a_pair_that_fits() {
    let pair = Pair::new();
    let check = |more: &[&str]| -> Finished {
        let home = directory();
        let data = home.path().display().to_string();
        paceline(&[&["config", "check", "--data-dir", &data], more].concat())
    };
    let flags = pair.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let keys = ["--set", "admission.keys_required=true"];
    let public = ["--set", "http.listen=10.0.0.5:8000"];
    let good = check(&[&flags[..], &keys, &public].concat());
    assert!(good.status.success(), "{good:?}");
    for lacking in [
        [&flags[..], &public].concat(),
        [&keys[..], &public].concat(),
    ] {
        let refused = check(&lacking);
        let reason = refused.failed().1;
        for word in ["http.listen", "tls.cert", "keys_required", "--insecure"] {
            assert!(reason.contains(word), "{word:?} is missing: {reason}");
        }
    }
    let metrics = ["--set", "metrics.listen=10.0.0.5:8002"];
    let refused = check(&[&flags[..], &keys, &public, &metrics].concat());
    assert!(refused.failed().1.contains("metrics.listen"), "{refused:?}");
    let half = check(&["--set", &format!("tls.cert='{}'", flags[1])]);
    assert!(half.failed().1.contains("tls.key"), "{half:?}");
    let other = Pair::new();
    std::fs::copy(other.key(), pair.key()).expect("it is copied");
    let refused = check(&flags);
    let reason = refused.failed().1;
    assert!(
        reason.contains("tls.key") && reason.contains("is not the key"),
        "{reason}"
    );
    assert!(
        reason.contains("key.pem") && reason.contains("cert.pem"),
        "{reason}"
    );
    // The same stops a node before anything is served.
    let home = directory();
    let data = home.path().join("data").display().to_string();
    let serve = ["serve", "--http-port", "0", "--data-dir", &data];
    let stopped = paceline(&[&serve[..], &flags].concat());
    assert!(stopped.failed().1.contains("is not the key"), "{stopped:?}");
    assert!(!Path::new(&data).exists(), "nothing was made");
}
