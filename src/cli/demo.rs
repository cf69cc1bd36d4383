//! `farewall demo`: an origin, the sandbox facilitator, a wall and a buyer, all on loopback.

mod walk;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::app::{App, Inherited};
use crate::cli::{EXIT_NO, EXIT_OUTSIDE};
use crate::config;
use crate::config::settings::{LedgerSettings, LogSettings, Settings};
use crate::demo;
use crate::log;
use crate::sandbox::{Sandbox, SandboxOptions};

/// What the demo runs, as shipped in `conf/`.
const DEMO_TOML: &str = include_str!("../../conf/demo.toml");

/// Arguments of `farewall demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  farewall demo             walk through it, then stay up for you to try
  farewall demo --once      walk through it and exit: 0 only if each step went as it should

Nothing leaves this machine, and the money is play money of the sandbox facilitator.")]
pub struct Args {
    /// Exit after the walk
    #[arg(long)]
    once: bool,
    /// Port of the wall; the origin and the facilitator take the next two. Free ones when taken, or for 0
    #[arg(long, default_value_t = 8402)]
    port: u16,
}

/// Runs the command.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    let dir = std::env::temp_dir().join(format!("farewall-demo-{}", std::process::id()));
    let code = match Demo::start(args.port, &dir) {
        Ok(demo) => demo.show(args.once),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(EXIT_OUTSIDE)
        }
    };
    // The ledger of play money; nothing is lost when it cannot be removed.
    drop(std::fs::remove_dir_all(&dir));
    code
}

struct Demo {
    runtime: Runtime,
    sandbox: Sandbox,
    wall: SocketAddr,
    ledger: PathBuf,
    running: std::thread::JoinHandle<()>,
}

impl Demo {
    fn start(port: u16, dir: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        std::fs::create_dir_all(dir)?;
        log::start(&LogSettings {
            filter: "warn,farewall=error".to_owned(),
            ..LogSettings::default()
        });
        let runtime = Runtime::new()?;
        let wall = runtime.block_on(listen(port))?.local_addr()?;
        let beside = |offset| {
            if port == 0 {
                0
            } else {
                port.saturating_add(offset)
            }
        };
        let origin = runtime.block_on(listen(beside(1)))?;
        let facilitator = runtime.block_on(listen(beside(2)))?;
        let settings = settings(dir, wall, origin.local_addr()?, facilitator.local_addr()?)?;
        let ledger = dir.join("ledger.db");
        let sandbox = Sandbox::new(SandboxOptions::default());
        let serving = sandbox.clone();
        runtime.spawn(async move { serving.serve(facilitator).await });
        runtime.spawn(demo::serve(origin));
        let app = App::start(settings, None, None, Inherited::default())?;
        let running = std::thread::spawn(move || app.run());
        wait_for(wall)?;
        Ok(Self {
            runtime,
            sandbox,
            wall,
            ledger,
            running,
        })
    }

    fn show(self, once: bool) -> ExitCode {
        let walk = walk::Walk::new(self.wall, &self.sandbox);
        let went_well = self.runtime.block_on(walk.all());
        println!("\nThe ledger:\n");
        let listed = super::ledger::print_table(&self.ledger);
        if let Err(error) = &listed {
            eprintln!("error: {error}");
        }
        if !went_well || listed.is_err() {
            println!("\nNot every step went as it should.");
            return ExitCode::from(EXIT_NO);
        }
        println!("\nEvery step went as it should.");
        if once {
            return ExitCode::SUCCESS;
        }
        self.invite();
        drop(self.running.join());
        ExitCode::SUCCESS
    }

    fn invite(&self) {
        let (wall, ledger) = (self.wall, self.ledger.display());
        println!(
            "\nIt stays up until you press Ctrl-C. Try, in another terminal:\n
  curl -i http://{wall}/health              free
  curl -i http://{wall}/quote               402, with the challenge in PAYMENT-REQUIRED
  curl -si http://{wall}/quote | sed -n 's/^payment-required: //Ip' | tr -d '\\r' | base64 -d
  openssl rand -hex 32 > /tmp/buyer.key && chmod 600 /tmp/buyer.key
  farewall pay http://{wall}/quote --key-file /tmp/buyer.key --max-price '$0.01'
  farewall pay http://{wall}/events --key-file /tmp/buyer.key --max-price '$0.01'
  farewall ledger list --ledger {ledger}\n"
        );
    }
}

/// The wished port on loopback, or any free one.
async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await,
    }
}

/// `conf/demo.toml`, with the addresses of this run.
fn settings(
    dir: &Path,
    wall: SocketAddr,
    origin: SocketAddr,
    facilitator: SocketAddr,
) -> Result<Settings, Box<dyn std::error::Error>> {
    let mut settings = config::parse(DEMO_TOML, "conf/demo.toml", &|_| None)
        .map_err(|report| report.to_string())?
        .settings;
    settings.ledger = LedgerSettings::File(dir.join("ledger.db"));
    settings.server.public_origin = format!("http://{wall}").into();
    settings.server.admin = None;
    settings
        .listeners
        .iter_mut()
        .for_each(|listener| listener.address = wall);
    for server in settings
        .upstreams
        .values_mut()
        .flat_map(|upstream| &mut upstream.servers)
    {
        server.port = origin.port();
    }
    for sandbox in settings.facilitators.values_mut() {
        sandbox.url = format!("http://{facilitator}");
        sandbox.supported_cache = dir.join("supported.json");
    }
    Ok(settings)
}

fn wait_for(wall: SocketAddr) -> std::io::Result<()> {
    let second = Duration::from_secs(1);
    for _ in 0..200 {
        if std::net::TcpStream::connect_timeout(&wall, second).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    Err(std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        "the wall does not listen",
    ))
}
