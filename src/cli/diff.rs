//! `farewall diff`: what a change of configuration means for those who pay and are paid.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config;
use crate::route::changes::changes;

const EXAMPLES: &str = "\
Examples:
  farewall diff /etc/farewall/farewall.toml new.toml
  git show HEAD:farewall.toml > old.toml; farewall diff old.toml farewall.toml --json

Rules are compared by name. What changes neither price, access nor destination is not shown.

Exit codes:
  0  no difference that matters
  1  differences
  3  one of the configurations was wrong";

/// Arguments of `farewall diff`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The configuration before
    old: PathBuf,
    /// The configuration after
    new: PathBuf,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    let (old, new) = match (config::load(&args.old), config::load(&args.new)) {
        (Ok(old), Ok(new)) => (old.settings, new.settings),
        (old, new) => {
            for report in [old.err(), new.err()].into_iter().flatten() {
                eprintln!("{report}");
            }
            return ExitCode::from(super::EXIT_CONFIG);
        }
    };
    let changes = changes(&old, &new);
    if args.json {
        println!("{:#}", serde_json::json!({ "changes": changes }));
    } else {
        changes.iter().for_each(|change| println!("{change}"));
    }
    ExitCode::from(if changes.is_empty() {
        0
    } else {
        super::EXIT_NO
    })
}
