//! The one thread that writes: takes everything that waits into one transaction, and answers after the commit.
//!
//! Where many payments are under way it waits a moment before it begins, as long as that brings more writes:
//! a flush costs the same for one write as for fifty.
//!
//! A write that fails leaves nothing behind, and the others untouched: each is one statement, and a claim
//! that cannot be written whole is taken back. What nobody waits for is tried again until it is written.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, LazyLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot::Sender;

use super::checkpoints::Checkpoints;
use super::file::{FileFault, Place};
use super::hands::Hands;
use super::{rows, upkeep};
use crate::chain::Payer;
use crate::clock::UnixSeconds;
use crate::failpoint::{Step, reach};
use crate::ledger::news::News;
use crate::ledger::upkeep::{Batch, Cursor, ends};
use crate::ledger::{
    Claim, ClaimAnswer, ClaimId, LedgerError, Move, NewClaim, Note, may_be_marked,
};
use crate::settlement::{STATES, State};

/// Writes in one transaction.
const BATCH_MAX: usize = 256;
/// So long it waits for more writes, and again as long as the last wait brought one.
const PAUSE: Duration = Duration::from_micros(300);
/// So many such waits before one commit: what sharing may add to the latency of a write is 2 ms.
const PAUSES_MAX: usize = 6;
/// From so many writes in the commit before, waiting is worth it. A buyer who comes alone has one, or two
/// where the end of a request meets the beginning of the next.
const CROWD: usize = 3;
/// The pause after a commit while another process writes too: without one it would hardly get a turn.
const COURTESY: Duration = Duration::from_micros(500);
/// How long after a fault it is tried again to write what nobody waits for.
const AGAIN: Duration = Duration::from_secs(1);
/// The reason of claims that nobody waited for.
const ABANDONED: &str = "abandoned";

/// Nobody writes any more.
struct Ended;

/// A write, and whom to tell.
pub(super) enum Op {
    Claim {
        claim: Box<NewClaim>,
        now: UnixSeconds,
        to: Sender<Result<ClaimAnswer, LedgerError>>,
    },
    Advance {
        id: ClaimId,
        step: Move,
        now: UnixSeconds,
        to: Sender<Result<(), LedgerError>>,
    },
    /// What nobody waits for.
    Tidy(Tidy),
    Mark {
        note: Note,
        to: Sender<Result<(), LedgerError>>,
    },
    ReleaseAbandoned {
        now: UnixSeconds,
        to: Sender<Result<u64, LedgerError>>,
    },
    /// Takes over the unknown settlements of processes that have ended.
    Adopt {
        to: Sender<Result<u64, LedgerError>>,
    },
    /// Takes a debt in hand, unless another process that lives has it.
    TakeOwed {
        id: ClaimId,
        to: Sender<Result<bool, LedgerError>>,
    },
    Prune {
        end: UnixSeconds,
        from: Cursor,
        to: Sender<Result<Batch, LedgerError>>,
    },
    Compact {
        to: Sender<Result<Batch, LedgerError>>,
    },
}

/// A write that nobody waits for. It may be late; what has it in hand meanwhile is this process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tidy {
    /// Releases a claim whose owner left before it was told.
    GiveBack { id: ClaimId, now: UnixSeconds },
    /// Nobody in this process works on the debt any more.
    LetGo { id: ClaimId },
}

/// What the queue or the disk did not take. No longer than the claims that were under way at once.
#[derive(Debug, Default)]
pub(super) struct Leftovers(Mutex<Vec<Tidy>>);

impl Leftovers {
    pub(super) fn push(&self, tidy: Tidy) {
        self.0.lock().push(tidy);
    }

    /// It is not wanted any more.
    pub(super) fn remove(&self, unwanted: Tidy) {
        self.0.lock().retain(|tidy| *tidy != unwanted);
    }

    fn take(&self) -> Vec<Tidy> {
        std::mem::take(&mut *self.0.lock())
    }

    fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

/// Tells the caller what came of its write, given what came of the commit. Returns what is still to be
/// written: a claim to give back that was granted to a caller who no longer waits, or what failed and
/// nobody waits for.
type Answer = Box<dyn FnOnce(Result<(), LedgerError>) -> Option<Tidy>>;

pub(super) struct Writer {
    connection: Connection,
    place: Place,
    commits: Arc<AtomicU64>,
    leftovers: Arc<Leftovers>,
    hands: Hands,
    /// When what is left over is tried again, after something came to nothing: it may be the reason that
    /// others fail with it.
    not_before: Cell<Option<Instant>>,
    /// Writes in the last commit.
    pub(super) shared_by: usize,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        place: Place,
        (commits, leftovers): (Arc<AtomicU64>, Arc<Leftovers>),
        hands: Hands,
    ) -> Self {
        Self {
            connection,
            place,
            commits,
            leftovers,
            hands,
            not_before: Cell::new(None),
            shared_by: 0,
        }
    }

    /// Writes until every sender is gone and nothing waits.
    pub(super) fn run(mut self, waiting: &Receiver<Op>, mut checkpoints: Checkpoints) {
        loop {
            let mut ops = Vec::new();
            match self.next(waiting) {
                Ok(op) => ops.extend(op),
                Err(Ended) => return,
            }
            if !ops.is_empty() {
                self.gather(&mut ops, waiting);
            }
            self.shared_by = self.write_together(ops, waiting);
            checkpoints.look(self.connection.total_changes());
            if self.hands.has_company() {
                sleep(COURTESY);
            }
        }
    }

    /// The next write; none when what is left over should be tried now.
    fn next(&self, waiting: &Receiver<Op>) -> Result<Option<Op>, Ended> {
        if self.leftovers.is_empty() {
            return waiting.recv().map(Some).map_err(|_| Ended);
        }
        let now = Instant::now();
        let rest = self.not_before.get().map(|at| at.duration_since(now));
        let Some(rest) = rest.filter(|rest| !rest.is_zero()) else {
            return Ok(None);
        };
        match waiting.recv_timeout(rest) {
            Ok(op) => Ok(Some(op)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            // The process ends: the next one, or the one beside it, gives back what is left.
            Err(RecvTimeoutError::Disconnected) => Err(Ended),
        }
    }

    /// Takes what waits; where many write, what comes in the next moments too.
    pub(super) fn gather(&self, ops: &mut Vec<Op>, waiting: &Receiver<Op>) {
        if self.shared_by < CROWD {
            return;
        }
        for _ in 0..PAUSES_MAX {
            let before = ops.len();
            sleep(PAUSE);
            ops.extend(waiting.try_iter().take(BATCH_MAX.saturating_sub(before)));
            if ops.len() == before || ops.len() >= BATCH_MAX {
                return;
            }
        }
    }

    /// Writes what is left over, these and what waits in one transaction, and answers. Returns how many of
    /// these there were.
    pub(super) fn write_together(&mut self, ops: Vec<Op>, waiting: &Receiver<Op>) -> usize {
        let leftovers = self.due_leftovers();
        let late = leftovers.len();
        let ops = ops.into_iter().chain(waiting.try_iter()).take(BATCH_MAX);
        let mut ops = leftovers.into_iter().map(Op::Tidy).chain(ops);
        if let Err(cause) = self.connection.execute_batch("BEGIN IMMEDIATE") {
            let refused = ops.map(|op| self.not_begun(op)).collect();
            return self.fail(refused, cause);
        }
        let mut answers = Vec::new();
        // A full disk and its like end the whole transaction, not only the statement. A write after that would
        // stay, and be answered as one that failed.
        while !self.connection.is_autocommit()
            && let Some(op) = ops.next()
        {
            answers.push(self.apply(op));
        }
        if self.connection.is_autocommit() {
            // Those that had their turn, and those that were taken and had not.
            answers.extend(ops.map(|op| self.not_begun(op)));
            return self.fail(answers, FileFault::RolledBack);
        }
        reach(Step::BeforeCommit);
        if let Err(cause) = self.connection.execute_batch("COMMIT") {
            if !self.connection.is_autocommit() {
                let _ = self.connection.execute_batch("ROLLBACK");
            }
            return self.fail(answers, cause);
        }
        reach(Step::Committed);
        self.commits.fetch_add(1, Ordering::Relaxed);
        let writes = answers.len().saturating_sub(late);
        self.tell(answers, &|| Ok(()));
        writes
    }

    fn fail(
        &self,
        answers: Vec<Answer>,
        cause: impl std::error::Error + Send + Sync + 'static,
    ) -> usize {
        let cause = Arc::new(cause);
        let writes = answers.len();
        self.rest();
        tracing::error!(ledger = %self.place, writes, %cause, "writes failed");
        self.tell(answers, &|| Err(self.place.failed(Arc::clone(&cause))));
        writes
    }

    fn due_leftovers(&self) -> Vec<Tidy> {
        if self.not_before.get().is_some_and(|at| Instant::now() < at) {
            return Vec::new();
        }
        self.not_before.set(None);
        self.leftovers.take()
    }

    fn rest(&self) {
        self.not_before.set(Instant::now().checked_add(AGAIN));
    }

    fn tell(&self, answers: Vec<Answer>, committed: &dyn Fn() -> Result<(), LedgerError>) {
        for answer in answers {
            if let Some(left) = answer(committed()) {
                self.leftovers.push(left);
            }
        }
    }

    fn apply(&self, op: Op) -> Answer {
        match op {
            Op::Claim { claim, now, to } => answer_claim(self.claim(&claim, now), now, to),
            Op::Advance { id, step, now, to } => answer(self.advance(id, &step, now), to),
            Op::Tidy(tidy) => {
                let written = self.tidy(tidy);
                if let Err(error @ LedgerError::Store { .. }) = &written {
                    tracing::warn!(?tidy, %error, "will be written again");
                    self.rest();
                }
                done_or_left(written, tidy)
            }
            Op::Mark { note, to } => answer(self.mark(&note), to),
            Op::ReleaseAbandoned { now, to } => {
                answer(self.hands.release_abandoned(&self.connection, now), to)
            }
            Op::Adopt { to } => answer(self.hands.adopt(&self.connection), to),
            Op::TakeOwed { id, to } => {
                let taken = self.hands.take_owed(&self.connection, id);
                let (told, leftovers) = (answer(taken, to), Arc::clone(&self.leftovers));
                Box::new(move |committed| {
                    // Asked for before, and late: it would let go of what is in hand again.
                    leftovers.remove(Tidy::LetGo { id });
                    told(committed)
                })
            }
            Op::Prune { end, from, to } => {
                answer(upkeep::prune(&self.connection, &self.place, end, from), to)
            }
            Op::Compact { to } => answer(upkeep::compact(&self.connection, &self.place), to),
        }
    }

    /// The answer to a write for which there was no transaction.
    fn not_begun(&self, op: Op) -> Answer {
        let fault = || self.place.failed(FileFault::RolledBack);
        match op {
            Op::Claim { now, to, .. } => answer_claim(Err(fault()), now, to),
            Op::Advance { to, .. } | Op::Mark { to, .. } => answer(Err(fault()), to),
            Op::Tidy(tidy) => done_or_left(Err(fault()), tidy),
            Op::ReleaseAbandoned { to, .. } | Op::Adopt { to } => answer(Err(fault()), to),
            Op::TakeOwed { to, .. } => answer(Err(fault()), to),
            Op::Prune { to, .. } | Op::Compact { to } => answer(Err(fault()), to),
        }
    }

    /// Takes the payment, or says who holds it. The unique index decides.
    fn claim(&self, new: &NewClaim, now: UnixSeconds) -> Result<ClaimAnswer, LedgerError> {
        let inserted = self
            .connection
            .prepare_cached(
                "INSERT INTO claim (payment, fingerprint, state, rule, accept, scheme, network, asset,
                    amount, payer, pay_to, nonce, valid_before, request, settle_request,
                    claimed_at, changed_at, wall)
                 VALUES (?1, ?2, 'claimed', ?3, ?4, ?5, ?6, ?7,
                    ?8, ?9, ?10, ?11, ?12, ?13, '',
                    ?14, ?14, ?15)
                 ON CONFLICT DO NOTHING",
            )
            .and_then(|mut statement| {
                // By number: SQLite looks for each name among all of them, every time.
                statement.execute(params![
                    new.payment.0,
                    new.fingerprint.0,
                    &*new.rule,
                    &*new.accept,
                    &*new.scheme,
                    new.network.as_str(),
                    new.asset.as_str(),
                    new.amount.to_string(),
                    new.payer.as_str(),
                    new.pay_to.as_str(),
                    &*new.nonce,
                    rows::stored(new.valid_before),
                    &*new.request,
                    rows::stored(now),
                    self.hands.own(),
                ])
            })
            .map_err(|cause| self.place.failed(cause))?;
        if inserted == 1 {
            let id = ClaimId(self.connection.last_insert_rowid());
            self.keep_request(id, &new.settle_request)?;
            return Ok(ClaimAnswer::Claimed(Claim::granted(id, new.payment)));
        }
        rows::find(&self.connection, &self.place, new.payment)?
            .filter(|record| record.state.holds_payment())
            .map(|record| ClaimAnswer::Held(Box::new(record)))
            .ok_or_else(|| self.place.failed(FileFault::NoHolder))
    }

    /// Keeps the settle request beside the claim, until that is over. When that fails, the claim goes too.
    fn keep_request(&self, id: ClaimId, settle_request: &str) -> Result<(), LedgerError> {
        let kept = self
            .connection
            .prepare_cached("INSERT INTO request (claim, settle_request) VALUES (?1, ?2)")
            .and_then(|mut statement| statement.execute(params![id.0, settle_request]));
        let Err(cause) = kept else { return Ok(()) };
        // Else the whole transaction is gone, and the claim with it.
        if !self.connection.is_autocommit() {
            let undo = "DELETE FROM claim WHERE id = ?1";
            self.connection
                .execute(undo, params![id.0])
                .map_err(|cause| self.place.failed(cause))?;
        }
        Err(self.place.failed(cause))
    }

    /// Moves a claim on from a state that allows it, else says why not.
    fn advance(&self, id: ClaimId, step: &Move, now: UnixSeconds) -> Result<(), LedgerError> {
        let wanted = step.state();
        let news = News::of(step);
        let moved = self
            .connection
            .prepare_cached(moving_to(wanted))
            .and_then(|mut statement| {
                statement.execute(params![
                    id.0,
                    wanted.as_str(),
                    rows::stored(now),
                    news.facilitator,
                    news.transaction,
                    news.receipt,
                    news.reason,
                    news.payer.map(Payer::as_str),
                    news.body.map(|digest| digest.0),
                    ends(step),
                ])
            })
            .map_err(|cause| self.place.failed(cause))?;
        if moved == 1 {
            Ok(())
        } else {
            Err(self.illegal(id, wanted))
        }
    }

    fn illegal(&self, id: ClaimId, wanted: State) -> LedgerError {
        match self.state_of(id) {
            Ok(found) => LedgerError::IllegalMove {
                id: id.0,
                found,
                wanted,
            },
            Err(error) => error,
        }
    }

    /// Adds a note, if the claim's state allows it.
    fn mark(&self, note: &Note) -> Result<(), LedgerError> {
        let allowed = rows::among(STATES.into_iter().filter(|state| may_be_marked(*state)));
        let sql = format!(
            "INSERT INTO note (claim, at, kind, text)
             SELECT id, ?2, ?3, ?4 FROM claim WHERE id = ?1 AND {allowed}"
        );
        let (at, kind, text) = (
            rows::stored(note.at),
            note.kind.as_str(),
            note.text.as_str(),
        );
        let added = self
            .connection
            .prepare_cached(&sql)
            .and_then(|mut statement| statement.execute(params![note.claim.0, at, kind, text]))
            .map_err(|cause| self.place.failed(cause))?;
        if added == 1 {
            return Ok(());
        }
        let id = note.claim.0;
        Err(match self.state_of(note.claim) {
            Ok(found) => LedgerError::NoDebt { id, found },
            Err(error) => error,
        })
    }

    fn state_of(&self, id: ClaimId) -> Result<State, LedgerError> {
        let found = self
            .connection
            .prepare_cached("SELECT state FROM claim WHERE id = ?1")
            .and_then(|mut statement| {
                statement
                    .query_row(params![id.0], |row| row.get::<_, String>(0))
                    .optional()
            });
        let id = id.0;
        match found {
            Ok(Some(word)) => word
                .parse()
                .map_err(|_| LedgerError::Corrupt { id, field: "state" }),
            Ok(None) => Err(LedgerError::NoSuchClaim(id)),
            Err(cause) => Err(self.place.failed(cause)),
        }
    }

    fn tidy(&self, tidy: Tidy) -> Result<(), LedgerError> {
        match tidy {
            Tidy::GiveBack { id, now } => {
                let step = Move::Released {
                    reason: ABANDONED.into(),
                };
                self.advance(id, &step, now)
            }
            Tidy::LetGo { id } => self.hands.let_go(&self.connection, id),
        }
    }
}

/// What failed for want of a store is left, to be tried again.
fn done_or_left(result: Result<(), LedgerError>, tidy: Tidy) -> Answer {
    Box::new(move |committed| match committed.and(result) {
        Ok(()) => None,
        Err(LedgerError::Store { .. }) => Some(tidy),
        // It has moved on: there is nothing to give back.
        Err(error) => {
            tracing::warn!(?tidy, %error, "what nobody waited for was over already");
            None
        }
    })
}

/// The statement that moves a claim on to this state from one that allows it.
fn moving_to(wanted: State) -> &'static str {
    static STATEMENTS: LazyLock<Vec<(State, String)>> = LazyLock::new(|| {
        let statement = |wanted: State| {
            let before = rows::among(STATES.into_iter().filter(|state| state.may_become(wanted)));
            format!(
                "UPDATE claim SET state = ?2, changed_at = ?3,
                    facilitator = coalesce(?4, facilitator),
                    transaction_id = coalesce(?5, transaction_id),
                    receipt = coalesce(?6, receipt),
                    reason = coalesce(?7, reason),
                    -- A payer that a signature proved stands, whatever the facilitator says later.
                    payer = CASE payer WHEN '' THEN coalesce(?8, '') ELSE payer END,
                    body = coalesce(?9, body),
                    settle_request = CASE WHEN ?10 THEN '' ELSE settle_request END
                 WHERE id = ?1 AND {before}"
            )
        };
        STATES
            .into_iter()
            .map(|state| (state, statement(state)))
            .collect()
    });
    let mut all = STATEMENTS.iter();
    let found = all.find(|(state, _)| *state == wanted);
    // There is one for each state; without one SQLite refuses.
    found.map_or("", |(_, statement)| statement)
}

fn answer<T: 'static>(
    result: Result<T, LedgerError>,
    to: Sender<Result<T, LedgerError>>,
) -> Answer {
    Box::new(move |committed| {
        let _ = to.send(committed.and(result));
        None
    })
}

fn answer_claim(
    result: Result<ClaimAnswer, LedgerError>,
    now: UnixSeconds,
    to: Sender<Result<ClaimAnswer, LedgerError>>,
) -> Answer {
    Box::new(move |committed| match to.send(committed.and(result)) {
        Err(Ok(ClaimAnswer::Claimed(claim))) => Some(Tidy::GiveBack {
            id: claim.id(),
            now,
        }),
        Err(Ok(ClaimAnswer::Held(_)) | Err(_)) | Ok(()) => None,
    })
}
