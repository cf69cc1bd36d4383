//! The command line: one module a command. Each has its `Args` and a `run` that returns an exit code.

pub mod check;
pub mod completions;
pub mod diff;
pub mod explain;
pub mod init;
pub mod ledger;
pub mod man;
pub mod pay;
pub mod reload;
mod watch;
pub mod report;
pub mod top;
pub mod upgrade;
pub mod run;
pub mod sandbox;
pub mod demo;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// A payment wall in front of the API you already have.
#[derive(Debug, Parser)]
#[command(name = "farewall", version, propagate_version = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes:
  0  it went well
  1  it ran and the answer is no (check found errors, the demo failed, the payment was not made)
  2  the command line was wrong
  3  the configuration was wrong
  4  something outside failed (a file, the network, the ledger)

Start with:
  farewall demo          see it work, nothing else needed
  farewall init          write a configuration for your own API
  farewall check         what is wrong with it, all at once
  farewall run           run it";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the wall
    Run(run::Args),
    /// Show the whole thing on loopback: upstream, facilitator, wall and a buyer
    Demo(demo::Args),
    /// Check a configuration: all errors and warnings at once
    Check(check::Args),
    /// Say which rule governs a request, why, and what it costs
    Explain(explain::Args),
    /// Say what a change of configuration means for prices
    Diff(diff::Args),
    /// Let a running wall take over its changed configuration
    Reload(reload::Args),
    /// Have a new process take the place of a running wall, without refusing a connection
    Upgrade(upgrade::Args),
    /// Buy: request a URL and pay what it asks, up to a limit
    Pay(pay::Args),
    /// Run the sandbox facilitator alone: test networks, play money
    Sandbox(sandbox::Args),
    /// Look into the ledger
    Ledger(ledger::Args),
    /// Say what was sold, by day, rule or payer, with a chart
    Report(report::Args),
    /// Watch a running wall, live
    Top(top::Args),
    /// Write a commented starter configuration
    Init(init::Args),
    /// Write what a shell needs to complete command lines
    Completions(completions::Args),
    /// Write the manual pages
    Man(man::Args),
}

/// It ran, and the answer is no.
pub const EXIT_NO: u8 = 1;
/// The configuration was wrong.
pub const EXIT_CONFIG: u8 = 3;
/// Something outside failed.
pub const EXIT_OUTSIDE: u8 = 4;

/// Parses the arguments and runs the command.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Check(args) => check::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Reload(args) => reload::run(args),
        Command::Upgrade(args) => upgrade::run(args),
        Command::Pay(args) => pay::run(args),
        Command::Sandbox(args) => sandbox::run(args),
        Command::Ledger(args) => ledger::run(args),
        Command::Report(args) => report::run(args),
        Command::Top(args) => top::run(args),
        Command::Init(args) => init::run(args),
        Command::Completions(args) => completions::run(args, Cli::command()),
        Command::Man(args) => man::run(&args, Cli::command()),
    }
}
