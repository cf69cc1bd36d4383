//! The statements that take claims and move them on. Each is one statement, so each is atomic.

use std::borrow::Cow;

use deadpool_postgres::Object;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::Core;
use super::connect::{Fault, Tries};
use super::hand::Attempt;
use super::rows;
use crate::chain::Payer;
use crate::clock::UnixSeconds;
use crate::ledger::news::News;
use crate::ledger::upkeep::ends;
use crate::ledger::{
    Claim, ClaimAnswer, ClaimId, LedgerError, Move, NewClaim, Note, Record, may_be_marked,
};
use crate::settlement::{STATES, State};

/// How often a payment may be given back between our insert and our look at who holds it.
const CHANGES_MAX: u32 = 5;

/// True for claims in the hands of a wall whose lease has run out, by the clock of the database.
pub(super) const WALL_IS_GONE: &str = "NOT EXISTS (SELECT FROM farewall.wall
    WHERE wall.id = claim.wall AND wall.lease_until > clock_timestamp())";

const INSERT: &str =
    "INSERT INTO farewall.claim (payment, fingerprint, state, rule, accept, scheme,
        network, asset, amount, payer, pay_to, nonce, valid_before, request, settle_request,
        claimed_at, changed_at, wall, attempt)
    VALUES ($1, $2, 'claimed', $3, $4, $5, $6, $7, $8::text::numeric, $9, $10, $11, $12, $13, $14,
        $15, $15, $16, $17)
    ON CONFLICT (payment) WHERE state IN ('claimed', 'settling', 'settled', 'delivered') DO NOTHING
    RETURNING id";

impl Core {
    /// The claim that holds the payment, else its newest.
    pub(super) async fn find(
        &self,
        payment: crate::chain::PaymentKey,
    ) -> Result<Option<Record>, LedgerError> {
        let mut tries = Tries::default();
        loop {
            let client = self.connection().await?;
            match rows::find(&client, payment).await {
                Ok(row) => return row.as_ref().map(rows::record).transpose(),
                Err(cause) => tries.again(&self.place, cause.into())?,
            }
        }
    }

    /// Takes the payment, or says who holds it. The unique index decides.
    pub(super) async fn claim(
        &self,
        new: &NewClaim,
        now: UnixSeconds,
    ) -> Result<ClaimAnswer, LedgerError> {
        // Should it fail, or time out, and the insert have been carried out all the same, then the keeper
        // finds a hold that nobody has, and gives it back.
        let begun = self.hand.begin();
        let answer = self.claim_as(begun.attempt, new, now).await;
        if let Ok(ClaimAnswer::Claimed(claim)) = &answer {
            begun.hold(claim.id());
        }
        answer
    }

    async fn claim_as(
        &self,
        attempt: Attempt,
        new: &NewClaim,
        now: UnixSeconds,
    ) -> Result<ClaimAnswer, LedgerError> {
        let mut tries = Tries::default();
        let mut changes = 0_u32;
        loop {
            let client = self.connection().await?;
            let granted = |id| ClaimAnswer::Claimed(Claim::granted(ClaimId(id), new.payment));
            match self.insert(&client, attempt, new, now).await {
                Ok(Some(id)) => return Ok(granted(id)),
                Ok(None) => {}
                Err(fault) => {
                    tries.again(&self.place, fault)?;
                    continue;
                }
            }
            let holder = match rows::find(&client, new.payment).await {
                Ok(row) => row,
                Err(cause) => {
                    tries.again(&self.place, cause.into())?;
                    continue;
                }
            };
            if let Some(row) = &holder {
                let record = rows::record(row)?;
                if attempt_of(row) == Some(attempt) && record.state == State::Claimed {
                    // The answer to our own insert was lost.
                    return Ok(granted(record.id.0));
                }
                if record.state.holds_payment() {
                    return Ok(ClaimAnswer::Held(Box::new(record)));
                }
            }
            // It was given back since: try to take it once more.
            changes = changes.saturating_add(1);
            if changes > CHANGES_MAX {
                return Err(self.place.failed(Fault::NoHolder));
            }
        }
    }

    async fn insert(
        &self,
        client: &Object,
        attempt: Attempt,
        new: &NewClaim,
        now: UnixSeconds,
    ) -> Result<Option<i64>, Fault> {
        let statement = client.prepare_cached(INSERT).await?;
        let amount = new.amount.to_string();
        let (valid_before, now) = (rows::stored(new.valid_before), rows::stored(now));
        let values: [&(dyn ToSql + Sync); 17] = [
            &new.payment.0.as_slice(),
            &new.fingerprint.0.as_slice(),
            &storable(&new.rule),
            &storable(&new.accept),
            &storable(&new.scheme),
            &new.network.as_str(),
            &storable(new.asset.as_str()),
            &amount,
            &storable(new.payer.as_str()),
            &storable(new.pay_to.as_str()),
            &storable(&new.nonce),
            &valid_before,
            &storable(&new.request),
            &storable(&new.settle_request),
            &now,
            &self.wall,
            &attempt.0,
        ];
        match client.query_opt(&statement, &values).await? {
            Some(row) => Ok(Some(row.try_get(0)?)),
            None => Ok(None),
        }
    }

    /// Moves a claim on from a state that allows it, else says why not.
    ///
    /// What a success of another wall cannot contradict, that the money moved and the response was
    /// delivered, is taken from every wall. Everything else only from the one that holds the claim: after
    /// its lease ran out another may have settled, and its refusal then proves nothing.
    pub(super) async fn advance(
        &self,
        id: ClaimId,
        step: &Move,
        now: UnixSeconds,
    ) -> Result<(), LedgerError> {
        let wanted = step.state();
        let attempt = self.hand.attempt(id);
        if !matches!(wanted, State::Settling | State::Settled) {
            self.hand.let_go(id);
        }
        let mut tries = Tries::default();
        loop {
            let client = self.connection().await?;
            let fault = match self.update(&client, id, step, now, attempt).await {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    let sql = format!("{} WHERE id = $1", rows::SELECT);
                    match client.query_opt(&sql, &[&id.0]).await {
                        Ok(None) => return Err(LedgerError::NoSuchClaim(id.0)),
                        Ok(Some(row)) if is_done(&row, step, attempt, &tries)? => return Ok(()),
                        Ok(Some(row)) => {
                            let (id, found) = (id.0, rows::state(&row)?);
                            return Err(LedgerError::IllegalMove { id, found, wanted });
                        }
                        Err(cause) => cause.into(),
                    }
                }
                Err(fault) => fault,
            };
            tries.again(&self.place, fault)?;
        }
    }

    async fn update(
        &self,
        client: &Object,
        id: ClaimId,
        step: &Move,
        now: UnixSeconds,
        attempt: Option<Attempt>,
    ) -> Result<bool, Fault> {
        let wanted = step.state();
        let before = rows::among(STATES.into_iter().filter(|state| state.may_become(wanted)));
        let fence = match wanted {
            State::Settled | State::Delivered => "$11::bigint IS NOT NULL",
            State::Claimed
            | State::Settling
            | State::Released
            | State::Refused
            | State::Expired => "wall = $11",
        };
        // A claim stays in hand as long as its holder works on it, and `settling` needs a wall always.
        // (Every statement names every parameter, so that one list of values serves them all.)
        let keeps = match wanted {
            State::Settling => "coalesce(wall, $10)",
            State::Settled => "CASE WHEN attempt = $10 THEN wall END",
            State::Claimed
            | State::Delivered
            | State::Released
            | State::Refused
            | State::Expired => "CASE WHEN $10::bigint IS NULL THEN NULL::bigint END",
        };
        let sql = format!(
            "UPDATE farewall.claim SET state = $2, changed_at = $3,
                facilitator = coalesce($4, facilitator),
                transaction_id = coalesce($5, transaction_id),
                receipt = coalesce($6, receipt),
                reason = coalesce($7, reason),
                -- A payer that a signature proved stands, whatever the facilitator says later.
                payer = CASE payer WHEN '' THEN coalesce($8, '') ELSE payer END,
                body = coalesce($9, body),
                settle_request = CASE WHEN $12::boolean THEN '' ELSE settle_request END,
                wall = {keeps}
             WHERE id = $1 AND {before} AND ({fence})"
        );
        let statement = client.prepare_cached(&sql).await?;
        let news = News::of(step);
        let body = news.body.map(|digest| digest.0.to_vec());
        let values: [&(dyn ToSql + Sync); 12] = [
            &id.0,
            &wanted.as_str(),
            &rows::stored(now),
            &news.facilitator.map(storable),
            &news.transaction.map(storable),
            &news.receipt.map(storable),
            &news.reason.map(storable),
            &news.payer.map(Payer::as_str).map(storable),
            &body,
            &attempt.map(|attempt| attempt.0),
            &self.wall,
            &ends(step),
        ];
        Ok(client.execute(&statement, &values).await? == 1)
    }

    /// Adds a note, if the claim's state allows it.
    pub(super) async fn mark(&self, note: &Note) -> Result<(), LedgerError> {
        let allowed = rows::among(STATES.into_iter().filter(|state| may_be_marked(*state)));
        let sql = format!(
            "INSERT INTO farewall.note (claim, at, kind, text)
             SELECT id, $2, $3, $4 FROM farewall.claim WHERE id = $1 AND {allowed}"
        );
        let client = self.connection().await?;
        let (at, kind, text) = (
            rows::stored(note.at),
            note.kind.as_str(),
            note.text.as_str(),
        );
        // Not repeated: a note that is there twice would be a note too many.
        let added = execute(&client, &sql, &[&note.claim.0, &at, &kind, &text]).await;
        if added.map_err(|fault| self.place.failed(fault))? == 1 {
            return Ok(());
        }
        let id = note.claim.0;
        match rows::get(&client, &self.place, note.claim).await? {
            Some(record) => Err(LedgerError::NoDebt {
                id,
                found: record.state,
            }),
            None => Err(LedgerError::NoSuchClaim(id)),
        }
    }

    /// Takes a debt in hand, unless a wall that lives has it.
    pub(super) async fn take_owed(&self, id: ClaimId) -> Result<bool, LedgerError> {
        let begun = self.hand.begin();
        let taken = self.take_as(id, begun.attempt).await;
        if let Ok(true) = &taken {
            begun.hold(id);
        }
        taken
    }

    async fn take_as(&self, id: ClaimId, attempt: Attempt) -> Result<bool, LedgerError> {
        let sql = format!(
            "UPDATE farewall.claim SET wall = $2, attempt = $3
             WHERE id = $1 AND state = 'settled' AND (wall IS NULL OR wall = $2 OR {WALL_IS_GONE})"
        );
        let mut tries = Tries::default();
        loop {
            let client = self.connection().await?;
            match execute(&client, &sql, &[&id.0, &self.wall, &attempt.0]).await {
                Ok(rows) => return Ok(rows == 1),
                Err(fault) => tries.again(&self.place, fault)?,
            }
        }
    }
}

/// Executes a statement that is used again and again.
pub(super) async fn execute(
    client: &Object,
    sql: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<u64, Fault> {
    let statement = client.prepare_cached(sql).await?;
    Ok(client.execute(&statement, values).await?)
}

/// Whether the claim is where it is because of this very move, whose answer was lost.
fn is_done(
    row: &Row,
    step: &Move,
    attempt: Option<Attempt>,
    tries: &Tries,
) -> Result<bool, LedgerError> {
    let ours = attempt.is_some() && attempt == attempt_of(row);
    let same = match step {
        // The settler repeats it until it is on record.
        Move::Settled { transaction, .. } => {
            let record = rows::record(row)?;
            record.transaction.as_deref() == Some(&*storable(transaction))
        }
        Move::Settling { .. }
        | Move::Delivered
        | Move::Released { .. }
        | Move::Refused { .. }
        | Move::Expired { .. } => tries.is_repeated(),
    };
    Ok(ours && same && rows::state(row)? == step.state())
}

fn attempt_of(row: &Row) -> Option<Attempt> {
    row.try_get("attempt").ok().map(Attempt)
}

/// PostgreSQL keeps every text but one with the character NUL, which a facilitator may well send.
fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}
