//! The auditor: holds the ledger against the facilitator's book and what the buyers saw.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256};
use farewall::chain::Network;
use farewall::clock::UnixSeconds;
use farewall::ledger::sqlite::SqliteLedger;
use farewall::ledger::{ClaimId, Filter, Record};
use farewall::money::AtomicAmount;
use farewall::sandbox::Sandbox;
use farewall::settlement::{STATES, State};

use crate::buyers::{Deal, End, Market, Seen, told};
use crate::process::Site;
use crate::support::buyer::{PAY_TO, now};

/// Claims that were made so long before the last look are looked at only now and then.
const LOOK_BACK_S: u64 = 5;

pub struct Book {
    ledger: PathBuf,
    sandbox: Sandbox,
    market: Arc<Market>,
    /// Every claim that was ever seen: payment, amount, state.
    known: HashMap<i64, (B256, u128, State)>,
    last_id: i64,
    looked_at: u64,
}

impl Book {
    pub fn new(site: &Site, market: &Arc<Market>) -> Self {
        Self {
            ledger: site.ledger(),
            sandbox: site.sandbox.clone(),
            market: Arc::clone(market),
            known: HashMap::new(),
            last_id: 0,
            looked_at: now(),
        }
    }

    fn read(&self, filter: &Filter) -> Vec<Record> {
        let ledger = SqliteLedger::open_read_only(&self.ledger).expect("it opens after a kill");
        let mut records = Vec::new();
        ledger
            .each(filter, &mut |record| {
                records.push(record);
                ControlFlow::Continue(())
            })
            .expect("every record can be read");
        records
    }

    /// After a start: what the process before had only claimed is given back.
    pub fn check_nothing_is_left_claimed(&self) {
        let filter = Filter {
            states: vec![State::Claimed],
            ..Filter::default()
        };
        for record in self.read(&filter) {
            if record.id.0 <= self.last_id {
                self.violation(&record, "is still claimed after a restart");
            }
        }
    }

    /// While there is no wall. `full` looks at every claim ever made, else at the newest.
    pub fn check(&mut self, full: bool) {
        if !self.ledger.exists() {
            return;
        }
        let since = (!full).then(|| UnixSeconds(self.looked_at.saturating_sub(LOOK_BACK_S)));
        self.looked_at = now();
        let records = self.read(&Filter {
            since,
            ..Filter::default()
        });
        for record in &records {
            self.check_record(record);
        }
        self.check_payments(&records);
        if full {
            self.check_sums(&records);
        }
    }

    fn violation(&self, record: &Record, what: &str) {
        let (id, nonce, state) = (record.id.0, &record.claim.nonce, record.state);
        self.market
            .violation(format!("claim {id} of {nonce} ({state}): {what}"));
    }

    /// Against what was seen of the same claim before, and against the facilitator.
    fn check_record(&mut self, record: &Record) {
        let (nonce, amount) = (nonce_of(record), record.claim.amount.units());
        if let Some((known_nonce, known_amount, state)) = self.known.get(&record.id.0) {
            if (*known_nonce, *known_amount) != (nonce, amount) {
                self.violation(record, "is not the payment that it was");
            }
            if !leads_to(*state, record.state) {
                self.violation(record, &format!("was {state} before"));
            }
        } else if record.id.0 <= self.last_id && record.state != State::Released {
            // Claims get their numbers in order: an unseen one must be new.
            self.violation(record, "appeared late");
        }
        self.known
            .insert(record.id.0, (nonce, amount, record.state));
        let settled = self.sandbox.settled(nonce);
        if record.state.is_paid() && settled != 1 {
            self.violation(record, &format!("the facilitator settled {settled} times"));
        }
        if matches!(record.state, State::Refused | State::Expired) {
            let reason = record.reason.as_deref().unwrap_or_default();
            self.violation(record, &format!("nobody had a reason to: {reason}"));
        }
    }

    /// All claims of one payment together, against the buyer's word.
    fn check_payments(&mut self, records: &[Record]) {
        let mut payments: HashMap<B256, Vec<&Record>> = HashMap::new();
        for record in records {
            payments.entry(nonce_of(record)).or_default().push(record);
            self.last_id = self.last_id.max(record.id.0);
        }
        for (nonce, claims) in payments {
            let holding = claims.iter().filter(|c| c.state.holds_payment()).count();
            if holding > 1 {
                self.violation(claims[0], "more than one claim holds the payment");
            }
            let settled = self.sandbox.settled(nonce);
            let asked = claims
                .iter()
                .any(|c| matches!(c.state, State::Settling | State::Settled | State::Delivered));
            if settled > 1 || (settled == 1 && !asked) {
                self.violation(claims[0], &format!("settled {settled} times, no record"));
            }
            let paid = claims.iter().any(|c| c.state.is_paid());
            let Some(deal) = self.market.deal(&nonce) else {
                self.violation(claims[0], "nobody made that payment");
                continue;
            };
            if deal.begun && !paid {
                self.violation(claims[0], "served before it was on record as paid");
            }
        }
    }

    /// DESIGN, invariant 3: every unit that was ever claimed is in exactly one state.
    fn check_sums(&self, records: &[Record]) {
        if records.len() != self.known.len() {
            self.market.violation(format!(
                "{} claims were seen, {} are there",
                self.known.len(),
                records.len()
            ));
        }
        let claimed: u128 = self.known.values().map(|(_, amount, _)| amount).sum();
        let ledger = SqliteLedger::open_read_only(&self.ledger).unwrap();
        let totals = ledger.totals_blocking(&Filter::default()).unwrap();
        let in_states: u128 = totals.iter().map(|total| total.amount.units()).sum();
        if claimed != in_states {
            self.market.violation(format!(
                "{claimed} were claimed, the states add up to {in_states}"
            ));
        }
        for id in self.known.keys() {
            if ledger.get(ClaimId(*id)).unwrap().is_none() {
                self.market.violation(format!("claim {id} is gone"));
            }
        }
    }

    /// At the end, with a wall that lives: every debt is collected or shown to be collectable, and
    /// the three books agree to the unit. Returns what is left, for people.
    pub async fn settle_accounts(&mut self) -> String {
        self.wait_for_the_reconciler().await;
        let mut left = BTreeMap::new();
        for deal in self.market.deals() {
            let end = match deal.end {
                End::Open => {
                    self.market.violation(format!("{} has no end", told(&deal)));
                    continue;
                }
                End::Unknown => self.collect_unknown(&deal).await,
                End::Served | End::Failed | End::Lost | End::Spent => deal.end,
            };
            *left.entry(format!("{end:?}")).or_insert(0_u64) += 1;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.collect_what_is_owed().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.check(true);
        self.compare(&mut left);
        let mut text = String::new();
        for (what, count) in left {
            write!(text, "{what}: {count}  ").unwrap();
        }
        text
    }

    /// What the facilitator was never asked for is settled now; what remains unknown is what it did
    /// settle, and will not tell.
    async fn wait_for_the_reconciler(&self) {
        let filter = Filter {
            states: vec![State::Settling],
            ..Filter::default()
        };
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let unasked: Vec<_> = self
                .read(&filter)
                .into_iter()
                .filter(|record| self.sandbox.settled(nonce_of(record)) == 0)
                .collect();
            let Some(record) = unasked.first() else {
                return;
            };
            if Instant::now() > end {
                return self.violation(record, "was never reconciled");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Presents a proof whose outcome was unknown: it buys now, unless another copy of it did.
    async fn collect_unknown(&self, deal: &Deal) -> End {
        let end = self.collect(deal).await;
        if end == End::Spent && !self.market.deal(&deal.nonce).is_some_and(|d| d.served) {
            self.market
                .violation(format!("{} spent, and never served", told(deal)));
        }
        end
    }

    /// Presents a proof until it is clear what it gives.
    async fn collect(&self, deal: &Deal) -> End {
        let mut doors = self.market.doors();
        loop {
            match self.market.present(deal, &mut doors).await {
                Some(Seen::Whole) => return End::Served,
                Some(Seen::Lost) => return End::Lost,
                Some(Seen::Unknown) => return End::Unknown,
                Some(Seen::Spent) => return End::Spent,
                Some(Seen::Failure | Seen::Broken) if deal.product.fails.is_some() => {
                    return End::Failed;
                }
                Some(Seen::Later | Seen::Failure | Seen::Broken) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                None => return End::Open,
            }
        }
    }

    /// Every payment that the ledger calls owed is presented once more.
    async fn collect_what_is_owed(&self) {
        let filter = Filter {
            states: vec![State::Settled],
            ..Filter::default()
        };
        for record in self.read(&filter) {
            let Some(deal) = self.market.deal(&nonce_of(&record)) else {
                continue;
            };
            let end = self.collect(&deal).await;
            let collectable = match end {
                End::Served => true,
                End::Lost => deal.product.method != "GET",
                End::Failed => deal.product.fails.is_some(),
                End::Open | End::Unknown | End::Spent => false,
            };
            if !collectable {
                self.violation(&record, &format!("owed, but presenting it gives {end:?}"));
            }
        }
    }

    fn compare(&self, left: &mut BTreeMap<String, u64>) {
        let mut states: HashMap<B256, Vec<State>> = HashMap::new();
        for (nonce, _, state) in self.known.values() {
            states.entry(*nonce).or_default().push(*state);
        }
        let mut earned = 0;
        for deal in self.market.deals() {
            let settled = self.sandbox.settled(deal.nonce);
            let found = states.remove(&deal.nonce).unwrap_or_default();
            let is = |state| found.contains(&state);
            let fault = if settled == 0 && (deal.served || found.iter().any(|s| s.is_paid())) {
                Some("served or booked, and never settled")
            } else if settled == 1
                && !(is(State::Delivered) || is(State::Settled) || is(State::Settling))
            {
                Some("settled, and not booked")
            } else if is(State::Delivered) && !deal.served {
                Some("booked as delivered, and never served")
            } else if deal.told_uncharged && settled != 0 && !deal.product.is_paid_in_advance() {
                Some("charged after the client was told that nothing was charged")
            } else if is(State::Claimed) {
                Some("claimed, and nobody works on it")
            } else {
                None
            };
            if let Some(fault) = fault {
                self.market
                    .violation(format!("{} {fault}: {deal:?}", told(&deal)));
            }
            earned += settled * deal.product.price;
            for state in STATES.into_iter().filter(|state| is(*state)) {
                *left.entry(format!("{state} in the ledger")).or_insert(0) += 1;
            }
        }
        let network = Network::parse_caip2("eip155:84532").unwrap();
        let usdc: Address = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"
            .parse()
            .unwrap();
        let balance = self
            .sandbox
            .balance(&network, usdc, PAY_TO.parse().unwrap());
        let before = AtomicAmount::new(1_000_000_000);
        if balance.checked_sub(before) != Some(AtomicAmount::new(earned.into())) {
            self.market
                .violation(format!("{earned} were earned, {balance} are there"));
        }
        left.insert("settle calls".to_owned(), self.sandbox.stats().settle_calls);
    }
}

fn nonce_of(record: &Record) -> B256 {
    let text = record.claim.nonce.strip_prefix("eip3009:").unwrap();
    text.parse().unwrap()
}

/// Whether a claim may get from one state to another in any number of legal moves.
fn leads_to(from: State, to: State) -> bool {
    from == to
        || STATES
            .into_iter()
            .any(|next| next != from && from.may_become(next) && leads_to(next, to))
}
