//! Certificates from a real ACME server: issued, kept, renewed; and what happens while there are none.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::support::pebble::Pebble;
use crate::support::raw::read_response;
use crate::support::wall::free_address;
use crate::support::{Origin, Setup, Wall, client, eventually, raw_request, send};

const NAME: &str = "api.example.com";
/// Longer than any test.
const LONG_S: u64 = 30 * 86_400;

/// A wall with an `[acme]`, and where it is asked.
struct Certified {
    wall: Wall,
    admin: SocketAddr,
    challenges: SocketAddr,
    state: PathBuf,
}

impl Certified {
    async fn start(pebble: &Pebble) -> Self {
        Self::start_with(
            &pebble.directory(),
            &pebble.ca_file(),
            pebble.challenges,
            None,
        )
        .await
    }

    async fn start_with(
        directory: &str,
        ca_file: &Path,
        challenges: SocketAddr,
        rules: Option<&str>,
    ) -> Self {
        let admin = free_address();
        let listen = format!(
            "acme = true\n[acme]\nnames = [\"{NAME}\", \"other.example.com\"]\naccept_terms = true\n\
             contact = [\"ops@example.com\"]\ndirectory = \"{directory}\"\nca_file = \"{}\"\n\
             listen = \"{challenges}\"\n",
            ca_file.display()
        );
        let setup = Setup {
            listen,
            rules: rules.map(str::to_owned),
            admin: Some(admin),
            ..Setup::default()
        };
        let wall = setup.start().await;
        eventually("challenges are answered", || {
            std::net::TcpStream::connect(challenges).is_ok()
        });
        let folder = directory.trim_start_matches("https://").replace('/', "+");
        let state = wall.file("acme").join(folder.replace(':', "%3a"));
        Self {
            wall,
            admin,
            challenges,
            state,
        }
    }

    /// The value of a series, as it is written.
    async fn metric(&self, series: &str) -> Option<String> {
        let metrics = send(client().get(format!("http://{}/metrics", self.admin))).await;
        let mut lines = metrics.body.lines();
        lines.find_map(|line| Some(line.strip_prefix(series)?.trim().to_owned()))
    }

    async fn orders(&self, outcome: &str) -> u64 {
        let series = format!("farewall_acme_orders_total{{name=\"{NAME}\",outcome=\"{outcome}\"}}");
        self.metric(&series).await.unwrap().parse().unwrap()
    }

    async fn expiry(&self) -> u64 {
        let series =
            format!("farewall_tls_certificate_expiry_timestamp_seconds{{certificate=\"{NAME}\"}}");
        self.metric(&series).await.unwrap().parse().unwrap()
    }

    /// The certificate that a client is shown that trusts this authority alone.
    async fn shown(&self, name: &str, root: &[u8]) -> std::io::Result<CertificateDer<'static>> {
        let stream = connect(self.wall.address, name, root).await?;
        let chain = stream.get_ref().1.peer_certificates().unwrap();
        Ok(chain[0].clone().into_owned())
    }

    /// The certificate that is served when it passes, for at most a minute.
    async fn served(
        &self,
        name: &str,
        root: &[u8],
        passes: impl Fn(&CertificateDer<'static>) -> bool,
    ) -> CertificateDer<'static> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            match self.shown(name, root).await {
                Ok(shown) if passes(&shown) => return shown,
                other => assert!(Instant::now() < end, "never served: {:?}", other.err()),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn told(&self, what: &str) {
        let end = Instant::now() + Duration::from_secs(60);
        while !self.wall.log().contains(what) {
            assert!(Instant::now() < end, "never said: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn connect(
    address: SocketAddr,
    name: &str,
    root: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(root) {
        roots.add(root.unwrap()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = TcpStream::connect(address).await?;
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await
}

async fn get(stream: &mut TlsStream<TcpStream>, path: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    read_response(stream, false).await.status
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_issued_and_used_again_without_asking() {
    let Some(mut pebble) = Pebble::start(LONG_S) else {
        return;
    };
    let mut certified = Certified::start(&pebble).await;
    let root = pebble.root().await;
    let first = certified.served(NAME, &root, |_| true).await;
    let other = certified.served("other.example.com", &root, |_| true).await;
    assert_ne!(first, other, "each name has its own");
    let mut stream = connect(certified.wall.address, NAME, &root).await.unwrap();
    assert_eq!(get(&mut stream, "/health").await, 200);
    assert_eq!(certified.orders("issued").await, 1);
    assert_eq!(certified.orders("failed").await, 0);
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs();
    let left_s = certified.expiry().await.checked_sub(now).unwrap();
    assert!((LONG_S - 60..=LONG_S).contains(&left_s), "{left_s}");

    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let all = files(&certified.state);
    assert_eq!(mode(&certified.state), 0o700);
    for name in [
        "account.json",
        "api.example.com.pem",
        "other.example.com.pem",
    ] {
        assert!(all.contains(&certified.state.join(name)), "{name}: {all:?}");
    }
    for path in &all {
        assert_eq!(mode(path), 0o600, "{}", path.display());
    }
    // Neither the key of the account nor that of a certificate is in the log.
    let log = certified.wall.log();
    let account = std::fs::read_to_string(certified.state.join("account.json")).unwrap();
    let account: serde_json::Value = serde_json::from_str(&account).unwrap();
    let pem = std::fs::read_to_string(certified.state.join("api.example.com.pem")).unwrap();
    let key = pem.lines().nth(1).unwrap();
    assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----"), "{key}");
    assert!(!log.contains(key) && !log.contains("PRIVATE KEY"));
    assert!(!log.contains(account["key_pkcs8"].as_str().unwrap()));

    // Nobody could be asked now.
    pebble.down();
    certified.wall.terminate();
    certified.wall.restart();
    assert_eq!(certified.shown(NAME, &root).await.unwrap(), first);
    assert_eq!(
        certified.shown("other.example.com", &root).await.unwrap(),
        other
    );
    let tended = "ready: every listener accepts connections";
    certified.told(tended).await;
    assert_eq!(certified.orders("failed").await, 0);
    assert_eq!(pebble.issued(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_before_it_expires() {
    let Some(pebble) = Pebble::start(24) else {
        return;
    };
    let certified = Certified::start(&pebble).await;
    let root = pebble.root().await;
    let old = certified.served(NAME, &root, |_| true).await;
    let expires = certified.expiry().await;
    let mut kept = connect(certified.wall.address, NAME, &root).await.unwrap();
    assert_eq!(get(&mut kept, "/health").await, 200);
    let new = certified.served(NAME, &root, |shown| *shown != old).await;
    assert!(certified.expiry().await > expires);
    assert_ne!(old, new);
    assert_eq!(
        get(&mut kept, "/health").await,
        200,
        "connections keep theirs"
    );
    assert!(certified.orders("issued").await >= 2);
    assert_eq!(certified.orders("failed").await, 0);
    // Renewed at two thirds, and not again and again.
    assert!(pebble.issued() <= 6, "{}", pebble.issued());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_takes_no_certificate_away_and_may_forget_the_account() {
    let Some(mut pebble) = Pebble::start(30) else {
        return;
    };
    let mut certified = Certified::start(&pebble).await;
    let root = pebble.root().await;
    let old = certified.served(NAME, &root, |_| true).await;
    certified.served("other.example.com", &root, |_| true).await;
    pebble.down();
    // At two thirds of its life: a third is left.
    certified
        .told("no new certificate; the old one, if any, is served on")
        .await;
    assert_eq!(certified.shown(NAME, &root).await.unwrap(), old);
    assert!(certified.orders("failed").await <= 1);

    // Pebble comes back without anything that it knew. What keeps the wall from asking at once is its
    // pace, which is taken away here.
    pebble.up();
    certified.wall.terminate();
    let pace = certified.state.join("api.example.com.json");
    let text = std::fs::read_to_string(&pace).unwrap();
    assert!(text.contains("\"failures\":"), "{text}");
    std::fs::remove_file(&pace).unwrap();
    certified.wall.restart();
    let root = pebble.root().await;
    certified.served(NAME, &root, |shown| *shown != old).await;
    let log = certified.wall.log();
    assert!(log.contains("does not know the account any more"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_every_handshake_is_refused_and_restarts_do_not_hurry() {
    let Some(mut pebble) = Pebble::start(LONG_S) else {
        return;
    };
    let root = pebble.root().await;
    pebble.down();
    let mut certified = Certified::start(&pebble).await;
    certified.told("there is no certificate yet").await;
    certified.told("no new certificate").await;
    for name in [NAME, "unknown.example.com", "127.0.0.1"] {
        let refused = connect(certified.wall.address, name, &root)
            .await
            .unwrap_err();
        assert!(
            refused.to_string().contains("AccessDenied"),
            "{name}: {refused}"
        );
    }
    assert_eq!(certified.expiry().await, 0);
    assert_eq!(certified.orders("failed").await, 1);
    assert!(certified.wall.origin.seen().is_empty());
    pebble.up();
    certified.wall.terminate();
    certified.wall.restart();
    certified
        .told("no certificate is ordered before that")
        .await;
    assert_eq!(certified.orders("failed").await, 0);
    assert_eq!(pebble.issued(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_elsewhere_gets_no_certificate() {
    // Answers everything, with something else.
    let elsewhere = Origin::start().await;
    let Some(pebble) = Pebble::start_looking_at(elsewhere.address, LONG_S) else {
        return;
    };
    let root = pebble.root().await;
    let certified =
        Certified::start_with(&pebble.directory(), &pebble.ca_file(), free_address(), None).await;
    certified.told("the server could not verify the name").await;
    assert!(!elsewhere.seen().is_empty(), "the server did look");
    assert_eq!(pebble.issued(), 0);
    assert!(certified.shown(NAME, &root).await.is_err());
    assert!(!certified.state.join("api.example.com.pem").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn challenges_are_no_way_round_the_gate() {
    const RULES: &str = "[[rule]]\nname = \"all\"\npath = \"/{*rest}\"\nprice = \"$0.001\"\n";
    let Some(pebble) = Pebble::start(LONG_S) else {
        return;
    };
    let (directory, ca_file) = (pebble.directory(), pebble.ca_file());
    let certified =
        Certified::start_with(&directory, &ca_file, pebble.challenges, Some(RULES)).await;
    let root = pebble.root().await;
    let plain = |line: &str| format!("{line} HTTP/1.1\r\nHost: {NAME}\r\n\r\n").into_bytes();
    let paths = [
        "/.well-known/acme-challenge/",
        "/.well-known/acme-challenge/LoqXcYV8q5ONbJQxbmR7SCTNo3tiAxDfowyjxAjEuX0",
        "/.well-known/acme-challenge/../../v1/quote",
        "/.well-known/acme-challenge/%2e%2e/%2e%2e/v1/quote",
        "/.well-known/acme-challenge/a?b=c",
    ];
    // While orders are under way, and when they are over.
    for is_over in [false, true] {
        if is_over {
            certified.served(NAME, &root, |_| true).await;
            certified.served("other.example.com", &root, |_| true).await;
        }
        for path in paths {
            let answer = raw_request(certified.challenges, &plain(&format!("GET {path}"))).await;
            assert_eq!(answer.status, 404, "{path}");
            let answer = raw_request(certified.challenges, &plain(&format!("POST {path}"))).await;
            assert_eq!(answer.status, 404, "{path}");
        }
        for line in ["GET /v1/quote?a=b", "DELETE /v1/quote?a=b"] {
            let answer = raw_request(certified.challenges, &plain(line)).await;
            assert_eq!(answer.status, 308, "{line}");
            let location = answer.header("location");
            assert_eq!(location, Some("https://api.example.com/v1/quote?a=b"));
        }
        let absolute = plain("GET http://api.example.com/v1/quote");
        assert_eq!(
            raw_request(certified.challenges, &absolute).await.status,
            404
        );
    }
    // Over TLS these are paths like any other: the gate asks for money, or refuses them.
    for (path, status) in paths.into_iter().zip([402, 402, 400, 400, 402]) {
        let mut stream = connect(certified.wall.address, NAME, &root).await.unwrap();
        assert_eq!(get(&mut stream, path).await, status, "{path}");
    }
    assert!(certified.wall.origin.seen().is_empty());
}
