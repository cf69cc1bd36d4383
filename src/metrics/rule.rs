//! The counters of one rule, looked up once: a request finds them without comparing label texts.

use std::sync::{Arc, OnceLock};

use once_cell::sync::Lazy;
use prometheus::IntCounter;

/// How a request can end, frequent ends first. Whatever else is counted as the last.
pub const OUTCOMES: [&str; 43] = [
    "free",
    "payment_required",
    "paid",
    "replayed",
    "proof_refused",
    "proof_invalid",
    "payment_spent",
    "rate_limited",
    "no_such_route",
    "denied",
    "preflight",
    "upstream_error",
    "upstream_failed",
    "upstream_timeout",
    "client_left",
    "broken_off",
    "payment_in_progress",
    "payment_unavailable",
    "settlement_unknown",
    "settlement_refused",
    "busy",
    "payment_abandoned",
    "allowance_required",
    "paid_upstream_error",
    "paid_response_owed",
    "paid_response_lost",
    "body_too_large",
    "unsafe_target",
    "target_too_long",
    "bad_host",
    "bad_request",
    "method_not_allowed",
    "origin_not_allowed",
    "peer_not_trusted",
    "settles_after_delivery",
    "internal_error",
    "shadow_payment_required",
    "shadow_proof_good",
    "shadow_proof_refused",
    "shadow_payment_unavailable",
    "shadow_rate_limited",
    "shadow_no_such_route",
    "other",
];

/// Where an outcome stands in [`OUTCOMES`].
pub(super) fn index(outcome: &str) -> usize {
    let found = OUTCOMES.iter().position(|known| *known == outcome);
    debug_assert!(
        found.is_some() || outcome.is_empty(),
        "{outcome} is no known outcome"
    );
    found.unwrap_or(OUTCOMES.len().saturating_sub(1))
}

/// One handle for each outcome, made when it first happens.
pub(super) struct PerOutcome<T>([OnceLock<T>; OUTCOMES.len()]);

impl<T> PerOutcome<T> {
    pub(super) const fn new() -> Self {
        Self([const { OnceLock::new() }; OUTCOMES.len()])
    }

    pub(super) fn with(&self, index: usize, make: impl FnOnce(&'static str) -> T, act: fn(&T)) {
        if let (Some(slot), Some(word)) = (self.0.get(index), OUTCOMES.get(index)) {
            act(slot.get_or_init(|| make(word)));
        }
    }

    pub(super) fn get(&self, index: usize, make: impl FnOnce(&'static str) -> T) -> Option<&T> {
        let word = OUTCOMES.get(index)?;
        Some(self.0.get(index)?.get_or_init(|| make(word)))
    }
}

/// The request counters of one rule.
///
/// Made when rules are loaded. Two of one name count together.
pub struct RuleMeter {
    rule: Arc<str>,
    requests: PerOutcome<IntCounter>,
}

impl RuleMeter {
    /// For the rule of this name.
    #[must_use]
    pub fn new(rule: &Arc<str>) -> Arc<Self> {
        Arc::new(Self {
            rule: Arc::clone(rule),
            requests: PerOutcome::new(),
        })
    }

    /// For requests that no rule governs.
    #[must_use]
    pub fn none() -> &'static Arc<Self> {
        static NONE: Lazy<Arc<RuleMeter>> = Lazy::new(|| RuleMeter::new(&"-".into()));
        &NONE
    }

    /// The rule's name, or `-`.
    #[must_use]
    pub fn rule(&self) -> &str {
        &self.rule
    }

    pub(super) fn count(&self, index: usize) {
        let make = |word| super::REQUESTS.with_label_values(&[&*self.rule, word]);
        self.requests.with(index, make, IntCounter::inc);
    }
}

impl std::fmt::Debug for RuleMeter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RuleMeter({:?})", self.rule)
    }
}
