//! The load driver of `benches/http`: signs payments in advance, keeps connections busy or sends at a
//! constant rate, holds idle connections, and times first bytes. One thread, one epoll; prints JSON.
//!
//! `load sign` writes proofs, one header value a line, each good for one payment. `load run` sends
//! requests: as fast as the answers come, or with `--rate` at fixed moments. At a rate, latency counts
//! from the moment at which a request was due, not from when a connection was free to send it, so a
//! server that stalls is charged for every request that it kept waiting.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    reason = "a measuring program counts small numbers and may stop at anything odd"
)]

mod classes;
mod first_byte;
mod http;
mod idle;
mod run;
mod sign;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "The load driver of benches/http")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sign payments for what a server asks, into a file
    Sign(sign::Args),
    /// Send requests and time the answers
    Run(run::Args),
    /// Hold connections open until standard input ends
    Idle(idle::Args),
    /// Time the first byte of a body, one request after the other
    FirstByte(first_byte::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Sign(args) => sign::sign(&args),
        Command::Run(args) => run::run(&args),
        Command::Idle(args) => idle::idle(&args),
        Command::FirstByte(args) => first_byte::first_byte(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}
