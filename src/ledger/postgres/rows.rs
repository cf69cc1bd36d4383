//! Rows to records: reading, filters, and sums. Nothing here writes.

use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;

use deadpool_postgres::Object;
use futures_util::TryStreamExt;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql};

use super::connect::{Fault, Place};
use crate::chain::{Asset, Network, PayTo, Payer, PaymentKey};
use crate::clock::UnixSeconds;
use crate::ledger::{
    BodyDigest, ClaimId, Filter, Fingerprint, LedgerError, NEVER_USED, NewClaim, Note, NoteKind,
    NoteText, Record, Total,
};
use crate::money::AtomicAmount;
use crate::settlement::State;

/// Everything of a claim; the amount as text, because it has 128 bits.
pub(super) const SELECT: &str =
    "SELECT id, payment, fingerprint, state, rule, accept, scheme, network,
    asset, amount::text AS amount, payer, pay_to, nonce, valid_before, request, settle_request,
    claimed_at, changed_at, facilitator, transaction_id, receipt, reason, body, wall, attempt
    FROM farewall.claim";

/// The states that hold a payment, as in the unique index.
const HOLDING: &str = "state IN ('claimed', 'settling', 'settled', 'delivered')";

/// The others, as in the index over past claims.
const PAST: &str = "state IN ('released', 'refused', 'expired')";

/// A time as the database keeps it. Past the year 292 billion it stays there.
pub(super) fn stored(time: UnixSeconds) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

/// The claim that holds the payment, else its newest.
pub(super) async fn find(
    client: &Object,
    payment: PaymentKey,
) -> Result<Option<Row>, tokio_postgres::Error> {
    let sql = format!(
        "SELECT * FROM (({SELECT} WHERE payment = $1 AND {HOLDING}) UNION ALL
            ({SELECT} WHERE payment = $1 AND {PAST} ORDER BY id DESC LIMIT 1)) AS found
         ORDER BY {PAST} LIMIT 1"
    );
    let statement = client.prepare_cached(&sql).await?;
    client.query_opt(&statement, &[&payment.0.as_slice()]).await
}

/// One claim.
pub(super) async fn get(
    client: &Object,
    place: &Place,
    id: ClaimId,
) -> Result<Option<Record>, LedgerError> {
    let sql = format!("{SELECT} WHERE id = $1");
    let row = client.query_opt(&sql, &[&id.0]).await;
    let row = row.map_err(|cause| place.failed(cause))?;
    row.as_ref().map(record).transpose()
}

/// Claims of the payments from `first` to `last`, newest first.
pub(super) async fn between(
    client: &Object,
    place: &Place,
    (first, last): (PaymentKey, PaymentKey),
    limit: u32,
) -> Result<Vec<Record>, LedgerError> {
    let sql = format!(
        "({SELECT} WHERE payment BETWEEN $1 AND $2 AND {HOLDING}) UNION ALL
         ({SELECT} WHERE payment BETWEEN $1 AND $2 AND {PAST}) ORDER BY id DESC LIMIT $3"
    );
    let (first, last) = (first.0.as_slice(), last.0.as_slice());
    let rows = client
        .query(&sql, &[&first, &last, &i64::from(limit)])
        .await;
    let rows = rows.map_err(|cause| place.failed(cause))?;
    rows.iter().map(record).collect()
}

/// The notes on a claim, oldest first.
pub(super) async fn notes(
    client: &Object,
    place: &Place,
    id: ClaimId,
) -> Result<Vec<Note>, LedgerError> {
    let sql = "SELECT claim AS id, at, kind, text FROM farewall.note WHERE claim = $1
        ORDER BY note.id";
    let rows = client.query(sql, &[&id.0]).await;
    let rows = rows.map_err(|cause| place.failed(cause))?;
    let note = |row: &Row| {
        let cells = Cells::of(row);
        let (kind, text) = (
            NoteKind::parse(cells.get("kind")?),
            NoteText::parse(cells.get("text")?),
        );
        Ok(Note {
            claim: ClaimId(cells.id),
            at: cells.time("at")?,
            kind: kind.ok_or_else(|| cells.corrupt("kind"))?,
            text: text.ok_or_else(|| cells.corrupt("text"))?,
        })
    };
    rows.iter().map(note).collect()
}

/// Shows `visit` what the filter allows, newest first, until it breaks.
pub(super) async fn each(
    client: &Object,
    place: &Place,
    filter: &Filter,
    visit: &mut (impl FnMut(Record) -> ControlFlow<()> + ?Sized),
) -> Result<(), LedgerError> {
    let failed = |cause: tokio_postgres::Error| place.failed(cause);
    let (conditions, values) = conditions(filter);
    let limit = filter
        .limit
        .map_or_else(String::new, |limit| format!("LIMIT {limit}"));
    let sql = format!("{SELECT} WHERE {conditions} ORDER BY claimed_at DESC, id DESC {limit}");
    let values = values.iter().map(|value| &**value as &(dyn ToSql + Sync));
    let rows = client.query_raw(&sql, values).await.map_err(failed)?;
    let mut rows = pin!(rows);
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        if visit(record(&row)?).is_break() {
            break;
        }
    }
    Ok(())
}

/// Count and sum by state and token, in the order of a payment's life.
pub(super) async fn totals(
    client: &Object,
    place: &Place,
    filter: &Filter,
) -> Result<Vec<Total>, LedgerError> {
    let failed = |cause: tokio_postgres::Error| place.failed(cause);
    let (conditions, values) = conditions(filter);
    // Sums of `numeric` are exact.
    let sql = format!(
        "SELECT min(id) AS id, state, network, asset, count(*) AS count, sum(amount)::text AS amount
         FROM farewall.claim WHERE {conditions} GROUP BY state, network, asset"
    );
    let values = values.iter().map(|value| &**value as &(dyn ToSql + Sync));
    let rows = client.query_raw(&sql, values).await.map_err(failed)?;
    let rows: Vec<Row> = rows.try_collect().await.map_err(failed)?;
    let total = |row: &Row| {
        let cells = Cells::of(row);
        let amount = AtomicAmount::parse(cells.get("amount")?);
        Ok(Total {
            state: cells.state()?,
            network: cells.network()?,
            asset: Asset::verbatim(cells.get("asset")?),
            count: cells.count("count")?,
            amount: amount.map_err(|_| place.failed(Fault::SumTooLarge))?,
        })
    };
    let mut totals = rows
        .iter()
        .map(total)
        .collect::<Result<Vec<Total>, LedgerError>>()?;
    totals.sort_by(|a, b| (a.state, &a.network, &a.asset).cmp(&(b.state, &b.network, &b.asset)));
    Ok(totals)
}

fn conditions(filter: &Filter) -> (String, Vec<Box<dyn ToSql + Sync + Send>>) {
    let mut sql = "TRUE".to_owned();
    let mut values: Vec<Box<dyn ToSql + Sync + Send>> = Vec::new();
    let mut and = |condition: &str, value: Box<dyn ToSql + Sync + Send>| {
        values.push(value);
        sql.push_str(&format!(" AND {condition} ${}", values.len()));
    };
    if let Some(since) = filter.since {
        and("claimed_at >=", Box::new(stored(since)));
    }
    if let Some(until) = filter.until {
        and("claimed_at <", Box::new(stored(until)));
    }
    if let Some(rule) = &filter.rule {
        and("rule =", Box::new(rule.clone()));
    }
    if let Some(payer) = &filter.payer {
        and("payer =", Box::new(payer.clone()));
    }
    if filter.needs_person {
        let nobody = "NOT EXISTS (SELECT FROM farewall.note WHERE note.claim = claim.id)
            AND NOT (state = 'expired' AND coalesce(reason, '') =";
        and(nobody, Box::new(NEVER_USED.to_owned()));
        sql.push(')');
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

/// A row read by column name; what cannot be read names its claim and column.
struct Cells<'r> {
    row: &'r Row,
    id: i64,
}

impl<'r> Cells<'r> {
    fn of(row: &'r Row) -> Self {
        // The primary key is an integer in every row.
        let id = row.try_get("id").unwrap_or_default();
        Self { row, id }
    }

    fn corrupt(&self, field: &'static str) -> LedgerError {
        LedgerError::Corrupt { id: self.id, field }
    }

    fn get<T: FromSql<'r>>(&self, field: &'static str) -> Result<T, LedgerError> {
        self.row.try_get(field).map_err(|_| self.corrupt(field))
    }

    fn text(&self, field: &'static str) -> Result<Arc<str>, LedgerError> {
        self.get::<&str>(field).map(Arc::from)
    }

    fn optional(&self, field: &'static str) -> Result<Option<Arc<str>>, LedgerError> {
        Ok(self.get::<Option<&str>>(field)?.map(Arc::from))
    }

    fn digest(&self, field: &'static str) -> Result<[u8; 32], LedgerError> {
        let bytes: &[u8] = self.get(field)?;
        bytes.try_into().map_err(|_| self.corrupt(field))
    }

    fn count(&self, field: &'static str) -> Result<u64, LedgerError> {
        u64::try_from(self.get::<i64>(field)?).map_err(|_| self.corrupt(field))
    }

    fn time(&self, field: &'static str) -> Result<UnixSeconds, LedgerError> {
        self.count(field).map(UnixSeconds)
    }

    fn state(&self) -> Result<State, LedgerError> {
        self.get::<&str>("state")?
            .parse()
            .map_err(|_| self.corrupt("state"))
    }

    fn network(&self) -> Result<Network, LedgerError> {
        Network::parse_caip2(self.get("network")?).map_err(|_| self.corrupt("network"))
    }
}

/// The state that a row is in, for error messages.
pub(super) fn state(row: &Row) -> Result<State, LedgerError> {
    Cells::of(row).state()
}

/// A whole record.
pub(super) fn record(row: &Row) -> Result<Record, LedgerError> {
    let cells = Cells::of(row);
    let amount = AtomicAmount::parse(cells.get("amount")?);
    let body = match cells.get::<Option<&[u8]>>("body")? {
        None => None,
        Some(_) => Some(BodyDigest(cells.digest("body")?)),
    };
    Ok(Record {
        id: ClaimId(cells.id),
        claim: NewClaim {
            payment: PaymentKey(cells.digest("payment")?),
            fingerprint: Fingerprint(cells.digest("fingerprint")?),
            rule: cells.text("rule")?,
            accept: cells.text("accept")?,
            scheme: cells.text("scheme")?,
            network: cells.network()?,
            asset: Asset::verbatim(cells.get("asset")?),
            amount: amount.map_err(|_| cells.corrupt("amount"))?,
            payer: Payer::verbatim(cells.get("payer")?),
            pay_to: PayTo::verbatim(cells.get("pay_to")?),
            nonce: cells.text("nonce")?,
            valid_before: cells.time("valid_before")?,
            request: cells.text("request")?,
            settle_request: cells.text("settle_request")?,
        },
        state: cells.state()?,
        claimed_at: cells.time("claimed_at")?,
        changed_at: cells.time("changed_at")?,
        facilitator: cells.optional("facilitator")?,
        transaction: cells.optional("transaction_id")?,
        receipt: cells.optional("receipt")?,
        reason: cells.optional("reason")?,
        body,
    })
}
