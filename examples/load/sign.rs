//! Payments in advance: one request for the challenge, then signatures on all cores.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;

use alloy_primitives::{B256, keccak256};
use farewall::buyer::Buyer;
use farewall::buyer::choice::{Challenge, Choice, SpendLimit};
use farewall::clock::{Clock, SystemClock};
use farewall::money::{AtomicAmount, PriceText};
use secp256k1::SecretKey;

use crate::{Failure, http};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The server whose challenge is paid
    #[arg(long)]
    from: SocketAddr,
    /// What is bought
    #[arg(long)]
    path: String,
    /// How many payments
    #[arg(long)]
    count: usize,
    /// How many accounts pay, in turn
    #[arg(long, default_value_t = 64)]
    payers: u64,
    /// Distinguishes the nonces of several calls
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Sign one unit more than is asked: refused after everything else about it was found good
    #[arg(long)]
    overpay: bool,
    /// Where they go, one a line
    #[arg(long)]
    out: PathBuf,
}

pub(crate) fn sign(args: &Args) -> Result<(), Failure> {
    let request = http::get(&args.path, None);
    let (status, answer) = http::exchange(&mut http::connect(args.from)?, &request, || {})?;
    let header = answer
        .header("payment-required")
        .ok_or_else(|| format!("{status} without a challenge"))?;
    let challenge = Challenge::from_header(header.as_bytes())?;
    let mut choice = challenge.choose(&SpendLimit {
        max_price: PriceText::parse("$1").map_err(|error| error.to_string())?,
        network: None,
    })?;
    if args.overpay {
        choice.amount = AtomicAmount::new(choice.amount.units() + 1);
    }
    let cores = thread::available_parallelism()?.get();
    let mut out = BufWriter::new(File::create(&args.out)?);
    let parts: Vec<Result<Vec<String>, String>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores)
            .map(|core| {
                let (challenge, choice) = (&challenge, &choice);
                scope.spawn(move || part(args, challenge, choice, core, cores))
            })
            .collect();
        let ended = threads.into_iter().map(thread::ScopedJoinHandle::join);
        ended
            .map(|part| part.unwrap_or_else(|_| Err("a thread panicked".to_owned())))
            .collect()
    });
    for part in parts {
        for proof in part? {
            writeln!(out, "{proof}")?;
        }
    }
    out.flush()?;
    Ok(())
}

/// Every `cores`-th payment.
fn part(
    args: &Args,
    challenge: &Challenge,
    choice: &Choice,
    core: usize,
    cores: usize,
) -> Result<Vec<String>, String> {
    let buyers = (0..args.payers)
        .map(|nth| {
            let secret = keccak256(nth.to_be_bytes());
            SecretKey::from_byte_array(secret.0)
                .map(Buyer::new)
                .map_err(|error| error.to_string())
        })
        .collect::<Result<Vec<_>, _>>()?;
    let now = SystemClock.now();
    let proofs = (core..args.count).step_by(cores).map(|nth| {
        let mut nonce = B256::ZERO;
        nonce[..8].copy_from_slice(&args.seed.to_be_bytes());
        nonce[8..16].copy_from_slice(&(nth as u64).to_be_bytes());
        nonce[16..24].copy_from_slice(&now.0.to_be_bytes());
        let buyer = &buyers[nth % buyers.len()];
        buyer.prove(challenge, choice, now, nonce).value
    });
    Ok(proofs.collect())
}
