//! Payments: pages of them, one of them, what is owed or unknown, and what they came to.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Admin;
use super::answer::{Problem, bad_query, ledger_failed, problem};
use crate::books::export::object;
use crate::books::report::{By, Report};
use crate::books::when::{self, When};
use crate::chain::parse_evm_address;
use crate::clock::UnixSeconds;
use crate::ledger::reader::LedgerReader;
use crate::ledger::{ClaimId, Filter, LedgerError, Record};
use crate::settlement::State as Standing;

/// Payments on a page, unless asked otherwise.
const PAGE: usize = 100;
/// The most that may be asked for.
const PAGE_MAX: usize = 1000;

/// What a listing may be asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    since: Option<String>,
    until: Option<String>,
    rule: Option<String>,
    payer: Option<String>,
    /// Separated by commas.
    state: Option<String>,
    limit: Option<usize>,
    cursor: Option<Cursor>,
    by: Option<String>,
    format: Option<String>,
}

/// The last payment of the page before: when it was claimed, and its number.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
struct Cursor(UnixSeconds, ClaimId);

impl TryFrom<String> for Cursor {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong = "`cursor` is not one that this API gave";
        let (at, id) = text.split_once('-').ok_or(wrong)?;
        let (at, id) = (
            at.parse().map_err(|_| wrong)?,
            id.parse().map_err(|_| wrong)?,
        );
        Ok(Self(UnixSeconds(at), ClaimId(id)))
    }
}

impl Cursor {
    fn of(record: &Record) -> Self {
        Self(record.claimed_at, record.id)
    }

    /// Whether a record comes after it, newest first.
    fn is_before(self, record: &Record) -> bool {
        (record.claimed_at, record.id) < (self.0, self.1)
    }
}

impl Asked {
    fn filter(&self, now: UnixSeconds) -> Result<Filter, &'static str> {
        let time = |text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => match text.parse::<When>() {
                Ok(when) => Ok(Some(when.before(now))),
                Err(_) => Err("times are 2026-11-01, 2026-11-01T12:00:00Z, or an age such as 24h"),
            },
        };
        let words = self.state.iter().flat_map(|states| states.split(','));
        let states: Result<Vec<Standing>, _> = words.map(str::parse).collect();
        // The ledger keeps EVM accounts with their checksum; people paste them in any case.
        let payer = self.payer.as_deref().map(|payer| {
            parse_evm_address(payer)
                .map_or_else(|_| payer.to_owned(), |address| address.to_checksum(None))
        });
        Ok(Filter {
            since: time(&self.since)?,
            until: time(&self.until)?,
            rule: self.rule.clone(),
            payer,
            states: states.map_err(|_| {
                "`state` is claimed, settling, settled, delivered, released, refused or expired"
            })?,
            limit: None,
            needs_person: false,
        })
    }

    fn limit(&self) -> Result<usize, &'static str> {
        match self.limit.unwrap_or(PAGE) {
            limit @ 1..=PAGE_MAX => Ok(limit),
            _ => Err("`limit` is 1 to 1000"),
        }
    }
}

/// One page: the records, and the cursor of the next page when there is one.
fn page(
    ledger: &LedgerReader,
    mut filter: Filter,
    after: Option<Cursor>,
    limit: usize,
) -> Result<(Vec<Record>, Option<Cursor>), LedgerError> {
    if let Some(Cursor(at, _)) = after {
        // Of the same second some are on the page before; they are skipped below.
        let next = at.plus(1);
        filter.until = Some(filter.until.map_or(next, |until| until.min(next)));
    }
    // One more than the page tells whether there is a next one. What is skipped makes the first try too
    // short only where many were claimed within the second of the cursor.
    let mut asked = limit.saturating_add(1);
    loop {
        filter.limit = Some(u32::try_from(asked).unwrap_or(u32::MAX));
        let (mut records, mut seen) = (Vec::new(), 0_usize);
        ledger.each(&filter, &mut |record| {
            seen = seen.saturating_add(1);
            if after.is_none_or(|cursor| cursor.is_before(&record)) {
                records.push(record);
            }
            ControlFlow::Continue(())
        })?;
        let is_all = seen < asked;
        if is_all || records.len() > limit {
            let more = records.len() > limit;
            records.truncate(limit);
            let next = records.last().filter(|_| more).map(Cursor::of);
            return Ok((records, next));
        }
        asked = asked.saturating_mul(2);
    }
}

async fn listed(admin: Arc<Admin>, asked: Asked, only: Option<(&[Standing], bool)>) -> Response {
    let wanted = asked.filter(admin.now());
    let (mut filter, limit) = match (wanted, asked.limit()) {
        (Ok(filter), Ok(limit)) => (filter, limit),
        (Err(wrong), _) | (_, Err(wrong)) => return bad_query(wrong),
    };
    if let Some((states, needs_person)) = only {
        if !filter.states.is_empty() {
            return bad_query("`state` cannot be chosen here; see /v1/payments");
        }
        filter.states = states.to_vec();
        filter.needs_person = needs_person;
    }
    let read = admin.read(move |ledger, admin| {
        let (records, next) = page(ledger, filter, asked.cursor, limit)?;
        let in_force = admin.in_force();
        let records = records.iter().map(|one| object(one, &in_force.tokens));
        let next = next.map(|Cursor(at, id)| format!("{}-{}", at.0, id.0));
        Ok(json!({ "payments": records.collect::<Vec<_>>(), "next_cursor": next }))
    });
    match read.await {
        Ok(page) => Json(page).into_response(),
        Err(error) => ledger_failed(&error),
    }
}

pub(super) async fn list(State(admin): State<Arc<Admin>>, Query(asked): Query<Asked>) -> Response {
    listed(admin, asked, None).await
}

pub(super) async fn owed(State(admin): State<Arc<Admin>>, Query(asked): Query<Asked>) -> Response {
    listed(admin, asked, Some((&[Standing::Settled], true))).await
}

pub(super) async fn unknown(
    State(admin): State<Arc<Admin>>,
    Query(asked): Query<Asked>,
) -> Response {
    let states = [Standing::Settling, Standing::Expired];
    listed(admin, asked, Some((&states, true))).await
}

pub(super) async fn one(State(admin): State<Arc<Admin>>, Path(id): Path<i64>) -> Response {
    let read = admin.read(move |ledger, admin| {
        let Some(record) = ledger.get(ClaimId(id))? else {
            return Ok(None);
        };
        let notes = ledger.notes(record.id)?;
        let notes = notes.iter().map(|note| {
            json!({
                "at": when::text(note.at),
                "kind": note.kind.as_str(),
                "text": note.text.as_str(),
            })
        });
        let mut shown = object(&record, &admin.in_force().tokens);
        shown.insert("notes".to_owned(), notes.collect());
        Ok(Some(Value::Object(shown)))
    });
    match read.await {
        Ok(Some(payment)) => Json(payment).into_response(),
        Ok(None) => no_such_payment(),
        Err(error) => ledger_failed(&error),
    }
}

pub(super) fn no_such_payment() -> Response {
    problem(
        StatusCode::NOT_FOUND,
        Problem::NoSuchPayment,
        "The ledger has no payment of this number.",
    )
}

pub(super) async fn revenue(
    State(admin): State<Arc<Admin>>,
    Query(asked): Query<Asked>,
) -> Response {
    let Some(by) = By::parse(asked.by.as_deref().unwrap_or("day")) else {
        return bad_query("`by` is day, rule, payer or asset");
    };
    let is_csv = match asked.format.as_deref().unwrap_or("json") {
        "json" => false,
        "csv" => true,
        _ => return bad_query("`format` is json or csv"),
    };
    let filter = match asked.filter(admin.now()) {
        Ok(filter) => filter,
        Err(wrong) => return bad_query(wrong),
    };
    let read = admin.read(move |ledger, admin| {
        let report = Report::read(ledger, &filter, by)?;
        let in_force = admin.in_force();
        Ok(match is_csv {
            true => Err(report.csv(&in_force.tokens)),
            false => Ok(report.json(&in_force.tokens)),
        })
    });
    match read.await {
        Ok(Ok(json)) => Json(json).into_response(),
        Ok(Err(csv)) => ([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], csv).into_response(),
        Err(error) => ledger_failed(&error),
    }
}
