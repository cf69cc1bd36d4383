//! `farewall ledger reconcile`: one look at every payment whose outcome is not known.
//!
//! It may run beside a wall: a settle that both repeat is the same settle, which moves money once,
//! and both believe only what is certain. What a wall may be settling for the *first* time is left
//! alone, because a wall believes a refusal of its first call, and ours could be the cause of it.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::table::{align, printable};
use super::{Failure, load};
use crate::app::generation;
use crate::books::Tokens;
use crate::clock::{Clock, UnixSeconds};
use crate::config::settings::Settings;
use crate::gate::Settler;
use crate::ledger::Record;
use crate::ledger::opening::open_for_writing;
use crate::ledger::reader::LedgerReader;
use crate::ledger::upkeep::Cursor;
use crate::reconcile::{Look, Reconciler};
use crate::settlement::State;

/// How much longer than the facilitator's deadline a wall may work on its first settle.
const MARGIN_S: u64 = 5;
/// The deadline of a facilitator that is not configured any more: the default.
const SETTLE_S: u64 = 60;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration that names the ledger, the facilitators and the chains
    #[arg(long, value_name = "FILE", default_value = "conf/farewall.toml")]
    config: PathBuf,
    /// For people, or for programs
    #[arg(long, value_enum, default_value_t = Shape::Table)]
    format: Shape,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Shape {
    /// Columns for people
    Table,
    /// One JSON array
    Json,
}

struct Row {
    record: Record,
    state: State,
    found: String,
}

pub(super) fn run(args: &Args, clock: &Arc<dyn Clock>, out: &mut dyn Write) -> Result<(), Failure> {
    let settings = load(&args.config)?;
    let ca_file = settings.server.ca_file.as_deref();
    drop(LedgerReader::open(&settings.ledger, ca_file)?);
    let runtime = super::runtime()?;
    let ledger = runtime.block_on(open_for_writing(&settings.ledger, ca_file, 0))?;
    let outside = |error: &dyn std::error::Error| Failure::Outside(error.to_string().into());
    let facilitators = generation::facilitators(&settings, None).map_err(|e| outside(&e))?;
    let chains = generation::chains(&settings, None).map_err(|e| outside(&e))?;
    let settler = Settler::new(
        facilitators,
        Arc::clone(&ledger),
        Arc::clone(clock),
        runtime.handle().clone(),
    );
    let preferences = generation::preferences(&settings);
    let reconciler = Reconciler::new(
        settler,
        Arc::clone(&ledger),
        chains,
        preferences,
        Arc::clone(clock),
    );
    let (mut ours, mut from) = (BTreeSet::new(), Some(Cursor::default()));
    while let Some(cursor) = from {
        let (page, next) = runtime.block_on(reconciler.page(cursor))?;
        ours.extend(page.iter().map(|record| record.id));
        from = next;
    }
    let mut rows = Vec::new();
    for record in runtime.block_on(reconciler.unknown())? {
        let elsewhere = || {
            let is_ours = ours.contains(&record.id);
            (!is_ours).then(|| "a wall that runs works on it".to_owned())
        };
        let left = left_alone(&record, &settings, clock.now());
        let look = match left.or_else(elsewhere) {
            Some(why) => Look::undone(why),
            None => runtime.block_on(reconciler.look(&record))?,
        };
        let Look { state, found, .. } = look;
        rows.push(Row {
            record,
            state,
            found,
        });
    }
    runtime.block_on(ledger.leave());
    write(&rows, &Tokens::of(&settings), args.format, out)?;
    out.flush()?;
    match rows
        .iter()
        .filter(|row| row.state == State::Settling)
        .count()
    {
        0 => Ok(()),
        left => Err(Failure::StillUnknown(left)),
    }
}

fn left_alone(record: &Record, settings: &Settings, now: UnixSeconds) -> Option<String> {
    let facilitator = record.facilitator.as_deref();
    let deadline = facilitator
        .and_then(|name| settings.facilitators.get(name))
        .map_or(SETTLE_S, |f| f.settle_timeout.as_secs().saturating_add(1));
    let from = record.changed_at.plus(deadline).plus(MARGIN_S);
    // A claim from the future: the clock was set back, so its age says nothing.
    let is_young = now < from && record.changed_at <= now;
    is_young.then(|| {
        let wait = from.since(now);
        format!("left alone: a wall may be settling it; try again in {wait} s")
    })
}

fn write(rows: &[Row], tokens: &Tokens, format: Shape, out: &mut dyn Write) -> Result<(), Failure> {
    let amount = |row: &Row| {
        let claim = &row.record.claim;
        tokens.text(&claim.network, &claim.asset, claim.amount)
    };
    match format {
        Shape::Table if rows.is_empty() => {
            writeln!(out, "No outcome is unknown.")?;
        }
        Shape::Table => {
            let mut lines = vec![["ID", "STATE", "RULE", "AMOUNT", "FOUND"].map(str::to_owned)];
            lines.extend(rows.iter().map(|row| {
                [
                    row.record.id.0.to_string(),
                    row.state.to_string(),
                    printable(&row.record.claim.rule),
                    printable(&amount(row)),
                    printable(&row.found),
                ]
            }));
            align(&lines, out)?;
        }
        Shape::Json => {
            let rows = rows.iter().map(|row| {
                json!({
                    "id": row.record.id.0,
                    "state": row.state.as_str(),
                    "rule": &*row.record.claim.rule,
                    "amount_atomic": row.record.claim.amount.to_string(),
                    "found": row.found,
                })
            });
            writeln!(out, "{:#}", Value::Array(rows.collect()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::ClaimId;
    use crate::ledger::Ledger;
    use crate::ledger::sqlite::SqliteLedger;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    fn record(changed_at: UnixSeconds, facilitator: &str) -> Record {
        let directory = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&directory.path().join("farewall.db")).unwrap();
        let runtime = super::super::runtime().unwrap();
        let claim = super::super::tests::new_claim(1);
        runtime.block_on(ledger.claim(claim, NOW)).unwrap();
        Record {
            changed_at,
            facilitator: Some(facilitator.into()),
            ..ledger.get(ClaimId(1)).unwrap().unwrap()
        }
    }

    #[track_caller]
    fn check(changed_at: UnixSeconds, facilitator: &str, want: bool) {
        let text = r#"
            [server]
            public_origin = "https://a.example"
            [facilitator.f]
            url = "https://f.example"
            settle_timeout_ms = 1500
            [accept.usdc]
            network = "base-sepolia"
            pay_to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
            [upstream.api]
            url = "http://127.0.0.1:9000"
        "#;
        let settings = crate::config::parse(text, "a.toml", &|_| None)
            .unwrap()
            .settings;
        let alone = left_alone(&record(changed_at, facilitator), &settings, NOW);
        assert_eq!(alone.is_some(), want, "{alone:?}");
    }

    #[test]
    fn what_a_wall_may_be_settling_for_the_first_time_is_left_alone() {
        check(NOW, "f", true);
        check(NOW.minus(6), "f", true);
        check(NOW.minus(7), "f", false);
        check(NOW.minus(64), "gone", true);
        check(NOW.minus(65), "gone", false);
        check(NOW.plus(3600), "f", false);
    }
}
