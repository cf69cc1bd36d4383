//! `farewall ledger`: what became of the payments, also while a wall runs. `mark`, `reconcile` and
//! `prune` write; all else only reads.

mod mark;
mod pending;
mod prune;
mod reconcile;
mod show;
mod table;

#[cfg(test)]
mod tests;

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Subcommand, ValueEnum};
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};

use crate::books::export::{Csv, Json};
use crate::books::when::When;
use crate::books::{Sink, Tokens};
use crate::chain::parse_evm_address;
use crate::clock::{Clock, SystemClock, UnixSeconds};
use crate::config;
use crate::config::ledger::{is_url, parse_url};
use crate::config::settings::{LedgerSettings, Settings};
use crate::ledger::reader::LedgerReader;
use crate::ledger::{Filter, LedgerError};
use crate::settlement::State;

const AFTER_HELP: &str = "\
Examples:
  farewall ledger list --since 24h
  farewall ledger list --state settled,delivered --rule weather --limit 20
  farewall ledger show 17
  farewall ledger show 9f86d081
  farewall ledger owed
  farewall ledger unknown
  farewall ledger reconcile --config conf/farewall.toml
  farewall ledger mark 17 --refunded --note \"sent back in 0x3a...\"
  farewall ledger export --since 2026-11-01 --until 2026-12-01 > november.csv

Times are UTC: 2026-11-01, 2026-11-01T12:00:00Z, or an age such as 90s, 30m, 24h, 7d, 2w.
States: claimed, settling, settled (paid, owed), delivered, released, refused, expired.
All of it may run beside the wall. Only mark, reconcile and prune write.";

/// Arguments of `farewall ledger`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List claims, newest first
    #[command(after_help = "Example:\n  farewall ledger list --since 24h --state delivered")]
    List(ListArgs),
    /// Show all that is known of one claim, or of all claims of one payment
    #[command(after_help = "Examples:\n  farewall ledger show 17\n  farewall ledger show 9f86d081")]
    Show(show::Args),
    /// List what is paid but not delivered, and payments whose outcome is not known
    #[command(after_help = "Example:\n  farewall ledger owed --ledger farewall.db --format json")]
    Owed(pending::Args),
    /// List payments whose outcome is not known, and those that nobody could tell about in time
    #[command(after_help = "Example:\n  farewall ledger unknown --since 7d")]
    Unknown(pending::Args),
    /// Ask the facilitators and chains once about every payment whose outcome is not known
    #[command(after_help = "\
Example:
  farewall ledger reconcile --config /etc/farewall/farewall.toml

It may run beside a wall. Payments that a wall may be settling right now are left alone.

Exit codes:
  0  every outcome is known now
  1  some are still unknown
  3  the configuration was wrong
  4  the ledger could not be read or written")]
    Reconcile(reconcile::Args),
    /// Write down that a debt was refunded or forgiven
    #[command(after_help = "\
Examples:
  farewall ledger mark 17 --refunded --note \"sent back in 0x3a...\"
  farewall ledger mark 18 --forgiven --note \"test purchase of our own\"

The note is added to the ledger; the claim stays as it is. What is marked is not listed as owed any
more, and its payment cannot be used to collect the response.")]
    Mark(mark::Args),
    /// Delete old claims that are over; see also `retention_days`
    #[command(after_help = "\
Examples:
  farewall ledger prune --before 2024-01-01 --dry-run
  farewall ledger prune --before 730d

It may run beside the wall. Claims that are open, owed or unknown, those that were marked, and all that
are younger than a day stay. Export what you need first: what is deleted is gone.")]
    Prune(prune::Args),
    /// Write every claim that the filters allow, as CSV unless told otherwise
    #[command(after_help = "Example:\n  farewall ledger export --since 2026-11-01 > claims.csv")]
    Export(ExportArgs),
}

/// Which ledger.
#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// Configuration that names the ledger, and the tokens for amounts
    #[arg(long, value_name = "FILE", default_value = "conf/farewall.toml")]
    config: PathBuf,
    /// Ledger itself, a file or a postgres:// URL; amounts of unknown tokens are then in smallest units
    #[arg(long, value_name = "FILE|URL", conflicts_with = "config")]
    ledger: Option<String>,
}

/// Which claims.
#[derive(Debug, clap::Args)]
struct Filters {
    /// Claimed at this time or later
    #[arg(long, value_name = "TIME")]
    since: Option<When>,
    /// Claimed before this time
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
    /// Under this rule
    #[arg(long, value_name = "NAME")]
    rule: Option<String>,
    /// By this payer
    #[arg(long, value_name = "ACCOUNT")]
    payer: Option<String>,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    filters: Filters,
    /// In these states, separated by commas
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    state: Vec<State>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
    /// For people, or for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, clap::Args)]
struct ExportArgs {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    filters: Filters,
    /// In these states, separated by commas
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    state: Vec<State>,
    /// At most so many; default all
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// For people, or for programs
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Format {
    /// Columns for people
    Table,
    /// One JSON array
    Json,
    /// Comma-separated values (RFC 4180) with a header line
    Csv,
}

/// Why the command could not answer.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Config(Box<str>),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    #[error("no claim has the number or payment key {0:?}")]
    NoSuchClaim(String),
    #[error("{0:?} is not a claim's number, nor 8 to 64 hexadecimal digits of a payment key")]
    NotAClaim(String),
    #[error("several payments begin with {0:?}; write more digits")]
    Ambiguous(String),
    #[error("{0}")]
    Outside(Box<str>),
    #[error("{0} outcomes are still unknown")]
    StillUnknown(usize),
}

impl Failure {
    /// Says it, and gives the exit code.
    pub(super) fn tell(&self) -> ExitCode {
        let code = self.exit_code();
        if code != ExitCode::SUCCESS {
            eprintln!("farewall: {self}");
        }
        code
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            // Whoever reads the output has seen enough: `farewall ledger export | head`.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Self::Config(_) => ExitCode::from(super::EXIT_CONFIG),
            Self::Ledger(LedgerError::NoSuchClaim(_) | LedgerError::NoDebt { .. })
            | Self::NoSuchClaim(_)
            | Self::NotAClaim(_)
            | Self::Ambiguous(_)
            | Self::StillUnknown(_) => ExitCode::from(super::EXIT_NO),
            Self::Ledger(_) | Self::Output(_) | Self::Outside(_) => {
                ExitCode::from(super::EXIT_OUTSIDE)
            }
        }
    }
}

/// Runs the command.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let answered = answer(args.command, SystemClock.now(), &mut out)
        .and_then(|()| out.flush().map_err(Failure::from));
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

fn answer(command: Command, now: UnixSeconds, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        Command::List(args) => {
            let filter = args.filters.filter(args.state, Some(args.limit), now);
            list(&args.source.open()?, &filter, args.format, out)
        }
        Command::Show(args) => show::run(&args, out),
        Command::Owed(args) => pending::owed(&args, now, out),
        Command::Unknown(args) => pending::unknown(&args, now, out),
        Command::Reconcile(args) => {
            let clock: Arc<dyn Clock> = Arc::new(SystemClock);
            reconcile::run(&args, &clock, out)
        }
        Command::Mark(args) => mark::run(&args, now, out),
        Command::Prune(args) => prune::run(&args, now, out),
        Command::Export(args) => {
            let filter = args.filters.filter(args.state, args.limit, now);
            list(&args.source.open()?, &filter, args.format, out)
        }
    }
}

fn list(
    source: &Opened,
    filter: &Filter,
    format: Format,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let filters = std::slice::from_ref(filter);
    match format {
        Format::Table => {
            let records = table::collect(&source.ledger, filter)?;
            table::write(&records, &source.tokens, out)?;
            let totals = source.ledger.totals(filter)?;
            table::write_totals(&totals, &source.tokens, out)?;
            let counted = totals
                .iter()
                .fold(0_u64, |sum, total| sum.saturating_add(total.count));
            if usize::try_from(counted).is_ok_and(|counted| counted > records.len()) {
                writeln!(out, "Shown are the newest {}; see --limit.", records.len())?;
            }
            Ok(())
        }
        Format::Json => source.write_all(filters, &mut Json::new(&source.tokens, out)),
        Format::Csv => source.write_all(filters, &mut Csv::new(&source.tokens, out)),
    }
}

/// Prints a whole ledger as a table, for the demo.
pub(super) fn print_table(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let source = Opened {
        ledger: LedgerReader::open(&LedgerSettings::File(path.to_owned()), None)?,
        tokens: Tokens::default(),
    };
    let mut out = io::stdout().lock();
    Ok(list(&source, &Filter::default(), Format::Table, &mut out)?)
}

/// For the commands that ask or write.
fn runtime() -> Result<Runtime, Failure> {
    Ok(Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?)
}

impl Filters {
    fn filter(&self, states: Vec<State>, limit: Option<u32>, now: UnixSeconds) -> Filter {
        // The ledger keeps EVM accounts with their checksum; people paste them in any case.
        let payer = self.payer.as_deref().map(|payer| {
            parse_evm_address(payer)
                .map_or_else(|_| payer.to_owned(), |address| address.to_checksum(None))
        });
        Filter {
            since: self.since.map(|when| when.before(now)),
            until: self.until.map(|when| when.before(now)),
            rule: self.rule.clone(),
            payer,
            states,
            limit,
            needs_person: false,
        }
    }
}

/// A ledger, and what is known of the tokens in it.
pub(super) struct Opened {
    ledger: LedgerReader,
    tokens: Tokens,
}

impl Source {
    /// Where the ledger is, whom to trust there, and the tokens.
    fn place(&self) -> Result<Place, Failure> {
        let Some(place) = &self.ledger else {
            let settings = load(&self.config)?;
            return Ok(Place {
                tokens: Tokens::of(&settings),
                ledger: settings.ledger,
                ca_file: settings.server.ca_file,
            });
        };
        let ledger = if is_url(place) {
            let server = parse_url(place, Path::new(""));
            let server = server.map_err(|wrong| Failure::Config(wrong.into()))?;
            LedgerSettings::Server(Box::new(server))
        } else {
            LedgerSettings::File(PathBuf::from(place))
        };
        Ok(Place {
            ledger,
            ca_file: None,
            tokens: Tokens::default(),
        })
    }

    /// The configuration, unless the ledger itself is named.
    pub(super) fn config_file(&self) -> Option<&Path> {
        self.ledger.is_none().then_some(self.config.as_path())
    }

    pub(super) fn open(&self) -> Result<Opened, Failure> {
        let place = self.place()?;
        Ok(Opened {
            ledger: LedgerReader::open(&place.ledger, place.ca_file.as_deref())?,
            tokens: place.tokens,
        })
    }
}

/// What a [`Source`] names.
struct Place {
    ledger: LedgerSettings,
    ca_file: Option<PathBuf>,
    tokens: Tokens,
}

fn load(path: &Path) -> Result<Settings, Failure> {
    config::load(path)
        .map(|loaded| loaded.settings)
        .map_err(|report| Failure::Config(report.to_string().into()))
}

impl Opened {
    pub(super) const fn ledger(&self) -> &LedgerReader {
        &self.ledger
    }

    pub(super) const fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    fn write_all(&self, filters: &[Filter], sink: &mut dyn Sink) -> Result<(), Failure> {
        sink.begin()?;
        for filter in filters {
            let mut written = Ok(());
            self.ledger.each(filter, &mut |record| {
                written = sink.record(&record);
                if written.is_ok() {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
            written?;
        }
        sink.end()?;
        Ok(())
    }
}
