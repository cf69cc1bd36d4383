//! `farewall check`: everything that is wrong with a configuration, at once.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use crate::config::diagnostic::{Diagnostic, summary};
use crate::config::settings::Settings;
use crate::config::{self, Loaded};
use crate::facilitator::supported::SupportedBook;
use crate::route::{RouteTable, lint};

const AFTER_HELP: &str = "\
Exit codes:
  0  no errors (there may be warnings)
  3  errors: the wall would not start

Examples:
  farewall check
  farewall check --config /etc/farewall/farewall.toml
  farewall check --json | jq -r '.diagnostics[].message'";

/// Arguments of `farewall check`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The configuration
    #[arg(long, short, value_name = "FILE", default_value = "conf/farewall.toml")]
    config: PathBuf,
    /// Print JSON: {"ok":…,"errors":…,"warnings":…,"diagnostics":[…]}
    #[arg(long)]
    json: bool,
}

/// Runs the command.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    let diagnostics = check(&args);
    let is_ok = !diagnostics.iter().any(Diagnostic::is_error);
    if args.json {
        println!("{}", as_json(&diagnostics));
    } else {
        for diagnostic in &diagnostics {
            println!("{diagnostic}\n");
        }
        println!("{}: {}", args.config.display(), summary(&diagnostics));
    }
    if is_ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(super::EXIT_CONFIG)
    }
}

fn check(args: &Args) -> Vec<Diagnostic> {
    match config::load(&args.config) {
        Ok(loaded) => lints(&loaded),
        Err(report) => report.diagnostics,
    }
}

/// Everything that is known about a configuration that could be read.
pub(super) fn lints(loaded: &Loaded) -> Vec<Diagnostic> {
    // EVERY SOURCE OF COMPLAINTS IS NAMED HERE, and nowhere else.
    let settings = &loaded.settings;
    let found = [
        loaded.warnings.clone(),
        config::lint(settings),
        routes(settings),
    ];
    let mut found: Vec<_> = found
        .into_iter()
        .flatten()
        .map(|d| loaded.locate(d))
        .collect();
    found.sort_by_key(|diagnostic| diagnostic.severity);
    found
}

/// What the route table says: contradictions are errors, oddities are warnings.
fn routes(settings: &Settings) -> Vec<Diagnostic> {
    // What facilitators handle is checked when the wall starts: this command asks nobody.
    match RouteTable::build(settings, &SupportedBook::new()) {
        Err(errors) => errors
            .iter()
            .map(|error| {
                let complaint = Diagnostic::error(error.fault.code(), error.to_string());
                complaint.at(&error.at).help(error.fault.help())
            })
            .collect(),
        Ok(table) => lint::lint(settings, &table)
            .into_iter()
            .map(|note| {
                Diagnostic::warning(note.kind.code(), note.message)
                    .at(&note.at)
                    .help(note.help)
            })
            .collect(),
    }
}

fn as_json(diagnostics: &[Diagnostic]) -> serde_json::Value {
    let errors = diagnostics.iter().filter(|d| d.is_error()).count();
    json!({
        "ok": errors == 0,
        "errors": errors,
        "warnings": diagnostics.len().saturating_sub(errors),
        "diagnostics": diagnostics,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lints_of(text: &str) -> Vec<Diagnostic> {
        lints(&config::parse(text, "site.toml", &|_| None).unwrap())
    }

    #[test]
    fn a_lint_that_knows_only_its_key_is_shown_at_its_line() {
        let text = include_str!("../../conf/farewall.toml").replace("$0.001", "$1.000001");
        let found = lints_of(&text);
        let [only] = found.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!(only.code, "price-above-cap");
        assert!(
            only.to_string().contains(" | price = \"$1.000001\"\n"),
            "{only}"
        );
    }

    #[test]
    fn json_counts_and_lists() {
        let json = as_json(&[Diagnostic::error("a", "b"), Diagnostic::warning("c", "d")]);
        assert_eq!(json["ok"], false);
        assert_eq!((&json["errors"], &json["warnings"]), (&json!(1), &json!(1)));
        assert_eq!(json["diagnostics"][1]["code"], "c");
    }

    #[test]
    fn the_starting_point_has_nothing_to_complain_about() {
        assert_eq!(lints_of(include_str!("../../conf/farewall.toml")), []);
    }
}
