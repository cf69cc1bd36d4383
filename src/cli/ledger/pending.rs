//! `farewall ledger owed` and `unknown`: what needs a person, or may come to need one.

use std::io::Write;

use super::{Failure, Filters, Format, Source, table};
use crate::books::export::{Csv, Json};
use crate::clock::UnixSeconds;
use crate::ledger::Filter;
use crate::settlement::State;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    filters: Filters,
    /// Also what was marked refunded or forgiven, and what turned out to be unpaid
    #[arg(long)]
    all: bool,
    /// At most so many of each kind
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// For people, or for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

const OWED: (&str, State) = (
    "Owed: paid, and no complete response was written yet",
    State::Settled,
);
const UNKNOWN: (&str, State) = (
    "Unknown: the money may have moved; the wall keeps asking",
    State::Settling,
);
const EXPIRED: (&str, State) = (
    "Expired: nobody could tell in time; look it up, then mark it",
    State::Expired,
);

pub(super) fn owed(args: &Args, now: UnixSeconds, out: &mut dyn Write) -> Result<(), Failure> {
    write(args, [OWED, UNKNOWN], now, out)
}

pub(super) fn unknown(args: &Args, now: UnixSeconds, out: &mut dyn Write) -> Result<(), Failure> {
    write(args, [UNKNOWN, EXPIRED], now, out)
}

fn write(
    args: &Args,
    kinds: [(&str, State); 2],
    now: UnixSeconds,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let source = args.source.open()?;
    let filters = kinds.map(|(_, state)| Filter {
        needs_person: !args.all,
        ..args.filters.filter(vec![state], args.limit, now)
    });
    match args.format {
        Format::Table => {
            for ((title, _), filter) in kinds.iter().zip(&filters) {
                writeln!(out, "{title}")?;
                let records = table::collect(&source.ledger, filter)?;
                table::write(&records, &source.tokens, out)?;
                let totals = source.ledger.totals(filter)?;
                table::write_totals(&totals, &source.tokens, out)?;
                writeln!(out)?;
            }
            Ok(())
        }
        Format::Json => source.write_all(&filters, &mut Json::new(&source.tokens, out)),
        Format::Csv => source.write_all(&filters, &mut Csv::new(&source.tokens, out)),
    }
}
