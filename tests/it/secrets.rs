//! Secrets that are planted everywhere, and every way in which they could come out again.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use farewall::sandbox::{Sandbox, SandboxOptions};
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use crate::support::http::client;
use crate::support::wall::{BINARY, free_address};
use crate::support::{Origin, Signer, encode, eventually, offer, send};

const FACILITATOR_KEY: &str = "pl4nted-facilitator-key-5b1d";
const SETTLE_KEY: &str = "pl4nted-settle-key-77e0";
const UPSTREAM_KEY: &str = "pl4nted-upstream-key-c3a9";
const SECRETS: [&str; 3] = [FACILITATOR_KEY, SETTLE_KEY, UPSTREAM_KEY];

/// A wall that says all it can be made to say, and everything it said.
struct Talkative {
    dir: TempDir,
    address: SocketAddr,
    admin: SocketAddr,
    child: Child,
    origin: Origin,
    /// What must never be seen, beside [`SECRETS`].
    planted: Vec<String>,
    said: String,
}

impl Talkative {
    async fn start(facilitator: &str) -> Self {
        let origin = Origin::start().await;
        let dir = tempfile::tempdir().unwrap();
        let (address, admin) = (free_address(), free_address());
        std::fs::write(dir.path().join("upstream.key"), UPSTREAM_KEY).unwrap();
        let config = config(address, admin, facilitator, origin.address);
        std::fs::write(dir.path().join("farewall.toml"), config).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = command(&dir, &["run", "--config", "farewall.toml"])
            .env("RUST_LOG", "trace")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let wall = Self {
            dir,
            address,
            admin,
            child,
            origin,
            planted: Vec::new(),
            said: String::new(),
        };
        eventually("the wall listens", || {
            std::net::TcpStream::connect(address).is_ok()
        });
        wall
    }

    /// A good proof for `/v1/quote`, whose signature must never be seen.
    fn proof(&mut self) -> String {
        let message = Signer::new().proof_json(&offer(1000));
        let signature = message["payload"]["signature"].as_str().unwrap();
        self.planted.push(signature[2..].to_owned());
        let header = encode(&message);
        self.planted.push(header[200..400].to_owned());
        header
    }

    async fn pay(&mut self, path: &str, proofs: &[&str]) -> u16 {
        let url = format!("http://{}{path}", self.address);
        let mut request = client().request(Method::GET, url);
        for proof in proofs {
            request = request.header("PAYMENT-SIGNATURE", *proof);
        }
        let answer = send(request).await;
        self.said += &format!("{:?}\n{}\n", answer.headers, answer.body);
        // A receipt and a challenge are base64: what is in them counts too.
        for name in ["payment-required", "payment-response"] {
            if let Some(value) = answer.header(name) {
                self.said += &crate::support::decode(value).to_string();
            }
        }
        answer.status
    }

    /// Good, spoilt, repeated and doubled proofs, and origins that fail.
    async fn exercise(&mut self) -> Vec<u16> {
        let mut statuses = Vec::new();
        let good = self.proof();
        statuses.push(self.pay("/v1/quote", &[&good]).await);
        statuses.push(self.pay("/v1/quote", &[&good]).await);
        statuses.push(self.pay("/v1/other", &[&good]).await);
        statuses.push(self.pay("/v1/quote", &[&good, &good]).await);
        let cut = good[..good.len() - 9].to_owned();
        statuses.push(self.pay("/v1/quote", &[&cut]).await);
        let long = format!("{good}{}", "A".repeat(20_000));
        statuses.push(self.pay("/v1/quote", &[&long]).await);
        for path in ["/v1/fail", "/v1/quote/../x", "/dead/x"] {
            let proof = self.proof();
            statuses.push(self.pay(path, &[&proof]).await);
        }
        statuses
    }

    /// Ends it, and looks for every secret in all that it and its commands said.
    async fn betrays_nothing(mut self) -> String {
        for path in ["/metrics", "/readyz", "/healthz"] {
            let answer = send(client().get(format!("http://{}{path}", self.admin))).await;
            self.said += &answer.body;
        }
        for args in [
            &["check", "--config", "farewall.toml"][..],
            &["check", "--config", "farewall.toml", "--json"],
            &["explain", "--config", "farewall.toml", "GET", "/v1/quote"],
            &["diff", "farewall.toml", "farewall.toml"],
            &["ledger", "list", "--ledger", "ledger.db"],
            &["ledger", "export", "--ledger", "ledger.db"],
        ] {
            let output = command(&self.dir, args).output().unwrap();
            self.said += &text(&output);
        }
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        self.child.wait().unwrap();
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap();
        assert!(
            log.contains("\"TRACE\"") || log.contains("\"DEBUG\""),
            "it talks: {log}"
        );
        for secret in SECRETS
            .iter()
            .map(|s| (*s).to_owned())
            .chain(self.planted.clone())
        {
            betrays(&log, &secret);
            betrays(&self.said, &secret);
        }
        log
    }
}

impl Drop for Talkative {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(wall: SocketAddr, admin: SocketAddr, facilitator: &str, origin: SocketAddr) -> String {
    let dead = free_address();
    format!(
        r#"[server]
public_origin = "https://api.example.com"
admin = "{admin}"
worker_threads = 1
[[listen]]
address = "{wall}"
[ledger]
path = "ledger.db"
[facilitator.f]
url = "{facilitator}"
sandbox = true
settle_timeout_ms = 1500
headers = {{ Authorization = "Bearer ${{FACILITATOR_KEY}}" }}
settle_headers = {{ X-Settle-Key = "${{SETTLE_KEY}}" }}
[accept.base-sepolia-usdc]
network = "base-sepolia"
pay_to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
[upstream.api]
url = "http://{origin}"
headers = {{ X-Upstream-Key = "file:upstream.key" }}
[upstream.dead]
url = "http://{dead}"
headers = {{ X-Upstream-Key = "file:upstream.key" }}
[[rule]]
name = "any"
path = "/v1/{{name}}"
price = "$0.001"
upstream = "api"
[[rule]]
name = "dead"
path = "/dead/{{name}}"
price = "$0.001"
upstream = "dead"
"#
    )
}

fn command(dir: &TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args(args)
        .current_dir(dir.path())
        .env("FACILITATOR_KEY", FACILITATOR_KEY)
        .env("SETTLE_KEY", SETTLE_KEY)
        .stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    let of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    of(&output.stdout) + &of(&output.stderr)
}

#[track_caller]
fn betrays(text: &str, secret: &str) {
    if let Some(at) = text.find(secret) {
        let from = text[..at]
            .char_indices()
            .rev()
            .nth(300)
            .map_or(0, |(i, _)| i);
        panic!("{secret} is in: {}", &text[from..at + secret.len()]);
    }
}

/// An HTTP server that answers every request alike.
async fn facilitator(answer: fn(HeaderMap, Bytes) -> (StatusCode, String)) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(move |headers, body| async move { answer(headers, body) });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_that_works_and_tells_all_betrays_nothing() {
    let sandbox = Sandbox::new(SandboxOptions::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { sandbox.serve(listener).await });
    let mut wall = Talkative::start(&url).await;
    let statuses = wall.exercise().await;
    assert_eq!(statuses[0], 200, "{statuses:?}");
    assert_eq!(
        wall.origin.seen()[0].header("x-upstream-key"),
        Some(UPSTREAM_KEY),
        "it is used"
    );
    wall.betrays_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_failure_of_a_facilitator_betrays_a_secret() {
    let echo = facilitator(|headers, body| {
        let headers = format!("{headers:?}");
        assert!(headers.contains(FACILITATOR_KEY), "it is sent: {headers}");
        let body = String::from_utf8_lossy(&body).into_owned();
        (
            StatusCode::UNAUTHORIZED,
            format!("who is {headers}? {body}"),
        )
    });
    let echo_json = facilitator(|headers, body| {
        let all = format!("{headers:?} {}", String::from_utf8_lossy(&body));
        let answer = json!({
            "isValid": false, "invalidReason": &all, "invalidMessage": &all, "error": &all,
            "success": false, "errorReason": &all, "errorMessage": &all, "transaction": "", "network": "",
        });
        (StatusCode::OK, answer.to_string())
    });
    let unsettled = facilitator(|headers, body| {
        let all = format!("{headers:?} {}", String::from_utf8_lossy(&body));
        let answer = json!({"isValid": true, "success": "?", "transaction": &all, "message": &all});
        (StatusCode::OK, answer.to_string())
    });
    let plain = facilitator(|_, _| (StatusCode::OK, String::new())).await;
    for url in [
        format!("http://{}", echo.await),
        format!("http://{}", echo_json.await),
        format!("http://{}", unsettled.await),
        format!("http://{}", free_address()),
        format!("https://{plain}"),
    ] {
        let mut wall = Talkative::start(&url).await;
        let statuses = wall.exercise().await;
        assert!(!statuses.contains(&200), "{url}: {statuses:?}");
        wall.betrays_nothing().await;
    }
}

/// Every mistake stands on the line of a secret, or is the secret's own.
#[test]
fn no_mistake_in_a_configuration_betrays_a_secret() {
    let base = r#"[server]
public_origin = "https://a.example"
[accept.usdc]
network = "base-sepolia"
pay_to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
[[rule]]
name = "r"
path = "/r"
price = "$0.01"
"#;
    let facilitator = "[facilitator.f]\nurl = \"https://f.example\"\n";
    let upstream = "[upstream.u]\nurl = \"http://127.0.0.1:9\"\n";
    let literal = "l1teral-s3cret-90ab";
    let mistakes = [
        format!("{upstream}{facilitator}headers = {{ Authorization = \"Bearer {literal} }}\n"),
        format!("{upstream}{facilitator}api_key = \"{literal}\"\n"),
        format!("{upstream}{facilitator}headers = {{ \"my token\" = \"{literal}\" }}\n"),
        format!("{upstream}[facilitator.f]\nurl = \"https://user:{literal}/x@f.example\"\n"),
        format!("{upstream}[facilitator.f]\nurl = \"https://f.example?api_key={literal}\"\n"),
        format!(
            "{upstream}{facilitator}headers = {{ Authorization = \"Bearer {literal}\", \"a b\" = \"x\" }}\n"
        ),
        format!("{upstream}{facilitator}headers = {{ Authorization = \"Bearer {literal}\\n\" }}\n"),
        format!(
            "{upstream}{facilitator}headers = {{ Authorization = \"Bearer ${{BROKEN_KEY}}\" }}\n"
        ),
        format!("{upstream}{facilitator}headers = {{ Authorization = [\"{literal}\"] }}\n"),
        format!(
            "{upstream}{facilitator}headers = {{ X-Api-Key = \"{literal}\" }}\nwrong_key = 1\n"
        ),
        format!("{upstream}[facilitator.f]\nurl = \"https://user:{literal}@f.example\"\n"),
        format!("{upstream}[facilitator.f]\nurl = \"https://user:${{SETTLE_KEY}}@f.example\"\n"),
        format!("{upstream}[facilitator.f]\nurl = \"${{SETTLE_KEY}}\"\n"),
        format!("{facilitator}[upstream.u]\nurl = \"http://user:{literal}@127.0.0.1\"\n"),
        format!(
            "{facilitator}{upstream}headers = {{ X-Api-Key = \"${{SETTLE_KEY}}\", x-api-key = \"y\" }}\n"
        ),
        format!(
            "{facilitator}{upstream}headers = {{ X-Api-Key = \"file:absent-{{\" }}\nconnect_timeout_ms = \"${{SETTLE_KEY}}\"\n"
        ),
        format!(
            "{facilitator}{upstream}strip_prefix = \"${{SETTLE_KEY}}\"\nhost = \"a b ${{SETTLE_KEY}}\"\n"
        ),
    ];
    for mistake in mistakes {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("farewall.toml");
        std::fs::write(&path, format!("{base}{mistake}")).unwrap();
        for args in [
            &["check"][..],
            &["check", "--json"],
            &["run"],
            &["explain", "GET", "/r"],
        ] {
            let output = command(&dir, args)
                .args(["--config", path.to_str().unwrap()])
                .env("BROKEN_KEY", "br0ken-s3cret\n-11")
                .env("RUST_LOG", "trace")
                .output()
                .unwrap();
            assert!(!output.status.success(), "{mistake}");
            let said = text(&output);
            assert!(!said.is_empty());
            for secret in [literal, "br0ken-s3cret", SETTLE_KEY, FACILITATOR_KEY] {
                betrays(&said, secret);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_buyers_key_is_betrayed_by_no_failure() {
    let key = "5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a";
    let seller =
        facilitator(|headers, _| (StatusCode::PAYMENT_REQUIRED, format!("{headers:?}"))).await;
    let dir = tempfile::tempdir().unwrap();
    let pay = |url: &str, content: &str| {
        let path = dir.path().join("key.hex");
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(content.as_bytes()).unwrap();
        let output = command(&dir, &["pay", url, "--max-price", "$1", "--key-file"])
            .arg(Path::new("key.hex"))
            .env("RUST_LOG", "trace")
            .output()
            .unwrap();
        assert!(!output.status.success());
        text(&output)
    };
    for url in [
        format!("http://{}/x", free_address()),
        format!("http://{seller}/x"),
        format!("https://{seller}/x"),
    ] {
        for content in [
            key.to_owned(),
            format!("{key}00"),
            format!("0x{key}\n{key}"),
            key.replace('5', "g"),
        ] {
            let said = pay(&url, &content);
            betrays(&said, &key[..16]);
            betrays(&said, &content[..16]);
        }
    }
}
