//! All decisions for one request. READ THIS FIRST.
//!
//! The gate has two doors. [`Gate::admit`] stands before the upstream: only an [`Admission`] goes
//! through. [`Gate::release`] stands before the first response byte: it settles, or gives the claim
//! back. [`Gate::finish`] closes the book when the exchange is over, however it ended.
//!
//! It knows nothing of HTTP bytes: `proxy` translates requests to [`Ask`]s and [`Refusal`]s to answers.

mod abandoned;
mod elsewhere;
mod fingerprint;
mod in_flight;
mod paid;
mod refusal;
mod settler;
mod unforwarded;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::chain::PaymentKey;
use crate::clock::{Clock, UnixSeconds};
use crate::config::settings::RateLimit;
use crate::failpoint::{Step, reach};
use crate::gate::abandoned::Abandoned;
use crate::gate::in_flight::{Entry, InFlight, Slot, WorkEnd};
use crate::gate::unforwarded::Unforwarded;
use crate::kept::{KeptResponse, KeptResponses};
use crate::ledger::{BodyDigest, ClaimAnswer, Fingerprint, Ledger, Record};
use crate::proof::cache::Freshness;
use crate::proof::check::{CheckedProof, identify};
use crate::proof::parse::parse;
use crate::proof::verify::{VerifiedProof, Verifier, VerifyError};
use crate::proof::{Proof, ProofHeaders};
use crate::route::{Access, FreeRoute, RequestLine, RouteTable};
use crate::settlement::{SettleWhen, State};
use crate::target::{CanonicalHost, CanonicalTarget};
use crate::throttle::{Client, Throttle, ThrottleLimits, Throttled, retry_after_s};
use crate::x402::message::SettlementResponse;

pub use crate::gate::fingerprint::fingerprint;
pub use crate::gate::paid::{Ending, Paid, Purchase, Release};
pub use crate::gate::refusal::{PaymentRefusal, Refusal, UpstreamFailure};
pub(crate) use crate::gate::settler::settled_move;
pub use crate::gate::settler::{Facilitators, Order, Settled, Settler};

/// What the gate must know of a request.
#[derive(Debug)]
pub struct Ask<'a> {
    /// Upper case.
    pub method: &'a str,
    /// From `Host` or `:authority`, canonical.
    pub host: &'a CanonicalHost,
    /// Canonical path, and the query as it is.
    pub target: &'a CanonicalTarget,
    /// The payment headers.
    pub proof: ProofHeaders<'a>,
    /// `Idempotency-Key`: what only this client knows of the request. It takes part in the
    /// fingerprint, so that who rebuilds a proof from the chain cannot collect its response.
    pub idempotency_key: Option<&'a [u8]>,
    /// Whether a body is declared.
    pub has_body: bool,
    /// `Content-Length`, when given.
    pub content_length: Option<u64>,
    /// Who asks.
    pub client: Client,
}

/// What may go on.
#[derive(Debug)]
pub enum Admission {
    /// To the upstream, for nothing.
    Free(Arc<FreeRoute>),
    /// To the upstream: paid, or about to be.
    Paid(Box<Paid>),
    /// Not to the upstream: this payment has bought a response already, and it is still here.
    Replay(Box<Replay>),
}

/// A kept response for the payment that bought it.
#[derive(Debug)]
pub struct Replay {
    /// The response.
    pub kept: Arc<KeptResponse>,
    /// The receipt, when the record has a readable one.
    pub receipt: Option<SettlementResponse>,
    /// What is bought.
    pub purchase: Purchase,
    record: Record,
    _slot: Slot,
}

impl Replay {
    /// Whether a request with this body is the one that was answered.
    #[must_use]
    pub fn is_for(&self, body: BodyDigest) -> bool {
        self.kept.request_body == body
    }

    /// For any other body the payment is spent.
    #[must_use]
    pub fn refused(&self) -> Refusal {
        Refusal::Payment {
            why: PaymentRefusal::Spent,
            purchase: self.purchase.clone(),
        }
    }
}

/// Bounds on what strangers can make the gate do.
#[derive(Clone, Debug)]
pub struct GateLimits {
    /// Bytes of one payment header.
    pub payment_header_bytes_max: usize,
    /// Proofs in verification at once.
    pub unverified_proofs_max: usize,
    /// How long a copy of a request in flight waits for its answer.
    pub duplicate_wait: Duration,
    /// How long after delivery a kept response answers a retry.
    pub retry_window: Duration,
    /// What each client and payer may ask for.
    pub throttle: ThrottleLimits,
}

/// So many copies of requests in flight wait for their answers; further ones are turned away.
const WAITING_MAX: usize = 4096;

/// How long an owed response is kept: until its buyer collects it, but not for ever.
const OWED_KEPT: Duration = Duration::from_secs(3600);

/// Decides.
pub struct Gate {
    routes: ArcSwap<RouteTable>,
    verifier: Verifier,
    ledger: Arc<dyn Ledger>,
    settler: Arc<Settler>,
    kept: Arc<KeptResponses>,
    clock: Arc<dyn Clock>,
    in_flight: Arc<InFlight>,
    unverified: Semaphore,
    throttle: Throttle,
    waiting: Semaphore,
    abandoned: Abandoned,
    unforwarded: Unforwarded,
    limits: GateLimits,
}

/// What a [`Gate`] is made of.
pub struct GateParts {
    /// Which rule governs a request.
    pub routes: RouteTable,
    /// Checks proofs.
    pub verifier: Verifier,
    /// Remembers payments.
    pub ledger: Arc<dyn Ledger>,
    /// Moves money.
    pub settler: Arc<Settler>,
    /// Keeps responses for retries.
    pub kept: Arc<KeptResponses>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Bounds.
    pub limits: GateLimits,
}

impl Gate {
    /// A gate from its parts.
    #[must_use]
    pub fn new(parts: GateParts) -> Self {
        Self {
            routes: ArcSwap::from_pointee(parts.routes),
            verifier: parts.verifier,
            ledger: parts.ledger,
            settler: parts.settler,
            kept: parts.kept,
            clock: parts.clock,
            in_flight: Arc::new(InFlight::default()),
            unverified: Semaphore::new(parts.limits.unverified_proofs_max),
            throttle: Throttle::new(parts.limits.throttle),
            waiting: Semaphore::new(WAITING_MAX),
            abandoned: Abandoned::default(),
            unforwarded: Unforwarded::default(),
            limits: parts.limits,
        }
    }

    /// Puts another table in place; requests under way keep the one they began with.
    pub fn replace_routes(&self, routes: RouteTable) {
        self.routes.store(Arc::new(routes));
    }

    /// The table in force.
    #[must_use]
    pub fn routes(&self) -> Arc<RouteTable> {
        self.routes.load_full()
    }

    /// The first door. Nothing reaches an upstream without the [`Admission`] that this returns.
    ///
    /// # Errors
    ///
    /// [`Refusal`], which says what the client is told and what the log is told.
    pub async fn admit(&self, ask: &Ask<'_>) -> Result<Admission, Refusal> {
        let line = RequestLine {
            method: ask.method,
            host: &ask.host.host,
            path: &ask.target.path,
        };
        let route = match self.routes.load().access(&line) {
            Access::Free(route) => {
                self.within_rate(ask, &route.rule, route.rate_limit)?;
                return within(ask, route.request_body_bytes_max).map(|()| Admission::Free(route));
            }
            Access::Priced(route) => route,
            Access::Denied(rule) => return Err(Refusal::Denied { rule }),
            Access::Unavailable(rule) => return Err(Refusal::NothingOffered { rule }),
            Access::Unlisted => return Err(Refusal::NoSuchRoute),
            Access::Ambiguous(ambiguity) => return Err(Refusal::AmbiguousRoute(ambiguity)),
        };
        self.within_rate(ask, &route.rule, route.rate_limit)?;
        within(ask, route.request_body_bytes_max)?;
        let purchase = Purchase {
            quote: route.price.quote(),
            route,
            path: ask.target.path.as_str().into(),
            version: ask.proof.version(),
        };
        self.admit_priced(ask, &purchase)
            .await
            .map_err(|why| Refusal::Payment { why, purchase })
    }

    async fn admit_priced(
        &self,
        ask: &Ask<'_>,
        purchase: &Purchase,
    ) -> Result<Admission, PaymentRefusal> {
        if ask.proof.is_empty() {
            return Err(PaymentRefusal::Required);
        }
        let (now, route) = (self.clock.now(), &purchase.route);
        let proof = parse(
            &ask.proof,
            &purchase.quote,
            self.limits.payment_header_bytes_max,
            now,
        )?;
        let checked = identify(proof, now)?;
        let proof = checked.proof();
        self.throttle
            .payment(&route.rule, route.rate_limit, proof.payer(), ask.client)
            .map_err(too_often)?;
        let payment = proof.payment().key();
        let presented_for = fingerprint(ask, &route.rule, proof);

        let slot = self.reserve(payment, presented_for).await?;
        reach(Step::Reserved);
        if let Some(record) = self.holder(payment, presented_for).await? {
            return self
                .collect(ask, purchase, proof, presented_for, record, slot)
                .await;
        }
        // Only now: a debt is collected with the proof that paid for it, however old.
        checked.in_time(now)?;
        if self.abandoned.too_often(payment) {
            return Err(PaymentRefusal::Abandoned);
        }
        let proof = self.verify(ask, checked, now).await?;
        reach(Step::Verified);
        let new = fingerprint::new_claim(ask, route, &proof, presented_for);
        let claim = match self.ledger.claim(new, now).await? {
            ClaimAnswer::Claimed(claim) => claim,
            ClaimAnswer::Held(_) => {
                let holder = self.holder(payment, presented_for).await?;
                let record = holder.ok_or(PaymentRefusal::InProgress)?;
                return self
                    .collect(ask, purchase, proof.proof(), presented_for, record, slot)
                    .await;
            }
        };
        reach(Step::Claimed);
        let mut paid = Paid::claimed(&self.settler, purchase, &proof, presented_for, claim, slot);
        if route.settle == SettleWhen::BeforeForward {
            paid.settle(None).await.inspect_err(|why| {
                if matches!(why, PaymentRefusal::OutcomeUnknown) {
                    self.unforwarded.remember(payment);
                }
            })?;
        }
        Ok(Admission::Paid(Box::new(paid)))
    }

    /// The verdict on a proof. Facilitators are asked within what the client, the payer and all
    /// together may cause.
    async fn verify(
        &self,
        ask: &Ask<'_>,
        checked: CheckedProof,
        now: UnixSeconds,
    ) -> Result<VerifiedProof, PaymentRefusal> {
        let _places = match self.verifier.remembers(&checked, now) {
            true => None,
            false => {
                let payer = checked.proof().payer();
                let share = self.throttle.verification(ask.client, payer);
                let share = share.map_err(|why| match why {
                    Throttled::TooOften(wait) => too_often(wait),
                    Throttled::TooManyAtOnce => PaymentRefusal::Busy,
                })?;
                let permit = self.unverified.try_acquire();
                Some((share, permit.map_err(|_| PaymentRefusal::Busy)?))
            }
        };
        let verified = self.verifier.verify(checked, now).await;
        verified.map_err(|error| match error {
            VerifyError::Invalid { reason, freshness } => {
                if freshness == Freshness::Fresh {
                    self.throttle.refused(ask.client);
                }
                PaymentRefusal::Invalid(reason)
            }
            VerifyError::Unavailable {
                retry_after_s,
                faults,
            } => PaymentRefusal::FacilitatorUnavailable {
                retry_after_s,
                faults,
            },
        })
    }

    /// Before any payment is looked at.
    fn within_rate(
        &self,
        ask: &Ask<'_>,
        rule: &Arc<str>,
        limit: Option<RateLimit>,
    ) -> Result<(), Refusal> {
        self.throttle
            .request(rule, limit, ask.client)
            .map_err(|wait| Refusal::RateLimited {
                rule: Arc::clone(rule),
                retry_after_s: retry_after_s(wait),
            })
    }

    /// Takes the payment in memory, so that copies of one proof cost one verification. A copy
    /// waits for the end of the first; once that is settled, other requests are turned away.
    async fn reserve(
        &self,
        payment: PaymentKey,
        presented_for: Fingerprint,
    ) -> Result<Slot, PaymentRefusal> {
        let until = Instant::now().checked_add(self.limits.duplicate_wait);
        let deadline = until.unwrap_or_else(Instant::now);
        loop {
            match self.in_flight.enter(payment, presented_for) {
                Entry::Entered(slot) => return Ok(slot),
                Entry::Taken { same, mut work } => {
                    let _place = self
                        .waiting
                        .try_acquire()
                        .map_err(|_| PaymentRefusal::InProgress)?;
                    match tokio::time::timeout_at(deadline, work.end(!same)).await {
                        Ok(WorkEnd::Gone) => {}
                        Ok(WorkEnd::Sold) => return Err(PaymentRefusal::Spent),
                        Err(_) => return Err(PaymentRefusal::InProgress),
                    }
                }
            }
        }
    }

    /// The payment is known: what does presenting it again give?
    async fn collect(
        &self,
        ask: &Ask<'_>,
        purchase: &Purchase,
        proof: &Proof,
        presented_for: Fingerprint,
        record: Record,
        slot: Slot,
    ) -> Result<Admission, PaymentRefusal> {
        if record.claim.fingerprint != presented_for {
            return Err(PaymentRefusal::Spent);
        }
        // A debt that a person has settled otherwise is no debt any more.
        if record.state == State::Settled && !self.ledger.notes(record.id).await?.is_empty() {
            self.ledger.let_go(record.id);
            return Err(PaymentRefusal::Spent);
        }
        let receipt = record
            .receipt
            .as_deref()
            .and_then(|text| serde_json::from_str(text).ok());
        let kept = self.kept.get(record.claim.payment, presented_for);
        let payment = record.claim.payment;
        let is_lost = record.state == State::Settled && kept.is_none();
        let never_sent = is_lost && self.unforwarded.take(payment);
        let may_be_asked = never_sent || (is_repeatable(ask) && !self.abandoned.too_often(payment));
        match (record.state, kept) {
            (State::Settled | State::Delivered, Some(kept)) => {
                Ok(Admission::Replay(Box::new(Replay {
                    kept,
                    receipt,
                    purchase: purchase.clone(),
                    record,
                    _slot: slot,
                })))
            }
            (State::Settled, None) if may_be_asked => {
                let (settler, owed) = (&self.settler, (&record, receipt));
                let paid = Paid::owed(settler, purchase, proof, owed, never_sent, slot);
                Ok(Admission::Paid(Box::new(paid)))
            }
            (State::Settled, None) => {
                self.ledger.let_go(record.id);
                Err(PaymentRefusal::ResponseLost {
                    receipt: receipt.map(Box::new),
                })
            }
            (State::Claimed, _) => Err(PaymentRefusal::InProgress),
            (State::Settling, _) => Err(PaymentRefusal::OutcomeUnknown),
            (State::Delivered | State::Released | State::Refused | State::Expired, _) => {
                Err(PaymentRefusal::Spent)
            }
        }
    }

    /// The second door, before the first byte of a response with this final status.
    ///
    /// # Errors
    ///
    /// [`Refusal`]: the response must not leave; answer this instead.
    pub async fn release(
        &self,
        paid: &mut Paid,
        status: u16,
        body: Option<BodyDigest>,
    ) -> Result<Release, Refusal> {
        paid.release(status, body)
            .await
            .map_err(|why| paid.refused(why))
    }

    /// The upstream failed before it answered: the claim is given back, durably, before the client
    /// is told, so that the same proof is good for its next request.
    pub async fn give_back(&self, paid: &mut Paid, reason: &'static str) {
        paid.give_back(reason).await;
    }

    /// The exchange is over. Gives back what was not used, records what was delivered, and keeps
    /// the response for a retry. What must be durable is written in a task of its own.
    pub fn finish(&self, paid: Box<Paid>, ending: Ending) {
        let complete = ending.delivered && paid.is_good_response();
        let mut shared = None;
        if ending.client_left {
            self.abandoned.count(paid.payment());
        }
        if let Some(response) = ending.response.filter(|_| paid.may_be_kept()) {
            let keep_for = if complete {
                self.limits.retry_window
            } else {
                OWED_KEPT
            };
            shared = self.shared(&paid, &response, keep_for);
            self.kept.keep(
                paid.payment(),
                paid.fingerprint(),
                Arc::new(response),
                keep_for,
            );
        }
        if paid.is_owed_unsent() {
            self.unforwarded.remember(paid.payment());
        }
        paid.close(complete, shared);
    }

    /// A replayed response was written completely.
    pub fn finish_replay(&self, replay: &Replay, delivered: bool) {
        if delivered && replay.record.state == State::Settled {
            let recorded = self.settler.record_delivered(replay.record.id);
            self.settler.follow_up(recorded);
        }
    }
}

fn too_often(wait: Duration) -> PaymentRefusal {
    PaymentRefusal::RateLimited {
        retry_after_s: retry_after_s(wait),
    }
}

fn within(ask: &Ask<'_>, body_bytes_max: u64) -> Result<(), Refusal> {
    match ask.content_length {
        Some(length) if length > body_bytes_max => Err(Refusal::BodyTooLarge),
        _ => Ok(()),
    }
}

/// Whether the upstream may be asked a second time for the same: a safe method without a body.
fn is_repeatable(ask: &Ask<'_>) -> bool {
    matches!(ask.method, "GET" | "HEAD" | "OPTIONS") && !ask.has_body
}
