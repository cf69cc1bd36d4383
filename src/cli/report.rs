//! `farewall report`: what was sold, to whom, and what was not.
//!
//! Money comes from the ledger. How many were asked to pay is not in it: a challenge is nobody's
//! payment. The wall that runs counts challenges, so conversion is told of the time since it started.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::books::Tokens;
use crate::books::report::{By, Line, Report};
use crate::books::when::When;
use crate::chain::{Asset, Network};
use crate::cli::ledger::{Failure, Source};
use crate::cli::watch::{self, Metrics};
use crate::clock::{Clock, SystemClock};
use crate::config;
use crate::ledger::Filter;
use crate::money::AtomicAmount;

/// The longest bar of the chart.
const BAR_CHARS: u128 = 30;

/// Arguments of `farewall report`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  farewall report
  farewall report --since 7d --by rule
  farewall report --since 2026-11-01 --until 2026-12-01 --by payer --format csv > november.csv

Revenue is what was settled, owed responses included, by the day of the claim in UTC. It may run beside
the wall and only reads. Conversion is asked of the running wall, since its start.")]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// Claimed at this time or later
    #[arg(long, value_name = "TIME", default_value = "30d")]
    since: When,
    /// Claimed before this time
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
    /// What a line is about
    #[arg(long, value_enum, default_value_t = Group::Day)]
    by: Group,
    /// For people, or for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Group {
    Rule,
    Payer,
    Day,
    Asset,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Format {
    /// Columns and bars for people
    Table,
    /// One JSON object
    Json,
    /// Comma-separated values (RFC 4180) with a header line
    Csv,
}

/// Runs the command.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let done = report(&args, &mut out).and_then(|()| out.flush().map_err(Failure::from));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

fn report(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let source = args.source.open()?;
    let now = SystemClock.now();
    let by = match args.by {
        Group::Rule => By::Rule,
        Group::Payer => By::Payer,
        Group::Day => By::Day,
        Group::Asset => By::Asset,
    };
    let filter = Filter {
        since: Some(args.since.before(now)),
        until: args.until.map(|until| until.before(now)),
        ..Filter::default()
    };
    let report = Report::read(source.ledger(), &filter, by)?;
    let conversion = args.source.config_file().map(conversion);
    match args.format {
        Format::Csv => write!(out, "{}", report.csv(source.tokens()))?,
        Format::Json => {
            let mut told = report.json(source.tokens());
            let conversion = match conversion {
                Some(Ok(conversion)) => conversion.json(),
                Some(Err(_)) | None => Value::Null,
            };
            if let Value::Object(told) = &mut told {
                told.insert("conversion_since_start".to_owned(), conversion);
            }
            writeln!(out, "{told:#}")?;
        }
        Format::Table => {
            table(&report, source.tokens(), out)?;
            match conversion {
                Some(Ok(conversion)) => conversion.write(now.0, out)?,
                Some(Err(why)) => writeln!(out, "\nConversion is not known: {why}.")?,
                None => {}
            }
        }
    }
    Ok(())
}

/// What the running wall knows of those who were asked to pay.
struct Conversion {
    challenges: u128,
    paid: u128,
    refused: u128,
    started: u128,
}

fn conversion(config: &Path) -> Result<Conversion, String> {
    let loaded = config::load(config).map_err(|_| "the configuration is wrong".to_owned())?;
    let admin = loaded.settings.server.admin;
    let admin = admin.ok_or("the admin listener is off")?;
    let metrics = watch::ask(&admin);
    let metrics = metrics.map_err(|error| format!("no wall answers at {admin} ({error})"))?;
    Ok(Conversion::of(&metrics))
}

impl Conversion {
    fn of(metrics: &Metrics) -> Self {
        let outcome = |word| metrics.sum("farewall_requests_total", &[("outcome", word)]);
        Self {
            challenges: outcome("payment_required"),
            paid: outcome("paid"),
            refused: metrics.sum("farewall_proofs_refused_total", &[]),
            started: metrics.sum("process_start_time_seconds", &[]),
        }
    }

    fn json(&self) -> Value {
        json!({
            "challenges": self.challenges.to_string(),
            "paid": self.paid.to_string(),
            "proofs_refused": self.refused.to_string(),
        })
    }

    fn write(&self, now: u64, out: &mut dyn Write) -> io::Result<()> {
        let hours = u128::from(now).saturating_sub(self.started) / 3600;
        writeln!(
            out,
            "\nSince the wall started {hours} h ago: {} challenges, {} paid requests{}, {} proofs refused.",
            self.challenges,
            self.paid,
            percent(self.paid, self.challenges),
            self.refused
        )
    }
}

/// ` (12.3 %)`, or nothing when there is nothing to compare with.
fn percent(part: u128, whole: u128) -> String {
    match part.saturating_mul(1000).checked_div(whole) {
        Some(per_mille) => format!(" ({}.{} %)", per_mille / 10, per_mille % 10),
        None => String::new(),
    }
}

fn table(report: &Report, tokens: &Tokens, out: &mut dyn Write) -> io::Result<()> {
    let groups: Vec<_> = report.groups().collect();
    if groups.is_empty() {
        return writeln!(out, "Nothing was claimed in this time.");
    }
    let width = |least: usize, texts: &mut dyn Iterator<Item = String>| {
        texts
            .map(|text| text.chars().count())
            .fold(least, usize::max)
    };
    let revenue = |network: &Network, asset: &Asset, line: &Line| {
        tokens.text(network, asset, AtomicAmount::new(line.revenue))
    };
    let name_width = width(8, &mut groups.iter().map(|(name, ..)| printable(name)));
    let sums = groups
        .iter()
        .map(|(_, network, asset, line)| revenue(network, asset, line));
    let revenue_width = width(7, &mut sums.into_iter());
    let title = report.by().as_str();
    writeln!(
        out,
        "{title:<name_width$}  {:>7}  {:>revenue_width$}  {:>6}  {:>8}  {:>7}  {:>7}",
        "sold", "revenue", "owed", "released", "refused", "unknown"
    )?;
    for (name, network, asset, line) in &groups {
        // Bars of different tokens have nothing to do with one another.
        let same = groups
            .iter()
            .filter(|(_, n, a, _)| (n, a) == (network, asset));
        let most = same.map(|(.., line)| line.revenue).fold(0, u128::max);
        writeln!(
            out,
            "{:<name_width$}  {:>7}  {:>revenue_width$}  {:>6}  {:>8}  {:>7}  {:>7}  {}",
            printable(name),
            line.sold,
            revenue(network, asset, line),
            line.owed,
            line.released,
            line.refused,
            line.unknown,
            bar(line.revenue, most)
        )?;
    }
    Ok(())
}

/// A bar as long as its part of the most; what is more than nothing is seen.
fn bar(part: u128, most: u128) -> String {
    let eighths = BAR_CHARS.saturating_mul(8);
    // Where the product would not fit, the most is divided instead.
    let length = match part.checked_mul(eighths) {
        Some(product) => product.checked_div(most),
        None => part.checked_div(most.div_ceil(eighths)),
    };
    let length = length.unwrap_or(0);
    let length = if part > 0 { length.max(1) } else { 0 };
    let whole = usize::try_from(length / 8).unwrap_or(0);
    let rest = match length % 8 {
        1 => "▏",
        2 => "▎",
        3 => "▍",
        4 => "▌",
        5 => "▋",
        6 => "▊",
        7 => "▉",
        _ => "",
    };
    format!("{}{rest}", "█".repeat(whole))
}

/// A text without what would move the cursor: parts of it come from strangers.
fn printable(text: &str) -> String {
    let text = text.chars().map(|c| if c.is_control() { '?' } else { c });
    text.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_part() {
        assert_eq!(bar(10, 10), "█".repeat(30));
        assert_eq!(bar(5, 10), "█".repeat(15));
        assert_eq!(bar(1, 1_000_000), "▏");
        assert_eq!(bar(0, 10), "");
        assert_eq!(bar(0, 0), "");
        assert!((29..=30).contains(&bar(u128::MAX, u128::MAX).chars().count()));
    }

    #[test]
    fn a_conversion_is_told_in_per_cent_of_the_challenges() {
        assert_eq!(percent(1, 3), " (33.3 %)");
        assert_eq!(percent(3, 2), " (150.0 %)");
        assert_eq!(percent(0, 0), "");
    }
}
