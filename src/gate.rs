//! All decisions for one request. READ THIS FIRST.
//!
//! The gate has two doors. [`Gate::admit`] stands before the upstream: only an [`Admission`] goes
//! through. [`Gate::release`] stands before the first response byte: it settles, or gives the claim
//! back. [`Gate::finish`] closes the book when the exchange is over, however it ended.
//!
//! It knows nothing of HTTP bytes: `proxy` translates requests to [`Ask`]s and [`Refusal`]s to answers.

mod abandoned;
mod collect;
mod debt;
mod elsewhere;
mod fingerprint;
mod former;
mod in_flight;
mod known;
mod paid;
mod reading;
mod refusal;
mod settler;
mod shadow;
mod unforwarded;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::chain::PaymentKey;
use crate::clock::{Clock, UnixSeconds};
use crate::config::settings::RateLimit;
use crate::failpoint::{Step, reach};
use crate::gate::abandoned::Abandoned;
use crate::gate::former::Former;
use crate::gate::in_flight::{Entry, InFlight, Slot, WorkEnd};
use crate::gate::reading::Reading;
use crate::gate::settler::Among;
use crate::gate::unforwarded::Unforwarded;
use crate::kept::{KeptResponse, KeptResponses};
use crate::ledger::{BodyDigest, ClaimAnswer, Fingerprint, Ledger, Record};
use crate::metrics::{self, Phase, Phases};
use crate::proof::cache::Freshness;
use crate::proof::check::CheckedProof;
use crate::proof::verify::{VerifiedProof, Verifier, VerifyError};
use crate::proof::{ProofHeaders, Signers};
use crate::route::{Access, FreeRoute, PricedRoute, RequestLine, RouteTable};
use crate::settlement::{SettleWhen, State};
use crate::target::{CanonicalHost, CanonicalTarget};
use crate::throttle::{Client, Throttle, ThrottleLimits, Throttled, retry_after_s};
use crate::x402::message::SettlementResponse;

pub use crate::gate::fingerprint::fingerprint;
pub use crate::gate::known::Known;
pub use crate::gate::paid::{Ending, Paid, Purchase, Release};
pub use crate::gate::refusal::{PaymentRefusal, Refusal, UpstreamFailure};
pub(crate) use crate::gate::settler::settled_move;
pub use crate::gate::settler::{Order, Settled, Settler};
pub use crate::gate::shadow::Shadow;
pub use crate::proof::verify::Facilitators;

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
    /// Where its time goes is noted here.
    pub phases: &'a Phases,
    /// Who delivers what is bought.
    pub delivery: Delivery,
}

/// Who delivers what is bought.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Delivery {
    /// The wall: it forwards the request, and sees the response.
    Here,
    /// Another proxy, which asks for leave to forward the request. The leave is all that the wall
    /// ever delivers, so that only what is paid in advance can be sold.
    Elsewhere,
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
    /// To the upstream, for nothing, with a word about what it would have cost.
    Shadow(Shadow),
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

    /// What the ledger knows of the payment.
    #[must_use]
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// Where the wall delivers nothing there is nothing to replay: one payment is one leave to pass.
    #[must_use]
    pub fn not_delivered_here(&self) -> Refusal {
        let why = match self.record.state {
            State::Settled => PaymentRefusal::ResponseLost {
                receipt: self.receipt.clone().map(Box::new),
            },
            State::Claimed
            | State::Settling
            | State::Delivered
            | State::Released
            | State::Refused
            | State::Expired => PaymentRefusal::Spent,
        };
        Refusal::Payment {
            why,
            purchase: self.purchase.clone(),
        }
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

/// Decides, by the rules of one configuration. A changed configuration makes a [successor]; all of
/// them share what is known of payments.
///
/// [successor]: Gate::successor
pub struct Gate {
    routes: Arc<RouteTable>,
    former: Former,
    verifier: Arc<Verifier>,
    signers: Arc<Signers>,
    throttle: Throttle,
    unverified: Arc<Semaphore>,
    limits: GateLimits,
    ledger: Arc<dyn Ledger>,
    settler: Arc<Settler>,
    kept: Arc<KeptResponses>,
    clock: Arc<dyn Clock>,
    in_flight: Arc<InFlight>,
    waiting: Arc<Semaphore>,
    abandoned: Abandoned,
    unforwarded: Unforwarded,
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
            routes: Arc::new(parts.routes),
            former: Former::default(),
            verifier: Arc::new(parts.verifier),
            signers: Arc::default(),
            ledger: parts.ledger,
            settler: parts.settler,
            kept: parts.kept,
            clock: parts.clock,
            in_flight: Arc::new(InFlight::default()),
            unverified: Arc::new(Semaphore::new(parts.limits.unverified_proofs_max)),
            throttle: Throttle::new(parts.limits.throttle),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            abandoned: Abandoned::default(),
            unforwarded: Unforwarded::default(),
            limits: parts.limits,
        }
    }

    /// The gate of another configuration. What was offered under this one is honoured for as long
    /// as its challenges say.
    #[must_use]
    pub fn successor(&self, routes: RouteTable, verifier: Verifier, limits: GateLimits) -> Self {
        let former = self.former.followed_by(
            (&self.routes, &self.verifier),
            (&routes, &verifier),
            self.clock.now(),
        );
        let unverified = match limits.unverified_proofs_max == self.limits.unverified_proofs_max {
            true => Arc::clone(&self.unverified),
            false => Arc::new(Semaphore::new(limits.unverified_proofs_max)),
        };
        Self {
            routes: Arc::new(routes),
            former,
            verifier: Arc::new(verifier),
            signers: Arc::clone(&self.signers),
            throttle: self.throttle.with_limits(limits.throttle),
            unverified,
            limits,
            ledger: Arc::clone(&self.ledger),
            settler: Arc::clone(&self.settler),
            kept: Arc::clone(&self.kept),
            clock: Arc::clone(&self.clock),
            in_flight: Arc::clone(&self.in_flight),
            waiting: Arc::clone(&self.waiting),
            abandoned: self.abandoned.clone(),
            unforwarded: self.unforwarded.clone(),
        }
    }

    /// Asks facilitators for verdicts.
    #[must_use]
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Which rule governs a request.
    #[must_use]
    pub fn routes(&self) -> &RouteTable {
        &self.routes
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
        let route = match self.routes.access(&line) {
            Access::Free(route) => {
                self.within_rate(ask, &route.rule, route.rate_limit)?;
                return within(ask, route.request_body_bytes_max).map(|()| Admission::Free(route));
            }
            Access::Priced(route) => route,
            Access::Shadow(route) => {
                within(ask, route.free.request_body_bytes_max)?;
                return Ok(self.shadow(ask, &route));
            }
            Access::Denied(rule) => return Err(Refusal::Denied { rule }),
            Access::Unavailable(rule) => return Err(Refusal::NothingOffered { rule }),
            Access::Unlisted => return Err(Refusal::NoSuchRoute),
            Access::Ambiguous(ambiguity) => return Err(Refusal::AmbiguousRoute(ambiguity)),
        };
        let in_advance = route.settle == SettleWhen::BeforeForward;
        if ask.delivery == Delivery::Elsewhere && !in_advance {
            let rule = route.rule.clone();
            return Err(Refusal::SettlesAfterDelivery { rule });
        }
        let purchase = self.price(ask, route)?;
        // On the heap: what is free need not make room for it.
        Box::pin(self.admit_priced(ask, &purchase))
            .await
            .inspect_err(count_refused)
            .map_err(|why| Refusal::Payment { why, purchase })
    }

    /// What [`Gate::admit`] says to a request under this rule that comes without a payment, for who
    /// has found the rule in [`Gate::routes`] and need not wait for anything.
    #[must_use]
    pub fn refuse_unpaid(&self, ask: &Ask<'_>, route: Arc<PricedRoute>) -> Refusal {
        match self.price(ask, route) {
            Ok(purchase) => Refusal::Payment {
                why: PaymentRefusal::Required,
                purchase,
            },
            Err(refusal) => refusal,
        }
    }

    /// What the request would buy, for how much, when it may ask at all. Counts it.
    fn price(&self, ask: &Ask<'_>, route: Arc<PricedRoute>) -> Result<Purchase, Refusal> {
        self.within_rate(ask, &route.rule, route.rate_limit)?;
        within(ask, route.request_body_bytes_max)?;
        Ok(Purchase {
            quote: route.price.quote(),
            route,
            path: ask.target.path.as_str().into(),
            version: ask.proof.version(),
        })
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
        let Reading {
            checked,
            verifier,
            if_unpaid,
        } = self.read(ask, purchase, now).await?;
        let proof = checked.proof();
        self.throttle
            .payment(&route.rule, route.rate_limit, proof.payer(), ask.client)
            .map_err(too_often)?;
        let payment = proof.key();
        let presented_for = fingerprint(ask, &route.rule, proof);

        let among = Among(Arc::clone(verifier.facilitators()));
        // Whatever the rule is called: it may have another name than a moment ago.
        let same_request = fingerprint(ask, "", proof);
        let mut slot = self.reserve(payment, same_request).await?;
        reach(Step::Reserved);
        let asked = (proof, presented_for);
        if let Some(record) = self.holder(ask, asked, &mut slot).await? {
            return self
                .collect(ask, purchase, proof, (presented_for, record), (slot, among))
                .await;
        }
        if let Some(error) = if_unpaid {
            return Err(error.into());
        }
        // Only now: a debt is collected with the proof that paid for it, however old.
        checked.in_time(now)?;
        if self.abandoned.too_often(payment) {
            return Err(PaymentRefusal::Abandoned);
        }
        let proof = self.verify(ask, &verifier, checked, now).await?;
        reach(Step::Verified);
        let new = fingerprint::new_claim(ask, route, &proof, presented_for);
        let claim = ask.phases.time(Phase::Claim, self.ledger.claim(new, now));
        let claim = match claim.await? {
            ClaimAnswer::Claimed(claim) => claim,
            ClaimAnswer::Held(_) => {
                let asked = (proof.proof(), presented_for);
                let holder = self.holder(ask, asked, &mut slot).await?;
                let record = holder.ok_or(PaymentRefusal::InProgress)?;
                return self
                    .collect(
                        ask,
                        purchase,
                        proof.proof(),
                        (presented_for, record),
                        (slot, among),
                    )
                    .await;
            }
        };
        reach(Step::Claimed);
        let (settler, held) = (&self.settler, (slot, among));
        let mut paid = Paid::claimed(settler, purchase, &proof, presented_for, claim, held);
        if route.settle == SettleWhen::BeforeForward {
            let settled = ask.phases.time(Phase::Settle, paid.settle(None));
            settled.await.inspect_err(|why| {
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
        verifier: &Verifier,
        checked: CheckedProof,
        now: UnixSeconds,
    ) -> Result<VerifiedProof, PaymentRefusal> {
        let question = verifier.question(checked, now);
        metrics::verdict(question.is_remembered());
        let _places = match question.is_remembered() {
            true => None,
            false => {
                let share = self.throttle.verification(ask.client, question.payer());
                let share = share.map_err(|why| match why {
                    Throttled::TooOften(wait) => too_often(wait),
                    Throttled::TooManyAtOnce => PaymentRefusal::Busy,
                })?;
                let permit = self.unverified.try_acquire();
                Some((share, permit.map_err(|_| PaymentRefusal::Busy)?))
            }
        };
        let verifying = verifier.answer(question, now);
        let verified = ask.phases.time(Phase::Verify, verifying).await;
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

/// A proof that was refused is counted by its reason; that there was none, or no verdict, is not.
fn count_refused(why: &PaymentRefusal) {
    match why {
        PaymentRefusal::Proof(error) => metrics::proof_refused(error.reason().as_str()),
        PaymentRefusal::Invalid(reason) => metrics::proof_refused(reason.as_str()),
        PaymentRefusal::Spent => metrics::proof_refused("payment_already_used"),
        PaymentRefusal::Abandoned => metrics::proof_refused("payment_abandoned"),
        PaymentRefusal::Required
        | PaymentRefusal::InProgress
        | PaymentRefusal::Busy
        | PaymentRefusal::RateLimited { .. }
        | PaymentRefusal::FacilitatorUnavailable { .. }
        | PaymentRefusal::SettlementNotSent
        | PaymentRefusal::SettlementRefused { .. }
        | PaymentRefusal::OutcomeUnknown
        | PaymentRefusal::ResponseLost { .. }
        | PaymentRefusal::Undelivered { .. }
        | PaymentRefusal::NotSold(_)
        | PaymentRefusal::Ledger(_) => {}
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
