//! Revenue, in integers of 128 bits: a counter of 64 would wrap at 18 tokens of 18 decimals.
//!
//! The library's counters are floats or 64 bits, so this one writes its own lines. All digits are in
//! them; whoever reads them into a double rounds there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::chain::{Asset, Network};
use crate::money::AtomicAmount;

/// What an amount is counted under.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct RevenueKey {
    /// The rule that sold.
    pub rule: Arc<str>,
    /// `[accept.NAME]`.
    pub accept: Arc<str>,
    /// The network, CAIP-2.
    pub network: Network,
    /// The token.
    pub asset: Asset,
}

/// Sums of settled amounts since the start.
pub(super) struct Revenue(Mutex<BTreeMap<RevenueKey, u128>>);

impl Revenue {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    pub(super) fn add(&self, key: RevenueKey, amount: AtomicAmount) {
        let mut sums = self.0.lock();
        let sum = sums.entry(key).or_default();
        *sum = sum.saturating_add(amount.units());
    }

    /// The lines of the text format, after a head that says what they are.
    pub(super) fn write(&self, name: &str, help: &str, text: &mut String) {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
        for (key, sum) in &*self.0.lock() {
            let _ = writeln!(
                text,
                "{name}{{accept=\"{}\",asset=\"{}\",network=\"{}\",rule=\"{}\"}} {sum}",
                escaped(&key.accept),
                escaped(key.asset.as_str()),
                escaped(key.network.as_str()),
                escaped(&key.rule),
            );
        }
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_digit_of_a_sum_over_64_bits_is_shown() {
        let revenue = Revenue::new();
        let key = || RevenueKey {
            rule: "a\"b".into(),
            accept: "dai".into(),
            network: Network::parse_caip2("eip155:1").unwrap(),
            asset: Asset::verbatim("0x6B17"),
        };
        let amount = AtomicAmount::new(9_007_199_254_740_993_000_000_001);
        revenue.add(key(), amount);
        revenue.add(key(), AtomicAmount::new(1));
        let mut text = String::new();
        revenue.write("r_total", "Help.", &mut text);
        assert_eq!(
            text,
            "# HELP r_total Help.\n# TYPE r_total counter\n\
             r_total{accept=\"dai\",asset=\"0x6B17\",network=\"eip155:1\",rule=\"a\\\"b\"} \
             9007199254740993000000002\n"
        );
    }
}
