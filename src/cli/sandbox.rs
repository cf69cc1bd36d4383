//! `farewall sandbox`.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::sandbox::{Sandbox, SandboxOptions};

/// Arguments of `farewall sandbox`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  farewall sandbox
  farewall sandbox --listen 127.0.0.1:9000 --balance 5
  curl -s http://127.0.0.1:8404/balances

Point a facilitator at it with  url = \"http://127.0.0.1:8404\"  and  sandbox = true.")]
pub struct Args {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8404")]
    listen: SocketAddr,
    /// Whole tokens that every account starts with
    #[arg(long, value_name = "TOKENS", default_value_t = 1000)]
    balance: u64,
    /// How long a settlement takes, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    settle_delay_ms: u64,
    /// Take orders at POST /sandbox/misbehave (for tests of whoever uses it)
    #[arg(long)]
    allow_misbehaviour: bool,
}

/// Runs the sandbox until it is interrupted.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("no threads: {error}")),
    };
    runtime.block_on(serve(args))
}

async fn serve(args: Args) -> ExitCode {
    let listener = match TcpListener::bind(args.listen).await {
        Ok(listener) => listener,
        Err(error) => return failed(&format!("cannot listen on {}: {error}", args.listen)),
    };
    let address = listener.local_addr().unwrap_or(args.listen);
    let sandbox = Sandbox::new(SandboxOptions {
        starting_balance: args.balance,
        settle_delay: Duration::from_millis(args.settle_delay_ms),
        allow_misbehaviour: args.allow_misbehaviour,
        ..SandboxOptions::default()
    });
    let mut out = std::io::stdout();
    let _ = writeln!(
        out,
        "sandbox facilitator on http://{address}: test networks, play money, {} tokens for everybody",
        args.balance
    );
    let _ = out.flush();
    tokio::select! {
        result = sandbox.serve(listener) => match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error.to_string()),
        },
        _ = tokio::signal::ctrl_c() => ExitCode::SUCCESS,
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("farewall sandbox: {why}");
    ExitCode::from(super::EXIT_OUTSIDE)
}
