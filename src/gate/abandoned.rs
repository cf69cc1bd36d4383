//! Payments whose buyers keep hanging up: each time the upstream works, and nothing is delivered.
//!
//! Counted in memory: enough against being made to work for nothing, and never the reason for money.

use std::time::Duration;

use moka::sync::Cache;

use crate::chain::PaymentKey;

/// So often a buyer may hang up on one payment.
const TIMES_MAX: u32 = 3;

/// How long it is remembered.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// How many payments are counted; the longest unused are forgotten first.
const PAYMENTS_MAX: u64 = 100_000;

/// How often buyers hung up, by payment.
#[derive(Clone)]
pub(super) struct Abandoned(Cache<PaymentKey, u32>);

impl Default for Abandoned {
    fn default() -> Self {
        Self(
            Cache::builder()
                .max_capacity(PAYMENTS_MAX)
                .time_to_live(REMEMBERED)
                .build(),
        )
    }
}

impl Abandoned {
    /// The buyer hung up.
    pub(super) fn count(&self, payment: PaymentKey) {
        self.0
            .entry(payment)
            .and_upsert_with(|old| old.map_or(1, |old| old.into_value().saturating_add(1)));
    }

    /// Whether that was once too often.
    pub(super) fn too_often(&self, payment: PaymentKey) -> bool {
        self.0.get(&payment).is_some_and(|times| times >= TIMES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_times_is_too_often_for_that_payment_only() {
        let (abandoned, one, two) = (
            Abandoned::default(),
            PaymentKey([1; 32]),
            PaymentKey([2; 32]),
        );
        for _ in 0..3 {
            assert!(!abandoned.too_often(one));
            abandoned.count(one);
        }
        assert!(abandoned.too_often(one) && !abandoned.too_often(two));
    }
}
