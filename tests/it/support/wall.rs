//! The real binary in a directory of its own, between an origin and the sandbox facilitator.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use farewall::sandbox::{Sandbox, SandboxOptions};
use serde_json::Value;
use tempfile::TempDir;

use super::{Cluster, Origin};

pub const BINARY: &str = env!("CARGO_BIN_EXE_farewall");

/// Rules that most tests use.
pub const RULES: &str = r#"
[[rule]]
name = "health"
path = "/health"
free = true

[[rule]]
name = "quote"
methods = ["GET"]
path = "/v1/quote"
price = "$0.001"
description = "A quote"
mime_type = "application/json"

[[rule]]
name = "any"
path = "/v1/{name}"
price = "$0.002"

[[rule]]
name = "before"
path = "/before/{name}"
price = "$0.003"
settle = "before"

[[rule]]
name = "admin"
path = "/admin/{*rest}"
deny = true
"#;

/// What a wall is started with.
#[derive(Clone, Default)]
pub struct Setup {
    pub rules: Option<String>,
    /// Put at the top of the file.
    pub top: String,
    /// Put under `[server]`.
    pub server: String,
    /// Put under `[limits]`.
    pub limits: String,
    /// Put under `[upstream.api]`.
    pub upstream: String,
    /// Put under `[facilitator.sandbox]`.
    pub facilitator: String,
    /// Put under `[[listen]]`.
    pub listen: String,
    /// Base URL in place of the sandbox.
    pub facilitator_url: Option<String>,
    /// Whether to listen on a loopback address that no other wall has.
    pub on_own_address: bool,
    /// Base URL of a second facilitator, asked after the first.
    pub second_facilitator_url: Option<String>,
    /// Base URL in place of the origin.
    pub upstream_url: Option<String>,
    /// The admin listener, off when there is none.
    pub admin: Option<SocketAddr>,
    /// The same as it is written, for what is no address.
    pub admin_text: Option<String>,
    /// Whether the log is filtered by the configuration; else it is told to say much.
    pub own_log_filter: bool,
    pub sandbox: SandboxOptions,
    /// What stands in `[ledger]`; default: a file in the wall's directory.
    pub ledger: Option<String>,
    /// What `farewall ledger --ledger` is given; default: that file.
    pub ledger_place: Option<String>,
    /// The step at which it kills itself, once; needs the feature `failpoints`.
    pub kill_at: Option<String>,
}

pub struct Wall {
    pub address: SocketAddr,
    pub origin: Origin,
    pub sandbox: Sandbox,
    pub config: PathBuf,
    sandbox_url: String,
    ledger: String,
    dir: TempDir,
    child: Child,
    own_log_filter: bool,
}

impl Wall {
    /// With [`RULES`].
    pub async fn start() -> Self {
        Setup::default().start().await
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The ledger as `farewall ledger list --format json` tells it, newest first.
    #[track_caller]
    pub fn ledger(&self) -> Vec<Value> {
        let output = farewall(&[
            "ledger",
            "list",
            "--limit",
            "1000000",
            "--format",
            "json",
            "--ledger",
            &self.ledger,
        ]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The states in the ledger, newest first.
    #[track_caller]
    pub fn states(&self) -> Vec<String> {
        self.ledger()
            .iter()
            .map(|r| r["state"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where a file of its directory is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits.
    pub fn terminate(&mut self) -> (std::process::ExitStatus, Duration) {
        let since = Instant::now();
        self.ask_to_end();
        (self.child.wait().unwrap(), since.elapsed())
    }

    /// Asks it to end, as a service manager does.
    pub fn ask_to_end(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }

    /// Starts it again on the same ledger and address.
    pub fn restart(&mut self) {
        self.child = spawn(&self.config, &self.dir, self.own_log_filter, None);
        wait_for(self.address, &mut self.child, &self.dir);
    }
}

impl Drop for Wall {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the wall\n{}", self.log());
        }
    }
}

impl Setup {
    pub fn rules(rules: &str) -> Self {
        Self {
            rules: Some(rules.to_owned()),
            ..Self::default()
        }
    }

    pub async fn start(self) -> Wall {
        let origin = Origin::start().await;
        let sandbox = Sandbox::new(self.sandbox.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sandbox_url = format!("http://{}", listener.local_addr().unwrap());
        let serving = sandbox.clone();
        tokio::spawn(async move { serving.serve(listener).await });
        self.start_between(origin, sandbox, sandbox_url)
    }

    /// Another wall between the same origin and facilitator, in a directory of its own.
    pub fn start_beside(self, other: &Wall) -> Wall {
        let (origin, sandbox) = (other.origin.clone(), other.sandbox.clone());
        self.start_between(origin, sandbox, other.sandbox_url.clone())
    }

    fn start_between(self, origin: Origin, sandbox: Sandbox, sandbox_url: String) -> Wall {
        let dir = tempfile::tempdir().unwrap();
        let address = match self.on_own_address {
            true => free_own_address(),
            false => free_address(),
        };
        let config = dir.path().join("farewall.toml");
        std::fs::write(&config, self.toml(address, origin.address, &sandbox_url)).unwrap();
        let mut child = spawn(&config, &dir, self.own_log_filter, self.kill_at.as_deref());
        wait_for(address, &mut child, &dir);
        Wall {
            address,
            origin,
            sandbox,
            config,
            sandbox_url,
            ledger: self
                .ledger_place
                .unwrap_or_else(|| dir.path().join("ledger.db").to_str().unwrap().to_owned()),
            dir,
            child,
            own_log_filter: self.own_log_filter,
        }
    }

    fn toml(&self, address: SocketAddr, origin: SocketAddr, sandbox: &str) -> String {
        let mut text = String::new();
        let (mut second, mut names) = (String::new(), "\"sandbox\"");
        if let Some(url) = &self.second_facilitator_url {
            second = format!("[facilitator.second]\nurl = \"{url}\"\nsandbox = true");
            names = "\"sandbox\", \"second\"";
        }
        let facilitator = self.facilitator_url.as_deref().unwrap_or(sandbox);
        let origin = format!("http://{origin}");
        let origin = self.upstream_url.as_deref().unwrap_or(&origin);
        let admin = self.admin.map(|address| address.to_string());
        let admin = admin.or_else(|| self.admin_text.clone());
        let admin = admin.as_deref().unwrap_or("off");
        write!(
            text,
            r#"{top}
[server]
public_origin = "https://api.example.com"
admin = "{admin}"
worker_threads = 2
{server}
[[listen]]
address = "{address}"
{listen}
[limits]
{limits}
{ledger}
[facilitator.sandbox]
url = "{facilitator}"
sandbox = true
{settings}
{second}
[accept.base-sepolia-usdc]
network = "base-sepolia"
asset = "USDC"
pay_to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
facilitators = [{names}]
[upstream.api]
url = "{origin}"
{upstream}
{rules}
"#,
            top = self.top,
            server = self.server,
            listen = self.listen,
            limits = self.limits,
            ledger = if self.top.contains("ledger = ") {
                String::new()
            } else {
                let ledger = self.ledger.as_deref().unwrap_or("path = \"ledger.db\"");
                format!("[ledger]\n{ledger}")
            },
            settings = self.facilitator,
            upstream = self.upstream,
            rules = self.rules.as_deref().unwrap_or(RULES),
        )
        .unwrap();
        text
    }
}

impl Cluster {
    /// A wall on this database; `more` stands in `[ledger]` too.
    pub fn setup(&self, database: &str, more: &str) -> Setup {
        let url = self.url(database);
        Setup {
            ledger: Some(format!("url = \"{url}\"\n{more}")),
            ledger_place: Some(url),
            ..Setup::default()
        }
    }
}

/// Runs a command of the binary to its end.
pub fn farewall(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).output().unwrap()
}

/// An address that nobody listens on, below the ports that outgoing connections are given: none of
/// the thousands that other tests open can take it before the wall does.
pub fn free_address() -> SocketAddr {
    loop {
        let port = rand::random_range(12_000..32_000);
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().unwrap();
        }
    }
}

/// The same on a loopback address of its own, where there are many: where many walls start at once,
/// a port that is free now may be somebody's before the wall has it.
fn free_own_address() -> SocketAddr {
    static NTH: AtomicU8 = AtomicU8::new(0);
    let nth = NTH.fetch_add(1, Ordering::Relaxed);
    let [.., high, low] = std::process::id().to_be_bytes();
    let own = if cfg!(target_os = "linux") {
        Ipv4Addr::new(127, 1 + high % 200, low, 1 + nth % 250)
    } else {
        Ipv4Addr::LOCALHOST
    };
    TcpListener::bind((own, 0)).unwrap().local_addr().unwrap()
}

fn spawn(
    config: &std::path::Path,
    dir: &TempDir,
    own_log_filter: bool,
    kill_at: Option<&str>,
) -> Child {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.path().join("log"))
        .unwrap();
    let mut command = Command::new(BINARY);
    if own_log_filter {
        command.env_remove("RUST_LOG");
    } else {
        let much = "farewall=debug,pingora_core=warn,pingora_proxy=warn";
        command.env("RUST_LOG", much);
    }
    command
        .args(["run", "--config", config.to_str().unwrap()])
        .envs(kill_at.map(|step| ("FAREWALL_KILL_AT", step)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn wait_for(address: SocketAddr, child: &mut Child, dir: &TempDir) {
    let end = Instant::now() + Duration::from_secs(30);
    while std::net::TcpStream::connect(address).is_err() {
        let log = || std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        if let Some(status) = child.try_wait().unwrap() {
            panic!("the wall ended at its start: {status}\n{}", log());
        }
        assert!(Instant::now() < end, "the wall does not listen\n{}", log());
        std::thread::sleep(Duration::from_millis(10));
    }
}
