//! Asks for the verdict on a checked proof: the cache first, then the offer's facilitators in order.
//!
//! A facilitator that cannot answer is passed over at once; one that says no is believed. Nothing here
//! moves money, so asking twice is harmless: when all were passed over, those whose fault may have
//! been a moment's are asked again after a random pause.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use thiserror::Error;

use super::Proof;
use super::cache::{Freshness, Verdict, VerdictCache, VerdictKey};
use super::check::CheckedProof;
use crate::chain::Payer;
use crate::clock::UnixSeconds;
use crate::facilitator::{Facilitator, FacilitatorFault, VerifyAnswer};
use crate::x402::reason::ReasonCode;

/// What clients are told to wait when no facilitator said how long, in seconds.
const RETRY_AFTER_S: u64 = 5;
/// The longest that a facilitator can make us send clients away for, in seconds.
const RETRY_AFTER_S_MAX: u64 = 120;
/// The pause before the first repetition; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause before a repetition.
const PAUSE_MAX: Duration = Duration::from_millis(800);

/// A proof that a facilitator found good. Only [`Verifier::verify`] makes one.
#[derive(Debug)]
pub struct VerifiedProof {
    proof: Proof,
    payer: Payer,
    facilitator: Arc<str>,
    freshness: Freshness,
}

impl VerifiedProof {
    /// The proof.
    #[must_use]
    pub const fn proof(&self) -> &Proof {
        &self.proof
    }

    /// Who pays: what was signed, or for opaque proofs what the facilitator said; empty if it did not.
    #[must_use]
    pub const fn payer(&self) -> &Payer {
        &self.payer
    }

    /// The facilitator that found it good, and should be asked first to settle.
    #[must_use]
    pub const fn facilitator(&self) -> &Arc<str> {
        &self.facilitator
    }

    /// Whether the verdict was remembered.
    #[must_use]
    pub const fn freshness(&self) -> Freshness {
        self.freshness
    }
}

/// A checked proof, as a question to facilitators. Only [`Verifier::question`] makes one.
#[derive(Debug)]
pub struct Question {
    proof: Proof,
    key: VerdictKey,
    remembered: Option<Verdict>,
}

impl Question {
    /// Whether its answer is known already.
    #[must_use]
    pub const fn is_remembered(&self) -> bool {
        self.remembered.is_some()
    }

    /// Who pays by what was signed; empty for opaque proofs.
    #[must_use]
    pub const fn payer(&self) -> &Payer {
        self.proof.payer()
    }
}

/// Why there is no verified proof.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A facilitator said no. Becomes 402.
    #[error("the facilitator refused the proof: {reason}")]
    Invalid {
        /// Its code, for the client.
        reason: ReasonCode,
        /// Whether it was asked now.
        freshness: Freshness,
    },
    /// No facilitator could answer. Becomes 503; the proof may be as good as before.
    #[error("no facilitator could answer: {}", listed(.faults))]
    Unavailable {
        /// When to try again, in seconds.
        retry_after_s: u64,
        /// What went wrong with each, for the log only.
        faults: Vec<(Arc<str>, FacilitatorFault)>,
    },
}

/// Turns checked proofs into verified ones.
pub struct Verifier {
    cache: VerdictCache,
    facilitators: Arc<Facilitators>,
    /// Differs from that of earlier verifiers with other facilitators.
    askers: u64,
}

/// The facilitators by name.
pub type Facilitators = BTreeMap<Arc<str>, Arc<dyn Facilitator>>;

impl Verifier {
    /// A verifier that asks these facilitators, by their names in the configuration.
    #[must_use]
    pub fn new(cache: VerdictCache, facilitators: Facilitators) -> Self {
        Self {
            cache,
            facilitators: Arc::new(facilitators),
            askers: 0,
        }
    }

    /// A verifier for another configuration. It remembers the same verdicts, unless `anew`: then
    /// none, because facilitators or who uses which have changed.
    #[must_use]
    pub fn successor(&self, facilitators: Facilitators, anew: bool) -> Self {
        Self {
            cache: self.cache.clone(),
            facilitators: Arc::new(facilitators),
            askers: self.askers.saturating_add(u64::from(anew)),
        }
    }

    /// This verifier for offers of its own configuration, after `current` has taken its place: a
    /// facilitator that is still configured is asked as it is configured now.
    #[must_use]
    pub fn retired(&self, current: &Self) -> Self {
        let now = |name: &Arc<str>| current.facilitators.get(name);
        let differs = |(name, own): (&Arc<str>, &Arc<dyn Facilitator>)| {
            now(name).is_some_and(|now| !Arc::ptr_eq(now, own))
        };
        let has_changed = self.facilitators.iter().any(differs);
        let renewed = self.facilitators.iter().map(|(name, own)| {
            let asked = now(name).unwrap_or(own);
            (Arc::clone(name), Arc::clone(asked))
        });
        Self {
            cache: self.cache.clone(),
            facilitators: Arc::new(renewed.collect()),
            askers: if has_changed {
                current.askers
            } else {
                self.askers
            },
        }
    }

    /// Who may be asked.
    #[must_use]
    pub const fn facilitators(&self) -> &Arc<Facilitators> {
        &self.facilitators
    }

    /// The verdict on `proof`, remembered or asked for.
    ///
    /// # Errors
    ///
    /// [`VerifyError`].
    pub async fn verify(
        &self,
        proof: CheckedProof,
        now: UnixSeconds,
    ) -> Result<VerifiedProof, VerifyError> {
        self.answer(self.question(proof, now), now).await
    }

    /// What is to be asked about `proof`, with what is remembered of it.
    #[must_use]
    pub fn question(&self, proof: CheckedProof, now: UnixSeconds) -> Question {
        let proof = proof.into_proof();
        let key = VerdictKey::of(&proof, self.askers);
        let remembered = self.cache.get(&key, now);
        Question {
            proof,
            key,
            remembered,
        }
    }

    /// The verdict on what is in question. Nobody is asked when it [is remembered].
    ///
    /// # Errors
    ///
    /// [`VerifyError`].
    ///
    /// [is remembered]: Question::is_remembered
    pub async fn answer(
        &self,
        question: Question,
        now: UnixSeconds,
    ) -> Result<VerifiedProof, VerifyError> {
        let Question {
            proof,
            key,
            remembered,
        } = question;
        if let Some(verdict) = remembered {
            return decide(proof, verdict, Freshness::Cached);
        }
        let verdict = self
            .ask(&proof)
            .await
            .map_err(|faults| VerifyError::Unavailable {
                retry_after_s: retry_after_s(&faults),
                faults,
            })?;
        self.cache
            .keep(key, verdict.clone(), proof.valid_before, now);
        decide(proof, verdict, Freshness::Fresh)
    }

    async fn ask(&self, proof: &Proof) -> Result<Verdict, Vec<(Arc<str>, FacilitatorFault)>> {
        let mut left = proof.offer.facilitators.clone();
        let mut faults = BTreeMap::new();
        for round in 0_u32.. {
            for name in std::mem::take(&mut left) {
                let (answer, retries) = self.ask_one(&name, proof).await;
                match answer {
                    VerifyAnswer::Valid { payer } => {
                        return Ok(Verdict::Valid {
                            payer: payer.map(Arc::from),
                            facilitator: name,
                        });
                    }
                    VerifyAnswer::Invalid { reason } => return Ok(Verdict::Invalid { reason }),
                    VerifyAnswer::Unavailable(fault) => {
                        if round < retries && is_momentary(&fault) {
                            left.push(Arc::clone(&name));
                        }
                        faults.insert(name, fault);
                    }
                }
            }
            if left.is_empty() {
                break;
            }
            tokio::time::sleep(pause_before(round)).await;
        }
        Err(faults.into_iter().collect())
    }

    /// The answer of one facilitator, and how often it may be asked again.
    async fn ask_one(&self, name: &Arc<str>, proof: &Proof) -> (VerifyAnswer, u32) {
        match self.facilitators.get(name) {
            Some(facilitator) => {
                let retries = facilitator.verify_retries();
                // Our own mistake in a call is no verdict either.
                let call = AssertUnwindSafe(facilitator.verify(proof.request()));
                let answer = call.catch_unwind().await;
                let cut_short = |_| unavailable("the call was cut short");
                (answer.unwrap_or_else(cut_short), retries)
            }
            None => {
                let why = "no facilitator of this name is configured";
                (unavailable(why), 0)
            }
        }
    }
}

/// Whether asking again in a moment may help. One that took all its time, or said when to come
/// back, is not asked again while the client waits.
const fn is_momentary(fault: &FacilitatorFault) -> bool {
    match fault {
        FacilitatorFault::Connect(_)
        | FacilitatorFault::Broken(_)
        | FacilitatorFault::Junk(_)
        | FacilitatorFault::Saturated => true,
        FacilitatorFault::Status {
            status,
            retry_after_s,
        } => retry_after_s.is_none() && (*status >= 500 || matches!(status, 408 | 429)),
        FacilitatorFault::Timeout(_)
        | FacilitatorFault::TooLarge(_)
        | FacilitatorFault::Pending
        | FacilitatorFault::Open { .. } => false,
    }
}

/// Between half and all of a pause that doubles each round, so that clients do not come back at once.
fn pause_before(round: u32) -> Duration {
    let factor = 1_u32.checked_shl(round).unwrap_or(u32::MAX);
    let whole = PAUSE_MIN.saturating_mul(factor).min(PAUSE_MAX);
    let millis = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(rand::random_range(millis / 2..=millis))
}

fn unavailable(why: &str) -> VerifyAnswer {
    VerifyAnswer::Unavailable(FacilitatorFault::Connect(why.to_owned()))
}

fn decide(
    proof: Proof,
    verdict: Verdict,
    freshness: Freshness,
) -> Result<VerifiedProof, VerifyError> {
    match verdict {
        Verdict::Valid { payer, facilitator } => {
            let payer = payer_of(&proof, payer.as_deref());
            Ok(VerifiedProof {
                proof,
                payer,
                facilitator,
                freshness,
            })
        }
        Verdict::Invalid { reason } => Err(VerifyError::Invalid { reason, freshness }),
    }
}

/// What was signed goes before what the facilitator says, whose text goes into headers and the
/// ledger and is therefore bounded.
fn payer_of(proof: &Proof, told: Option<&str>) -> Payer {
    let fits =
        |text: &&str| (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    match told.filter(fits) {
        Some(told) if proof.payer.as_str().is_empty() => Payer::verbatim(told),
        Some(_) | None => proof.payer.clone(),
    }
}

/// The shortest wait that a facilitator asked for: one that recovers is enough.
fn retry_after_s(faults: &[(Arc<str>, FacilitatorFault)]) -> u64 {
    faults
        .iter()
        .filter_map(|(_, fault)| match fault {
            FacilitatorFault::Status { retry_after_s, .. } => *retry_after_s,
            FacilitatorFault::Open { retry_after_s } => Some(*retry_after_s),
            FacilitatorFault::Connect(_)
            | FacilitatorFault::Timeout(_)
            | FacilitatorFault::Broken(_)
            | FacilitatorFault::Junk(_)
            | FacilitatorFault::TooLarge(_)
            | FacilitatorFault::Pending
            | FacilitatorFault::Saturated => None,
        })
        .min()
        .unwrap_or(RETRY_AFTER_S)
        .clamp(1, RETRY_AFTER_S_MAX)
}

fn listed(faults: &[(Arc<str>, FacilitatorFault)]) -> String {
    let texts: Vec<_> = faults
        .iter()
        .map(|(name, fault)| format!("{name}: {fault}"))
        .collect();
    texts.join("; ")
}

#[cfg(test)]
mod tests;
