//! What was sold, by day, rule, payer or token: one pass over the ledger, in bounded memory.
//!
//! A claim counts where it began: its day is the day of the claim, in UTC.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde_json::{Map, Value, json};

use super::export::cell;
use super::{Tokens, when};
use crate::chain::{Asset, Network};
use crate::ledger::reader::LedgerReader;
use crate::ledger::{Filter, LedgerError, Record};
use crate::money::AtomicAmount;
use crate::settlement::State;

/// Groups that are kept apart. Further payers, of which there may be any number, are one group.
const GROUPS_MAX: usize = 50_000;

/// The name of that group.
const OTHERS: &str = "(others)";

/// By what claims are put together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum By {
    /// `2026-11-01`.
    Day,
    /// The rule that sold.
    Rule,
    /// Who paid.
    Payer,
    /// The token alone.
    Asset,
}

impl By {
    /// The word that names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Rule => "rule",
            Self::Payer => "payer",
            Self::Asset => "asset",
        }
    }

    /// What a word names.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Day, Self::Rule, Self::Payer, Self::Asset]
            .into_iter()
            .find(|by| by.as_str() == word)
    }

    fn of(self, record: &Record) -> String {
        match self {
            Self::Day => when::day(record.claimed_at),
            Self::Rule => record.claim.rule.to_string(),
            Self::Payer => record.claim.payer.to_string(),
            Self::Asset => record.claim.asset.to_string(),
        }
    }
}

/// What a group is: its name, and the token, since amounts of different tokens do not add up.
type Group = (String, Network, Asset);

/// One group.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Line {
    /// Claims that were paid, owed ones included.
    pub sold: u64,
    /// What they paid, in the token's smallest unit.
    pub revenue: u128,
    /// Paid, and not delivered.
    pub owed: u64,
    /// Given back: the upstream failed, or the client left before anybody was asked for money.
    pub released: u64,
    /// The facilitator refused to settle.
    pub refused: u64,
    /// Nobody knows yet, or nobody could tell in time.
    pub unknown: u64,
}

impl Line {
    fn add(&mut self, state: State, amount: AtomicAmount) {
        if state.is_paid() {
            self.sold = self.sold.saturating_add(1);
            self.revenue = self.revenue.saturating_add(amount.units());
        }
        let count = match state {
            State::Settled => &mut self.owed,
            State::Released => &mut self.released,
            State::Refused => &mut self.refused,
            State::Settling | State::Expired => &mut self.unknown,
            State::Claimed | State::Delivered => return,
        };
        *count = count.saturating_add(1);
    }
}

/// A report.
#[derive(Clone, Debug)]
pub struct Report {
    by: By,
    groups: BTreeMap<Group, Line>,
}

impl Report {
    /// Of all claims that the filter allows; its states and its limit have no effect.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] when the ledger cannot be read.
    pub fn read(ledger: &LedgerReader, filter: &Filter, by: By) -> Result<Self, LedgerError> {
        let filter = Filter {
            states: Vec::new(),
            limit: None,
            ..filter.clone()
        };
        let mut report = Self::new(by);
        ledger.each(&filter, &mut |record| {
            report.add(&record);
            ControlFlow::Continue(())
        })?;
        Ok(report)
    }

    /// An empty one.
    #[must_use]
    pub const fn new(by: By) -> Self {
        Self {
            by,
            groups: BTreeMap::new(),
        }
    }

    /// Adds a claim.
    pub fn add(&mut self, record: &Record) {
        let claim = &record.claim;
        let mut group = (
            self.by.of(record),
            claim.network.clone(),
            claim.asset.clone(),
        );
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&group) {
            OTHERS.clone_into(&mut group.0);
        }
        let line = self.groups.entry(group).or_default();
        line.add(record.state, claim.amount);
    }

    /// By what it is.
    #[must_use]
    pub const fn by(&self) -> By {
        self.by
    }

    /// Name, network, token and figures of each group, by name.
    pub fn groups(&self) -> impl Iterator<Item = (&str, &Network, &Asset, &Line)> {
        let groups = self.groups.iter();
        groups.map(|((name, network, asset), line)| (name.as_str(), network, asset, line))
    }

    /// One row a group, with the same columns in JSON and CSV.
    fn rows(&self, tokens: &Tokens) -> Vec<Vec<(&'static str, Value)>> {
        let row = |(name, network, asset, line): (&str, &Network, &Asset, &Line)| {
            let revenue = AtomicAmount::new(line.revenue);
            let whole = tokens.whole(network, asset, revenue);
            let (whole, symbol) = whole.map_or((Value::Null, Value::Null), |(whole, symbol)| {
                (whole.into(), symbol.into())
            });
            let mut row = vec![
                (self.by.as_str(), Value::from(name)),
                ("network", network.as_str().into()),
                ("asset", asset.as_str().into()),
                ("sold", line.sold.into()),
                ("revenue_atomic", line.revenue.to_string().into()),
                ("revenue", whole),
                ("symbol", symbol),
                ("owed", line.owed.into()),
                ("released", line.released.into()),
                ("refused", line.refused.into()),
                ("unknown", line.unknown.into()),
            ];
            if self.by == By::Asset {
                row.remove(0);
            }
            row
        };
        self.groups().map(row).collect()
    }

    /// `{"by": …, "rows": [{…}]}`; amounts are texts.
    #[must_use]
    pub fn json(&self, tokens: &Tokens) -> Value {
        let object = |row: Vec<(&'static str, Value)>| {
            let cells = row
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value));
            Value::Object(cells.collect::<Map<_, _>>())
        };
        let rows: Vec<_> = self.rows(tokens).into_iter().map(object).collect();
        json!({ "by": self.by.as_str(), "rows": rows })
    }

    /// CSV after RFC 4180, with a header line.
    #[must_use]
    pub fn csv(&self, tokens: &Tokens) -> String {
        let names = [
            self.by.as_str(),
            "network",
            "asset",
            "sold",
            "revenue_atomic",
            "revenue",
            "symbol",
            "owed",
            "released",
            "refused",
            "unknown",
        ];
        let names = names.iter().skip(usize::from(self.by == By::Asset));
        let mut text = names.copied().collect::<Vec<_>>().join(",");
        text.push_str("\r\n");
        for row in self.rows(tokens) {
            let cells: Vec<_> = row.iter().map(|(_, value)| cell(value)).collect();
            text.push_str(&cells.join(","));
            text.push_str("\r\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_paid_is_revenue_whatever_became_of_it_later() {
        let mut line = Line::default();
        let amount = AtomicAmount::new(u128::from(u64::MAX));
        for state in [State::Delivered, State::Settled, State::Refused] {
            line.add(state, amount);
        }
        for state in [
            State::Claimed,
            State::Released,
            State::Expired,
            State::Settling,
        ] {
            line.add(state, amount);
        }
        let want = Line {
            sold: 2,
            revenue: 36_893_488_147_419_103_230,
            owed: 1,
            released: 1,
            refused: 1,
            unknown: 2,
        };
        assert_eq!(line, want);
    }
}
