//! What a metric is, and the reference that is written from it: `docs/metrics.md`.

use std::fmt::Write as _;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// One metric: everything that an operator must know to read it.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, unit last.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// What is counted or measured.
    pub unit: &'static str,
    /// What it means.
    pub help: &'static str,
    /// Its labels, each with the values that it may have.
    pub labels: &'static [(&'static str, &'static str)],
}

impl Metric {
    fn label_names(&self) -> Vec<&'static str> {
        self.labels.iter().map(|(name, _)| *name).collect()
    }

    /// The names under which it appears in the output and may be used in a query.
    #[must_use]
    pub fn series(&self) -> Vec<String> {
        let parts: &[&str] = match self.kind {
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        let series = parts.iter().map(|part| format!("{}{part}", self.name));
        series.collect()
    }
}

/// A kind of metric that can be made of its description.
pub(super) trait Declared: Sized {
    const KIND: &'static str;

    fn declare(metric: &Metric, registry: &Registry) -> Self;
}

/// Seconds of what may take from a few microseconds to a minute.
const SECONDS: [f64; 18] = [
    0.000_05, 0.000_1, 0.000_25, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    2.5, 5.0, 10.0, 30.0, 60.0,
];

fn options(metric: &Metric) -> Opts {
    Opts::new(metric.name, metric.help)
}

fn seconds(metric: &Metric) -> HistogramOpts {
    HistogramOpts::new(metric.name, metric.help).buckets(SECONDS.to_vec())
}

#[expect(
    clippy::expect_used,
    reason = "names are constants; a test declares every metric"
)]
fn registered<M: Collector + Clone + 'static>(
    made: prometheus::Result<M>,
    registry: &Registry,
) -> M {
    let made = made.expect("metric names and labels are valid");
    registry
        .register(Box::new(made.clone()))
        .expect("each metric is registered once");
    made
}

macro_rules! declared {
    ($($type:ty, $kind:literal, |$metric:ident| $made:expr;)*) => {
        $(impl Declared for $type {
            const KIND: &'static str = $kind;

            fn declare($metric: &Metric, registry: &Registry) -> Self {
                registered($made, registry)
            }
        })*
    };
}

declared! {
    IntCounter, "counter", |m| IntCounter::with_opts(options(m));
    IntCounterVec, "counter", |m| IntCounterVec::new(options(m), &m.label_names());
    IntGauge, "gauge", |m| IntGauge::with_opts(options(m));
    IntGaugeVec, "gauge", |m| IntGaugeVec::new(options(m), &m.label_names());
    Histogram, "histogram", |m| Histogram::with_opts(seconds(m));
    HistogramVec, "histogram", |m| HistogramVec::new(seconds(m), &m.label_names());
}

/// `docs/metrics.md`.
pub(super) fn reference(metrics: &[&Metric]) -> String {
    let mut text = String::from(HEAD);
    for metric in metrics {
        let Metric {
            name,
            kind,
            unit,
            help,
            labels,
        } = metric;
        // Writing to a String cannot fail.
        let _ = write!(text, "\n## `{name}`\n\n{help}\n\nA {kind}, in {unit}.");
        if labels.is_empty() {
            text.push_str(" No labels.\n");
            continue;
        }
        text.push_str("\n\n");
        for (label, values) in *labels {
            let _ = writeln!(text, "* `{label}`: {values}");
        }
    }
    text
}

const HEAD: &str = "# Metrics

What `GET /metrics` on the admin listener shows, in the Prometheus text format. This page is written from the code; a test
compares the two. To write it again: `FAREWALL_WRITE_DOCS=1 cargo test --test it metrics_doc`.

Labels are names from the configuration and fixed words, never paths, payers or payment ids, so that strangers cannot make
series. Every counter begins at 0 when the process starts.

Amounts are integers of a token's smallest unit and are shown with all their digits. Prometheus itself keeps every sample as a
double, which is exact up to 2^53 (9 billion USDC, but 0.009 of a token with 18 decimals) and rounds beyond, by at most one part in
2^53. Books are kept from the ledger, not from Prometheus: `farewall report`.
";
