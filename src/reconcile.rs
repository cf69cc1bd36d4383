//! Unknown settlements, until they are known: asks the chain where it may, and repeats the
//! identical settle with growing pauses.
//!
//! What is believed is decided in `decision`, without I/O. A claim that nobody can tell anything
//! about runs out with its authorization, and is then `expired`: listed for a person, never guessed.
//! Everything it knows is in the ledger, so it may be killed and started again at any time.

mod decision;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::B256;
use futures_util::{StreamExt, stream};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::decision::{Sighting, Verdict};
use crate::chain::{Nonce, NonceSpace, Payer};
use crate::chain_rpc::{Chains, Finding, Question, RpcFault};
use crate::clock::{Clock, UnixSeconds};
use crate::facilitator::{FacilitatorFault, FacilitatorRequest, SettleAnswer};
use crate::failpoint::{Step, reach};
use crate::gate::{Settler, settled_move};
use crate::ledger::{ClaimId, Filter, Ledger, LedgerError, Move, Record};
use crate::metrics;
use crate::settlement::State;
use crate::x402::message::SettlementResponse;

/// How often unknown settlements are looked at.
const TICK: Duration = Duration::from_secs(1);

/// Claims that are looked at side by side, so that one slow facilitator holds up few others.
const LOOKS_AT_ONCE: usize = 32;

/// The first pause before what is known is written down again, after the ledger failed, and the
/// last one; all together about 25 seconds.
const RECORD_PAUSE_MIN: Duration = Duration::from_millis(50);
const RECORD_PAUSE_MAX: Duration = Duration::from_secs(13);

/// Settled claims of one payer among which a transaction is looked for.
const SETTLED_MAX: u32 = 1000;

/// Resolves unknown settlements.
pub struct Reconciler {
    settler: Arc<Settler>,
    ledger: Arc<dyn Ledger>,
    chains: Chains,
    clock: Arc<dyn Clock>,
    due: HashMap<ClaimId, Instant>,
    /// Held while a payment that the chain showed is written down.
    one_by_one: Mutex<()>,
}

/// What one look at a claim came to.
#[derive(Clone, Debug)]
pub struct Look {
    /// The state that the claim is in now.
    pub state: State,
    /// What was found out, for people: no secrets, no addresses of endpoints.
    pub found: String,
    /// When the facilitator wants to be asked again.
    retry_after_s: Option<u64>,
}

/// What came of repeating a settle.
struct Repetition {
    receipt: Option<SettlementResponse>,
    found: String,
    retry_after_s: Option<u64>,
}

impl Reconciler {
    /// A reconciler that has seen nothing yet.
    #[must_use]
    pub fn new(
        settler: Arc<Settler>,
        ledger: Arc<dyn Ledger>,
        chains: Chains,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            settler,
            ledger,
            chains,
            clock,
            due: HashMap::new(),
            one_by_one: Mutex::new(()),
        }
    }

    /// Works until the runtime ends.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(TICK).await;
            if let Err(error) = self.pass().await {
                tracing::error!(%error, "cannot reconcile");
            }
        }
    }

    /// The claims whose outcome is not known, newest first.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] when the ledger cannot be read.
    pub async fn unknown(&self) -> Result<Vec<Record>, LedgerError> {
        let states = vec![State::Settling];
        let filter = Filter {
            states,
            ..Filter::default()
        };
        self.ledger.list(filter).await
    }

    /// One look at every unknown settlement that is due; returns how many are still unknown.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] when the ledger cannot be read or written.
    pub async fn pass(&mut self) -> Result<usize, LedgerError> {
        let mut unknown = self.ledger.unsettled().await?;
        unknown.retain(|record| !self.settler.is_active(record.id));
        self.due
            .retain(|id, _| unknown.iter().any(|record| record.id == *id));
        let all = unknown.len();
        let begun = Instant::now();
        unknown.retain(|record| self.due.get(&record.id).is_none_or(|due| *due <= begun));
        let this = &*self;
        let looks: Vec<_> = stream::iter(unknown)
            .map(|record| async move { (this.look(&record).await, record) })
            .buffer_unordered(LOOKS_AT_ONCE)
            .collect()
            .await;
        let (mut known, mut failure) = (0_usize, None);
        for (look, record) in looks {
            match look {
                Ok(look) if look.state == State::Settling => {
                    self.put_off(&record, look.retry_after_s);
                }
                Ok(_) => known = known.saturating_add(1),
                Err(error) => {
                    self.put_off(&record, None);
                    failure = Some(error);
                }
            }
        }
        let left = all.saturating_sub(known);
        metrics::unknown_settlements(left);
        failure.map_or(Ok(left), Err)
    }

    fn put_off(&mut self, record: &Record, retry_after_s: Option<u64>) {
        let now = self.clock.now();
        let is_late = now > record.claim.valid_before.plus(decision::GRACE_S);
        let pause = decision::pause(
            now.since(record.changed_at),
            is_late,
            retry_after_s,
            rand::random(),
        );
        if let Some(due) = Instant::now().checked_add(pause) {
            self.due.insert(record.id, due);
        }
    }

    /// One look at one claim, now. Nobody else in this process may be settling it.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] when the ledger cannot be read or written; nothing is lost by that.
    pub async fn look(&self, record: &Record) -> Result<Look, LedgerError> {
        // Since it was listed, the task that settled it may have written down its outcome.
        if let Some(state) = self.moved_on(record).await? {
            return Ok(Look::elsewhere(state));
        }
        let finding = self.ask_chain(record).await;
        // From here until it is written down, so that no two claims count one transaction.
        let _alone = match finding {
            Some(Ok(Finding::Paid { .. })) => Some(self.one_by_one.lock().await),
            Some(Ok(_) | Err(_)) | None => None,
        };
        let (sighting, mut found) = self.sight(record, finding).await?;
        let (mut receipt, mut retry_after_s) = (None, None);
        let _busy = self.settler.busy();
        let verdict = match decision::by_chain(sighting) {
            Some(verdict) => verdict,
            None => {
                let repeated = self.repeat(record).await;
                found = match found.is_empty() {
                    true => repeated.found,
                    false => format!("{found}; {}", repeated.found),
                };
                (receipt, retry_after_s) = (repeated.receipt, repeated.retry_after_s);
                let (now, end) = (self.clock.now(), record.claim.valid_before);
                decision::by_facilitator(receipt.is_some(), sighting, now, end)
            }
        };
        let Some(step) = step(record, verdict, receipt) else {
            tracing::warn!(claim = record.id.0, %found, "still unknown");
            let state = State::Settling;
            return Ok(Look {
                state,
                found,
                retry_after_s,
            });
        };
        self.write(record, step, found).await
    }

    async fn write(&self, record: &Record, step: Move, found: String) -> Result<Look, LedgerError> {
        let state = step.state();
        reach(Step::Reconciling);
        let mut pause = RECORD_PAUSE_MIN;
        loop {
            let now = self.clock.now();
            match self.ledger.advance(record.id, step.clone(), now).await {
                Ok(()) => break,
                // Another process was faster, and had the same sources.
                Err(LedgerError::IllegalMove { found, .. }) => return Ok(Look::elsewhere(found)),
                Err(error @ LedgerError::NoSuchClaim(_)) => return Err(error),
                Err(error) if pause > RECORD_PAUSE_MAX => return Err(error),
                // The facilitator may not tell it a second time, so it is not forgotten for a disk
                // that is full for a moment.
                Err(error) => {
                    tracing::error!(claim = record.id.0, %error, %found, "known, but not recorded");
                }
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2);
        }
        reach(Step::Reconciled);
        if state == State::Settled {
            let claim = &record.claim;
            metrics::settled(&claim.rule, &claim.accept, claim.amount);
        }
        if state == State::Expired {
            tracing::error!(claim = record.id.0, %found, "an unknown settlement expired");
        } else {
            tracing::info!(claim = record.id.0, %state, %found, "an unknown settlement is known now");
        }
        Ok(Look {
            state,
            found,
            retry_after_s: None,
        })
    }

    /// The state of a claim that is not `settling` any more.
    async fn moved_on(&self, record: &Record) -> Result<Option<State>, LedgerError> {
        let current = self.ledger.find(record.claim.payment).await?;
        Ok(match current {
            Some(current) if current.id == record.id => {
                Some(current.state).filter(|state| *state != State::Settling)
            }
            // A later claim of the payment, or none: ours is over, or it would be the one found.
            Some(_) | None => Some(State::Refused),
        })
    }

    /// What the chain says; `None` when there is none that could tell.
    async fn ask_chain(&self, record: &Record) -> Option<Result<Finding, RpcFault>> {
        let chain = self.chains.get(&record.claim.network)?;
        Some(chain.look(&Question::about(record)?).await)
    }

    /// What to make of it, and in words.
    async fn sight(
        &self,
        record: &Record,
        finding: Option<Result<Finding, RpcFault>>,
    ) -> Result<(Sighting, String), LedgerError> {
        let mut finding = match finding {
            None => return Ok((Sighting::NotAsked, String::new())),
            Some(Ok(finding)) => finding,
            Some(Err(fault)) => {
                tracing::warn!(network = %record.claim.network, %fault, "the chain does not answer");
                return Ok((Sighting::Failed, "the chain does not answer".to_owned()));
            }
        };
        let space = Nonce::parse(&record.claim.nonce).map(|nonce| nonce.space);
        if let Finding::Paid { transaction } = finding
            && space == Some(NonceSpace::Permit2)
            && self.has_paid_for_another(record, transaction).await?
        {
            finding = Finding::Unexplained("its transaction paid for another claim");
        }
        let words = match finding {
            Finding::Paid { transaction } => format!("paid on chain in {transaction}"),
            Finding::Cancelled => "cancelled on chain by the payer".to_owned(),
            Finding::UsedElsewhere => "used on chain, and not for us".to_owned(),
            Finding::NeverUsed => "never used on chain, and too late now".to_owned(),
            Finding::Unused => "not used on chain so far".to_owned(),
            Finding::Unexplained(why) => format!("used on chain, but unexplained: {why}"),
        };
        Ok((Sighting::Seen(finding), words))
    }

    /// Permit2 leaves no mark that ties a transfer to its nonce, so one transaction may count once.
    async fn has_paid_for_another(
        &self,
        record: &Record,
        transaction: B256,
    ) -> Result<bool, LedgerError> {
        let filter = Filter {
            payer: Some(record.claim.payer.to_string()),
            states: vec![State::Settled, State::Delivered],
            since: Some(UnixSeconds(record.claimed_at.0).minus(decision::CHAIN_GRACE_S)),
            limit: Some(SETTLED_MAX),
            ..Filter::default()
        };
        let settled = self.ledger.list(filter).await?;
        let is_full = u32::try_from(settled.len()).is_ok_and(|found| found >= SETTLED_MAX);
        let hash = transaction.to_string();
        let mut known = settled
            .iter()
            .filter_map(|other| other.transaction.as_deref());
        Ok(is_full || known.any(|other| other.eq_ignore_ascii_case(&hash)))
    }

    /// Sends the identical settle again.
    async fn repeat(&self, record: &Record) -> Repetition {
        let unproven = |found: String, retry_after_s| Repetition {
            receipt: None,
            found,
            retry_after_s,
        };
        let name = record.facilitator.as_deref().unwrap_or_default();
        let Some(facilitator) = self.settler.facilitator(name) else {
            return unproven(
                format!("facilitator {name:?} is not configured any more"),
                None,
            );
        };
        let request = FacilitatorRequest {
            body: record.claim.settle_request.clone(),
        };
        match facilitator.settle(&request).await {
            SettleAnswer::Settled(receipt) => Repetition {
                found: format!("settled, says {name}"),
                receipt: Some(receipt),
                retry_after_s: None,
            },
            SettleAnswer::Refused(receipt) => {
                let reason = receipt
                    .error_reason
                    .as_deref()
                    .unwrap_or("without a reason");
                unproven(
                    format!("{name} refuses ({reason}), which proves nothing"),
                    None,
                )
            }
            SettleAnswer::Unknown(fault) | SettleAnswer::NotSent(fault) => {
                let retry_after_s = match &fault {
                    FacilitatorFault::Status { retry_after_s, .. } => *retry_after_s,
                    FacilitatorFault::Open { retry_after_s } => Some(*retry_after_s),
                    FacilitatorFault::Connect(_)
                    | FacilitatorFault::Timeout(_)
                    | FacilitatorFault::Broken(_)
                    | FacilitatorFault::Junk(_)
                    | FacilitatorFault::TooLarge(_)
                    | FacilitatorFault::Pending
                    | FacilitatorFault::Saturated => None,
                };
                unproven(format!("{name}: {fault}"), retry_after_s)
            }
        }
    }
}

impl Look {
    /// Not looked at, for this reason.
    pub(crate) fn undone(why: String) -> Self {
        Self {
            state: State::Settling,
            found: why,
            retry_after_s: None,
        }
    }

    /// Found by somebody else.
    fn elsewhere(state: State) -> Self {
        Self {
            state,
            found: "resolved meanwhile".to_owned(),
            retry_after_s: None,
        }
    }
}

/// The move that a verdict asks for; `None` while it is unknown.
fn step(record: &Record, verdict: Verdict, receipt: Option<SettlementResponse>) -> Option<Move> {
    let receipt_of = |transaction: String, reason: Option<&str>| SettlementResponse {
        success: reason.is_none(),
        error_reason: reason.map(str::to_owned),
        payer: Some(record.claim.payer.to_string()).filter(|payer| !payer.is_empty()),
        transaction,
        network: network_as_asked(record),
        ..SettlementResponse::default()
    };
    match verdict {
        Verdict::SettledOnChain(transaction) => {
            let receipt = receipt_of(transaction.to_string(), None);
            Some(settled_move(&receipt, None, None))
        }
        Verdict::SettledByFacilitator => receipt.map(|receipt| {
            let unknown_payer = record.claim.payer.as_str().is_empty();
            let payer = receipt.payer.as_deref().filter(|_| unknown_payer);
            settled_move(&receipt, payer.map(Payer::verbatim), None)
        }),
        Verdict::Refused(reason) => {
            let receipt = receipt_of(String::new(), Some(reason));
            Some(Move::Refused {
                reason: reason.into(),
                receipt: serde_json::to_string(&receipt).unwrap_or_default().into(),
            })
        }
        Verdict::Expired(reason) => Some(Move::Expired {
            reason: reason.into(),
        }),
        Verdict::Unknown => None,
    }
}

/// The network as the facilitator was told, which is what its receipt would say.
fn network_as_asked(record: &Record) -> String {
    let body: Value = serde_json::from_str(&record.claim.settle_request).unwrap_or_default();
    let network = body.pointer("/paymentRequirements/network");
    network
        .and_then(Value::as_str)
        .unwrap_or(record.claim.network.as_str())
        .to_owned()
}
