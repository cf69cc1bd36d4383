//! `farewall init`.

use std::process::ExitCode;

/// Arguments of `farewall init`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
#[must_use]
pub fn run(_args: Args) -> ExitCode {
    ExitCode::from(super::EXIT_NO)
}
