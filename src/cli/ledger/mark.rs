//! `farewall ledger mark`: writes down what a person did about a debt.

use std::io::Write;

use super::{Failure, Source};
use crate::clock::UnixSeconds;
use crate::ledger::opening::open_for_writing;
use crate::ledger::{ClaimId, NOTE_CHARS_MAX, Note, NoteKind, NoteText};

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("kind").required(true))]
pub(super) struct Args {
    /// Number of a claim that is settled (owed) or expired
    #[arg(value_name = "ID")]
    id: i64,
    /// The money was given back
    #[arg(long, group = "kind")]
    refunded: bool,
    /// Nothing will be given back or delivered
    #[arg(long, group = "kind")]
    forgiven: bool,
    /// Why, or how: at most 1000 characters, kept for ever
    #[arg(long, value_name = "TEXT", value_parser = text)]
    note: NoteText,
    #[command(flatten)]
    source: Source,
}

fn text(text: &str) -> Result<NoteText, String> {
    NoteText::parse(text).ok_or_else(|| format!("write 1 to {NOTE_CHARS_MAX} characters"))
}

pub(super) fn run(args: &Args, now: UnixSeconds, out: &mut dyn Write) -> Result<(), Failure> {
    let kind = match args.refunded {
        true => NoteKind::Refunded,
        false => NoteKind::Forgiven,
    };
    // Reading first: a mistyped path must not become a new ledger.
    drop(args.source.open()?);
    let place = args.source.place()?;
    let note = Note {
        claim: ClaimId(args.id),
        at: now,
        kind,
        text: args.note.clone(),
    };
    super::runtime()?.block_on(async {
        let ledger = open_for_writing(&place.ledger, place.ca_file.as_deref(), 0).await?;
        let marked = ledger.mark(note).await;
        ledger.leave().await;
        marked
    })?;
    writeln!(out, "Claim {} is marked {}.", args.id, kind.as_str())?;
    Ok(())
}
