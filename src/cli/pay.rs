//! `farewall pay`: a buyer for operators and scripts.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use alloy_primitives::hex;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Response, Url};
use secp256k1::SecretKey;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::buyer::choice::SpendLimit;
use crate::buyer::{self, Asked, BuyError, Buyer, Order, Outcome};
use crate::chain::{Network, assets};
use crate::clock::SystemClock;
use crate::money::PriceText;

/// Nothing longer is a key file.
const KEY_FILE_BYTES_MAX: u64 = 1024;

/// Arguments of `farewall pay`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  farewall pay https://api.example.com/v1/quote --key-file key.hex --max-price '$0.10'
  farewall pay https://api.example.com/v1/quote --max-price '$0.10' --dry-run
  farewall pay https://api.example.com/v1/jobs -d '{\"n\":1}' -H 'Content-Type: application/json' \\
      --key-file key.hex --max-price '0.5 USDC' --network base-sepolia

The body goes to standard output; what was paid and the receipt go to standard error.
Exit codes: 0 served; 1 not paid (above the limit, no offer fits) or answered with an error status;
2 wrong command line; 4 a file or the network failed (after \"the money may have moved\", it may have).")]
pub struct Args {
    /// What to request
    url: Url,
    /// Method; default GET, or POST with -d
    #[arg(short = 'X', long, value_name = "METHOD")]
    request: Option<Method>,
    /// Body of the request; @FILE reads it from a file
    #[arg(short, long, value_name = "DATA")]
    data: Option<String>,
    /// Header of the request, as 'Name: value'; may be given more than once
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = parse_header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// File with the private key: 64 hexadecimal digits
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    key_file: Option<PathBuf>,
    /// Pay at most this: '$0.10', '0.10 USDC' or '100000 atomic'
    #[arg(long, value_name = "PRICE", value_parser = PriceText::parse)]
    max_price: PriceText,
    /// Pay on this network only: a name such as base-sepolia, or CAIP-2
    #[arg(long, value_name = "NETWORK", value_parser = parse_network)]
    network: Option<Network>,
    /// Show the decoded challenge; sign and pay nothing
    #[arg(long)]
    dry_run: bool,
}

/// Why no key could be read. Never shows what is in the file.
#[derive(Debug, Error)]
enum KeyError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("a key file holds 64 hexadecimal digits (and 0x, if you like), nothing else")]
    Digits,
    #[error("these digits are not a valid secp256k1 key")]
    Key,
}

/// Runs the command.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| fail(super::EXIT_OUTSIDE, &error.to_string()))
        .and_then(|runtime| runtime.block_on(buy(args)));
    outcome.unwrap_or_else(|code| code)
}

async fn buy(args: Args) -> Result<ExitCode, ExitCode> {
    let outside = |what: String| fail(super::EXIT_OUTSIDE, &what);
    let order = order(&args).map_err(|error| outside(format!("-d: {error}")))?;
    let client = buyer::client().map_err(|error| outside(error.to_string()))?;
    let limit = SpendLimit {
        max_price: args.max_price,
        network: args.network,
    };
    let Some(path) = args.key_file.filter(|_| !args.dry_run) else {
        return dry_run(&client, &order, &limit).await;
    };
    let buyer = read_buyer(&path).map_err(|e| outside(format!("{}: {e}", path.display())))?;
    let outcome = buyer
        .pay(&client, &order, &limit, &SystemClock)
        .await
        .map_err(|error| fail_to_buy(&error))?;
    report(&outcome);
    print_body(outcome.response).await
}

/// Shows the challenge, and which offer would be taken.
async fn dry_run(client: &Client, order: &Order, limit: &SpendLimit) -> Result<ExitCode, ExitCode> {
    let asked = buyer::ask(client, order).await;
    match asked.map_err(|error| fail_to_buy(&error))? {
        Asked::Served(response) => {
            eprintln!("costs nothing: {}", response.status());
            print_body(response).await
        }
        Asked::Challenged(challenge) => {
            let json = serde_json::to_string_pretty(challenge.message()).unwrap_or_default();
            println!("{json}");
            match challenge.choose(limit) {
                Ok(choice) => {
                    let network = assets::network_label(&choice.network);
                    eprintln!("would pay {} on {network}", choice.price());
                    Ok(ExitCode::SUCCESS)
                }
                Err(none) => Err(fail(super::EXIT_NO, &none.to_string())),
            }
        }
    }
}

fn report(outcome: &Outcome) {
    if let Some((choice, _)) = &outcome.payment {
        let network = assets::network_label(&choice.network);
        let (price, to) = (choice.price(), choice.pay_to);
        // Without a receipt nobody says that the money moved.
        let verb = match outcome.receipt.as_ref().map(|r| r.get("success")) {
            Some(Some(serde_json::Value::Bool(true))) => "paid",
            _ => "offered",
        };
        eprintln!("{verb} {price} on {network} to {to}");
    }
    if let Some(receipt) = &outcome.receipt {
        eprintln!("{receipt}");
    }
}

/// Copies the body to standard output as it comes.
async fn print_body(mut response: Response) -> Result<ExitCode, ExitCode> {
    let status = response.status();
    let mut out = io::stdout();
    loop {
        let chunk = response.chunk().await;
        let chunk =
            chunk.map_err(|e| fail(super::EXIT_OUTSIDE, &format!("the body broke: {e}")))?;
        let Some(chunk) = chunk else { break };
        let written = out.write_all(&chunk).and_then(|()| out.flush());
        written.map_err(|error| fail(super::EXIT_OUTSIDE, &error.to_string()))?;
    }
    if status.is_client_error() || status.is_server_error() {
        return Err(fail(super::EXIT_NO, &format!("answered {status}")));
    }
    Ok(ExitCode::SUCCESS)
}

fn fail(code: u8, what: &str) -> ExitCode {
    eprintln!("farewall pay: {what}");
    ExitCode::from(code)
}

fn fail_to_buy(error: &BuyError) -> ExitCode {
    let code = match error {
        BuyError::Ask(_) | BuyError::Pay(_) | BuyError::Random => super::EXIT_OUTSIDE,
        BuyError::AlreadyPaying(_) | BuyError::Challenge(_) | BuyError::NoChoice(_) => {
            super::EXIT_NO
        }
    };
    // The innermost cause says what happened: "connection refused", not "error sending request".
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let (text, cause) = (error.to_string(), cause.to_string());
    if text.contains(&cause) {
        fail(code, &text)
    } else {
        fail(code, &format!("{text}: {cause}"))
    }
}

fn order(args: &Args) -> io::Result<Order> {
    let mut headers = HeaderMap::new();
    for (name, value) in &args.headers {
        headers.append(name, value.clone());
    }
    let body = match args.data.as_deref() {
        None => Vec::new(),
        Some(data) => match data.strip_prefix('@') {
            Some(path) => std::fs::read(path)?,
            None => data.as_bytes().to_vec(),
        },
    };
    if args.data.is_some() && !headers.contains_key(CONTENT_TYPE) {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, form);
    }
    let usual = if args.data.is_some() {
        Method::POST
    } else {
        Method::GET
    };
    Ok(Order {
        method: args.request.clone().unwrap_or(usual),
        url: args.url.clone(),
        headers,
        body: body.into(),
    })
}

/// The buyer whose key this file holds. Every copy of the key that is made on the way is wiped.
fn read_buyer(path: &Path) -> Result<Buyer, KeyError> {
    let mut key = read_key(path)?;
    let buyer = Buyer::new(key);
    key.non_secure_erase();
    Ok(buyer)
}

fn read_key(path: &Path) -> Result<SecretKey, KeyError> {
    let file = File::open(path)?;
    let mode = file.metadata()?.mode();
    if mode & 0o077 != 0 {
        let mode = mode & 0o777;
        let path = path.display();
        eprintln!("farewall pay: warning: others can read {path} (mode {mode:o}); chmod 600 it");
    }
    let mut text = Zeroizing::new(String::with_capacity(2048));
    file.take(KEY_FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| {
            if error.kind() == io::ErrorKind::InvalidData {
                KeyError::Digits
            } else {
                KeyError::Io(error)
            }
        })?;
    parse_key(&text)
}

fn parse_key(text: &str) -> Result<SecretKey, KeyError> {
    let digits = text.trim();
    let digits = digits.strip_prefix("0x").unwrap_or(digits);
    let mut bytes = Zeroizing::new([0; 32]);
    match digits.len() {
        64 => hex::decode_to_slice(digits, bytes.as_mut()).map_err(|_| KeyError::Digits)?,
        _ => return Err(KeyError::Digits),
    }
    SecretKey::from_byte_array(*bytes).map_err(|_| KeyError::Key)
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = || format!("{text:?} is not a header; write 'Name: value'");
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name = name.trim().parse().map_err(|_| wrong())?;
    let value = value.trim().parse().map_err(|_| wrong())?;
    Ok((name, value))
}

fn parse_network(text: &str) -> Result<Network, String> {
    assets::network_by_name(text)
        .map_or_else(|| Network::parse_caip2(text), Ok)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

    #[test]
    fn a_key_is_sixty_four_digits() {
        let want = parse_key(KEY).unwrap();
        assert_eq!(parse_key(&format!("0x{KEY}\n")).unwrap(), want);
        for text in [
            "",
            "0x",
            &KEY[1..],
            &format!("{KEY}0"),
            &KEY.replace('a', "g"),
        ] {
            assert!(matches!(parse_key(text), Err(KeyError::Digits)), "{text}");
        }
        assert!(matches!(parse_key(&"0".repeat(64)), Err(KeyError::Key)));
    }

    #[test]
    fn the_error_of_a_bad_key_does_not_show_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, format!("{KEY}ff")).unwrap();
        let error = read_key(&path).unwrap_err();
        assert!(!error.to_string().contains(&KEY[..8]), "{error}");
        assert!(matches!(read_key(folder.path()), Err(KeyError::Io(_))));
    }

    #[test]
    fn a_header_is_a_name_and_a_value() {
        let (name, value) = parse_header("X-Key:  a: b ").unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("x-key", "a: b"));
        for text in ["X-Key", ": a", "X Key: a", "X-Key: a\nb"] {
            assert!(parse_header(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_network_is_named_or_numbered() {
        let want = Network::parse_caip2("eip155:84532").unwrap();
        assert_eq!(parse_network("base-sepolia"), Ok(want.clone()));
        assert_eq!(parse_network("eip155:84532"), Ok(want));
        assert!(parse_network("moon").is_err());
    }
}
