//! `farewall ledger show`: all that is known of one claim, or of all claims of one payment.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::table::printable;
use super::{Failure, Format, Source};
use crate::books::export::{Csv, hex, object};
use crate::books::{Sink, Tokens, when};
use crate::chain::PaymentKey;
use crate::ledger::reader::LedgerReader;
use crate::ledger::{ClaimId, Note, Record};

/// Digits of a payment key that are enough to look for it.
const PREFIX_DIGITS_MIN: usize = 8;
/// Claims of one payment that are shown.
const CLAIMS_MAX: u32 = 100;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Number of a claim, or the first 8 or more digits of a payment key
    #[arg(value_name = "ID|PAYMENT")]
    which: String,
    #[command(flatten)]
    source: Source,
    /// For people, or for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Print the settle request too (not as CSV); it holds the payer's signature
    #[arg(long)]
    settle_request: bool,
}

pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let source = args.source.open()?;
    let records = look_up(&source.ledger, &args.which)?;
    let mut objects = Vec::with_capacity(records.len());
    for record in &records {
        let notes = source.ledger.notes(record.id)?;
        objects.push(details(record, &notes, &source.tokens, args));
    }
    match args.format {
        Format::Table => write_lines(objects.into_iter(), out)?,
        Format::Json => {
            let array = Value::Array(objects.into_iter().map(Value::Object).collect());
            writeln!(out, "{array:#}")?;
        }
        Format::Csv => {
            let mut csv = Csv::new(&source.tokens, out);
            csv.begin()?;
            records.iter().try_for_each(|record| csv.record(record))?;
        }
    }
    Ok(())
}

/// One line for each value that there is.
fn write_lines(
    objects: impl Iterator<Item = Map<String, Value>>,
    out: &mut dyn Write,
) -> io::Result<()> {
    for (index, object) in objects.enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        for (name, value) in object.iter().filter(|(_, value)| !value.is_null()) {
            let text = match value {
                Value::String(text) => printable(text),
                Value::Object(_) | Value::Array(_) => indented(value),
                Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
            };
            writeln!(out, "{name:<15} {text}")?;
        }
    }
    Ok(())
}

fn details(record: &Record, notes: &[Note], tokens: &Tokens, args: &Args) -> Map<String, Value> {
    let mut object = object(record, tokens);
    object.insert(
        "fingerprint".to_owned(),
        hex(&record.claim.fingerprint.0).into(),
    );
    if !notes.is_empty() {
        let note = |note: &Note| {
            let (kind, text) = (note.kind.as_str(), note.text.as_str());
            json!({ "at": when::text(note.at), "kind": kind, "text": text })
        };
        object.insert("notes".to_owned(), notes.iter().map(note).collect());
    }
    if args.settle_request {
        let text = &*record.claim.settle_request;
        let request = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
        object.insert("settle_request".to_owned(), request);
    }
    object
}

/// JSON over several lines, under a column of names.
fn indented(value: &Value) -> String {
    let lines: Vec<String> = format!("{value:#}").lines().map(printable).collect();
    lines.join("\n                ")
}

/// A number is a claim first; as the beginning of a payment key it counts when no claim has it.
fn look_up(ledger: &LedgerReader, which: &str) -> Result<Vec<Record>, Failure> {
    let id = which.parse().ok().map(ClaimId).filter(|id| id.0 > 0);
    if let Some(id) = id
        && let Some(record) = ledger.get(id)?
    {
        return Ok(vec![record]);
    }
    let Some((first, last)) = key_range(which) else {
        return Err(match id {
            Some(_) => Failure::NoSuchClaim(which.to_owned()),
            None => Failure::NotAClaim(which.to_owned()),
        });
    };
    let records = ledger.claims_between(first, last, CLAIMS_MAX)?;
    let Some(newest) = records.first() else {
        return Err(Failure::NoSuchClaim(which.to_owned()));
    };
    if records
        .iter()
        .any(|record| record.claim.payment != newest.claim.payment)
    {
        return Err(Failure::Ambiguous(which.to_owned()));
    }
    Ok(records)
}

/// The lowest and the highest payment key that begin with these digits.
fn key_range(digits: &str) -> Option<(PaymentKey, PaymentKey)> {
    let digits = digits.strip_prefix("0x").unwrap_or(digits);
    let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hex || !(PREFIX_DIGITS_MIN..=64).contains(&digits.len()) {
        return None;
    }
    let first = PaymentKey::parse(&format!("{digits:0<64}"))?;
    let last = PaymentKey::parse(&format!("{digits:f<64}"))?;
    Some((first, last))
}
