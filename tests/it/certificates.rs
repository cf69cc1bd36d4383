//! Certificates of listeners, over real TLS: by name, and new ones while the wall sells.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::support::raw::read_response;
use crate::support::wall::{farewall, free_address};
use crate::support::{Setup, Wall, client, eventually, send};

/// A certificate for these names, and a folder for it and others.
fn made(names: &[&str]) -> CertifiedKey<KeyPair> {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    generate_simple_self_signed(names).unwrap()
}

fn write(folder: &Path, name: &str, made: &CertifiedKey<KeyPair>) -> (PathBuf, PathBuf) {
    let (cert, key) = (
        folder.join(format!("{name}.pem")),
        folder.join(format!("{name}.key")),
    );
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (cert, key)
}

/// Connects as a client that asks for `name` and trusts exactly these certificates.
pub(crate) async fn connect(
    address: SocketAddr,
    name: &str,
    trusted: &[&CertifiedKey<KeyPair>],
) -> std::io::Result<TlsStream<TcpStream>> {
    shake_hands(TcpStream::connect(address).await?, name, trusted).await
}

/// The same on a connection that is there.
pub(crate) async fn shake_hands(
    stream: TcpStream,
    name: &str,
    trusted: &[&CertifiedKey<KeyPair>],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for made in trusted {
        roots.add(made.cert.der().clone()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    chain[0].clone().into_owned()
}

/// One request on a connection that stays open.
pub(crate) async fn ask(stream: &mut TlsStream<TcpStream>) -> u16 {
    let request = b"GET /health HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
    stream.write_all(request).await.unwrap();
    read_response(stream, false).await.status
}

/// Stands under `[[listen]]`.
fn listen(cert: &Path, key: &Path) -> String {
    format!(
        "tls_cert = \"{}\"\ntls_key = \"{}\"\n",
        cert.display(),
        key.display()
    )
}

fn more(cert: &Path, key: &Path) -> String {
    format!(
        "[[listen.tls]]\ncert = \"{}\"\nkey = \"{}\"\n",
        cert.display(),
        key.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn each_name_gets_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let all = [
        made(&["first.example"]),
        made(&["*.shop.example", "shop.example"]),
        made(&["third.example"]),
    ];
    let files: Vec<_> = (0..3)
        .map(|nth| write(folder.path(), &nth.to_string(), &all[nth]))
        .collect();
    let text = listen(&files[0].0, &files[0].1)
        + &more(&files[1].0, &files[1].1)
        + &more(&files[2].0, &files[2].1);
    let setup = Setup {
        listen: text,
        ..Setup::default()
    };
    let wall = setup.start().await;
    for (name, nth) in [
        ("first.example", 0),
        ("a.shop.example", 1),
        ("shop.example", 1),
        ("third.example", 2),
    ] {
        // The client verifies the name, and trusts this certificate only.
        let mut stream = connect(wall.address, name, &[&all[nth]]).await.unwrap();
        assert_eq!(ask(&mut stream).await, 200, "{name}");
    }
    // Unknown names, and clients that name nobody, get the first; what they make of it is theirs.
    for name in ["a.b.shop.example", "unknown.example", "127.0.0.1"] {
        let refused = connect(wall.address, name, &[&all[0]]).await.unwrap_err();
        assert!(
            refused.to_string().contains("not valid for name"),
            "{name}: {refused}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_alone_below_listen_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let own = made(&["api.example.com"]);
    let (cert, key) = write(folder.path(), "own", &own);
    let setup = Setup {
        listen: more(&cert, &key),
        ..Setup::default()
    };
    let wall = setup.start().await;
    let stream = connect(wall.address, "api.example.com", &[&own]).await;
    assert_eq!(ask(&mut stream.unwrap()).await, 200);
}

/// A wall with TLS, the files of its certificate, and its metrics.
struct Renewing {
    wall: Wall,
    admin: SocketAddr,
    folder: tempfile::TempDir,
}

impl Renewing {
    async fn start(first: &CertifiedKey<KeyPair>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = write(folder.path(), "own", first);
        let admin = free_address();
        let setup = Setup {
            listen: listen(&cert, &key),
            admin: Some(admin),
            ..Setup::default()
        };
        Self {
            wall: setup.start().await,
            admin,
            folder,
        }
    }

    async fn counted(&self, outcome: &str) -> bool {
        let metrics = send(client().get(format!("http://{}/metrics", self.admin))).await;
        let line = format!("farewall_tls_certificates_total{{outcome=\"{outcome}\"}} 1");
        metrics.body.lines().any(|l| l == line)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_served_and_no_connection_is_dropped() {
    let (old, new) = (
        Arc::new(made(&["a.example"])),
        Arc::new(made(&["a.example"])),
    );
    let renewing = Renewing::start(&old).await;
    let address = renewing.wall.address;
    let mut kept = connect(address, "a.example", &[&old]).await.unwrap();
    assert_eq!(ask(&mut kept).await, 200);

    // Clients that come and go all the while; none may fail.
    let (stop, served) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut clients = Vec::new();
    for _ in 0..4 {
        let (old, new) = (Arc::clone(&old), Arc::clone(&new));
        let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
        clients.push(tokio::spawn(async move {
            let mut saw_new = false;
            while !stop.load(Ordering::SeqCst) {
                let mut stream = connect(address, "a.example", &[&old, &new]).await.unwrap();
                let is_new = shown(&stream) == *new.cert.der();
                assert!(is_new || !saw_new, "never back to the old one");
                saw_new |= is_new;
                assert_eq!(ask(&mut stream).await, 200);
                if saw_new {
                    served.fetch_add(1, Ordering::SeqCst);
                }
            }
            saw_new
        }));
    }
    write(renewing.folder.path(), "own", &new);
    eventually("the new one is served", || {
        served.load(Ordering::SeqCst) > 20
    });
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        assert!(client.await.unwrap(), "each has seen the new one");
    }
    assert_eq!(ask(&mut kept).await, 200, "a connection keeps what it has");
    assert!(connect(address, "a.example", &[&old]).await.is_err());
    assert!(renewing.counted("taken").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_cannot_be_used_is_reported_and_the_old_one_stays() {
    let own = made(&["a.example"]);
    let renewing = Renewing::start(&own).await;
    let cert = renewing.folder.path().join("own.pem");
    std::fs::write(&cert, made(&["a.example"]).cert.pem()).unwrap();
    eventually("it is reported", || {
        renewing.wall.log().contains("the old one stays")
    });
    let log = renewing.wall.log();
    let line = log
        .lines()
        .find(|l| l.contains("the old one stays"))
        .unwrap();
    assert!(line.contains(cert.to_str().unwrap()), "{line}");
    assert!(renewing.counted("refused").await);
    let stream = connect(renewing.wall.address, "a.example", &[&own]).await;
    assert_eq!(ask(&mut stream.unwrap()).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_does_not_start_with_a_key_of_another_certificate() {
    let own = made(&["a.example"]);
    let mut renewing = Renewing::start(&own).await;
    renewing.wall.kill();
    let (_, key) = write(renewing.folder.path(), "own", &made(&["a.example"]));
    std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
    let config = renewing.wall.config.to_str().unwrap();
    let output = farewall(&["run", "--config", config]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(
        told.contains(&renewing.wall.address.to_string())
            && told.contains("own.pem")
            && told.contains("own.key"),
        "{told}"
    );
}
