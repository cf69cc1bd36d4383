//! `farewall run`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use tracing::Level;
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::app::{App, Inherited, StartError};
use crate::cli::{EXIT_CONFIG, EXIT_OUTSIDE};
use crate::config;
use crate::config::diagnostic::Diagnostic;
use crate::route::complaints::complaints;

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
    start_log("info,pingora_core=warn,pingora_proxy=warn");
    let loaded = match config::load(&args.config) {
        Ok(loaded) => loaded,
        Err(report) => {
            eprintln!("{report}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let complaints = complaints(&loaded);
    for complaint in &complaints {
        eprintln!("{complaint}\n");
    }
    if complaints.iter().any(Diagnostic::is_error) {
        return ExitCode::from(EXIT_CONFIG);
    }
    let started = Inherited::from_environment()
        .map_err(StartError::from)
        .and_then(|inherited| App::start(loaded.settings, Some(args.config), inherited));
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

/// Human on a terminal, JSON otherwise; `RUST_LOG` filters in place of `default`.
///
/// Whatever `RUST_LOG` says, packages other than this one are not heard below `info`: at `debug` and
/// `trace` they print the headers of requests, which hold payments and the keys to facilitators.
pub(super) fn start_log(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let heard = filter_fn(|event| may_be_heard(event.target(), *event.level()));
    // Without a hint from both, every line that any package writes is looked at here, however low.
    let filter = filter.and(heard.with_max_level_hint(LevelFilter::TRACE));
    // A log line that cannot be written (to a file on a full disk) is lost. Reporting that on the
    // same stream would panic, in the middle of a payment.
    let log = fmt::layer()
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let log = if std::io::stderr().is_terminal() {
        log.boxed()
    } else {
        log.json().flatten_event(true).boxed()
    };
    let started = tracing_subscriber::registry()
        .with(log.with_filter(filter))
        .try_init();
    drop(started);
}

fn may_be_heard(target: &str, level: Level) -> bool {
    let is_ours = target == "farewall" || target.starts_with("farewall::");
    is_ours || level <= Level::INFO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_packages_are_not_heard_below_info() {
        assert!(may_be_heard("farewall", Level::TRACE));
        assert!(may_be_heard("farewall::gate", Level::TRACE));
        assert!(may_be_heard("pingora_core", Level::INFO));
        for target in ["pingora_core::protocols", "h2::codec", "farewall_like", ""] {
            assert!(!may_be_heard(target, Level::DEBUG), "{target}");
            assert!(!may_be_heard(target, Level::TRACE), "{target}");
        }
    }
}
