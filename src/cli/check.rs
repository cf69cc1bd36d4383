//! `farewall check`: everything that is wrong with a configuration, at once.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use crate::config;
use crate::config::diagnostic::{Diagnostic, summary};
use crate::route::complaints::complaints;

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
        Ok(loaded) => complaints(&loaded),
        Err(report) => report.diagnostics,
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
        complaints(&config::parse(text, "site.toml", &|_| None).unwrap())
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
        let json = as_json(&[
            Diagnostic::error("syntax", "b"),
            Diagnostic::warning("unused", "d"),
        ]);
        assert_eq!(json["ok"], false);
        assert_eq!((&json["errors"], &json["warnings"]), (&json!(1), &json!(1)));
        assert_eq!(json["diagnostics"][1]["code"], "unused");
    }

    #[test]
    fn the_starting_point_has_nothing_to_complain_about() {
        assert_eq!(lints_of(include_str!("../../conf/farewall.toml")), []);
    }
}
