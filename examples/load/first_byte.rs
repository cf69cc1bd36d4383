//! How long the first byte of a body takes, one request after the other on one connection.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use farewall::x402::header;
use serde_json::json;

use crate::{Failure, http, run};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The server
    #[arg(long)]
    connect: SocketAddr,
    /// What is asked for; with --settle where payments are posted to
    #[arg(long)]
    path: String,
    /// How often, without proofs
    #[arg(long, default_value_t = 200)]
    count: usize,
    /// Proofs, of which each pays for one request
    #[arg(long)]
    proofs: Option<PathBuf>,
    /// Post the proofs to a facilitator instead of buying with them
    #[arg(long, requires = "proofs")]
    settle: bool,
}

pub(crate) fn first_byte(args: &Args) -> Result<(), Failure> {
    let requests = match &args.proofs {
        Some(file) => paid(args, file)?,
        None => vec![http::get(&args.path, None); args.count],
    };
    let mut stream = http::connect(args.connect)?;
    let mut took = Vec::with_capacity(requests.len());
    for request in &requests {
        let since = Instant::now();
        let mut at = since;
        let (status, _) = http::exchange(&mut stream, request, || at = Instant::now())?;
        if status != 200 {
            return Err(format!("status {status}").into());
        }
        took.push(at.duration_since(since));
    }
    println!("{}", run::percentiles(&mut took));
    Ok(())
}

fn paid(args: &Args, file: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let proofs = BufReader::new(std::fs::File::open(file)?).lines();
    proofs
        .map(|proof| {
            let proof = proof?;
            if !args.settle {
                return Ok(http::get(&args.path, Some(&proof)));
            }
            let payment = header::decode(proof.as_bytes(), usize::MAX)?;
            let body = json!({
                "x402Version": 2,
                "paymentPayload": payment,
                "paymentRequirements": payment.get("accepted"),
            });
            Ok(http::post(&args.path, &body.to_string()))
        })
        .collect()
}
