//! What became of every payment, durably: the trait that the gate speaks to, and the records it holds.
//!
//! An answer from a writing method means that the write is on disk. Implementations:
//! [`sqlite`], the embedded default for one wall; [`postgres`], one ledger for several walls.

mod news;
pub mod upkeep;
pub mod sqlite;
pub mod postgres;
pub mod reader;
pub mod opening;
pub mod observed;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;

use self::upkeep::{Batch, Cursor};

use crate::chain::{Asset, Network, PayTo, Payer, PaymentKey};
use crate::clock::UnixSeconds;
use crate::money::AtomicAmount;
use crate::settlement::State;

/// SHA-256 over what a payment was presented for: method, authority, path and query, rule, and
/// whether the request had a body.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Fingerprint(pub [u8; 32]);

/// SHA-256 of a request body; known once the body has been read.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct BodyDigest(pub [u8; 32]);

/// Which claim: a payment may be claimed again after an earlier claim was released or refused.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClaimId(pub i64);

/// What a claim is made of.
#[derive(Clone, Debug)]
pub struct NewClaim {
    /// Which payment.
    pub payment: PaymentKey,
    /// What it is presented for.
    pub fingerprint: Fingerprint,
    /// The rule that governs the request.
    pub rule: Arc<str>,
    /// The way of being paid (`[accept.NAME]`).
    pub accept: Arc<str>,
    /// `exact`, or another scheme that a facilitator supports.
    pub scheme: Arc<str>,
    /// The network the money moves on.
    pub network: Network,
    /// The token.
    pub asset: Asset,
    /// The amount, in the token's smallest unit.
    pub amount: AtomicAmount,
    /// Who pays; empty when only the facilitator knows.
    pub payer: Payer,
    /// Who is paid.
    pub pay_to: PayTo,
    /// The nonce, as [`crate::chain::Nonce`] prints it.
    pub nonce: Arc<str>,
    /// When the authorization can no longer be settled, in Unix seconds.
    pub valid_before: UnixSeconds,
    /// Method, canonical host and path, for people; the query is left out because it may hold secrets.
    pub request: Arc<str>,
    /// The settle request to repeat when the outcome stays unknown: JSON as sent to the facilitator.
    /// Of a claim that is over the ledger does not keep it, and this is empty.
    pub settle_request: Arc<str>,
}

/// One claim as the ledger holds it.
#[derive(Clone, Debug)]
pub struct Record {
    /// Which claim.
    pub id: ClaimId,
    /// What was claimed.
    pub claim: NewClaim,
    /// Where it stands.
    pub state: State,
    /// When the claim was made.
    pub claimed_at: UnixSeconds,
    /// When it last moved.
    pub changed_at: UnixSeconds,
    /// The facilitator that settled, or was asked to.
    pub facilitator: Option<Arc<str>>,
    /// Transaction hash, once settled.
    pub transaction: Option<Arc<str>>,
    /// The receipt as JSON (`SettlementResponse` of x402 v2), once settled or refused.
    pub receipt: Option<Arc<str>>,
    /// Why it was released, refused or expired: a reason code, never an internal text.
    pub reason: Option<Arc<str>>,
    /// Digest of the request body, when it was known at settlement.
    pub body: Option<BodyDigest>,
}

/// The answer to a claim.
#[derive(Debug)]
pub enum ClaimAnswer {
    /// The payment is ours alone, durably.
    Claimed(Claim),
    /// Somebody holds the payment: this record, whose state [holds the payment](State::holds_payment).
    Held(Box<Record>),
}

/// The exclusive right to use a payment for one fingerprint. Only a ledger makes one.
///
/// Not `Clone`: whoever holds it settles or releases it, once.
#[derive(Debug)]
pub struct Claim {
    id: ClaimId,
    payment: PaymentKey,
}

impl Claim {
    /// Which claim.
    #[must_use]
    pub const fn id(&self) -> ClaimId {
        self.id
    }

    /// Which payment.
    #[must_use]
    pub const fn payment(&self) -> PaymentKey {
        self.payment
    }

    /// For ledgers: after the write is durable.
    pub(in crate::ledger) const fn granted(id: ClaimId, payment: PaymentKey) -> Self {
        Self { id, payment }
    }
}

/// How a claim moves on. Each is written whole or not at all.
#[derive(Clone, Debug)]
pub enum Move {
    /// Before the settle call, naming the facilitator that is going to be asked. Again when that
    /// one certainly was not reached and the next one is going to be asked.
    Settling {
        /// The facilitator's name.
        facilitator: Arc<str>,
    },
    /// The money moved: from now on the response is owed.
    Settled {
        /// The facilitator that answered; the one asked, when `None`.
        facilitator: Option<Arc<str>>,
        /// Transaction hash; empty for schemes that settle off chain.
        transaction: Arc<str>,
        /// The receipt as JSON.
        receipt: Arc<str>,
        /// Who paid, when only the settlement told.
        payer: Option<Payer>,
        /// Digest of the request body, when it is known already.
        body: Option<BodyDigest>,
    },
    /// A complete response was written.
    Delivered,
    /// The claim is given back unused.
    Released {
        /// Reason code.
        reason: Arc<str>,
    },
    /// The facilitator said no; no money moved.
    Refused {
        /// Reason code.
        reason: Arc<str>,
        /// The receipt as JSON.
        receipt: Arc<str>,
    },
    /// The authorization could not be settled any more while the outcome was not known.
    Expired {
        /// Reason code: [`NEVER_USED`] when a chain tells that no money moved, else
        /// [`OUTCOME_UNKNOWN`], which needs a person.
        reason: Arc<str>,
    },
}

/// Reason of a claim that expired, and of which a chain says that no money moved.
pub const NEVER_USED: &str = "authorization_never_used";
/// Reason of a claim that expired, and of which nobody says whether money moved.
pub const OUTCOME_UNKNOWN: &str = "outcome_unknown";

impl Move {
    /// The state that this leads to.
    #[must_use]
    pub const fn state(&self) -> State {
        match self {
            Self::Settling { .. } => State::Settling,
            Self::Settled { .. } => State::Settled,
            Self::Delivered => State::Delivered,
            Self::Released { .. } => State::Released,
            Self::Refused { .. } => State::Refused,
            Self::Expired { .. } => State::Expired,
        }
    }
}

/// Which records to list. Empty fields mean "any".
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Claimed at or after.
    pub since: Option<UnixSeconds>,
    /// Claimed before.
    pub until: Option<UnixSeconds>,
    /// Of these rules.
    pub rule: Option<String>,
    /// By this payer, in its normalised text.
    pub payer: Option<String>,
    /// In one of these states; empty means all.
    pub states: Vec<State>,
    /// At most so many, newest first; `None` means all.
    pub limit: Option<u32>,
    /// Without those that need nobody: marked by a [`Note`], or expired with [`NEVER_USED`].
    pub needs_person: bool,
}

/// What a person did about a claim that the wall could not bring to a good end. It changes no state.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum NoteKind {
    /// The money was given back.
    Refunded,
    /// Nothing will be given back or delivered.
    Forgiven,
}

impl NoteKind {
    /// The word in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refunded => "refunded",
            Self::Forgiven => "forgiven",
        }
    }

    /// The kind that a word names.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Refunded, Self::Forgiven]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

/// The words of a note: 1 to 1000 characters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NoteText(Arc<str>);

/// Characters of a note.
pub const NOTE_CHARS_MAX: usize = 1000;

impl NoteText {
    /// The text without white space around it; `None` when nothing is left, or too much.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let fits = (1..=NOTE_CHARS_MAX).contains(&text.chars().count()) && !text.contains('\0');
        fits.then(|| Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A note as the ledger holds it. Notes are never changed or deleted; the newest one counts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Note {
    /// The claim that it is about.
    pub claim: ClaimId,
    /// When it was written.
    pub at: UnixSeconds,
    /// What was done.
    pub kind: NoteKind,
    /// Why, or how: for people.
    pub text: NoteText,
}

/// Whether a claim in this state may be marked: something is owed, or nobody knows.
#[must_use]
pub const fn may_be_marked(state: State) -> bool {
    matches!(state, State::Settled | State::Expired)
}

/// Number and sum of the claims in one state, for one asset.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Total {
    /// The state.
    pub state: State,
    /// The network.
    pub network: Network,
    /// The token.
    pub asset: Asset,
    /// How many claims.
    pub count: u64,
    /// Sum of their amounts.
    pub amount: AtomicAmount,
}

/// Why the ledger could not answer. The wall fails closed: no claim, no request to the upstream.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The store refused or failed.
    #[error("the ledger at {place} failed: {cause}")]
    Store {
        /// File or server, without secrets.
        place: String,
        /// What the store said.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file was written by a newer Farewall.
    #[error("the ledger at {place} has schema version {found}, this farewall knows up to {known}")]
    TooNew {
        /// File or server.
        place: String,
        /// Version found.
        found: i64,
        /// Newest version known.
        known: i64,
    },
    /// A move that the claim's state does not allow: a bug, or two walls over one claim.
    #[error("claim {id} is {found}, it cannot become {wanted}")]
    IllegalMove {
        /// Which claim.
        id: i64,
        /// The state found.
        found: State,
        /// The state asked for.
        wanted: State,
    },
    /// A note about a claim that no debt can come of.
    #[error("claim {id} is {found}; only settled (owed) and expired claims can be marked")]
    NoDebt {
        /// Which claim.
        id: i64,
        /// The state found.
        found: State,
    },
    /// No such claim.
    #[error("there is no claim {0}")]
    NoSuchClaim(i64),
    /// A stored value that cannot be read back.
    #[error("claim {id} holds an unreadable {field}")]
    Corrupt {
        /// Which claim.
        id: i64,
        /// Which column.
        field: &'static str,
    },
    /// Too many writes wait already, or the ledger was closed.
    #[error("the ledger does not take writes: {0}")]
    Closed(&'static str),
}

/// Claim a payment once, record what became of it, durably.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// The claim that holds this payment now, else the newest of its past claims, else `None`.
    async fn find(&self, payment: PaymentKey) -> Result<Option<Record>, LedgerError>;

    /// Takes the payment if nobody holds it, in one atomic step.
    async fn claim(&self, claim: NewClaim, now: UnixSeconds) -> Result<ClaimAnswer, LedgerError>;

    /// Moves a claim on. Refuses every move that [`State::may_become`] does not allow.
    async fn advance(&self, id: ClaimId, to: Move, now: UnixSeconds) -> Result<(), LedgerError>;

    /// Records, newest first.
    async fn list(&self, filter: Filter) -> Result<Vec<Record>, LedgerError>;

    /// Count and sum per state and asset.
    async fn totals(&self, filter: Filter) -> Result<Vec<Total>, LedgerError>;

    /// Adds a note to a claim whose state [may be marked](may_be_marked), in one atomic step. The
    /// claim itself does not change.
    async fn mark(&self, note: Note) -> Result<(), LedgerError>;

    /// The notes on a claim, oldest first.
    async fn notes(&self, id: ClaimId) -> Result<Vec<Note>, LedgerError>;

    /// Releases every `claimed` record whose wall is gone, since nothing was asked of the facilitator.
    /// Returns how many. A claim of a wall that lives is never touched.
    ///
    /// One wall alone calls it at its start: reason `wall_restarted`. Where walls share the ledger, a
    /// wall is gone when its lease has run out: reason `wall_lost`.
    async fn release_abandoned(&self, now: UnixSeconds) -> Result<u64, LedgerError>;

    /// Deletes, of the oldest claims after `from`, one small batch of those that were over before
    /// `before`: [`upkeep`] says which. Atomic; of several walls one at a time does it.
    async fn prune(
        &self,
        before: UnixSeconds,
        now: UnixSeconds,
        from: Cursor,
    ) -> Result<Batch, LedgerError>;

    /// Empties one small batch of what an older version left in claims that are over. Does nothing
    /// once all of them were looked at.
    async fn compact(&self) -> Result<Batch, LedgerError>;

    /// At most `limit` of the settlements whose outcome it falls to this wall to find out, oldest first,
    /// after `from`: its own, and those of walls that are gone, which it takes over so that exactly one
    /// wall works on each.
    async fn unsettled(&self, from: Cursor, limit: u32) -> Result<Vec<Record>, LedgerError>;

    /// Takes a debt (`settled`) in hand before the upstream is asked for it again. `false`: another
    /// wall that lives has it in hand, so wait.
    ///
    /// Within one wall the gate sees to it that one request at a time works on a payment.
    async fn take_owed(&self, _id: ClaimId) -> Result<bool, LedgerError> {
        Ok(true)
    }

    /// Nobody here works on this claim any more, whatever its state: other walls may take it in hand.
    fn let_go(&self, _id: ClaimId) {}

    /// Keeps a complete response for retries that reach another wall. Does nothing where there is none.
    ///
    /// Not durable, and bounded: it decides nothing about money.
    async fn share_response(&self, _response: SharedResponse) -> Result<(), LedgerError> {
        Ok(())
    }

    /// The response that some wall keeps for this payment and fingerprint.
    async fn shared_response(
        &self,
        _payment: PaymentKey,
        _fingerprint: Fingerprint,
    ) -> Result<Option<SharedResponse>, LedgerError> {
        Ok(None)
    }

    /// Whether other walls may use the same ledger at the same time.
    fn is_shared(&self) -> bool {
        false
    }

    /// How many transactions were committed since it was opened, each with one wait for the disk; `None`
    /// where that is another program's business. Under load far fewer than writes.
    fn commits(&self) -> Option<u64> {
        None
    }

    /// For the end of the process, when nothing is under way: other walls need not wait for the lease.
    async fn leave(&self) {}
}

/// A complete response that walls keep for one another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SharedResponse {
    /// For which payment.
    pub payment: PaymentKey,
    /// For what it was presented.
    pub fingerprint: Fingerprint,
    /// The response, encoded by [`crate::kept`].
    pub bytes: Vec<u8>,
    /// How much longer it may be given out.
    pub lifetime: Duration,
}
