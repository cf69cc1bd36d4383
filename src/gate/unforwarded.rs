//! Payments settled in advance whose request certainly never left for the upstream: it may be
//! sent for the first time later, whatever its method.
//!
//! In memory: after a restart nobody can be certain any more, and a request that is not safe to
//! repeat is then a debt for a person.

use moka::sync::Cache;

use crate::chain::PaymentKey;

/// How many are remembered; the longest unused are forgotten first.
const PAYMENTS_MAX: u64 = 100_000;

/// Such payments.
#[derive(Clone)]
pub(super) struct Unforwarded(Cache<PaymentKey, ()>);

impl Default for Unforwarded {
    fn default() -> Self {
        Self(Cache::new(PAYMENTS_MAX))
    }
}

impl Unforwarded {
    /// Its request did not leave.
    pub(super) fn remember(&self, payment: PaymentKey) {
        self.0.insert(payment, ());
    }

    /// Whether its request did not leave. Forgotten at once: the caller is going to send it.
    pub(super) fn take(&self, payment: PaymentKey) -> bool {
        self.0.remove(&payment).is_some()
    }
}
