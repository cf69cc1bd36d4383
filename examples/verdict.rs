//! What the wall itself says to proofs, without asking anybody: one JSON line in, one out.
//!
//! `verdict CONFIG` prints `{"accepts":[…]}`, the requirements of the first priced rule, and then
//! answers each line `{"version":2,"header":"…","now":1760000000}` of standard input with
//! `{"verdict":"good"}`, `{"verdict":"deferred"}` (only the facilitator can judge the signature) or
//! `{"verdict":"refused","reason":"…","because":"…"}`. It is our side of `tests/differential`.

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;

use farewall::clock::UnixSeconds;
use farewall::config;
use farewall::facilitator::supported::SupportedBook;
use farewall::proof::{self, ProofError, ProofHeaders};
use farewall::route::RouteTable;
use farewall::route::price::Quote;
use farewall::route::table::Grant;
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: verdict CONFIG")?;
    let settings = config::load(&PathBuf::from(path))?.settings;
    let routes = RouteTable::build(&settings, &SupportedBook::new())
        .map_err(|errors| format!("{errors:?}"))?;
    let quote = routes.rules().iter().find_map(|rule| match &rule.grant {
        Grant::Priced(route) => Some(route.price.quote()),
        Grant::Free(_) | Grant::Denied | Grant::Unavailable(_) | Grant::Shadow(_) => None,
    });
    let quote = quote.ok_or("the configuration has no priced rule")?;
    let accepts: Vec<_> = quote.offers.iter().map(|o| &o.requirements_json).collect();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", json!({ "accepts": accepts }))?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let bytes_max = settings.limits.payment_header_bytes_max;
        writeln!(out, "{}", verdict(&request, &quote, bytes_max)?)?;
    }
    Ok(())
}

fn verdict(request: &Value, quote: &Arc<Quote>, bytes_max: usize) -> Result<Value, &'static str> {
    let header = request.get("header").and_then(Value::as_str);
    let header = header.ok_or("`header` is not a text")?.as_bytes();
    let now = request.get("now").and_then(Value::as_u64);
    let now = UnixSeconds(now.ok_or("`now` is not a number")?);
    let mut headers = ProofHeaders::default();
    match request.get("version").and_then(Value::as_u64) {
        Some(1) => headers.x_payment.push(header),
        Some(2) => headers.payment_signature.push(header),
        Some(_) | None => return Err("`version` is neither 1 nor 2"),
    }
    let judged = proof::parse(&headers, quote, bytes_max, now).and_then(|p| proof::check(p, now));
    Ok(match judged {
        Ok(checked) if checked.proof().unchecked_credential().is_some() => {
            json!({ "verdict": "deferred" })
        }
        Ok(_) => json!({ "verdict": "good" }),
        Err(error) => refused(&error),
    })
}

fn refused(error: &ProofError) -> Value {
    json!({
        "verdict": "refused",
        "reason": error.reason().as_str(),
        "because": error.to_string(),
    })
}
