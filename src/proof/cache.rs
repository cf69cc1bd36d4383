//! Which verdicts of facilitators are kept, under which key, how long.
//!
//! A kept verdict saves a question; it never buys a response, only a claim does. The key covers all
//! that the facilitator was told, so a verdict answers exactly the question it was given for, and
//! header text plays no part in it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_primitives::B256;
use moka::Expiry;
use moka::sync::Cache;
use sha2::{Digest, Sha256};

use super::check::SETTLE_MARGIN_S;
use super::{Proof, Terms};
use crate::clock::UnixSeconds;
use crate::x402::reason::ReasonCode;

/// The longest that a good verdict is kept, in seconds: the payer's balance may change.
const VALID_TTL_S: u64 = 60;
/// How long a verdict is kept that no later event mends.
const INVALID_TTL_S: u64 = 10;
/// How long a verdict is kept that the payer can mend, by topping up or approving.
const MENDABLE_TTL_S: u64 = 2;

/// Whether a verdict was asked for or remembered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Freshness {
    /// The facilitator was asked.
    Fresh,
    /// Remembered.
    Cached,
}

/// A definite verdict of a facilitator.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The proof is good.
    Valid {
        /// Who pays, as the facilitator spells it.
        payer: Option<Arc<str>>,
        /// Which facilitator said so.
        facilitator: Arc<str>,
    },
    /// The proof is not good.
    Invalid {
        /// Why.
        reason: ReasonCode,
    },
}

/// Under which a verdict is kept: SHA-256 of accept, payment, all that the facilitator is asked, and which
/// facilitators could be asked.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct VerdictKey([u8; 32]);

impl VerdictKey {
    /// The key of the question that `proof` asks. `askers` is another number whenever facilitators
    /// or who uses which have changed: who was not asked has no verdict.
    #[must_use]
    pub fn of(proof: &Proof, askers: u64) -> Self {
        let mut hash = Sha256::new();
        let mut add = |field: &[u8]| {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        };
        add(&askers.to_be_bytes());
        add(proof.offer.accept.as_bytes());
        add(&proof.key().0);
        // Who pays is in the payment's key; the question says nothing beside these.
        let (signed, signature): (&[B256], _) = match &proof.terms {
            Terms::Eip3009 {
                authorization,
                signature,
                ..
            } => (&authorization.words(), signature),
            Terms::Permit2 {
                authorization,
                signature,
                ..
            } => (&authorization.words(), signature),
            Terms::Opaque => {
                add(proof.request().body.as_bytes());
                return Self(hash.finalize().into());
            }
        };
        add(proof.offer.requirements_text.as_bytes());
        add(signature.as_bytes());
        signed.iter().for_each(|word| add(word.as_slice()));
        Self(hash.finalize().into())
    }
}

/// The kept verdicts. Cheap to clone; clones share their entries.
#[derive(Clone, Debug)]
pub struct VerdictCache(Cache<VerdictKey, Kept>);

#[derive(Clone, Debug)]
struct Kept {
    verdict: Verdict,
    /// By the wall's clock, which `now` comes from.
    good_until: UnixSeconds,
    /// By the machine's, for eviction.
    ttl: Duration,
}

struct PerEntry;

impl Expiry<VerdictKey, Kept> for PerEntry {
    fn expire_after_create(&self, _: &VerdictKey, kept: &Kept, _: Instant) -> Option<Duration> {
        Some(kept.ttl)
    }

    fn expire_after_update(
        &self,
        _: &VerdictKey,
        kept: &Kept,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(kept.ttl)
    }
}

impl VerdictCache {
    /// A cache of at most `entries_max` verdicts; 0 keeps none.
    #[must_use]
    pub fn new(entries_max: u64) -> Self {
        Self(
            Cache::builder()
                .max_capacity(entries_max)
                .expire_after(PerEntry)
                .build(),
        )
    }

    /// The verdict kept under `key`, while it holds.
    #[must_use]
    pub fn get(&self, key: &VerdictKey, now: UnixSeconds) -> Option<Verdict> {
        self.0
            .get(key)
            .filter(|kept| now < kept.good_until)
            .map(|kept| kept.verdict)
    }

    /// Keeps `verdict` for as long as it is certainly true, which may be not at all.
    ///
    /// `valid_before` is the proof's: a good verdict ends with the last second that could be settled.
    pub fn keep(
        &self,
        key: VerdictKey,
        verdict: Verdict,
        valid_before: UnixSeconds,
        now: UnixSeconds,
    ) {
        let seconds = match &verdict {
            Verdict::Valid { .. } => {
                VALID_TTL_S.min(valid_before.minus(SETTLE_MARGIN_S).since(now))
            }
            Verdict::Invalid { reason } => invalid_ttl_s(reason.as_str()),
        };
        if seconds > 0 {
            let (good_until, ttl) = (now.plus(seconds), Duration::from_secs(seconds));
            self.0.insert(
                key,
                Kept {
                    verdict,
                    good_until,
                    ttl,
                },
            );
        }
    }
}

/// Reasons are opaque text of many dialects (fact sheet section 3.10), so this goes by their words.
fn invalid_ttl_s(reason: &str) -> u64 {
    const PASSING: [&str; 7] = [
        "valid_after",
        "not_yet",
        "early",
        "unexpected",
        "duplicate",
        "timeout",
        "rpc",
    ];
    const MENDABLE: [&str; 6] = [
        "insufficient",
        "allowance",
        "simulation",
        "deployed",
        "approval",
        "payment_rejected",
    ];
    let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if says(&PASSING) {
        0
    } else if says(&MENDABLE) {
        MENDABLE_TTL_S
    } else {
        INVALID_TTL_S
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_000);
    const KEY: VerdictKey = VerdictKey([1; 32]);

    /// Kept at `NOW`, the verdict is there for exactly `seconds`.
    #[track_caller]
    fn check(verdict: Verdict, valid_before: u64, seconds: u64) {
        let cache = VerdictCache::new(10);
        cache.keep(KEY, verdict.clone(), UnixSeconds(valid_before), NOW);
        if seconds > 0 {
            assert_eq!(
                cache.get(&KEY, NOW.plus(seconds).minus(1)),
                Some(verdict.clone()),
                "last second"
            );
        }
        assert_eq!(cache.get(&KEY, NOW.plus(seconds)), None, "{verdict:?}");
    }

    fn valid() -> Verdict {
        Verdict::Valid {
            payer: None,
            facilitator: "f".into(),
        }
    }

    fn invalid(reason: &str) -> Verdict {
        Verdict::Invalid {
            reason: ReasonCode::foreign(reason),
        }
    }

    #[test]
    fn a_good_verdict_ends_with_the_proof_and_after_a_minute_at_most() {
        check(valid(), u64::MAX, 60);
        check(valid(), 1_066, 60);
        check(valid(), 1_036, 30);
        check(valid(), 1_007, 1);
        check(valid(), 1_006, 0);
        check(valid(), 0, 0);
    }

    #[test]
    fn a_bad_verdict_is_kept_for_as_long_as_nothing_can_mend_it() {
        check(invalid("invalid_exact_evm_nonce_already_used"), 0, 10);
        check(invalid("invalid_exact_evm_insufficient_balance"), 0, 2);
        check(invalid("permit2_allowance_required"), 0, 2);
        check(
            invalid("invalid_exact_evm_payload_authorization_valid_after"),
            0,
            0,
        );
        check(invalid("duplicate_settlement"), 0, 0);
    }

    #[test]
    fn an_entry_expires_by_the_machines_clock_too() {
        let cache = VerdictCache::new(10);
        cache.keep(KEY, valid(), UnixSeconds(1_036), NOW);
        let kept = cache.0.get(&KEY).unwrap();
        let ttl = PerEntry.expire_after_create(&KEY, &kept, Instant::now());
        assert_eq!(ttl, Some(Duration::from_secs(30)));
    }

    #[test]
    fn a_cache_without_room_keeps_nothing() {
        let cache = VerdictCache::new(0);
        cache.keep(KEY, valid(), UnixSeconds(u64::MAX), NOW);
        cache.0.run_pending_tasks();
        assert_eq!(cache.get(&KEY, NOW), None);
    }
}
