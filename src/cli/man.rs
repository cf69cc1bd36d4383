//! `farewall man`: the manual, one page a command.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Command;

use crate::cli::EXIT_OUTSIDE;

/// Arguments of `farewall man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  farewall man .
  man -l farewall.1")]
pub struct Args {
    /// Where to write the pages; made when it is not there
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Writes the pages of `command` and its subcommands.
#[must_use]
pub fn run(args: &Args, command: Command) -> ExitCode {
    match write(&args.folder, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}: {error}", args.folder.display());
            ExitCode::from(EXIT_OUTSIDE)
        }
    }
}

fn write(folder: &Path, command: Command) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command, folder)
}
