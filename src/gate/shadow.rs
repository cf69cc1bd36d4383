//! Requests in shadow: what would become of them is decided, and they are let through.
//!
//! Judged by what can be judged here. No facilitator is asked and nothing is written to the ledger,
//! so a wall in shadow lets requests through when both are down.

use std::sync::Arc;

use crate::gate::{Admission, Ask, Gate};
use crate::proof::check::check;
use crate::proof::parse::parse;
use crate::route::FreeRoute;
use crate::route::shadow::ShadowRoute;

/// A request that is let through in shadow.
#[derive(Clone, Debug)]
pub struct Shadow {
    /// Where it goes.
    pub route: Arc<FreeRoute>,
    /// What would have become of it, for metrics and log: `shadow_payment_required` and the like.
    pub outcome: &'static str,
    /// The value of [`HEADER`](crate::route::shadow::HEADER).
    pub told: String,
}

/// What would become of a request that is not in shadow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    /// 404.
    NoSuchRoute,
    /// 429.
    RateLimited,
    /// 503: no way of paying can be offered.
    PaymentUnavailable,
    /// 402.
    PaymentRequired,
    /// 402 with a reason.
    ProofRefused,
    /// A facilitator would be asked.
    ProofGood,
}

impl Verdict {
    /// In metrics and log, and what follows `shadow_` in the header.
    const fn word(self) -> &'static str {
        match self {
            Self::NoSuchRoute => "shadow_no_such_route",
            Self::RateLimited => "shadow_rate_limited",
            Self::PaymentUnavailable => "shadow_payment_unavailable",
            Self::PaymentRequired => "shadow_payment_required",
            Self::ProofRefused => "shadow_proof_refused",
            Self::ProofGood => "shadow_proof_good",
        }
    }
}

impl Gate {
    pub(super) fn shadow(&self, ask: &Ask<'_>, route: &ShadowRoute) -> Admission {
        let outcome = self.verdict(ask, route).word();
        let told = route.told(outcome.strip_prefix("shadow_").unwrap_or(outcome));
        Admission::Shadow(Shadow {
            route: Arc::clone(&route.free),
            outcome,
            told,
        })
    }

    fn verdict(&self, ask: &Ask<'_>, route: &ShadowRoute) -> Verdict {
        if route.is_unlisted {
            return Verdict::NoSuchRoute;
        }
        let (rule, limit) = (&route.free.rule, route.free.rate_limit);
        if self.throttle.request(rule, limit, ask.client).is_err() {
            return Verdict::RateLimited;
        }
        let Some(priced) = &route.priced else {
            return Verdict::PaymentUnavailable;
        };
        if ask.proof.is_empty() {
            return Verdict::PaymentRequired;
        }
        let (now, quote) = (self.clock.now(), priced.price.quote());
        let bytes_max = self.limits.payment_header_bytes_max;
        let proof = parse(&ask.proof, &quote, bytes_max, now).and_then(|proof| check(proof, now));
        let Ok(proof) = proof else {
            return Verdict::ProofRefused;
        };
        let payer = proof.proof().payer();
        match self.throttle.payment(rule, limit, payer, ask.client) {
            Ok(()) => Verdict::ProofGood,
            Err(_) => Verdict::RateLimited,
        }
    }
}
