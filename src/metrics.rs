//! Every metric: name, unit, labels. Labels are rule names and fixed words, never paths or payers.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use once_cell::sync::Lazy;
use prometheus::{
    Encoder, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder,
    histogram_opts, opts,
};

use crate::money::AtomicAmount;

static REGISTRY: Lazy<Registry> = Lazy::new(Registry::new);

static REQUESTS: Lazy<IntCounterVec> = Lazy::new(|| {
    counter(
        "farewall_requests_total",
        "Requests by rule and outcome.",
        &["rule", "outcome"],
    )
});

static SECONDS: Lazy<HistogramVec> = Lazy::new(|| {
    let buckets = vec![
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    ];
    let options = histogram_opts!(
        "farewall_request_duration_seconds",
        "Seconds from the request head to the last byte of the answer.",
        buckets
    );
    registered(HistogramVec::new(options, &["outcome"]))
});

static REVENUE: Lazy<IntCounterVec> = Lazy::new(|| {
    counter(
        "farewall_revenue_atomic_total",
        "Settled amounts in the asset's smallest unit; amounts above 2^63 are left to the ledger.",
        &["rule", "accept"],
    )
});

static SETTLE_OUTCOMES: Lazy<IntCounterVec> = Lazy::new(|| {
    counter(
        "farewall_settlements_total",
        "Settle calls by outcome.",
        &["facilitator", "outcome"],
    )
});

static CONNECTIONS_REFUSED: Lazy<IntCounterVec> = Lazy::new(|| {
    counter(
        "farewall_connections_refused_total",
        "Connections closed by the wall before a request was read, by reason.",
        &["reason"],
    )
});

static CERTIFICATES: Lazy<IntCounterVec> = Lazy::new(|| {
    counter(
        "farewall_tls_certificates_total",
        "Certificate files that changed while the wall ran, by what became of them.",
        &["outcome"],
    )
});

static UNKNOWN: Lazy<IntGauge> = Lazy::new(|| {
    registered(IntGauge::with_opts(opts!(
        "farewall_unknown_settlements",
        "Claims whose settlement outcome is not known."
    )))
});

static PRUNED: Lazy<IntCounter> = Lazy::new(|| {
    registered(IntCounter::with_opts(opts!(
        "farewall_ledger_pruned_total",
        "Old claims that this wall deleted from the ledger."
    )))
});

static LEDGER_COMMITS: Lazy<IntGauge> = Lazy::new(|| {
    registered(IntGauge::with_opts(opts!(
        "farewall_ledger_commits",
        "Transactions that the ledger file has committed since the start, one wait for the disk each."
    )))
});

fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(IntCounterVec::new(opts!(name, help), labels))
}

#[expect(
    clippy::expect_used,
    reason = "names are constants; a test renders every metric"
)]
fn registered<M: prometheus::core::Collector + Clone + 'static>(
    metric: prometheus::Result<M>,
) -> M {
    let metric = metric.expect("metric names and labels are valid");
    REGISTRY
        .register(Box::new(metric.clone()))
        .expect("each metric is registered once");
    metric
}

/// The counters of one outcome under one rule: looked up by their labels once a thread.
struct Requests {
    // Kept, so that no other rule can have this address.
    _rule: Arc<str>,
    count: IntCounter,
    seconds: Histogram,
}

impl Requests {
    fn labelled(rule: &Arc<str>, outcome: &'static str) -> Self {
        Self {
            _rule: Arc::clone(rule),
            count: REQUESTS.with_label_values(&[rule, outcome]),
            seconds: SECONDS.with_label_values(&[outcome]),
        }
    }
}

/// So many of them are remembered by a thread; then it begins anew.
const REMEMBERED_MAX: usize = 4096;

thread_local! {
    static REMEMBERED: RefCell<HashMap<(*const str, *const str), Requests>> = RefCell::default();
}

/// A request is over; `rule` governed it, if any did.
pub fn request(rule: Option<&Arc<str>>, outcome: &'static str, elapsed: Duration) {
    let Some(rule) = rule else {
        REQUESTS.with_label_values(&["-", outcome]).inc();
        let seconds = SECONDS.with_label_values(&[outcome]);
        return seconds.observe(elapsed.as_secs_f64());
    };
    REMEMBERED.with_borrow_mut(|remembered| {
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        let key = (Arc::as_ptr(rule), std::ptr::from_ref(outcome));
        let requests = remembered
            .entry(key)
            .or_insert_with(|| Requests::labelled(rule, outcome));
        requests.count.inc();
        requests.seconds.observe(elapsed.as_secs_f64());
    });
}

/// A payment is on record as settled.
pub fn settled(rule: &str, accept: &str, amount: AtomicAmount) {
    if let Ok(units) = i64::try_from(amount.units())
        && let Ok(units) = u64::try_from(units)
    {
        REVENUE.with_label_values(&[rule, accept]).inc_by(units);
    }
}

/// A settle call ended: `settled`, `refused`, `unknown` or `not_sent`.
pub fn settlement(facilitator: &str, outcome: &'static str) {
    SETTLE_OUTCOMES
        .with_label_values(&[facilitator, outcome])
        .inc();
}

/// A connection was turned away: `too_many`, `too_many_of_one_client`,
/// `head_too_slow` or `head_too_large`.
pub fn connection_refused(reason: &'static str) {
    CONNECTIONS_REFUSED.with_label_values(&[reason]).inc();
}

/// A certificate's files have changed: `taken`, or `refused` and the old one stays.
pub fn certificate(outcome: &'static str) {
    CERTIFICATES.with_label_values(&[outcome]).inc();
}

/// How many claims wait for a definite outcome.
pub fn unknown_settlements(count: usize) {
    UNKNOWN.set(i64::try_from(count).unwrap_or(i64::MAX));
}

/// So many old claims were deleted from the ledger.
pub fn pruned(claims: u64) {
    PRUNED.inc_by(claims);
}

/// How many transactions the ledger has committed.
pub fn ledger_commits(count: u64) {
    LEDGER_COMMITS.set(i64::try_from(count).unwrap_or(i64::MAX));
}

/// All metrics in the Prometheus text format.
#[must_use]
pub fn render() -> String {
    let mut text = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&REGISTRY.gather(), &mut text) {
        tracing::error!(%error, "cannot render the metrics");
    }
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_rendered_with_its_help() {
        let rule = "quote".into();
        for _ in 0..2 {
            request(Some(&rule), "paid", Duration::from_millis(3));
        }
        request(None, "bad_request", Duration::from_millis(3));
        settlement("local", "settled");
        unknown_settlements(2);
        pruned(3);
        ledger_commits(7);
        certificate("taken");
        settled("quote", "base-usdc", AtomicAmount::new(1000));
        let text = render();
        for name in [
            "farewall_requests_total{outcome=\"paid\",rule=\"quote\"} 2",
            "farewall_requests_total{outcome=\"bad_request\",rule=\"-\"} 1",
            "farewall_request_duration_seconds_count{outcome=\"paid\"} 2",
            "farewall_settlements_total{facilitator=\"local\",outcome=\"settled\"} 1",
            "farewall_unknown_settlements 2",
            "farewall_ledger_pruned_total 3",
            "farewall_ledger_commits 7",
            "farewall_tls_certificates_total{outcome=\"taken\"} 1",
            "farewall_revenue_atomic_total{accept=\"base-usdc\",rule=\"quote\"} 1000",
        ] {
            assert!(text.contains(name), "{name} is missing in\n{text}");
        }
    }
}
