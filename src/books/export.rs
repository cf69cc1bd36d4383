//! Records for programs: one JSON array, or CSV. One list of columns serves both.

use std::io::{self, Write};

use serde_json::{Map, Value};

use super::{Sink, Tokens, when};
use crate::ledger::Record;

/// The columns, in order, with the value of each; `Null` is an empty cell.
///
/// The settle request is left out on purpose: whoever has it can settle the payment.
pub(crate) fn columns(record: &Record, tokens: &Tokens) -> [(&'static str, Value); 22] {
    let claim = &record.claim;
    let optional = |text: Option<&str>| text.map_or(Value::Null, Value::from);
    let (whole, symbol) = tokens
        .whole(&claim.network, &claim.asset, claim.amount)
        .map_or((Value::Null, Value::Null), |(whole, symbol)| {
            (whole.into(), symbol.into())
        });
    [
        ("id", record.id.0.into()),
        ("state", record.state.as_str().into()),
        ("claimed_at", when::text(record.claimed_at).into()),
        ("changed_at", when::text(record.changed_at).into()),
        ("rule", (&*claim.rule).into()),
        ("accept", (&*claim.accept).into()),
        ("scheme", (&*claim.scheme).into()),
        ("network", claim.network.as_str().into()),
        ("asset", claim.asset.as_str().into()),
        ("amount_atomic", claim.amount.to_string().into()),
        ("amount", whole),
        ("symbol", symbol),
        ("payer", claim.payer.as_str().into()),
        ("pay_to", claim.pay_to.as_str().into()),
        ("request", (&*claim.request).into()),
        ("payment", claim.payment.to_string().into()),
        ("nonce", (&*claim.nonce).into()),
        ("valid_before", when::text(claim.valid_before).into()),
        ("facilitator", optional(record.facilitator.as_deref())),
        ("transaction", optional(record.transaction.as_deref())),
        ("reason", optional(record.reason.as_deref())),
        (
            "body_sha256",
            record.body.map_or(Value::Null, |body| hex(&body.0).into()),
        ),
    ]
}

/// The names of the columns.
pub(crate) const NAMES: [&str; 22] = [
    "id",
    "state",
    "claimed_at",
    "changed_at",
    "rule",
    "accept",
    "scheme",
    "network",
    "asset",
    "amount_atomic",
    "amount",
    "symbol",
    "payer",
    "pay_to",
    "request",
    "payment",
    "nonce",
    "valid_before",
    "facilitator",
    "transaction",
    "reason",
    "body_sha256",
];

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The receipt as JSON, or as text should it not be JSON.
pub(crate) fn receipt(record: &Record) -> Value {
    record.receipt.as_deref().map_or(Value::Null, |text| {
        serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
    })
}

/// The columns and the receipt as one JSON object.
pub(crate) fn object(record: &Record, tokens: &Tokens) -> Map<String, Value> {
    columns(record, tokens)
        .into_iter()
        .chain([("receipt", receipt(record))])
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// One JSON array, one record a line.
pub(crate) struct Json<'a> {
    tokens: &'a Tokens,
    out: &'a mut dyn Write,
    separator: &'static str,
}

impl<'a> Json<'a> {
    pub(crate) fn new(tokens: &'a Tokens, out: &'a mut dyn Write) -> Self {
        Self {
            tokens,
            out,
            separator: "\n",
        }
    }
}

impl Sink for Json<'_> {
    fn begin(&mut self) -> io::Result<()> {
        write!(self.out, "[")
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        write!(self.out, "{}", self.separator)?;
        self.separator = ",\n";
        serde_json::to_writer(&mut *self.out, &object(record, self.tokens))?;
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        writeln!(self.out, "\n]")
    }
}

/// CSV after RFC 4180: a header line, CRLF, quotes where needed.
pub(crate) struct Csv<'a> {
    tokens: &'a Tokens,
    out: &'a mut dyn Write,
}

impl<'a> Csv<'a> {
    pub(crate) fn new(tokens: &'a Tokens, out: &'a mut dyn Write) -> Self {
        Self { tokens, out }
    }

    fn line(&mut self, cells: impl Iterator<Item = String>) -> io::Result<()> {
        write!(self.out, "{}\r\n", cells.collect::<Vec<_>>().join(","))
    }
}

impl Sink for Csv<'_> {
    fn begin(&mut self) -> io::Result<()> {
        self.line(NAMES.into_iter().map(str::to_owned))
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        let cells = columns(record, self.tokens).map(|(_, value)| cell(&value));
        self.line(cells.into_iter())
    }

    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text_cell(text),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// A text cell. A spreadsheet would run a text that begins like a formula, and part of the texts
/// comes from strangers, so an apostrophe goes in front of it.
fn text_cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    let quoted = formula || text.contains(['"', ',', '\r', '\n', ';']);
    match (formula, quoted) {
        (true, _) => format!("\"'{}\"", text.replace('"', "\"\"")),
        (false, true) => format!("\"{}\"", text.replace('"', "\"\"")),
        (false, false) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        assert_eq!(text_cell(text), want);
    }

    #[test]
    fn cells_are_quoted_where_rfc_4180_asks_for_it() {
        check("GET /v1/weather", "GET /v1/weather");
        check("a,b", "\"a,b\"");
        check("say \"hi\"", "\"say \"\"hi\"\"\"");
        check("two\r\nlines", "\"two\r\nlines\"");
        check("", "");
    }

    #[test]
    fn a_text_that_a_spreadsheet_would_run_is_made_plain() {
        check("=1+1", "\"'=1+1\"");
        check("+1", "\"'+1\"");
        check("-1", "\"'-1\"");
        check("@SUM(A1)", "\"'@SUM(A1)\"");
        check("\t=1", "\"'\t=1\"");
        check("=\"x\"", "\"'=\"\"x\"\"\"");
        check("1=1", "1=1");
    }

    #[test]
    fn a_number_is_no_text() {
        assert_eq!(cell(&Value::from(17)), "17");
        assert_eq!(cell(&Value::Null), "");
    }
}
