//! `farewall completions`: what a shell needs to complete our command lines.

use std::io::Write;
use std::process::ExitCode;

use clap::Command;
use clap_complete::{Generator, Shell};

use crate::cli::EXIT_OUTSIDE;

/// Arguments of `farewall completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  farewall completions bash > ~/.local/share/bash-completion/completions/farewall
  farewall completions zsh > /usr/local/share/zsh/site-functions/_farewall
  farewall completions fish > ~/.config/fish/completions/farewall.fish")]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Writes the completions of `command` to standard output.
#[must_use]
pub fn run(args: Args, mut command: Command) -> ExitCode {
    let name = command.get_name().to_owned();
    command.set_bin_name(name);
    command.build();
    let mut text = Vec::new();
    let written = args
        .shell
        .try_generate(&command, &mut text)
        .and_then(|()| std::io::stdout().write_all(&text));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(EXIT_OUTSIDE)
        }
    }
}
