//! The log: who hears what, in which form. The filter can be changed while the wall runs.
//!
//! It goes to standard error: for people on a terminal, one JSON object a line otherwise.

use std::io::IsTerminal;
use std::sync::OnceLock;

use thiserror::Error;
use tracing::Level;
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::settings::{LogFormat, LogSettings};

static FILTER: OnceLock<InPlace> = OnceLock::new();

/// The filter of this process.
struct InPlace {
    handle: reload::Handle<EnvFilter, Registry>,
    is_set_by_environment: bool,
}

/// Why a filter cannot be put in place.
#[derive(Debug, Error)]
pub enum FilterError {
    /// It is not a filter.
    #[error("not a log filter: {0}")]
    Syntax(#[from] tracing_subscriber::filter::ParseError),
    /// The log was not started, or has gone.
    #[error("there is no log whose filter could be changed")]
    NoLog,
}

/// Starts the log, once in a process. `RUST_LOG` goes before the filter of the settings.
///
/// Whatever the filter says, packages other than this one are not heard below `info`: at `debug` and
/// `trace` they print the headers of requests, which hold payments and the keys to facilitators.
pub fn start(settings: &LogSettings) {
    let filter = EnvFilter::try_from_default_env();
    let is_set_by_environment = filter.is_ok();
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(&settings.filter));
    let (filter, handle) = reload::Layer::new(filter);
    let heard = filter_fn(|event| may_be_heard(event.target(), *event.level()));
    // Without a hint from both, every line that any package writes is looked at here, however low.
    let filter = filter.and(heard.with_max_level_hint(LevelFilter::TRACE));
    // A log line that cannot be written (to a file on a full disk) is lost. Reporting that on the
    // same stream would panic, in the middle of a payment.
    let log = fmt::layer()
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let for_people = match settings.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let log = if for_people {
        log.boxed()
    } else {
        log.json().flatten_event(true).boxed()
    };
    let started = tracing_subscriber::registry()
        .with(log.with_filter(filter))
        .try_init();
    if started.is_ok() {
        drop(FILTER.set(InPlace {
            handle,
            is_set_by_environment,
        }));
    }
}

/// Whether the filter is that of `RUST_LOG`, which a reload leaves alone.
#[must_use]
pub fn is_set_by_environment() -> bool {
    FILTER.get().is_some_and(|own| own.is_set_by_environment)
}

/// Puts another filter in place, for a reload. What is under way is heard under the new one.
///
/// # Errors
///
/// [`FilterError`]; then the old one stays.
pub fn set_filter(text: &str) -> Result<(), FilterError> {
    let filter = EnvFilter::try_new(text)?;
    let own = FILTER.get().ok_or(FilterError::NoLog)?;
    own.handle.reload(filter).map_err(|_| FilterError::NoLog)
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

    #[test]
    fn the_filter_is_changed_while_the_log_runs() {
        let settings = LogSettings {
            filter: "error".to_owned(),
            format: LogFormat::Json,
            ..LogSettings::default()
        };
        start(&settings);
        assert!(!tracing::enabled!(target: "farewall::access", Level::INFO));
        set_filter("warn,farewall::access=info").unwrap();
        assert!(tracing::enabled!(target: "farewall::access", Level::INFO));
        assert!(!tracing::enabled!(target: "farewall::gate", Level::INFO));
        set_filter("debug").unwrap();
        assert!(tracing::enabled!(target: "farewall::gate", Level::DEBUG));
        assert!(
            !tracing::enabled!(target: "h2", Level::DEBUG),
            "holds secrets"
        );
        assert!(matches!(
            set_filter("a=nonsense"),
            Err(FilterError::Syntax(_))
        ));
        assert!(tracing::enabled!(target: "farewall::gate", Level::DEBUG));
        set_filter("off").unwrap();
        assert!(!tracing::enabled!(target: "farewall::gate", Level::ERROR));
    }
}
