//! The wall as a process, and the place where it lives.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use farewall::sandbox::{Sandbox, SandboxOptions};
use rand::rngs::StdRng;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::moment;
use crate::plan::Plan;
use crate::support::Origin;
use crate::support::wall::{BINARY, free_address};

/// How long a step is waited for before the wall is killed without it.
const STEP_WAIT: Duration = Duration::from_millis(2500);

const RULES: &str = r#"
[[rule]]
name = "after"
path = "/v1/{name}"
price = "$0.002"

[[rule]]
name = "before"
path = "/before/{name}"
price = "$0.003"
settle = "before"
"#;

/// What outlives a wall: its directory and address, the origin, the facilitator.
pub struct Site {
    pub address: SocketAddr,
    pub origin: Origin,
    pub sandbox: Sandbox,
    dir: TempDir,
}

impl Site {
    pub async fn open() -> Self {
        Self::open_with(SandboxOptions::default()).await
    }

    pub async fn open_with(sandbox: SandboxOptions) -> Self {
        let origin = Origin::start().await;
        let sandbox = Sandbox::new(sandbox);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let facilitator = listener.local_addr().unwrap();
        let serving = sandbox.clone();
        tokio::spawn(async move { serving.serve(listener).await });
        let site = Self {
            address: free_address(),
            origin,
            sandbox,
            dir: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(site.dir.path().join("state")).unwrap();
        std::fs::write(site.config(), site.toml(facilitator)).unwrap();
        site
    }

    fn toml(&self, facilitator: SocketAddr) -> String {
        let (address, origin) = (self.address, self.origin.address);
        format!(
            r#"
[server]
public_origin = "https://api.example.com"
admin = "off"
worker_threads = 2
[[listen]]
address = "{address}"
[limits]
[ledger]
path = "state/ledger.db"
[facilitator.sandbox]
url = "http://{facilitator}"
sandbox = true
[accept.base-sepolia-usdc]
network = "base-sepolia"
asset = "USDC"
pay_to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
facilitators = ["sandbox"]
[upstream.api]
url = "http://{origin}"
{RULES}"#
        )
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("farewall.toml")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn ledger(&self) -> PathBuf {
        self.state().join("ledger.db")
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().rev().take(40).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// The command that runs the wall, its log in the site's.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .args(["run", "--config"])
            .arg(self.config())
            .env("RUST_LOG", "farewall=warn,pingora_core=warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        command
    }
}

/// A wall that runs, or died at its start.
pub struct Wall {
    child: Child,
    up: bool,
}

impl Wall {
    /// Starts a wall and waits until it serves, or until it is dead.
    pub async fn start(site: &Site, kill_at: Option<&str>) -> Self {
        let mut command = site.command(BINARY, &[]);
        if let Some(order) = kill_at {
            command.env("FAREWALL_KILL_AT", order);
        }
        Self::spawn(site, command).await
    }

    /// The same, with a command of one's own.
    pub async fn spawn(site: &Site, mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        let up = loop {
            if tokio::net::TcpStream::connect(site.address).await.is_ok() {
                break true;
            }
            if child.try_wait().unwrap().is_some() {
                break false;
            }
            assert!(Instant::now() < end, "it does not listen\n{}", site.log());
            tokio::time::sleep(Duration::from_millis(3)).await;
        };
        Self { child, up }
    }

    pub const fn is_up(&self) -> bool {
        self.up
    }

    pub fn pid(&self) -> Pid {
        let pid = self.child.id().expect("it runs");
        Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
    }

    /// Ends it as planned; returns whether it died at the planned step.
    pub async fn end(mut self, plan: &Plan, random: &mut StdRng) -> bool {
        match plan {
            Plan::After(served) => tokio::time::sleep(*served).await,
            Plan::Ending { served, ending } => {
                tokio::time::sleep(*served).await;
                kill_process(self.pid(), Signal::TERM).unwrap();
                tokio::time::sleep(*ending).await;
            }
            Plan::At { .. } => {
                let died = tokio::time::timeout(STEP_WAIT, self.child.wait()).await;
                if let Ok(status) = died {
                    use std::os::unix::process::ExitStatusExt;
                    assert_eq!(status.unwrap().signal(), Some(9), "it ended otherwise");
                    return true;
                }
            }
        }
        tokio::time::sleep(moment(random, 0..2)).await;
        self.kill().await;
        false
    }

    /// SIGKILL.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for its end.
    pub async fn wait(mut self) -> std::process::ExitStatus {
        self.child.wait().await.unwrap()
    }
}
