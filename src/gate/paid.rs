//! A request that is paid for, or about to be: what it holds, and how it ends.

use std::sync::Arc;

use crate::chain::{Payer, PaymentKey};
use crate::gate::in_flight::Slot;
use crate::gate::settler::{Among, Order, Settler};
use crate::gate::{PaymentRefusal, Refusal, UpstreamFailure};
use crate::kept::KeptResponse;
use crate::ledger::{BodyDigest, Claim, ClaimId, Fingerprint, Record, SharedResponse};
use crate::proof::{Proof, VerifiedProof};
use crate::route::PricedRoute;
use crate::route::price::{Offer, Quote};
use crate::x402::Version;
use crate::x402::message::SettlementResponse;

/// What is bought: the rule, its price, and where.
#[derive(Clone, Debug)]
pub struct Purchase {
    /// The rule that sells.
    pub route: Arc<PricedRoute>,
    /// What it costs, fixed for this request.
    pub quote: Arc<Quote>,
    /// Canonical path, for the resource URL of a challenge.
    pub path: Arc<str>,
    /// The protocol version of the proof; version 2 when there is none.
    pub version: Version,
}

/// The right to go upstream on a priced rule. Only [`Gate::admit`](crate::gate::Gate::admit) makes one.
///
/// Dropping it while nothing was settled gives the claim back.
#[derive(Debug)]
pub struct Paid {
    settler: Arc<Settler>,
    purchase: Purchase,
    offer: Arc<Offer>,
    payment: PaymentKey,
    payer: Payer,
    fingerprint: Fingerprint,
    stage: Stage,
    good_response: bool,
    sent: bool,
    order: Order,
    slot: Option<Slot>,
    /// The response, for other walls.
    shared: Option<SharedResponse>,
}

#[derive(Debug)]
enum Stage {
    /// Nothing was asked of the facilitator.
    Claimed(Claim),
    /// On record as paid.
    Settled {
        claim: ClaimId,
        receipt: Option<Box<SettlementResponse>>,
    },
    /// Unknown: the reconciler's business from here.
    Unknown,
    /// Given back, refused or delivered: nothing more to do.
    Closed,
}

/// What [`Gate::release`](crate::gate::Gate::release) lets through.
#[derive(Debug)]
pub enum Release {
    /// The upstream failed: its answer passes, nothing is charged.
    Uncharged,
    /// Paid: the answer passes with this receipt.
    Charged(Option<Box<SettlementResponse>>),
}

/// How an exchange ended.
#[derive(Debug)]
pub struct Ending {
    /// A complete response was written to the client.
    pub delivered: bool,
    /// The client went away before that.
    pub client_left: bool,
    /// The complete response, when it was small enough to be kept.
    pub response: Option<KeptResponse>,
}

impl Paid {
    pub(super) fn claimed(
        settler: &Arc<Settler>,
        purchase: &Purchase,
        proof: &VerifiedProof,
        fingerprint: Fingerprint,
        claim: Claim,
        (slot, among): (Slot, Among),
    ) -> Self {
        let payer = proof.payer().clone();
        let (id, stage) = (claim.id(), Stage::Claimed(claim));
        let mut paid = Self::new(
            settler,
            purchase,
            proof.proof(),
            (fingerprint, payer, id, stage),
            (slot, among),
        );
        // Who found it good is asked first to settle it.
        paid.order
            .facilitators
            .sort_by_key(|name| name != proof.facilitator());
        paid
    }

    /// For a debt: settled earlier, the response goes out without another settlement.
    pub(super) fn owed(
        settler: &Arc<Settler>,
        purchase: &Purchase,
        proof: &Proof,
        (record, receipt): (&Record, Option<SettlementResponse>),
        never_sent: bool,
        (slot, among): (Slot, Among),
    ) -> Self {
        slot.mark_sold();
        let stage = Stage::Settled {
            claim: record.id,
            receipt: receipt.map(Box::new),
        };
        let (fingerprint, payer) = (record.claim.fingerprint, record.claim.payer.clone());
        let who = (fingerprint, payer, record.id, stage);
        let paid = Self::new(settler, purchase, proof, who, (slot, among));
        paid.sent_before(!never_sent)
    }

    fn sent_before(mut self, sent: bool) -> Self {
        self.sent = sent;
        self
    }

    fn new(
        settler: &Arc<Settler>,
        purchase: &Purchase,
        proof: &Proof,
        (fingerprint, payer, claim, stage): (Fingerprint, Payer, ClaimId, Stage),
        (slot, among): (Slot, Among),
    ) -> Self {
        let offer = proof.offer();
        let order = Order {
            rule: purchase.route.rule.clone(),
            accept: offer.accept.clone(),
            network: offer.network.clone(),
            asset: offer.asset.clone(),
            amount: offer.amount,
            claim,
            request: proof.request().clone(),
            facilitators: proof.offer().facilitators.clone(),
            among,
            body: None,
            payer_unknown: proof.payer().as_str().is_empty(),
        };
        Self {
            settler: Arc::clone(settler),
            purchase: purchase.clone(),
            offer: Arc::clone(proof.offer()),
            payment: proof.key(),
            payer,
            fingerprint,
            stage,
            good_response: false,
            sent: false,
            order,
            slot: Some(slot),
            shared: None,
        }
    }

    /// What is bought.
    #[must_use]
    pub const fn purchase(&self) -> &Purchase {
        &self.purchase
    }

    /// A refusal of this purchase.
    #[must_use]
    pub fn refused(&self, why: PaymentRefusal) -> Refusal {
        Refusal::Payment {
            why,
            purchase: self.purchase.clone(),
        }
    }

    /// What the client is told when the upstream failed: uncharged, or owed what it paid in advance.
    #[must_use]
    pub fn failed(&self, failure: UpstreamFailure) -> Refusal {
        match self.receipt() {
            None => Refusal::Upstream(failure),
            Some(receipt) => {
                let receipt = Box::new(receipt.clone());
                self.refused(PaymentRefusal::Undelivered { failure, receipt })
            }
        }
    }

    /// The way of paying that the client chose.
    #[must_use]
    pub fn offer(&self) -> &Arc<Offer> {
        &self.offer
    }

    /// Which payment.
    #[must_use]
    pub const fn payment(&self) -> PaymentKey {
        self.payment
    }

    /// What it was presented for.
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Who pays.
    #[must_use]
    pub const fn payer(&self) -> &Payer {
        &self.payer
    }

    /// Whether the money has moved, on record.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        matches!(self.stage, Stage::Settled { .. })
    }

    /// The request leaves for the upstream: from now on it may have been worked on.
    pub const fn mark_sent(&mut self) {
        self.sent = true;
    }

    /// Whether it is paid and its request certainly never left for the upstream.
    #[must_use]
    pub(super) const fn is_owed_unsent(&self) -> bool {
        !self.sent && matches!(self.stage, Stage::Settled { .. })
    }

    /// Whether the upstream's answer was one that is sold (status below 400).
    #[must_use]
    pub const fn is_good_response(&self) -> bool {
        self.good_response
    }

    /// Whether a response may be kept for this payment: it is paid, or may turn out to be.
    #[must_use]
    pub const fn may_be_kept(&self) -> bool {
        self.good_response && matches!(self.stage, Stage::Settled { .. } | Stage::Unknown)
    }

    /// Moves the money now.
    pub(super) async fn settle(&mut self, body: Option<BodyDigest>) -> Result<(), PaymentRefusal> {
        let claim = match std::mem::replace(&mut self.stage, Stage::Unknown) {
            Stage::Claimed(claim) => claim.id(),
            other @ (Stage::Settled { .. } | Stage::Unknown | Stage::Closed) => {
                self.stage = other;
                return Ok(());
            }
        };
        self.order.body = body;
        match self.settler.settle(self.order.clone()).await {
            Ok(settled) => {
                self.stage = Stage::Settled {
                    claim,
                    receipt: Some(Box::new(settled.receipt)),
                };
                self.slot.iter().for_each(Slot::mark_sold);
                Ok(())
            }
            // A write that failed may have been carried out: the stage is as unknown as the outcome.
            Err(refusal @ (PaymentRefusal::OutcomeUnknown | PaymentRefusal::Ledger(_))) => {
                Err(refusal)
            }
            Err(refusal) => {
                self.stage = Stage::Closed;
                Err(refusal)
            }
        }
    }

    pub(super) async fn release(
        &mut self,
        status: u16,
        body: Option<BodyDigest>,
    ) -> Result<Release, PaymentRefusal> {
        let unasked = matches!(status, 206 | 304) && !self.purchase.route.forward_conditional;
        if status >= 400 || unasked {
            let reason = if unasked {
                "upstream_partial"
            } else {
                "upstream_status"
            };
            self.give_back(reason).await;
            // Paid in advance, or a debt: the receipt goes along and the debt stays.
            return match self.receipt().cloned().map(Box::new) {
                Some(receipt) if unasked => Err(PaymentRefusal::Undelivered {
                    failure: UpstreamFailure::Broken,
                    receipt,
                }),
                Some(receipt) => Ok(Release::Charged(Some(receipt))),
                None if unasked => Err(PaymentRefusal::NotSold(status)),
                None => Ok(Release::Uncharged),
            };
        }
        self.good_response = true;
        self.settle(body).await?;
        match &self.stage {
            Stage::Settled { receipt, .. } => Ok(Release::Charged(receipt.clone())),
            Stage::Claimed(_) | Stage::Unknown | Stage::Closed => {
                Err(PaymentRefusal::OutcomeUnknown)
            }
        }
    }

    /// The receipt, once settled.
    #[must_use]
    pub fn receipt(&self) -> Option<&SettlementResponse> {
        match &self.stage {
            Stage::Settled { receipt, .. } => receipt.as_deref(),
            Stage::Claimed(_) | Stage::Unknown | Stage::Closed => None,
        }
    }

    /// Gives an unsettled claim back and waits until that is on record.
    pub(super) async fn give_back(&mut self, reason: &'static str) {
        if let Stage::Claimed(claim) = &self.stage {
            let released = self.settler.record_released(claim.id(), reason);
            self.stage = Stage::Closed;
            released.await;
            drop(self.slot.take());
        }
    }

    /// What is not closed here is closed when it is dropped.
    pub(super) fn close(mut self: Box<Self>, complete: bool, shared: Option<SharedResponse>) {
        self.shared = shared;
        if let Stage::Settled { claim, .. } = self.stage
            && complete
        {
            let (shared, mut slot) = (self.shared.take(), self.slot.take());
            let delivered = self.settler.share_and_record_delivered(claim, shared);
            self.stage = Stage::Closed;
            // A copy that waits must not find the payment owed when it is delivered.
            slot.iter_mut().for_each(Slot::holds_nothing);
            self.settler.follow_up(async move {
                delivered.await;
                drop(slot);
            });
        }
    }
}

impl Drop for Paid {
    fn drop(&mut self) {
        match &self.stage {
            Stage::Claimed(claim) => {
                let slot = self.slot.take();
                let released = self.settler.record_released(claim.id(), "not_delivered");
                // The payment stays reserved until it is on record that it is free.
                self.settler.follow_up(async move {
                    released.await;
                    drop(slot);
                });
            }
            Stage::Settled { .. } | Stage::Unknown => {
                let left = (self.slot.take(), self.shared.take());
                self.settler.let_go(self.order.claim, left);
            }
            Stage::Closed => {}
        }
    }
}

impl std::fmt::Debug for Settler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settler")
            .field("tasks", &self.tasks())
            .finish_non_exhaustive()
    }
}
