//! Moving money: each settlement runs in a task of its own, on a runtime that outlives requests,
//! connections and the proxy, from the durable intent to the durable outcome.
//!
//! Several facilitators never settle one payment: the next is asked only when the request certainly
//! did not reach the one before. Whatever else went wrong is unknown, and the reconciler's business.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::chain::{Asset, Network, Payer};
use crate::clock::Clock;
use crate::facilitator::{Facilitator, FacilitatorRequest, SettleAnswer};
use crate::failpoint::{Step, reach};
use crate::gate::PaymentRefusal;
use crate::gate::in_flight::Slot;
use crate::gate::known::Known;
use crate::ledger::{BodyDigest, ClaimId, Ledger, LedgerError, Move, SharedResponse};
use crate::metrics::{self, RevenueKey};
use crate::money::AtomicAmount;
use crate::proof::verify::Facilitators;
use crate::settlement::State;
use crate::x402::message::SettlementResponse;

/// The first pause before a settled payment is written down again, after the ledger failed.
const RECORD_PAUSE_MIN: Duration = Duration::from_millis(50);

/// The last one; all together about 25 seconds.
const RECORD_PAUSE_MAX: Duration = Duration::from_secs(13);

/// A settlement that is durably known to have succeeded.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The receipt, as the facilitator gave it.
    pub receipt: SettlementResponse,
}

/// Settles, and records what came of it.
pub struct Settler {
    known: Known,
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    runtime: Handle,
    /// With the slot of the request that each is for, once that has ended.
    active: Mutex<HashMap<ClaimId, Option<Slot>>>,
    tasks: AtomicUsize,
    /// Whether the process is ending.
    closed: AtomicBool,
}

/// The facilitators that an order may go to, by name.
#[derive(Clone)]
pub struct Among(pub Arc<Facilitators>);

impl std::fmt::Debug for Among {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A claim that a task works on, panics included.
struct Active {
    settler: Arc<Settler>,
    claim: ClaimId,
}

impl Drop for Active {
    fn drop(&mut self) {
        let left = self.settler.active.lock().remove(&self.claim);
        // Not under the lock: the claim is let go, and whoever waits for it woken.
        drop(left);
    }
}

/// What to settle.
#[derive(Clone, Debug)]
pub struct Order {
    /// The rule that sells, for the metrics.
    pub rule: Arc<str>,
    /// The way of paying, for the metrics.
    pub accept: Arc<str>,
    /// The network that the money moves on, for the metrics.
    pub network: Network,
    /// The token, for the metrics.
    pub asset: Asset,
    /// How much, for the metrics.
    pub amount: AtomicAmount,
    /// The claim, in state `claimed`.
    pub claim: ClaimId,
    /// The request, byte for byte.
    pub request: FacilitatorRequest,
    /// Facilitators in the order of preference.
    pub facilitators: Vec<Arc<str>>,
    /// Those of the configuration that the request began with.
    pub among: Among,
    /// Digest of the request body, if known.
    pub body: Option<BodyDigest>,
    /// Whether the payer is only known from the receipt.
    pub payer_unknown: bool,
}

impl Settler {
    /// A settler on this runtime, which must live until [`Settler::tasks`] is 0.
    #[must_use]
    pub fn new(
        facilitators: Facilitators,
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        runtime: Handle,
    ) -> Arc<Self> {
        Arc::new(Self {
            known: Known::new(facilitators),
            ledger,
            clock,
            runtime,
            active: Mutex::default(),
            tasks: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        })
    }

    /// From now on no settlement begins: a claim that wants one is given back. What has begun goes on,
    /// and [`Settler::tasks`] counts it.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Work that must end before the process may: settlements and records.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.tasks.load(Ordering::SeqCst)
    }

    /// Whether a task of this process works on the claim: the reconciler leaves those alone.
    #[must_use]
    pub fn is_active(&self, claim: ClaimId) -> bool {
        self.active.lock().contains_key(&claim)
    }

    /// Whom unknown settlements may be asked about.
    #[must_use]
    pub const fn known(&self) -> &Known {
        &self.known
    }

    /// Settles the claim. Whoever waits may go away: the task goes on until the outcome is recorded.
    ///
    /// # Errors
    ///
    /// [`PaymentRefusal::SettlementRefused`], [`PaymentRefusal::OutcomeUnknown`],
    /// [`PaymentRefusal::SettlementNotSent`] or [`PaymentRefusal::Ledger`].
    pub async fn settle(self: &Arc<Self>, order: Order) -> Result<Settled, PaymentRefusal> {
        let this = Arc::clone(self);
        let claim = order.claim;
        self.active.lock().insert(claim, None);
        let active = Active {
            settler: Arc::clone(self),
            claim,
        };
        let task = self.spawn(async move {
            let _active = active;
            this.settle_and_record(&order).await
        });
        // A lost task (panic, runtime gone) says nothing about the money.
        task.await.unwrap_or_else(|error| {
            tracing::error!(claim = claim.0, %error, "the settlement task was lost");
            Err(PaymentRefusal::OutcomeUnknown)
        })
    }

    /// Asks one facilitator, and the next only when the one before certainly was not reached. Who
    /// is going to be asked is on record before.
    async fn settle_and_record(self: &Arc<Self>, order: &Order) -> Result<Settled, PaymentRefusal> {
        let candidates = candidates(order);
        if candidates.is_empty() {
            drop(self.record_released(order.claim, "facilitator_unknown"));
            return Err(PaymentRefusal::SettlementNotSent);
        }
        if self.closed.load(Ordering::SeqCst) {
            // Whoever ends the process waits for this task too.
            self.record_released(order.claim, "wall_ended").await;
            return Err(PaymentRefusal::SettlementNotSent);
        }
        for (nth, (name, facilitator)) in candidates.into_iter().enumerate() {
            reach(Step::BeforeSettling);
            let to = Move::Settling {
                facilitator: Arc::clone(&name),
            };
            let asked = self.ledger.advance(order.claim, to, self.clock.now()).await;
            match asked {
                Ok(()) => {}
                Err(error) if nth == 0 => {
                    // Nobody was asked: the payment must not stay taken until the next start.
                    drop(self.record_released(order.claim, "ledger_failed"));
                    return Err(error.into());
                }
                // The one on record was not reached, but it is the one that will be asked again.
                Err(error) => return Err(still_settling(order.claim, &error)),
            }
            reach(Step::Settling);
            self.known.keep(&name, &facilitator);
            let answer = facilitator.settle(&order.request).await;
            reach(Step::Answered);
            metrics::settlement(&name, answer.word());
            match answer {
                SettleAnswer::Settled(receipt) => return self.record_settled(order, receipt).await,
                SettleAnswer::Refused(receipt) => return self.refused(order.claim, receipt).await,
                SettleAnswer::NotSent(fault) => {
                    tracing::warn!(facilitator = %name, %fault, "settle request not sent");
                }
                SettleAnswer::Unknown(fault) => {
                    tracing::error!(claim = order.claim.0, facilitator = %name, %fault,
                        "settlement outcome unknown; it will be repeated");
                    return Err(PaymentRefusal::OutcomeUnknown);
                }
            }
        }
        let reason = "facilitator_unreachable".into();
        self.record_refused(order.claim, reason, &SettlementResponse::default())
            .await?;
        Err(PaymentRefusal::SettlementNotSent)
    }

    async fn refused(
        &self,
        claim: ClaimId,
        receipt: SettlementResponse,
    ) -> Result<Settled, PaymentRefusal> {
        let reason = receipt
            .error_reason
            .as_deref()
            .unwrap_or("settlement_refused")
            .into();
        self.record_refused(claim, reason, &receipt).await?;
        Err(PaymentRefusal::SettlementRefused {
            receipt: Box::new(receipt),
        })
    }

    async fn record_settled(
        &self,
        order: &Order,
        receipt: SettlementResponse,
    ) -> Result<Settled, PaymentRefusal> {
        let payer = receipt
            .payer
            .as_deref()
            .filter(|_| order.payer_unknown)
            .map(Payer::verbatim);
        let settled = settled_move(&receipt, payer, order.body);
        // Not a byte leaves until it is on record, and what is known must not be forgotten for a
        // disk that is full for a moment: the facilitator may not tell it a second time.
        match self.advance_patiently(order.claim, &settled).await {
            Ok(()) => {
                let key = RevenueKey {
                    rule: Arc::clone(&order.rule),
                    accept: Arc::clone(&order.accept),
                    network: order.network.clone(),
                    asset: order.asset.clone(),
                };
                metrics::settled(key, order.amount, self.clock.now());
                Ok(Settled { receipt })
            }
            Err(error) => {
                tracing::error!(claim = order.claim.0, %error, transaction = %receipt.transaction,
                    "settled, but the ledger does not take it");
                Err(PaymentRefusal::OutcomeUnknown)
            }
        }
    }

    async fn record_refused(
        &self,
        claim: ClaimId,
        reason: Arc<str>,
        receipt: &SettlementResponse,
    ) -> Result<(), PaymentRefusal> {
        let receipt = serde_json::to_string(receipt).unwrap_or_default().into();
        self.advance_patiently(claim, &Move::Refused { reason, receipt })
            .await
            .map_err(|error| still_settling(claim, &error))
    }

    /// Gives a claim back, in a task of its own; the future resolves when that is on record.
    pub fn record_released(
        self: &Arc<Self>,
        claim: ClaimId,
        reason: &'static str,
    ) -> impl Future<Output = ()> + Send + 'static {
        let task = self.record(
            claim,
            Move::Released {
                reason: reason.into(),
            },
        );
        async move { drop(task.await) }
    }

    /// The request for this claim has ended without a delivery: once nothing here works on it any
    /// more, it is let go, and then a copy may begin. Other walls get the response first, when there is one.
    pub(super) fn let_go(
        self: &Arc<Self>,
        claim: ClaimId,
        (mut slot, shared): (Option<Slot>, Option<SharedResponse>),
    ) {
        let this = Arc::clone(self);
        slot.iter_mut()
            .for_each(|slot| slot.holds(&self.ledger, claim));
        self.follow_up(async move {
            this.share(shared).await;
            if let Some(left) = this.active.lock().get_mut(&claim) {
                *left = slot.take();
            }
            drop(slot);
        });
    }

    /// Gives the response to the other walls, then writes down that it was delivered; the future
    /// resolves when that is on record.
    pub(super) fn share_and_record_delivered(
        self: &Arc<Self>,
        claim: ClaimId,
        shared: Option<SharedResponse>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let this = Arc::clone(self);
        async move {
            this.share(shared).await;
            drop(this.record(claim, Move::Delivered).await);
        }
    }

    async fn share(&self, shared: Option<SharedResponse>) {
        if let Some(shared) = shared
            && let Err(error) = self.ledger.share_response(shared).await
        {
            tracing::warn!(%error, "other walls do not get a response that is kept here");
        }
    }

    /// Writes down that a complete response was written, in a task of its own; the future resolves
    /// when that is on record.
    pub fn record_delivered(
        self: &Arc<Self>,
        claim: ClaimId,
    ) -> impl Future<Output = ()> + Send + 'static {
        let task = self.record(claim, Move::Delivered);
        async move { drop(task.await) }
    }

    /// Runs what must happen after a record, whoever goes away.
    pub fn follow_up(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        drop(self.spawn(work));
    }

    /// Tries again for a while when the ledger fails: a disk may be full for a moment.
    fn record(self: &Arc<Self>, claim: ClaimId, to: Move) -> JoinHandle<()> {
        let this = Arc::clone(self);
        self.spawn(async move {
            let wanted = to.state();
            match this.advance_patiently(claim, &to).await {
                Ok(()) => {}
                // A replay beside the first delivery: both report it.
                Err(LedgerError::IllegalMove {
                    found: State::Delivered,
                    ..
                }) if wanted == State::Delivered => {}
                Err(error) => tracing::error!(claim = claim.0, %error, %wanted, "cannot record"),
            }
        })
    }

    /// Writes a move down, again and again for about 25 seconds while the store itself fails.
    async fn advance_patiently(&self, claim: ClaimId, to: &Move) -> Result<(), LedgerError> {
        reach_before(to.state());
        let mut pause = RECORD_PAUSE_MIN;
        loop {
            let Err(error) = self
                .ledger
                .advance(claim, to.clone(), self.clock.now())
                .await
            else {
                reach_after(to.state());
                return Ok(());
            };
            let hopeless = matches!(
                error,
                LedgerError::IllegalMove { .. } | LedgerError::NoSuchClaim(_)
            );
            if hopeless || pause > RECORD_PAUSE_MAX {
                return Err(error);
            }
            tracing::warn!(claim = claim.0, %error, wanted = %to.state(), "will record it again");
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2);
        }
    }

    fn spawn<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        struct Counted(Arc<Settler>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.tasks.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.tasks.fetch_add(1, Ordering::SeqCst);
        let counted = Counted(Arc::clone(self));
        self.runtime.spawn(async move {
            let _counted = counted;
            work.await
        })
    }
}

/// The facilitators of the order, fit ones first. None is left out: one that kept failing is
/// still better than giving up.
fn candidates(order: &Order) -> Vec<(Arc<str>, Arc<dyn Facilitator>)> {
    let among = &order.among.0;
    let mut all: Vec<_> = order
        .facilitators
        .iter()
        .filter_map(|name| Some((Arc::clone(name), Arc::clone(among.get(name)?))))
        .collect();
    all.sort_by_cached_key(|(_, facilitator)| facilitator.fitness());
    all
}

/// What the ledger did not take leaves the claim `settling`: the reconciler goes on with it.
fn still_settling(claim: ClaimId, error: &LedgerError) -> PaymentRefusal {
    tracing::error!(claim = claim.0, %error, "the ledger did not take what became of a settlement");
    PaymentRefusal::OutcomeUnknown
}

/// Keeps the process from ending: see [`Settler::busy`].
pub(crate) struct Busy(Arc<Settler>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.tasks.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Settler {
    /// Counts as a [task](Settler::tasks) while it is held, for settlements that are repeated: an
    /// answer that is under way should be written down before the process ends.
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        self.tasks.fetch_add(1, Ordering::SeqCst);
        Busy(Arc::clone(self))
    }
}

fn reach_before(wanted: State) {
    match wanted {
        State::Delivered => reach(Step::BeforeDelivered),
        State::Released => reach(Step::BeforeReleased),
        State::Claimed | State::Settling | State::Settled | State::Refused | State::Expired => {}
    }
}

fn reach_after(written: State) {
    match written {
        State::Settled => reach(Step::Settled),
        State::Delivered => reach(Step::Delivered),
        State::Released => reach(Step::Released),
        State::Claimed | State::Settling | State::Refused | State::Expired => {}
    }
}

/// The record of a settlement.
pub(crate) fn settled_move(
    receipt: &SettlementResponse,
    payer: Option<Payer>,
    body: Option<BodyDigest>,
) -> Move {
    Move::Settled {
        facilitator: None,
        transaction: receipt.transaction.as_str().into(),
        receipt: serde_json::to_string(receipt).unwrap_or_default().into(),
        payer,
        body,
    }
}
