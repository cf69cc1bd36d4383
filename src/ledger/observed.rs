//! A ledger that is watched: how long its writes take, when it fails, and what happens to payments.
//!
//! Whatever keeps the payments, this stands before it in a running wall. It changes no answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::chain::PaymentKey;
use crate::clock::{Clock, UnixSeconds};
use crate::ledger::upkeep::{Batch, Cursor};
use crate::ledger::{
    ClaimAnswer, ClaimId, Filter, Fingerprint, Ledger, LedgerError, Move, NewClaim, Note, Record,
    SharedResponse, Total,
};
use crate::metrics;
use crate::settlement::State;

/// Events that a slow listener may lag behind; after that it misses some, and is told.
const EVENTS_MAX: usize = 4096;

/// How often the claims that are not at their end are counted.
const COUNT_EVERY: Duration = Duration::from_secs(15);

/// A claim moved. It is durable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Event {
    /// Which claim.
    pub claim: ClaimId,
    /// The state that it is in now.
    pub state: State,
    /// When.
    pub at: UnixSeconds,
}

/// A ledger that tells what happens.
pub struct Observed {
    inner: Arc<dyn Ledger>,
    events: broadcast::Sender<Event>,
}

impl Observed {
    /// Watches `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Ledger>) -> Arc<Self> {
        let events = broadcast::Sender::new(EVENTS_MAX);
        Arc::new(Self { inner, events })
    }

    /// Everything that this wall writes down from now on. What other walls write is not among it.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    fn tell(&self, event: Event) {
        // An error says that nobody listens.
        drop(self.events.send(event));
    }

    /// Counts what is open, unknown, owed and lost, until the runtime ends.
    pub async fn count(self: Arc<Self>, clock: Arc<dyn Clock>) {
        loop {
            if let Err(error) = self.count_once().await {
                tracing::warn!(%error, now = clock.now().0, "cannot count the claims");
            }
            tokio::time::sleep(COUNT_EVERY).await;
        }
    }

    /// Only states in which few claims are: no query here grows with the age of the ledger.
    async fn count_once(&self) -> Result<(), LedgerError> {
        let of = |states: Vec<State>| Filter {
            states,
            needs_person: true,
            ..Filter::default()
        };
        let states = vec![State::Claimed, State::Settling, State::Settled];
        let totals = self.totals(of(states)).await?;
        for (word, state) in [
            ("open", State::Claimed),
            ("unknown", State::Settling),
            ("owed", State::Settled),
        ] {
            let counts = totals.iter().filter(|total| total.state == state);
            let count = counts.fold(0_u64, |sum, total| sum.saturating_add(total.count));
            metrics::ledger_claims(word, count);
        }
        let lost = self.totals(of(vec![State::Expired])).await?;
        let lost = lost
            .iter()
            .fold(0_u64, |sum, total| sum.saturating_add(total.count));
        metrics::ledger_claims("lost", lost);
        Ok(())
    }
}

/// Counts a failure of the ledger itself. That a claim cannot move so is an answer.
fn failed(operation: &'static str, error: &LedgerError) {
    match error {
        LedgerError::Store { .. } | LedgerError::Closed(_) | LedgerError::Corrupt { .. } => {
            metrics::ledger_failed(operation);
        }
        LedgerError::TooNew { .. }
        | LedgerError::IllegalMove { .. }
        | LedgerError::NoDebt { .. }
        | LedgerError::NoSuchClaim(_) => {}
    }
}

fn read(error: &LedgerError) {
    failed("read", error);
}

#[async_trait]
impl Ledger for Observed {
    async fn find(&self, payment: PaymentKey) -> Result<Option<Record>, LedgerError> {
        self.inner.find(payment).await.inspect_err(read)
    }

    async fn claim(&self, claim: NewClaim, now: UnixSeconds) -> Result<ClaimAnswer, LedgerError> {
        let begun = Instant::now();
        let answer = self.inner.claim(claim, now).await;
        match &answer {
            Ok(ClaimAnswer::Claimed(claim)) => {
                metrics::ledger_write("claim", begun.elapsed());
                self.tell(Event {
                    claim: claim.id(),
                    state: State::Claimed,
                    at: now,
                });
            }
            Ok(ClaimAnswer::Held(_)) => {}
            Err(error) => failed("claim", error),
        }
        answer
    }

    async fn advance(&self, id: ClaimId, to: Move, now: UnixSeconds) -> Result<(), LedgerError> {
        let (begun, state) = (Instant::now(), to.state());
        let answer = self.inner.advance(id, to, now).await;
        match &answer {
            Ok(()) => {
                metrics::ledger_write("advance", begun.elapsed());
                self.tell(Event {
                    claim: id,
                    state,
                    at: now,
                });
            }
            Err(error) => failed("advance", error),
        }
        answer
    }

    async fn list(&self, filter: Filter) -> Result<Vec<Record>, LedgerError> {
        self.inner.list(filter).await.inspect_err(read)
    }

    async fn totals(&self, filter: Filter) -> Result<Vec<Total>, LedgerError> {
        self.inner.totals(filter).await.inspect_err(read)
    }

    async fn mark(&self, note: Note) -> Result<(), LedgerError> {
        self.inner.mark(note).await
    }

    async fn notes(&self, id: ClaimId) -> Result<Vec<Note>, LedgerError> {
        self.inner.notes(id).await.inspect_err(read)
    }

    async fn release_abandoned(&self, now: UnixSeconds) -> Result<u64, LedgerError> {
        self.inner.release_abandoned(now).await
    }

    async fn prune(
        &self,
        before: UnixSeconds,
        now: UnixSeconds,
        from: Cursor,
    ) -> Result<Batch, LedgerError> {
        self.inner.prune(before, now, from).await
    }

    async fn compact(&self) -> Result<Batch, LedgerError> {
        self.inner.compact().await
    }

    async fn unsettled(&self, from: Cursor, limit: u32) -> Result<Vec<Record>, LedgerError> {
        self.inner.unsettled(from, limit).await.inspect_err(read)
    }

    async fn take_owed(&self, id: ClaimId) -> Result<bool, LedgerError> {
        self.inner.take_owed(id).await
    }

    fn let_go(&self, id: ClaimId) {
        self.inner.let_go(id);
    }

    async fn share_response(&self, response: SharedResponse) -> Result<(), LedgerError> {
        self.inner.share_response(response).await
    }

    async fn shared_response(
        &self,
        payment: PaymentKey,
        fingerprint: Fingerprint,
    ) -> Result<Option<SharedResponse>, LedgerError> {
        self.inner.shared_response(payment, fingerprint).await
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    fn commits(&self) -> Option<u64> {
        self.inner.commits()
    }

    async fn leave(&self) {
        self.inner.leave().await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// A method with a default body that is forgotten here would be answered by the default.
    #[test]
    fn every_method_of_a_ledger_is_passed_on() {
        let methods = |text: &str| -> BTreeSet<String> {
            let lines = text.lines().filter(|line| line.starts_with("    "));
            let names = lines.filter_map(|line| {
                let line = line.trim_start();
                let line = line.strip_prefix("async ").unwrap_or(line);
                Some(line.strip_prefix("fn ")?.split('(').next()?.to_owned())
            });
            names.collect()
        };
        let asked = include_str!("../ledger.rs");
        let begin = asked.find("pub trait Ledger").unwrap();
        let end = asked[begin..].find("\n}\n").unwrap();
        let asked = methods(&asked[begin..begin + end]);
        let own = include_str!("observed.rs");
        let begin = own.find("impl Ledger for Observed").unwrap();
        let end = own[begin..].find("\n}\n").unwrap();
        assert_eq!(methods(&own[begin..begin + end]), asked);
        assert!(asked.len() >= 15, "{asked:?}");
    }
}
