//! An ACME server of one's own: Pebble, which the makers of Let's Encrypt test clients with, and its name
//! server, in which every name leads to this machine.
//!
//! Needs both programs (Debian: `apt-get install pebble`). Without them the tests that use it say so and
//! pass, except in CI, where they must be there.

use std::fs::{File, OpenOptions};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::eventually;
use super::wall::free_address;

pub struct Pebble {
    dir: TempDir,
    server: Option<Child>,
    names: Child,
    address: SocketAddr,
    management: SocketAddr,
    resolver: SocketAddr,
    /// Where it looks for the answers to its challenges.
    pub challenges: SocketAddr,
}

impl Pebble {
    /// A running server whose certificates live so long; `None`, loudly, where Pebble is not installed.
    #[track_caller]
    pub fn start(life_s: u64) -> Option<Self> {
        Self::start_looking_at(free_address(), life_s)
    }

    /// The same, which looks for answers at this address of the loopback.
    #[track_caller]
    pub fn start_looking_at(challenges: SocketAddr, life_s: u64) -> Option<Self> {
        if Command::new("pebble").arg("-h").output().is_err() {
            let ci = std::env::var("CI").is_ok();
            assert!(!ci, "CI needs Pebble: apt-get install pebble");
            eprintln!("SKIPPED, not tested: no Pebble here. apt-get install pebble");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let [address, management, resolver, control] = [(); 4].map(|()| free_address());
        let config = serde_json::json!({ "pebble": {
            "listenAddress": address.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": dir.path().join("own.pem"),
            "privateKey": dir.path().join("own.key"),
            "httpPort": challenges.port(),
            "tlsPort": free_address().port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "certificateValidityPeriod": life_s,
        }});
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        make_authority(&dir);
        let names = Command::new("pebble-challtestsrv")
            .args(["-dns01", &resolver.to_string()])
            .args(["-management", &control.to_string()])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
            .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut pebble = Self {
            dir,
            server: None,
            names,
            address,
            management,
            resolver,
            challenges,
        };
        pebble.up();
        Some(pebble)
    }

    /// Starts it, without anything of what it knew before.
    #[track_caller]
    pub fn up(&mut self) {
        let log = || -> File {
            let mut options = OpenOptions::new();
            let path = self.dir.path().join("log");
            options.create(true).append(true).open(path).unwrap()
        };
        let child = Command::new("pebble")
            .arg("-config")
            .arg(self.dir.path().join("config.json"))
            .args(["-dnsserver", &self.resolver.to_string()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            // So that every order has a challenge to answer.
            .env("PEBBLE_AUTHZREUSE", "0")
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .spawn();
        self.server = Some(child.unwrap());
        for address in [self.address, self.management] {
            eventually("Pebble listens", || TcpStream::connect(address).is_ok());
        }
    }

    pub fn down(&mut self) {
        if let Some(mut child) = self.server.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.address.port())
    }

    /// PEM of the authority of the server's own certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("authority.pem")
    }

    /// PEM of the authority that it issues with; another after each start.
    pub async fn root(&self) -> Vec<u8> {
        let authority = std::fs::read(self.ca_file()).unwrap();
        let authority = reqwest::Certificate::from_pem(&authority).unwrap();
        let client = reqwest::Client::builder()
            .add_root_certificate(authority)
            .build()
            .unwrap();
        let url = format!("https://localhost:{}/roots/0", self.management.port());
        let answer = client.get(url).send().await.unwrap();
        answer.bytes().await.unwrap().to_vec()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// How many certificates it has issued, over all starts.
    pub fn issued(&self) -> usize {
        self.log().matches("Issued certificate serial").count()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.down();
        let _ = self.names.kill();
        let _ = self.names.wait();
        if std::thread::panicking() {
            eprintln!("--- log of Pebble\n{}", self.log());
        }
    }
}

/// An authority, and the certificate for `localhost` that the server itself has.
fn make_authority(dir: &TempDir) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = authority.self_signed(&key).unwrap();
    let issuer = Issuer::new(authority, key);
    let own_key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let own = own.signed_by(&own_key, &issuer).unwrap();
    let write = |name: &str, pem: String| std::fs::write(dir.path().join(name), pem).unwrap();
    write("authority.pem", certificate.pem());
    write("own.pem", own.pem());
    write("own.key", own_key.serialize_pem());
}
