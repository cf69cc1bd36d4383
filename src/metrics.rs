//! Every metric: name, unit, meaning, labels. Labels are names from the configuration and fixed
//! words, never paths or payers.
//!
//! Counting a request costs a few atomic additions: handles are looked up once, by [`RuleMeter`] for
//! rules and in tables here for fixed words. What can be read when it is asked for (breakers, file
//! descriptors, what the configuration names) is a gauge that is set then.

mod catalogue;
mod phases;
mod process;
mod revenue;
mod rule;

use std::time::Duration;

use once_cell::sync::Lazy;
use parking_lot::Mutex;
use prometheus::{
    Encoder, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};

use self::catalogue::Declared;
use self::revenue::Revenue;
use self::rule::PerOutcome;
use crate::clock::UnixSeconds;
use crate::money::AtomicAmount;

pub use self::catalogue::Metric;
pub use self::phases::{PHASES, Phase, Phases};
pub use self::revenue::RevenueKey;
pub use self::rule::{OUTCOMES, RuleMeter};

static REGISTRY: Lazy<Registry> = Lazy::new(Registry::new);
static SETTLED: Revenue = Revenue::new();

const RULE: &str = "name of a rule, `unmatched`, or `-` where no rule governs";
const FACILITATOR: &str = "name of a facilitator";

macro_rules! metrics {
    ($($id:ident: $type:ident, $name:literal, $unit:literal, $help:literal
        $(, $label:literal => $values:expr)*;)*) => {
        static DESCRIBED: &[Metric] = &[$(Metric {
            name: $name,
            kind: <$type as Declared>::KIND,
            unit: $unit,
            help: $help,
            labels: &[$(($label, $values)),*],
        }),*];

        $(static $id: Lazy<$type> = Lazy::new(|| declared($name));)*

        /// So that what has no labels is shown before it happens.
        fn declare_all() {
            $(Lazy::force(&$id);)*
        }
    };
}

metrics! {
    REQUESTS: IntCounterVec, "farewall_requests_total", "requests",
        "Requests that ended, by rule and outcome. The outcomes `paid` and `replayed` delivered what was paid for; `payment_required` is a challenge.",
        "rule" => RULE, "outcome" => "one of the outcomes at the end of docs/metrics.md";
    RESPONSES: IntCounterVec, "farewall_responses_total", "responses",
        "Responses by class of status; `none` when the client left before there was one.",
        "class" => "`1xx` to `5xx`, or `none`";
    REQUEST_SECONDS: HistogramVec, "farewall_request_duration_seconds", "seconds",
        "From the request head to the last byte of the answer.",
        "outcome" => "as in farewall_requests_total";
    PHASE_SECONDS: HistogramVec, "farewall_phase_duration_seconds", "seconds",
        "Time of one phase of a request: making the challenge, verifying the proof (cache hits included), claiming the payment, waiting for the upstream's response head, settling (the ledger's writes included).",
        "phase" => "`challenge`, `verify`, `claim`, `upstream`, `settle`";
    UNDER_WAY: IntGauge, "farewall_requests_under_way", "requests",
        "Requests that have begun and not ended.";
    REFUSED_PROOFS: IntCounterVec, "farewall_proofs_refused_total", "proofs",
        "Proofs of payment that were refused, here or by a facilitator, by reason code.",
        "reason" => "a reason code of x402 that the wall knows, or `other`";
    VERDICTS: IntCounterVec, "farewall_verdict_cache_total", "look-ups",
        "Whether the verdict on a proof was remembered.",
        "result" => "`hit` or `miss`";
    LAST_SETTLEMENT: IntGauge, "farewall_last_settlement_timestamp_seconds", "seconds since 1970",
        "When a payment was last recorded as settled by this process; 0 before the first. `time() - farewall_last_settlement_timestamp_seconds` is the time since.";
    SETTLEMENTS: IntCounterVec, "farewall_settlements_total", "calls",
        "Settle calls of requests by facilitator and outcome. `unknown`: money may have moved. `not_sent`: certainly not.",
        "facilitator" => FACILITATOR, "outcome" => "`settled`, `refused`, `unknown`, `not_sent`";
    CALLS: IntCounterVec, "farewall_facilitator_calls_total", "calls",
        "Calls to facilitators, repetitions included. `answered`: a definite yes or no.",
        "facilitator" => FACILITATOR, "call" => "`verify` or `settle`", "result" => "`answered` or `failed`";
    CALL_SECONDS: HistogramVec, "farewall_facilitator_call_duration_seconds", "seconds",
        "How long calls to facilitators take.",
        "facilitator" => FACILITATOR, "call" => "`verify` or `settle`";
    HEALTHY: IntGaugeVec, "farewall_facilitator_healthy", "0 or 1",
        "1 when the last call that says something about the facilitator's health was answered, and before the first; else 0.",
        "facilitator" => FACILITATOR;
    BREAKER: IntGaugeVec, "farewall_facilitator_breaker_state", "0, 1 or 2",
        "The circuit breaker: 0 closed, 1 half open (the next call decides), 2 open (verifications stay away; settlements do not).",
        "facilitator" => FACILITATOR;
    UNKNOWN: IntGauge, "farewall_unknown_settlements", "claims",
        "Settlements whose outcome this wall has to find out.";
    OLDEST_UNKNOWN: IntGauge, "farewall_unknown_settlement_age_seconds", "seconds",
        "Age of the oldest of them; 0 when there is none.";
    CLAIMS: IntGaugeVec, "farewall_ledger_claims", "claims",
        "Claims in the ledger that are not at their end, looked up every 15 seconds: `open` is claimed, `unknown` is settling, `owed` is paid and not delivered, `lost` is expired without anybody knowing whether money moved. What a person has marked is not counted.",
        "state" => "`open`, `unknown`, `owed`, `lost`";
    COMMIT_SECONDS: HistogramVec, "farewall_ledger_commit_duration_seconds", "seconds",
        "From handing a write to the ledger until it is durable.",
        "write" => "`claim` or `advance`";
    LEDGER_FAILURES: IntCounterVec, "farewall_ledger_failures_total", "operations",
        "Operations that the ledger did not carry out, or about which it gave no answer. While it fails, nothing is sold.",
        "operation" => "`claim`, `advance` or `read`";
    PRUNED: IntCounter, "farewall_ledger_pruned_total", "claims",
        "Old claims that this wall deleted from the ledger (`retention_days`).";
    LEDGER_COMMITS: IntGauge, "farewall_ledger_commits", "transactions",
        "Transactions that the ledger file has committed since the start, one wait for the disk each. A ledger on a server has none.";
    CERTIFICATES: IntCounterVec, "farewall_tls_certificates_total", "certificates",
        "Certificate files that changed while the wall ran, by what became of them.",
        "outcome" => "`taken`, or `refused`: the old one stays";
    EXPIRY: IntGaugeVec, "farewall_tls_certificate_expiry_timestamp_seconds", "seconds since 1970",
        "When a certificate that is served expires; 0 while an ACME server has not issued it yet.",
        "certificate" => "path of the certificate's file, or a name of `[acme]`";
    ORDERS: IntCounterVec, "farewall_acme_orders_total", "orders",
        "Orders of certificates from the ACME server that ended. After `failed` the old certificate is still served; the log says why.",
        "name" => "a name of `[acme]`", "outcome" => "`issued` or `failed`";
    CONNECTIONS: IntGauge, "farewall_connections", "connections",
        "Client connections that are open.";
    CONNECTIONS_MAX: IntGauge, "farewall_connections_max", "connections",
        "As many may be open: `connections_max` in `[limits]`.";
    CONNECTIONS_REFUSED: IntCounterVec, "farewall_connections_refused_total", "connections",
        "Connections that the wall closed before it read a request.",
        "reason" => "`too_many`, `too_many_of_one_client`, `head_too_slow`, `head_too_large`";
    SPANS_DROPPED: IntCounter, "farewall_spans_dropped_total", "spans",
        "Requests whose trace was not exported (`otlp_endpoint`), because too many waited or the collector did not take it.";
    OPEN_FDS: IntGauge, "process_open_fds", "file descriptors",
        "Open file descriptors of the process.";
    MAX_FDS: IntGauge, "process_max_fds", "file descriptors",
        "As many may be open (`ulimit -n`).";
    RESIDENT: IntGauge, "process_resident_memory_bytes", "bytes",
        "Memory of the process that is not swapped out.";
    STARTED: IntGauge, "process_start_time_seconds", "seconds since 1970",
        "When the wall started.";
    BUILD: IntGaugeVec, "farewall_build_info", "always 1",
        "What is running.",
        "version" => "version of farewall";
    TOKENS: IntGaugeVec, "farewall_accept_info", "always 1",
        "The ways of being paid in force, to show revenue in whole tokens.",
        "accept" => "`[accept.NAME]`", "network" => "CAIP-2", "asset" => "as in farewall_revenue_atomic_total",
        "symbol" => "of the token", "decimals" => "of the token";
}

#[expect(
    clippy::expect_used,
    reason = "the macro writes both; a test declares every metric"
)]
fn declared<M: Declared>(name: &str) -> M {
    let metric = DESCRIBED.iter().find(|metric| metric.name == name);
    M::declare(metric.expect("every metric is described"), &REGISTRY)
}

/// Revenue has more than 64 bits and is written by itself.
static REVENUE: Metric = Metric {
    name: "farewall_revenue_atomic_total",
    kind: "counter",
    unit: "the token's smallest units",
    help: "Settled amounts. Exact in the text; Prometheus rounds sums above 2^53 to the nearest double.",
    labels: &[
        ("rule", "name of a rule"),
        ("accept", "`[accept.NAME]`"),
        ("network", "CAIP-2"),
        ("asset", "the token: its contract on EVM networks"),
    ],
};

/// All metrics.
#[must_use]
pub fn all() -> Vec<&'static Metric> {
    DESCRIBED.iter().chain([&REVENUE]).collect()
}

/// The reference for people: `docs/metrics.md`.
#[must_use]
pub fn reference() -> String {
    let mut text = catalogue::reference(&all());
    text.push_str("\n## Outcomes\n\nThe values of `outcome`:\n\n");
    for outcome in OUTCOMES {
        text.push_str(&format!("* `{outcome}`\n"));
    }
    text
}

/// A request is over.
pub fn request(meter: &RuleMeter, outcome: &str, status: u16, elapsed: Duration) {
    static SECONDS: PerOutcome<Histogram> = PerOutcome::new();
    let index = rule::index(outcome);
    meter.count(index);
    let seconds = SECONDS.get(index, |word| REQUEST_SECONDS.with_label_values(&[word]));
    if let Some(seconds) = seconds {
        seconds.observe(elapsed.as_secs_f64());
    }
    if let Some(class) = CLASSES.get(usize::from(status / 100)) {
        class.inc();
    }
}

/// The counters of status classes, by the first digit.
static CLASSES: Lazy<[IntCounter; 6]> = Lazy::new(|| {
    ["none", "1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| RESPONSES.with_label_values(&[class]))
});

/// The phases of a request that is over.
pub fn phases(phases: &Phases) {
    static SECONDS: Lazy<[Histogram; PHASES.len()]> =
        Lazy::new(|| PHASES.map(|phase| PHASE_SECONDS.with_label_values(&[phase.as_str()])));
    for (phase, seconds) in PHASES.into_iter().zip(&*SECONDS) {
        if let Some(micros) = phases.micros(phase) {
            seconds.observe(Duration::from_micros(micros).as_secs_f64());
        }
    }
}

/// A payment is on record as settled.
pub fn settled(key: RevenueKey, amount: AtomicAmount, now: UnixSeconds) {
    SETTLED.add(key, amount);
    LAST_SETTLEMENT.set(i64::try_from(now.0).unwrap_or(i64::MAX));
}

/// A settle call ended: `settled`, `refused`, `unknown` or `not_sent`.
pub fn settlement(facilitator: &str, outcome: &'static str) {
    SETTLEMENTS.with_label_values(&[facilitator, outcome]).inc();
}

/// Whether the verdict on a proof was remembered.
pub fn verdict(remembered: bool) {
    static COUNTERS: Lazy<[IntCounter; 2]> =
        Lazy::new(|| ["hit", "miss"].map(|result| VERDICTS.with_label_values(&[result])));
    let [hit, miss] = &*COUNTERS;
    if remembered { hit.inc() } else { miss.inc() }
}

/// A proof was refused with this reason code.
pub fn proof_refused(reason: &str) {
    let known = REASONS.iter().find(|known| **known == reason);
    let reason = known.copied().unwrap_or("other");
    REFUSED_PROOFS.with_label_values(&[reason]).inc();
}

/// The reason codes that have a series of their own: ours, and those of the official facilitator.
/// Facilitators may send others, which must not make series without end.
const REASONS: [&str; 34] = [
    "Payment required",
    "No matching payment requirements",
    "duplicate_payment_header",
    "extension_echo_mismatch",
    "invalid_payload",
    "unsupported_payload_type",
    "invalid_exact_evm_missing_eip712_domain",
    "invalid_exact_evm_recipient_mismatch",
    "invalid_exact_evm_payload_authorization_valid_before",
    "invalid_exact_evm_payload_authorization_valid_after",
    "invalid_exact_evm_payload_authorization_value",
    "invalid_exact_evm_payload_authorization_value_mismatch",
    "invalid_exact_evm_authorization_value",
    "invalid_exact_evm_signature",
    "invalid_exact_evm_payload_signature",
    "invalid_exact_evm_insufficient_balance",
    "invalid_exact_evm_nonce_already_used",
    "invalid_exact_evm_transaction_simulation_failed",
    "invalid_permit2_spender",
    "invalid_permit2_signature",
    "invalid_permit2_recipient_mismatch",
    "permit2_token_mismatch",
    "permit2_deadline_expired",
    "permit2_not_yet_valid",
    "permit2_amount_mismatch",
    "permit2_insufficient_balance",
    "permit2_allowance_required",
    "payment_already_used",
    "payment_abandoned",
    "payment_rejected",
    "insufficient_funds",
    "invalid_network",
    "invalid_scheme",
    "invalid_x402_version",
];

/// A call to a facilitator ended.
pub fn facilitator_call(facilitator: &str, call: &'static str, answered: bool, took: Duration) {
    let result = if answered { "answered" } else { "failed" };
    CALLS.with_label_values(&[facilitator, call, result]).inc();
    CALL_SECONDS
        .with_label_values(&[facilitator, call])
        .observe(took.as_secs_f64());
}

/// A facilitator in force: whether its last call was answered, and where its breaker stands: 0 closed,
/// 1 half open, 2 open. For [`render`].
pub fn facilitator(name: &str, is_healthy: bool, breaker: u8) {
    HEALTHY
        .with_label_values(&[name])
        .set(i64::from(is_healthy));
    BREAKER.with_label_values(&[name]).set(i64::from(breaker));
}

/// A connection was turned away: `too_many`, `too_many_of_one_client`,
/// `head_too_slow` or `head_too_large`.
pub fn spans_dropped(spans: usize) {
    SPANS_DROPPED.inc_by(u64::try_from(spans).unwrap_or(u64::MAX));
}

/// A connection was closed before a request was read.
pub fn connection_refused(reason: &'static str) {
    CONNECTIONS_REFUSED.with_label_values(&[reason]).inc();
}

/// A certificate's files have changed: `taken`, or `refused` and the old one stays.
pub fn certificate(outcome: &'static str) {
    CERTIFICATES.with_label_values(&[outcome]).inc();
}

/// A certificate is served until then; 0 when there is none yet.
pub fn certificate_expiry(certificate: &str, expiry: UnixSeconds) {
    EXPIRY
        .with_label_values(&[certificate])
        .set(i64::try_from(expiry.0).unwrap_or(i64::MAX));
}

/// Orders for this name may come: shows their counters.
pub fn acme_name(name: &str) {
    for outcome in ["issued", "failed"] {
        let _shown = ORDERS.with_label_values(&[name, outcome]);
    }
}

/// An order of a certificate ended: `issued` or `failed`.
pub fn acme_order(name: &str, outcome: &'static str) {
    ORDERS.with_label_values(&[name, outcome]).inc();
}

/// A gauge that goes down by itself, panics included.
#[derive(Debug)]
pub struct Counted(&'static IntGauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A connection is open while this is held.
#[must_use]
pub fn connection() -> Counted {
    CONNECTIONS.inc();
    Counted(&CONNECTIONS)
}

/// A request is under way while this is held.
#[must_use]
pub fn under_way() -> Counted {
    UNDER_WAY.inc();
    Counted(&UNDER_WAY)
}

/// So many connections may be open.
pub fn connections_max(count: usize) {
    CONNECTIONS_MAX.set(gauge(count));
}

/// How many claims wait for a definite outcome, and the age of the oldest, in seconds.
pub fn unknown_settlements(count: usize, oldest_s: u64) {
    UNKNOWN.set(gauge(count));
    OLDEST_UNKNOWN.set(i64::try_from(oldest_s).unwrap_or(i64::MAX));
}

/// How many claims of the ledger are `open`, `unknown`, `owed` or `lost`.
pub fn ledger_claims(state: &'static str, count: u64) {
    CLAIMS
        .with_label_values(&[state])
        .set(i64::try_from(count).unwrap_or(i64::MAX));
}

/// A write of the ledger is durable, or failed.
pub fn ledger_write(write: &'static str, took: Duration) {
    COMMIT_SECONDS
        .with_label_values(&[write])
        .observe(took.as_secs_f64());
}

/// The ledger did not do what it was asked: `claim`, `advance` or `read`.
pub fn ledger_failed(operation: &'static str) {
    LEDGER_FAILURES.with_label_values(&[operation]).inc();
}

/// A way of being paid that is in force. For [`render`].
pub fn accept(accept: &str, network: &str, asset: &str, symbol: &str, decimals: &str) {
    TOKENS
        .with_label_values(&[accept, network, asset, symbol, decimals])
        .set(1);
}

/// The wall has started.
pub fn started(now: UnixSeconds) {
    declare_all();
    STARTED.set(i64::try_from(now.0).unwrap_or(i64::MAX));
    BUILD.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What the system says of the process.
#[derive(Clone, Copy)]
enum ProcessGauge {
    OpenFds,
    MaxFds,
    Resident,
}

impl ProcessGauge {
    fn set(self, value: i64) {
        match self {
            Self::OpenFds => OPEN_FDS.set(value),
            Self::MaxFds => MAX_FDS.set(value),
            Self::Resident => RESIDENT.set(value),
        }
    }
}

/// So many old claims were deleted from the ledger.
pub fn pruned(claims: u64) {
    PRUNED.inc_by(claims);
}

/// How many transactions the ledger has committed.
pub fn ledger_commits(count: u64) {
    LEDGER_COMMITS.set(i64::try_from(count).unwrap_or(i64::MAX));
}

/// All metrics in the Prometheus text format. `announce` says what the configuration in force names,
/// with [`facilitator`] and [`accept`]: what it does not name any more is not shown any more.
#[must_use]
pub fn render(announce: impl FnOnce()) -> String {
    static ONE_BY_ONE: Mutex<()> = Mutex::new(());
    let _alone = ONE_BY_ONE.lock();
    for named in [&HEALTHY, &BREAKER, &TOKENS] {
        named.reset();
    }
    announce();
    for (which, value) in process::gauges() {
        which.set(value.unwrap_or(0));
    }
    let mut text = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&REGISTRY.gather(), &mut text) {
        tracing::error!(%error, "cannot render the metrics");
    }
    let mut text = String::from_utf8(text).unwrap_or_default();
    SETTLED.write(REVENUE.name, REVENUE.help, &mut text);
    text
}

#[cfg(test)]
mod tests;
