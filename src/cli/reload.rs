//! `farewall reload`: a running wall takes over its changed configuration, or says why it does not.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use crate::config;
use crate::reload::control::{Reply, Request, ask};

const AFTER_HELP: &str = "\
The wall reads the file again, checks it whole, and takes it over whole or not at all. Requests that
have begun are finished under the old one. SIGHUP does the same; its answer is in the log.

Exit codes:
  0  reloaded; the price changes are printed
  1  not reloaded: the errors are printed, and the old configuration stays
  2  the command line was wrong
  4  no wall answers

Examples:
  farewall reload /etc/farewall/farewall.toml
  farewall reload --json | jq -r '.details.changes[].subject'";

/// Where the packaged service has its socket: its environment is not ours.
const SERVICE_SOCKET: &str = "/run/farewall/control";

/// Arguments of `farewall reload`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Configuration file that the wall was started with
    #[arg(value_name = "CONFIG", default_value = "conf/farewall.toml")]
    config: PathBuf,
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
    match answer(&args) {
        Ok(reply) => {
            if args.json {
                println!("{}", json!(reply));
            } else if reply.ok {
                println!("{}", reply.text);
            } else {
                eprintln!("{}", reply.text);
            }
            ExitCode::from(if reply.ok { 0 } else { super::EXIT_NO })
        }
        Err(why) => {
            // Perhaps it does not even say where its wall listens.
            if let Err(report) = config::load(&args.config) {
                eprintln!("{report}");
            }
            eprintln!("error: {why}");
            ExitCode::from(super::EXIT_OUTSIDE)
        }
    }
}

fn answer(args: &Args) -> Result<Reply, String> {
    let config = std::fs::canonicalize(&args.config)
        .map_err(|error| format!("{}: {error}", args.config.display()))?;
    let request = Request::Reload { config };
    let mut failures = Vec::new();
    for path in sockets(args) {
        match ask(&path, &request) {
            Ok(reply) => return Ok(reply),
            Err(error) => failures.push(format!("{}: {error}", path.display())),
        }
    }
    Err(match failures.as_slice() {
        [] => "this configuration has no control socket; send the process SIGHUP".to_owned(),
        some => format!("no wall answers ({})", some.join("; ")),
    })
}

/// Where the wall may listen, the likeliest first.
fn sockets(args: &Args) -> Vec<PathBuf> {
    if let Some(named) = &args.control {
        return vec![named.clone()];
    }
    // A configuration with mistakes in it still says where the wall listens.
    let Some(control) = config::control_of(&args.config) else {
        return Vec::new();
    };
    let mut paths = vec![control.path];
    if !control.is_wanted && Path::new(SERVICE_SOCKET).exists() {
        paths.push(SERVICE_SOCKET.into());
    }
    paths
}
