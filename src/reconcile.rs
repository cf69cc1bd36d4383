//! Unknown settlements, until they are known: asks the chain where it may, and repeats the
//! identical settle with growing pauses, at another facilitator when the chain shows that the first
//! did not bring it there.
//!
//! What is believed is decided in `decision`, without I/O. A claim that nobody can tell anything
//! about runs out with its authorization, or after thirty days, and is then `expired`: listed for a person, never guessed.
//! Everything it knows is in the ledger, so it may be killed and started again at any time.

mod decision;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::B256;
use arc_swap::ArcSwap;
use futures_util::{StreamExt, stream};
use serde_json::Value;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;

use self::decision::{Sighting, Verdict};
use crate::chain::{Nonce, NonceSpace, Payer};
use crate::chain_rpc::{Chains, Finding, Question, RpcFault};
use crate::clock::{Clock, UnixSeconds};
use crate::facilitator::{FacilitatorFault, FacilitatorRequest, Fitness, SettleAnswer};
use crate::failpoint::{Step, reach};
use crate::gate::{Settler, settled_move};
use crate::ledger::upkeep::Cursor;
use crate::ledger::{ClaimId, Filter, Ledger, LedgerError, Move, Record};
use crate::metrics::{self, RevenueKey};
use crate::settlement::State;
use crate::x402::message::SettlementResponse;

/// How often unknown settlements are looked at.
const TICK: Duration = Duration::from_secs(1);

/// The longest rest between two looks: what became unknown meanwhile must be asked for in time.
const REST_MAX: Duration = Duration::from_secs(10);

/// Claims that are read at once: memory stays bounded however many are unknown.
const PAGE: u32 = 256;

/// Claims that are looked at side by side, so that one slow facilitator holds up few others.
const LOOKS_AT_ONCE: usize = 32;

/// The first pause before what is known is written down again, after the ledger failed, and the
/// last one; all together about 25 seconds.
const RECORD_PAUSE_MIN: Duration = Duration::from_millis(50);
const RECORD_PAUSE_MAX: Duration = Duration::from_secs(13);

/// Settled claims of one payer among which a transaction is looked for.
const SETTLED_MAX: u32 = 1000;

/// The facilitators of each way of being paid, in order of preference.
pub type Preferences = BTreeMap<Arc<str>, Vec<Arc<str>>>;

/// Who may know, as configured now.
#[derive(Clone, Default)]
pub struct Sources {
    /// Chains that may be asked.
    pub chains: Chains,
    /// Facilitators in order of preference.
    pub preferences: Preferences,
}

impl Sources {
    /// These, and what was there before and is not configured any more: settlements may be unknown
    /// that need it. As many as an operator has ever named.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        for (network, chain) in &before.chains {
            let chain = || Arc::clone(chain);
            self.chains.entry(network.clone()).or_insert_with(chain);
        }
        for (accept, order) in &before.preferences {
            let order = || order.clone();
            self.preferences
                .entry(Arc::clone(accept))
                .or_insert_with(order);
        }
        self
    }
}

/// Resolves unknown settlements.
pub struct Reconciler {
    settler: Arc<Settler>,
    ledger: Arc<dyn Ledger>,
    sources: Arc<ArcSwap<Sources>>,
    clock: Arc<dyn Clock>,
    due: HashMap<ClaimId, Due>,
    /// How many passes there were, to tell which claims the last one found.
    passes: u64,
    /// Held while a payment that the chain showed is written down.
    one_by_one: Mutex<()>,
    errands: mpsc::Receiver<Answer>,
    errand: Errand,
}

/// Whom to tell how many are still unknown.
type Answer = oneshot::Sender<Result<usize, LedgerError>>;

/// Errands that may wait.
const ERRANDS_MAX: usize = 8;

/// Sends a running reconciler on errands.
#[derive(Clone, Debug)]
pub struct Errand(mpsc::Sender<Answer>);

impl Errand {
    /// Has every unknown settlement looked at now, due or not, and says how many are still unknown;
    /// `None` when too many have asked already, or nobody reconciles.
    pub async fn look_now(&self) -> Option<Result<usize, LedgerError>> {
        let (to, answer) = oneshot::channel();
        self.0.try_send(to).ok()?;
        answer.await.ok()
    }
}

/// When a claim is looked at again.
#[derive(Clone, Copy)]
struct Due {
    /// At all: the chain may know more by now.
    look: Instant,
    /// And its facilitator asked, which may have said when to come back.
    ask: Instant,
    /// The last pass that found it.
    pass: u64,
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
    /// Since when the one on record is, when it changed.
    asked_at: Option<UnixSeconds>,
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
        preferences: Preferences,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let sources = Sources {
            chains,
            preferences,
        };
        let (errand, errands) = mpsc::channel(ERRANDS_MAX);
        Self {
            settler,
            ledger,
            sources: Arc::new(ArcSwap::from_pointee(sources)),
            clock,
            due: HashMap::new(),
            passes: 0,
            one_by_one: Mutex::new(()),
            errands,
            errand: Errand(errand),
        }
    }

    /// Who is asked, for others to be put in their place.
    #[must_use]
    pub fn sources(&self) -> Arc<ArcSwap<Sources>> {
        Arc::clone(&self.sources)
    }

    /// For who wants to send it on errands while it runs.
    #[must_use]
    pub fn errand(&self) -> Errand {
        self.errand.clone()
    }

    /// Works until the runtime ends, and rests as long as it worked, ten seconds at most.
    pub async fn run(mut self) {
        let mut worked = Duration::ZERO;
        loop {
            let asked = tokio::time::timeout(TICK.max(worked), self.errands.recv()).await;
            let asked = asked.ok().flatten();
            if asked.is_some() {
                self.due.clear();
            }
            let begun = Instant::now();
            let passed = self.pass().await;
            if let Err(error) = &passed {
                tracing::error!(%error, "cannot reconcile");
            }
            worked = begun.elapsed().min(REST_MAX);
            if let Some(asked) = asked {
                // Whoever asked may have left.
                drop(asked.send(passed));
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

    /// The claims whose outcome it falls to this wall to find out, page by page: all those that one
    /// look-up gives, and where the next goes on.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] when the ledger cannot be read.
    pub async fn page(&self, from: Cursor) -> Result<(Vec<Record>, Option<Cursor>), LedgerError> {
        let page = self.ledger.unsettled(from, PAGE).await?;
        let is_full = u32::try_from(page.len()).is_ok_and(|found| found >= PAGE);
        let next = page.last().filter(|_| is_full).map(|record| Cursor {
            claimed_at: record.claimed_at,
            id: record.id.0,
        });
        Ok((page, next))
    }

    /// One look at every unknown settlement that is due; returns how many are still unknown.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] when the ledger cannot be read or written.
    pub async fn pass(&mut self) -> Result<usize, LedgerError> {
        self.passes = self.passes.wrapping_add(1);
        let (mut left, mut failure, mut from) = (0_usize, None, Some(Cursor::default()));
        let (version, mut needed) = (self.settler.known().version(), BTreeSet::new());
        let mut oldest = None;
        while let Some(cursor) = from {
            let (page, next) = self.page(cursor).await?;
            needed.extend(page.iter().filter_map(|record| record.facilitator.clone()));
            let ours = page.iter().filter(|one| !self.settler.is_active(one.id));
            oldest = ours.map(|one| one.claimed_at).chain(oldest).min();
            left = left.saturating_add(self.look_at_page(page, &mut failure).await);
            from = next;
        }
        self.settler
            .known()
            .forget(version, |name| needed.contains(name));
        let pass = self.passes;
        self.due.retain(|_, due| due.pass == pass);
        // One that became known in this pass may be the oldest until the next.
        let oldest = oldest.filter(|_| left > 0);
        let age = oldest.map_or(0, |at| self.clock.now().since(at));
        metrics::unknown_settlements(left, age);
        failure.map_or(Ok(left), Err)
    }

    /// Looks at those of a page that are due; returns how many of the page are still unknown.
    async fn look_at_page(
        &mut self,
        mut page: Vec<Record>,
        failure: &mut Option<LedgerError>,
    ) -> usize {
        page.retain(|record| !self.settler.is_active(record.id));
        let (all, begun) = (page.len(), Instant::now());
        for record in &page {
            if let Some(due) = self.due.get_mut(&record.id) {
                due.pass = self.passes;
            }
        }
        page.retain(|record| self.due.get(&record.id).is_none_or(|due| due.look <= begun));
        let this = &*self;
        let looks: Vec<_> = stream::iter(page)
            .map(|record| async move {
                let rests = this.due.get(&record.id).is_some_and(|due| due.ask > begun);
                (this.look_at(&record, rests).await, record)
            })
            .buffer_unordered(LOOKS_AT_ONCE)
            .collect()
            .await;
        let mut known = 0_usize;
        for (look, record) in looks {
            match look {
                Ok(look) if look.state == State::Settling => self.put_off(&record, Some(&look)),
                Ok(_) => known = known.saturating_add(1),
                Err(error) => {
                    self.put_off(&record, None);
                    *failure = Some(error);
                }
            }
        }
        all.saturating_sub(known)
    }

    fn put_off(&mut self, record: &Record, look: Option<&Look>) {
        let (now, begun) = (self.clock.now(), Instant::now());
        let is_late = now > record.claim.valid_before.plus(decision::GRACE_S);
        let asked_at = look.and_then(|look| look.asked_at);
        let unknown_for_s = now.since(asked_at.unwrap_or(record.changed_at));
        let pause = decision::pause(unknown_for_s, is_late, rand::random());
        let rest = decision::rest(look.and_then(|look| look.retry_after_s));
        let earlier = self.due.get(&record.id).filter(|_| asked_at.is_none());
        let ask = begun.checked_add(rest.max(pause));
        if let (Some(look), Some(ask)) = (begun.checked_add(pause), ask) {
            let ask = earlier.map_or(ask, |due| due.ask.max(ask));
            let pass = self.passes;
            self.due.insert(record.id, Due { look, ask, pass });
        }
    }

    /// One look at one claim, now. Nobody else in this process may be settling it.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] when the ledger cannot be read or written; nothing is lost by that.
    pub async fn look(&self, record: &Record) -> Result<Look, LedgerError> {
        self.look_at(record, false).await
    }

    /// `rests`: the facilitator on record asked to be left alone for now.
    async fn look_at(&self, record: &Record, rests: bool) -> Result<Look, LedgerError> {
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
        let (mut receipt, mut retry_after_s, mut asked_at) = (None, None, None);
        let _busy = self.settler.busy();
        let verdict = match decision::by_chain(sighting) {
            Some(verdict) => verdict,
            None => {
                let moved = match self.move_to_next(record, sighting).await {
                    Err(LedgerError::IllegalMove { found, .. }) => {
                        return Ok(Look::elsewhere(found));
                    }
                    moved => moved?,
                };
                asked_at = moved.as_ref().map(|record| record.changed_at);
                let repeated = match (&moved, rests) {
                    (None, true) => Repetition::put_off(),
                    (moved, _) => self.repeat(moved.as_ref().unwrap_or(record)).await,
                };
                found = match found.is_empty() {
                    true => repeated.found,
                    false => format!("{found}; {}", repeated.found),
                };
                (receipt, retry_after_s) = (repeated.receipt, repeated.retry_after_s);
                let span = (record.claimed_at, record.claim.valid_before);
                decision::by_facilitator(receipt.is_some(), sighting, self.clock.now(), span)
            }
        };
        let Some(step) = step(record, verdict, receipt) else {
            tracing::warn!(claim = record.id.0, %found, "still unknown");
            return Ok(Look {
                state: State::Settling,
                found,
                retry_after_s,
                asked_at,
            });
        };
        self.write(record, step, found).await
    }

    /// Puts the next facilitator on record when the one there has had its turn and the chain shows
    /// that nothing came of it; returns the record as it is then. Only after that may it be asked.
    async fn move_to_next(
        &self,
        record: &Record,
        sighting: Sighting,
    ) -> Result<Option<Record>, LedgerError> {
        let (now, end) = (self.clock.now(), record.claim.valid_before);
        let asked = (record.claimed_at, record.changed_at);
        if !decision::may_move(sighting, asked, now, end) {
            return Ok(None);
        }
        let Some(facilitator) = self.next(record) else {
            return Ok(None);
        };
        reach(Step::Moving);
        let to = Move::Settling {
            facilitator: Arc::clone(&facilitator),
        };
        self.ledger.advance(record.id, to, now).await?;
        reach(Step::Moved);
        tracing::warn!(claim = record.id.0, from = record.facilitator.as_deref(), to = %facilitator,
            "not on the chain; another facilitator is asked to settle it");
        Ok(Some(Record {
            facilitator: Some(facilitator),
            changed_at: now,
            ..record.clone()
        }))
    }

    /// The fittest of the other facilitators of this way of paying, in their order from the one on
    /// record on; `None` when there is no other that has not kept failing.
    fn next(&self, record: &Record) -> Option<Arc<str>> {
        let sources = self.sources.load_full();
        let all = sources.preferences.get(&record.claim.accept)?;
        let current = record.facilitator.as_deref();
        let is_current = |name: &&Arc<str>| Some(&***name) == current;
        let place = all.iter().position(|name| is_current(&name));
        all.iter()
            .cycle()
            .skip(place.map_or(0, |place| place.saturating_add(1)))
            .take(all.len())
            .filter(|name| !is_current(name))
            .filter_map(|name| Some((name, self.settler.known().get(name)?)))
            .filter(|(_, facilitator)| facilitator.fitness() != Fitness::Failing)
            .min_by_key(|(_, facilitator)| facilitator.fitness())
            .map(|(name, _)| Arc::clone(name))
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
            let key = RevenueKey {
                rule: Arc::clone(&claim.rule),
                accept: Arc::clone(&claim.accept),
                network: claim.network.clone(),
                asset: claim.asset.clone(),
            };
            metrics::settled(key, claim.amount, self.clock.now());
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
            asked_at: None,
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
        let sources = self.sources.load_full();
        let chain = sources.chains.get(&record.claim.network)?;
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
            Finding::Unused { .. } => "not used on chain so far".to_owned(),
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
        let Some(facilitator) = self.settler.known().get(name) else {
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

impl Repetition {
    /// Not asked this time.
    fn put_off() -> Self {
        Self {
            receipt: None,
            found: "the facilitator asked to be left alone for a while".to_owned(),
            retry_after_s: None,
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
            asked_at: None,
        }
    }

    /// Found by somebody else.
    fn elsewhere(state: State) -> Self {
        Self {
            state,
            found: "resolved meanwhile".to_owned(),
            retry_after_s: None,
            asked_at: None,
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
