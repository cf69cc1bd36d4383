//! `farewall upgrade`: a new process takes the place of a running wall, or the old one goes on.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::reload::{Asked, ask_wall};
use crate::reload::control::Request;

const AFTER_HELP: &str = "\
The wall starts the program that now stands where it was started from. The new process reads the
configuration, opens everything, and takes over the sockets; only then the old one stops accepting,
finishes what it has begun, and ends. No connection is refused. When the new process does not start,
nothing changes. SIGUSR2 does the same; its answer is in the log.

Exit codes:
  0  the new process serves
  1  not replaced: the reason is printed, and the wall goes on as before
  2  the command line was wrong
  4  no wall answers

Examples:
  farewall upgrade /etc/farewall/farewall.toml
  farewall upgrade --program /opt/farewall-next/farewall";

/// Arguments of `farewall upgrade`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Configuration file that the wall was started with
    #[arg(value_name = "CONFIG", default_value = "conf/farewall.toml")]
    config: PathBuf,
    /// The program to start; default: where the wall was started from
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Control socket of the wall; default: as the configuration says
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,
    /// Print JSON: {"ok":…,"text":…,"details":…}
    #[arg(long)]
    json: bool,
}

/// Runs the command.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    // The wall has another working directory.
    let program = args
        .program
        .map(|path| std::path::absolute(&path).unwrap_or(path));
    let asked = Asked {
        config: &args.config,
        control: args.control.as_deref(),
        signal: "SIGUSR2",
        json: args.json,
    };
    ask_wall(&asked, |config| Request::Upgrade { config, program })
}
