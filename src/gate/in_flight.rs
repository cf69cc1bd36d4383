//! Payments in the hands of this process: the reservation in memory that comes before the claim.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::chain::PaymentKey;
use crate::ledger::{ClaimId, Fingerprint, Ledger};

/// Which payments are being worked on, and for what.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    payments: Mutex<HashMap<PaymentKey, Taken>>,
}

#[derive(Debug)]
struct Taken {
    presented_for: Fingerprint,
    sold: watch::Receiver<bool>,
}

/// The answer to [`InFlight::enter`].
#[derive(Debug)]
pub(super) enum Entry {
    /// Ours until the slot is dropped.
    Entered(Slot),
    /// Somebody works on it.
    Taken {
        /// Whether for the same request.
        same: bool,
        /// To wait for the end of that.
        work: Work,
    },
}

/// How the work that was in the way ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum WorkEnd {
    /// The slot is gone: try again.
    Gone,
    /// The payment is settled: for another request it is spent.
    Sold,
}

/// The reservation; dropping it gives the payment free and wakes who waits for it.
#[derive(Debug)]
pub(super) struct Slot {
    payment: PaymentKey,
    table: Arc<InFlight>,
    sold: watch::Sender<bool>,
    in_hand: Option<InHand>,
}

/// A claim that other walls leave alone until it is let go.
struct InHand {
    ledger: Arc<dyn Ledger>,
    claim: ClaimId,
}

impl std::fmt::Debug for InHand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("InHand").field(&self.claim).finish()
    }
}

/// Somebody's work on a payment.
#[derive(Debug)]
pub(super) struct Work(watch::Receiver<bool>);

impl Work {
    /// Waits for the slot to go; when `until_sold`, a settlement ends the wait too.
    pub(super) async fn end(&mut self, until_sold: bool) -> WorkEnd {
        loop {
            if until_sold && *self.0.borrow_and_update() {
                return WorkEnd::Sold;
            }
            if self.0.changed().await.is_err() {
                return WorkEnd::Gone;
            }
        }
    }
}

impl InFlight {
    pub(super) fn enter(
        self: &Arc<Self>,
        payment: PaymentKey,
        presented_for: Fingerprint,
    ) -> Entry {
        let mut payments = self.payments.lock();
        if let Some(taken) = payments.get(&payment) {
            let same = taken.presented_for == presented_for;
            return Entry::Taken {
                same,
                work: Work(taken.sold.clone()),
            };
        }
        let (sender, sold) = watch::channel(false);
        payments.insert(
            payment,
            Taken {
                presented_for,
                sold,
            },
        );
        Entry::Entered(Slot {
            payment,
            table: Arc::clone(self),
            sold: sender,
            in_hand: None,
        })
    }
}

impl Slot {
    /// The payment is settled: from now on it is spent for every other request.
    pub(super) fn mark_sold(&self) {
        self.sold.send_replace(true);
    }

    /// The claim is let go when this is dropped, and only then may a copy begin here: what the copy takes in
    /// hand would else be let go under it.
    pub(super) fn holds(&mut self, ledger: &Arc<dyn Ledger>, claim: ClaimId) {
        let ledger = Arc::clone(ledger);
        self.in_hand = Some(InHand { ledger, claim });
    }

    /// The claim is over: nobody can take it in hand any more.
    pub(super) fn holds_nothing(&mut self) {
        self.in_hand = None;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(InHand { ledger, claim }) = self.in_hand.take() {
            ledger.let_go(claim);
        }
        self.table.payments.lock().remove(&self.payment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(entry: Entry) -> (bool, Work) {
        match entry {
            Entry::Taken { same, work } => (same, work),
            Entry::Entered(_) => panic!("the payment was free"),
        }
    }

    #[tokio::test]
    async fn a_copy_waits_for_the_end_and_another_request_only_for_the_sale() {
        let table = Arc::new(InFlight::default());
        let (payment, one, two) = (
            PaymentKey([1; 32]),
            Fingerprint([1; 32]),
            Fingerprint([2; 32]),
        );
        let Entry::Entered(slot) = table.enter(payment, one) else {
            panic!("empty table")
        };
        let (same, mut copy) = taken(table.enter(payment, one));
        let (other_same, mut other) = taken(table.enter(payment, two));
        assert!(same && !other_same);
        slot.mark_sold();
        assert_eq!(other.end(true).await, WorkEnd::Sold);
        let waiter = tokio::spawn(async move { copy.end(false).await });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        drop(slot);
        assert_eq!(waiter.await.unwrap(), WorkEnd::Gone);
        assert!(matches!(table.enter(payment, two), Entry::Entered(_)));
    }
}
