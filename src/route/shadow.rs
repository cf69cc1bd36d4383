//! What a request in shadow is told: its price, as one structured header field.
//!
//! Rule: RFC 9651, dictionary with tokens, strings and an inner list with parameters.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::route::price::Quote;
use crate::route::{FreeRoute, PricedRoute};

/// The header that says what a request in shadow would have cost.
pub const HEADER: &str = "Farewall-Shadow";

/// A request that is let through for nothing, and told what it would have cost.
#[derive(Debug)]
pub struct ShadowRoute {
    /// Where it goes.
    pub free: Arc<FreeRoute>,
    /// What it would be sold as; `None` when no way of paying can be offered now, or no rule
    /// governs it.
    pub priced: Option<Arc<PricedRoute>>,
    /// Whether no rule governs it.
    pub is_unlisted: bool,
    terms: String,
}

impl ShadowRoute {
    /// For a request that a priced rule governs.
    #[must_use]
    pub fn of_rule(free: FreeRoute, priced: Option<Arc<PricedRoute>>) -> Self {
        let quote = priced.as_ref().map(|route| route.price.quote());
        Self {
            terms: terms(&free.rule, quote.as_deref()),
            free: Arc::new(free),
            priced,
            is_unlisted: false,
        }
    }

    /// For requests that no rule governs.
    #[must_use]
    pub fn unlisted(free: FreeRoute) -> Self {
        Self {
            free: Arc::new(free),
            priced: None,
            is_unlisted: true,
            terms: String::new(),
        }
    }

    /// The value of [`HEADER`]: `outcome=payment_required, rule="quote", price=("0.001 USDC";…)`.
    ///
    /// `outcome` is a token: lower case and underscores.
    #[must_use]
    pub fn told(&self, outcome: &str) -> String {
        format!("outcome={outcome}{}", self.terms)
    }
}

/// `, rule="quote", price=("0.001 USDC";amount="1000";network="eip155:84532";asset="0x…")`
fn terms(rule: &str, quote: Option<&Quote>) -> String {
    let mut terms = format!(", rule={}", string(rule));
    let offers = quote.map(|quote| quote.offers.as_slice());
    let offers: Vec<String> = offers
        .unwrap_or_default()
        .iter()
        .map(|offer| {
            let price = format!(
                "{} {}",
                offer.amount.in_tokens(offer.decimals),
                offer.symbol
            );
            format!(
                "{};amount={};network={};asset={}",
                string(&price),
                string(&offer.amount.to_string()),
                string(offer.network.as_str()),
                string(offer.asset.as_str()),
            )
        })
        .collect();
    if !offers.is_empty() {
        let _ = write!(terms, ", price=({})", offers.join(" "));
    }
    terms
}

/// A string of RFC 9651: printable ASCII in quotes; what it cannot hold becomes `?`.
fn string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len().saturating_add(2));
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            _ => quoted.push('?'),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facilitator::supported::SupportedBook;
    use crate::route::fixture::{rule, settings, shadowed};
    use crate::route::{Access, RequestLine, RouteTable};

    #[test]
    fn the_price_is_told_as_a_structured_field() {
        let settings = settings(vec![rule("r", 1, "/a", shadowed(1500))]);
        let table = RouteTable::build(&settings, &SupportedBook::new()).unwrap();
        let line = RequestLine {
            method: "GET",
            host: "",
            path: "/a",
        };
        let Access::Shadow(route) = table.access(&line) else {
            panic!("not in shadow");
        };
        assert_eq!(
            route.told("payment_required"),
            "outcome=payment_required, rule=\"r\", price=(\"0.0015 USDC\";amount=\"1500\";\
             network=\"eip155:84532\";asset=\"0x036CbD53842c5426634e7929541eC2318f3dCF7e\")"
        );
    }

    #[test]
    fn a_string_holds_printable_ascii_only() {
        assert_eq!(string("a\"b\\c\u{20ae}\r\n"), "\"a\\\"b\\\\c???\"");
    }
}
