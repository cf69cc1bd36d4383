//! `farewall pay`.

use std::process::ExitCode;

/// Arguments of `farewall pay`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
#[must_use]
pub fn run(_args: Args) -> ExitCode {
    ExitCode::from(super::EXIT_NO)
}
