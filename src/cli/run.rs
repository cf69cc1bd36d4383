//! `farewall run`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::app::{App, Inherited, Reporter, StartError};
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
settlements under way are recorded before it ends; one more signal ends it at once. SIGUSR2 has a new
process take its place, as `farewall upgrade` does.
The log goes to standard error: for people on a terminal, one JSON object a line otherwise.")]
pub struct Args {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = "conf/farewall.toml")]
    config: PathBuf,
    /// Take the place of the wall that started this process, and that speaks on the standard input
    #[arg(long, hide = true)]
    take_over: bool,
}

/// Runs the command.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    let inherited = match args.take_over {
        true => Inherited::from_predecessor(),
        false => Inherited::from_environment().map(|given| (given, Reporter::default())),
    };
    let (inherited, reporter) = match inherited {
        Ok(inherited) => inherited,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(EXIT_OUTSIDE);
        }
    };
    match serve(args.config, inherited) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed { why, code }) => {
            eprintln!("{why}");
            reporter.failed(&why);
            ExitCode::from(code)
        }
    }
}

/// Why it does not serve.
struct Failed {
    why: String,
    code: u8,
}

fn serve(config: PathBuf, inherited: Inherited) -> Result<(), Failed> {
    let wrong = |why| Failed {
        why,
        code: EXIT_CONFIG,
    };
    let loaded = config::load(&config).map_err(|report| wrong(report.to_string()))?;
    let (complaints, routes) = judged(&loaded);
    if complaints.iter().any(Diagnostic::is_error) {
        let all: Vec<_> = complaints.iter().map(|one| format!("{one}\n")).collect();
        return Err(wrong(all.join("\n")));
    }
    for complaint in &complaints {
        eprintln!("{complaint}\n");
    }
    log::start(&loaded.settings.log);
    let started = App::start(loaded.settings, routes, Some(config), inherited);
    let app = started.map_err(|error| match matches!(error, StartError::Routes(_)) {
        true => wrong(error.to_string()),
        false => Failed {
            why: format!("error: {error}"),
            code: EXIT_OUTSIDE,
        },
    })?;
    app.run();
    Ok(())
}
