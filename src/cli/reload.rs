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
    let asked = Asked {
        config: &args.config,
        control: args.control.as_deref(),
        signal: "SIGHUP",
        json: args.json,
    };
    ask_wall(&asked, |config| Request::Reload { config })
}

/// Which wall is asked, and how its answer is printed.
pub(super) struct Asked<'a> {
    pub(super) config: &'a Path,
    pub(super) control: Option<&'a Path>,
    /// What does the same without a control socket.
    pub(super) signal: &'static str,
    pub(super) json: bool,
}

/// Asks, and prints the answer.
pub(super) fn ask_wall(asked: &Asked<'_>, request: impl FnOnce(PathBuf) -> Request) -> ExitCode {
    match answer(asked, request) {
        Ok(reply) => {
            if asked.json {
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
            if let Err(report) = config::load(asked.config) {
                eprintln!("{report}");
            }
            eprintln!("error: {why}");
            ExitCode::from(super::EXIT_OUTSIDE)
        }
    }
}

fn answer(asked: &Asked<'_>, request: impl FnOnce(PathBuf) -> Request) -> Result<Reply, String> {
    let config = std::fs::canonicalize(asked.config)
        .map_err(|error| format!("{}: {error}", asked.config.display()))?;
    let request = request(config);
    let mut failures = Vec::new();
    for path in sockets(asked) {
        match ask(&path, &request) {
            Ok(reply) => return Ok(reply),
            Err(error) => failures.push(format!("{}: {error}", path.display())),
        }
    }
    Err(match failures.as_slice() {
        [] => format!(
            "this configuration has no control socket; send the process {}",
            asked.signal
        ),
        some => format!("no wall answers ({})", some.join("; ")),
    })
}

/// Where the wall may listen, the likeliest first.
fn sockets(asked: &Asked<'_>) -> Vec<PathBuf> {
    if let Some(named) = asked.control {
        return vec![named.to_owned()];
    }
    // A configuration with mistakes in it still says where the wall listens.
    let Some(control) = config::control_of(asked.config) else {
        return Vec::new();
    };
    let mut paths = vec![control.path];
    if !control.is_wanted && Path::new(SERVICE_SOCKET).exists() {
        paths.push(SERVICE_SOCKET.into());
    }
    paths
}
