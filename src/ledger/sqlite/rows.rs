//! Rows to records and back: reading, filters, and sums. Nothing here writes.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use rusqlite::types::{FromSql, Value};
use rusqlite::{Connection, Params, Row, ToSql, params, params_from_iter};

use super::file::{FileFault, Place};
use crate::chain::{Asset, Network, PayTo, Payer, PaymentKey};
use crate::clock::UnixSeconds;
use crate::ledger::upkeep::Cursor;
use crate::ledger::{
    BodyDigest, ClaimId, Filter, Fingerprint, LedgerError, NEVER_USED, NewClaim, Note, NoteKind,
    NoteText, Record, Total,
};
use crate::money::AtomicAmount;
use crate::settlement::State;

const SELECT: &str = "SELECT id, payment, fingerprint, state, rule, accept, scheme, network, asset,
    amount, payer, pay_to, nonce, valid_before, request,
    coalesce((SELECT request.settle_request FROM request WHERE request.claim = claim.id),
        settle_request) AS settle_request,
    claimed_at, changed_at, facilitator, transaction_id, receipt, reason, body FROM claim";

/// The claims that hold a payment, as in the unique index.
const HOLDING: &str = "holds = 1";

/// The others, as in the index over past claims.
const PAST: &str = "holds IS NULL";

/// A time as SQLite keeps it. Past the year 292 billion it stays there.
pub(super) fn stored(time: UnixSeconds) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

/// The claim that holds the payment, else its newest.
pub(super) fn find(
    connection: &Connection,
    place: &Place,
    payment: PaymentKey,
) -> Result<Option<Record>, LedgerError> {
    if !is_known(connection, payment).map_err(|cause| place.failed(cause))? {
        return Ok(None);
    }
    let held = format!("{SELECT} WHERE payment = ?1 AND {HOLDING}");
    if let Some(record) = first(connection, place, &held, params![payment.0])? {
        return Ok(Some(record));
    }
    let past = format!("{SELECT} WHERE payment = ?1 AND {PAST} ORDER BY id DESC LIMIT 1");
    first(connection, place, &past, params![payment.0])
}

/// Whether there is any claim of the payment: nearly always there is none, and then this is one look into each
/// of two indexes.
fn is_known(connection: &Connection, payment: PaymentKey) -> rusqlite::Result<bool> {
    // HOLDING and PAST, spelled out so that the text need not be put together each time.
    let sql = "SELECT EXISTS (SELECT 1 FROM claim WHERE payment = ?1 AND holds = 1)
        OR EXISTS (SELECT 1 FROM claim WHERE payment = ?1 AND holds IS NULL)";
    connection
        .prepare_cached(sql)?
        .query_row(params![payment.0], |row| row.get(0))
}

/// One claim.
pub(super) fn get(
    connection: &Connection,
    place: &Place,
    id: ClaimId,
) -> Result<Option<Record>, LedgerError> {
    first(
        connection,
        place,
        &format!("{SELECT} WHERE id = ?1"),
        params![id.0],
    )
}

/// Claims of the payments from `first` to `last`, newest first.
pub(super) fn between(
    connection: &Connection,
    place: &Place,
    first: PaymentKey,
    last: PaymentKey,
    limit: u32,
) -> Result<Vec<Record>, LedgerError> {
    let sql = format!(
        "{SELECT} WHERE payment BETWEEN ?1 AND ?2 AND {HOLDING} UNION ALL
         {SELECT} WHERE payment BETWEEN ?1 AND ?2 AND {PAST} ORDER BY id DESC LIMIT ?3"
    );
    let mut records = Vec::new();
    visit_rows(
        connection,
        place,
        &sql,
        params![first.0, last.0, limit],
        &mut |row| {
            records.push(record(row)?);
            Ok(ControlFlow::Continue(()))
        },
    )?;
    Ok(records)
}

/// The claims whose settlement has no outcome, oldest first: those in the hands of one wall, or all.
pub(super) fn unsettled(
    connection: &Connection,
    place: &Place,
    wall: Option<i64>,
    (from, limit): (Cursor, u32),
) -> Result<Vec<Record>, LedgerError> {
    let sql = format!(
        "{SELECT} WHERE state = 'settling' AND (claimed_at, id) > (?1, ?2)
            AND (?4 IS NULL OR wall = ?4)
         ORDER BY claimed_at, id LIMIT ?3"
    );
    let mut records = Vec::new();
    let values = params![stored(from.claimed_at), from.id, limit, wall];
    visit_rows(connection, place, &sql, values, &mut |row| {
        records.push(record(row)?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(records)
}

/// Whether settlements without an outcome are in the hands of anybody but this wall.
pub(super) fn has_unsettled_of_others(
    connection: &Connection,
    place: &Place,
    wall: i64,
) -> Result<bool, LedgerError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM claim WHERE state = 'settling' AND wall IS NOT ?1)";
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_row(params![wall], |row| row.get(0)))
        .map_err(|cause| place.failed(cause))
}

/// The notes on a claim, oldest first.
pub(super) fn notes(
    connection: &Connection,
    place: &Place,
    id: ClaimId,
) -> Result<Vec<Note>, LedgerError> {
    let sql = "SELECT claim AS id, at, kind, text FROM note WHERE claim = ?1 ORDER BY note.id";
    let mut notes = Vec::new();
    visit_rows(connection, place, sql, params![id.0], &mut |row| {
        let cells = Cells::of(row);
        let kind = NoteKind::parse(&cells.text("kind")?);
        notes.push(Note {
            claim: id,
            at: cells.time("at")?,
            kind: kind.ok_or_else(|| cells.corrupt("kind"))?,
            text: NoteText::parse(&cells.text("text")?).ok_or_else(|| cells.corrupt("text"))?,
        });
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(notes)
}

/// Shows `visit` what the filter allows, newest first, until it breaks.
pub(super) fn each(
    connection: &Connection,
    place: &Place,
    filter: &Filter,
    visit: &mut dyn FnMut(Record) -> ControlFlow<()>,
) -> Result<(), LedgerError> {
    let (conditions, mut values) = conditions(filter);
    values.push(
        filter
            .limit
            .map_or(Value::Integer(-1), |limit| i64::from(limit).into()),
    );
    let sql = format!("{SELECT} WHERE {conditions} ORDER BY claimed_at DESC, id DESC LIMIT ?");
    visit_rows(
        connection,
        place,
        &sql,
        params_from_iter(values),
        &mut |row| Ok(visit(record(row)?)),
    )
}

/// Count and sum by state and token, in the order of a payment's life.
///
/// Claims of one amount are counted by SQLite, and the amounts are multiplied and added here, in
/// checked integers: `SUM` over text would be a float.
pub(super) fn totals(
    connection: &Connection,
    place: &Place,
    filter: &Filter,
) -> Result<Vec<Total>, LedgerError> {
    let (conditions, values) = conditions(filter);
    let sql = format!(
        "SELECT min(id) AS id, state, network, asset, amount, count(*) AS count FROM claim \
         WHERE {conditions} GROUP BY state, network, asset, amount"
    );
    let too_large = || place.failed(FileFault::SumTooLarge);
    let mut sums = BTreeMap::<(State, Network, Asset), (u64, AtomicAmount)>::new();
    visit_rows(
        connection,
        place,
        &sql,
        params_from_iter(values),
        &mut |row| {
            let cells = Cells::of(row);
            let key = (
                cells.state()?,
                cells.network()?,
                Asset::verbatim(&cells.text("asset")?),
            );
            let more = cells.count("count")?;
            let (count, sum) = sums.entry(key).or_default();
            *count = count.checked_add(more).ok_or_else(too_large)?;
            *sum = cells
                .amount()?
                .units()
                .checked_mul(more.into())
                .and_then(|units| sum.checked_add(AtomicAmount::new(units)))
                .ok_or_else(too_large)?;
            Ok(ControlFlow::Continue(()))
        },
    )?;
    let total = |((state, network, asset), (count, amount))| Total {
        state,
        network,
        asset,
        count,
        amount,
    };
    Ok(sums.into_iter().map(total).collect())
}

fn conditions(filter: &Filter) -> (String, Vec<Value>) {
    let mut sql = "TRUE".to_owned();
    let mut values = Vec::new();
    let mut and = |condition: &str, value: Value| {
        sql.push_str(" AND ");
        sql.push_str(condition);
        values.push(value);
    };
    if let Some(since) = filter.since {
        and("claimed_at >= ?", stored(since).into());
    }
    if let Some(until) = filter.until {
        and("claimed_at < ?", stored(until).into());
    }
    if let Some(rule) = &filter.rule {
        and("rule = ?", rule.clone().into());
    }
    if let Some(payer) = &filter.payer {
        and("payer = ?", payer.clone().into());
    }
    if filter.needs_person {
        sql.push_str(
            " AND NOT EXISTS (SELECT 1 FROM note WHERE note.claim = claim.id)
              AND NOT (state = 'expired' AND coalesce(reason, '') = ?)",
        );
        values.push(NEVER_USED.to_owned().into());
    }
    if !filter.states.is_empty() {
        sql.push_str(" AND ");
        sql.push_str(&among(filter.states.iter().copied()));
    }
    (sql, values)
}

/// The condition that a claim is in one of these states. The words are ours, nobody else's text.
pub(super) fn among(states: impl Iterator<Item = State>) -> String {
    let words: Vec<String> = states.map(|state| format!("'{state}'")).collect();
    format!("state IN ({})", words.join(", "))
}

/// The record that the query finds first.
pub(super) fn first(
    connection: &Connection,
    place: &Place,
    sql: &str,
    values: &[&dyn ToSql],
) -> Result<Option<Record>, LedgerError> {
    let mut found = None;
    visit_rows(connection, place, sql, values, &mut |row| {
        found = Some(record(row)?);
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

type Visit<'v> = dyn FnMut(&Row<'_>) -> Result<ControlFlow<()>, LedgerError> + 'v;

fn visit_rows(
    connection: &Connection,
    place: &Place,
    sql: &str,
    values: impl Params,
    visit: &mut Visit<'_>,
) -> Result<(), LedgerError> {
    let failed = |cause: rusqlite::Error| place.failed(cause);
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let mut rows = statement.query(values).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        if visit(row)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// A row read by column name; what cannot be read names its claim and column.
struct Cells<'r, 's> {
    row: &'r Row<'s>,
    id: i64,
}

impl<'r, 's> Cells<'r, 's> {
    fn of(row: &'r Row<'s>) -> Self {
        // The row number is SQLite's own and always an integer.
        let id = row.get("id").unwrap_or_default();
        Self { row, id }
    }

    fn corrupt(&self, field: &'static str) -> LedgerError {
        LedgerError::Corrupt { id: self.id, field }
    }

    fn get<T: FromSql>(&self, field: &'static str) -> Result<T, LedgerError> {
        self.row.get(field).map_err(|_| self.corrupt(field))
    }

    fn text(&self, field: &'static str) -> Result<Arc<str>, LedgerError> {
        self.get(field)
    }

    fn count(&self, field: &'static str) -> Result<u64, LedgerError> {
        u64::try_from(self.get::<i64>(field)?).map_err(|_| self.corrupt(field))
    }

    fn time(&self, field: &'static str) -> Result<UnixSeconds, LedgerError> {
        self.count(field).map(UnixSeconds)
    }

    fn state(&self) -> Result<State, LedgerError> {
        self.text("state")?
            .parse()
            .map_err(|_| self.corrupt("state"))
    }

    fn network(&self) -> Result<Network, LedgerError> {
        Network::parse_caip2(&self.text("network")?).map_err(|_| self.corrupt("network"))
    }

    fn amount(&self) -> Result<AtomicAmount, LedgerError> {
        AtomicAmount::parse(&self.text("amount")?).map_err(|_| self.corrupt("amount"))
    }
}

fn record(row: &Row<'_>) -> Result<Record, LedgerError> {
    let cells = Cells::of(row);
    Ok(Record {
        id: ClaimId(cells.id),
        claim: NewClaim {
            payment: PaymentKey(cells.get("payment")?),
            fingerprint: Fingerprint(cells.get("fingerprint")?),
            rule: cells.text("rule")?,
            accept: cells.text("accept")?,
            scheme: cells.text("scheme")?,
            network: cells.network()?,
            asset: Asset::verbatim(&cells.text("asset")?),
            amount: cells.amount()?,
            payer: Payer::verbatim(&cells.text("payer")?),
            pay_to: PayTo::verbatim(&cells.text("pay_to")?),
            nonce: cells.text("nonce")?,
            valid_before: cells.time("valid_before")?,
            request: cells.text("request")?,
            settle_request: cells.text("settle_request")?,
        },
        state: cells.state()?,
        claimed_at: cells.time("claimed_at")?,
        changed_at: cells.time("changed_at")?,
        facilitator: cells.get("facilitator")?,
        transaction: cells.get("transaction_id")?,
        receipt: cells.get("receipt")?,
        reason: cells.get("reason")?,
        body: cells.get::<Option<[u8; 32]>>("body")?.map(BodyDigest),
    })
}
