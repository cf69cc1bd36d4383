//! The books: what the ledger holds, written for people and for programs.
//!
//! Shared by the commands and the admin API. Amounts are integers or decimal text, times are UTC.

pub mod when;
pub(crate) mod export;
pub mod report;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::chain::{Asset, Network, assets};
use crate::config::settings::{AcceptSettings, Settings};
use crate::ledger::Record;
use crate::money::{AtomicAmount, Decimals};

/// Writes records one by one, for programs.
pub(crate) trait Sink {
    fn begin(&mut self) -> io::Result<()>;
    fn record(&mut self, record: &Record) -> io::Result<()>;
    fn end(&mut self) -> io::Result<()>;
}

/// Symbol and decimals of the tokens that the configuration accepts.
#[derive(Clone, Debug, Default)]
pub struct Tokens(pub(crate) BTreeMap<(Network, Asset), (Arc<str>, Decimals)>);

impl Tokens {
    /// Those of a configuration.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let token = |accept: &AcceptSettings| {
            let key = (accept.network.clone(), accept.asset.clone());
            (key, (Arc::clone(&accept.symbol), accept.decimals))
        };
        Self(settings.accepts.values().map(token).collect())
    }

    /// The amount in whole tokens and the symbol, when the token is known.
    pub(crate) fn whole(
        &self,
        network: &Network,
        asset: &Asset,
        amount: AtomicAmount,
    ) -> Option<(String, &str)> {
        if let Some((symbol, decimals)) = self.0.get(&(network.clone(), asset.clone())) {
            return Some((amount.in_tokens(*decimals), symbol));
        }
        let known = assets::find(network, asset.as_str())?;
        let decimals = Decimals::new(known.decimals.into()).ok()?;
        Some((amount.in_tokens(decimals), known.symbol))
    }

    /// `0.01 USDC`, or `10000 atomic 0x…` for a token that the configuration does not mention.
    pub(crate) fn text(&self, network: &Network, asset: &Asset, amount: AtomicAmount) -> String {
        match self.whole(network, asset, amount) {
            Some((tokens, symbol)) => format!("{tokens} {symbol}"),
            None => format!("{amount} atomic {asset}"),
        }
    }
}
