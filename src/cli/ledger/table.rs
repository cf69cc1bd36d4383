//! Columns for people.

use std::io::{self, Write};
use std::ops::ControlFlow;

use crate::books::{Tokens, when};
use crate::ledger::reader::LedgerReader;
use crate::ledger::{Filter, LedgerError, Record, Total};

/// The records of one table; widths are known only when all are there.
pub(super) fn collect(ledger: &LedgerReader, filter: &Filter) -> Result<Vec<Record>, LedgerError> {
    let mut records = Vec::new();
    ledger.each(filter, &mut |record| {
        records.push(record);
        ControlFlow::Continue(())
    })?;
    Ok(records)
}

pub(super) fn write(records: &[Record], tokens: &Tokens, out: &mut dyn Write) -> io::Result<()> {
    if records.is_empty() {
        return writeln!(out, "No claims.");
    }
    let head = [
        "ID", "CLAIMED", "STATE", "RULE", "AMOUNT", "PAYER", "REQUEST",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(records.iter().map(|record| {
        let claim = &record.claim;
        [
            record.id.0.to_string(),
            when::text(record.claimed_at),
            record.state.to_string(),
            printable(&claim.rule),
            printable(&tokens.text(&claim.network, &claim.asset, claim.amount)),
            printable(claim.payer.as_str()),
            printable(&claim.request),
        ]
    }));
    align(&rows, out)
}

/// Count and sum of each state and token, under a table.
pub(super) fn write_totals(
    totals: &[Total],
    tokens: &Tokens,
    out: &mut dyn Write,
) -> io::Result<()> {
    if totals.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let rows: Vec<[String; 4]> = totals
        .iter()
        .map(|total| {
            [
                total.state.to_string(),
                total.count.to_string(),
                printable(&tokens.text(&total.network, &total.asset, total.amount)),
                total.network.to_string(),
            ]
        })
        .collect();
    align(&rows, out)
}

/// Two spaces between columns, each as wide as its widest cell.
pub(super) fn align<const N: usize>(rows: &[[String; N]], out: &mut dyn Write) -> io::Result<()> {
    let mut widths = [0_usize; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// The text with every character escaped that could move the cursor or reorder a line: part of it
/// comes from strangers, and a terminal obeys.
pub(super) fn printable(text: &str) -> String {
    let risky = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if risky(c) {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}
