//! `farewall run`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::app::{App, Inherited, StartError};
use crate::cli::{EXIT_CONFIG, EXIT_OUTSIDE};
use crate::config;
use crate::config::diagnostic::Diagnostic;
use crate::log;
use crate::route::complaints::judged;

/// Arguments of `farewall run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  farewall run
  farewall run --config /etc/farewall/farewall.toml
  RUST_LOG=farewall=debug farewall run

It runs in the foreground. SIGHUP reloads the configuration. SIGTERM lets what is under way finish,
within shutdown_grace_s; SIGINT (Ctrl-C), or a second SIGTERM, cuts requests off. Either way
settlements under way are recorded before it ends; one more signal ends it at once.
The log goes to standard error: for people on a terminal, one JSON object a line otherwise.")]
pub struct Args {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = "conf/farewall.toml")]
    config: PathBuf,
}

/// Runs the command.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    let loaded = match config::load(&args.config) {
        Ok(loaded) => loaded,
        Err(report) => {
            eprintln!("{report}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let (complaints, routes) = judged(&loaded);
    for complaint in &complaints {
        eprintln!("{complaint}\n");
    }
    if complaints.iter().any(Diagnostic::is_error) {
        return ExitCode::from(EXIT_CONFIG);
    }
    log::start(&loaded.settings.log);
    let started = Inherited::from_environment()
        .map_err(StartError::from)
        .and_then(|inherited| App::start(loaded.settings, routes, Some(args.config), inherited));
    match started {
        Ok(app) => {
            app.run();
            ExitCode::SUCCESS
        }
        Err(error @ StartError::Routes(_)) => {
            eprintln!("{error}");
            ExitCode::from(EXIT_CONFIG)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(EXIT_OUTSIDE)
        }
    }
}
