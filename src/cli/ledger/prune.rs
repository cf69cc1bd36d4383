//! `farewall ledger prune`: deletes old finished claims now, whatever `retention_days` says.

use std::io::Write;
use std::time::Duration;

use super::{Failure, Source};
use crate::books::when::When;
use crate::clock::UnixSeconds;
use crate::ledger::LedgerError;
use crate::ledger::opening::open_for_writing;
use crate::ledger::upkeep::{Cursor, PRUNE_AGE_MIN_S};

/// Between two batches.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Delete what was over before this time
    #[arg(long, value_name = "TIME")]
    before: When,
    /// Only count
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    source: Source,
}

pub(super) fn run(args: &Args, now: UnixSeconds, out: &mut dyn Write) -> Result<(), Failure> {
    let before = args.before.before(now);
    if before > now.minus(PRUNE_AGE_MIN_S) {
        let why = "what is younger than a day is needed to recognise a payment that is presented \
                   twice; write an earlier --before";
        return Err(Failure::Outside(why.into()));
    }
    // Reading first: a mistyped path must not become a new ledger.
    let source = args.source.open()?;
    if args.dry_run {
        let count = source.ledger.prunable(before, now)?;
        writeln!(out, "{count} claims would be deleted.")?;
        return Ok(());
    }
    drop(source);
    let place = args.source.place()?;
    let deleted = super::runtime()?.block_on(async {
        let ledger = open_for_writing(&place.ledger, place.ca_file.as_deref(), 0).await?;
        let (mut deleted, mut from) = (0_u64, Some(Cursor::default()));
        while let Some(cursor) = from {
            let batch = ledger.prune(before, now, cursor).await?;
            deleted = deleted.saturating_add(batch.rows);
            from = batch.next;
            // Walls beside this command come first.
            tokio::time::sleep(PAUSE).await;
        }
        ledger.leave().await;
        Ok::<u64, LedgerError>(deleted)
    })?;
    writeln!(out, "{deleted} claims were deleted.")?;
    Ok(())
}
