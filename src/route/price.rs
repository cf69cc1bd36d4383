//! What a request costs. THE PRICE OF A ROUTE IS DECIDED HERE: [`PriceRule::quote`].
//!
//! Today every price is fixed. A metered, tiered or timed price is another variant of [`PriceRule`],
//! and another kind of [`Quote`] where the amount is known only at the end.

use std::sync::Arc;

use alloy_primitives::{Address, B256};
use serde_json::Value;

use crate::chain::{Asset, Network, PayTo};
use crate::money::{AtomicAmount, Decimals};
use crate::x402::message::PaymentRequirements;

/// How a rule prices its requests.
#[derive(Clone, Debug)]
pub enum PriceRule {
    /// Every request costs the same, so the quote is made once, when the configuration is read.
    Fixed(Arc<Quote>),
}

impl PriceRule {
    /// The price of one request, fixed for this request.
    #[must_use]
    pub fn quote(&self) -> Arc<Quote> {
        match self {
            Self::Fixed(quote) => Arc::clone(quote),
        }
    }
}

/// The price of one request under one rule, in every accepted way of paying.
#[derive(Debug)]
pub struct Quote {
    /// In the order in which clients should prefer them; never empty.
    pub offers: Vec<Arc<Offer>>,
}

impl Quote {
    /// Whether a client is told the same by both.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let told = |quote: &'_ Self| -> Vec<PaymentRequirements> {
            let of = |offer: &Arc<Offer>| offer.requirements.clone();
            quote.offers.iter().map(of).collect()
        };
        told(self) == told(other)
    }
}

/// One accepted way of paying: a requirement, and what the wall must know to check a proof for it.
#[derive(Debug)]
pub struct Offer {
    /// Name in the configuration, `[accept.NAME]`.
    pub accept: Arc<str>,
    /// The scheme, as in the requirement.
    pub scheme: Arc<str>,
    /// Where the money moves.
    pub network: Network,
    /// The network's name in version 1, when legacy clients can parse this offer.
    pub v1_network: Option<&'static str>,
    /// The token.
    pub asset: Asset,
    /// Its symbol, for people.
    pub symbol: Arc<str>,
    /// Its decimals.
    pub decimals: Decimals,
    /// The price.
    pub amount: AtomicAmount,
    /// Who is paid.
    pub pay_to: PayTo,
    /// What clients are told, and what the facilitator is sent.
    pub requirements: PaymentRequirements,
    /// The same as JSON, because matching compares JSON.
    pub requirements_json: Value,
    /// The same as text, because a facilitator is sent it.
    pub requirements_text: Box<str>,
    /// How a proof of it is checked here.
    pub method: Method,
    /// Facilitators by name, in the order of preference; never empty.
    pub facilitators: Vec<Arc<str>>,
}

/// How proofs of an offer are checked without asking anybody.
#[derive(Clone, Debug)]
pub enum Method {
    /// `exact` on EVM with `transferWithAuthorization`.
    Eip3009(EvmTerms),
    /// `exact` on EVM through Permit2. Its domain has no version and is Permit2's own.
    Permit2(EvmTerms),
    /// Any other scheme or network: only its facilitator can judge.
    Opaque,
}

/// The terms of an EVM offer in binary form.
#[derive(Clone, Debug)]
pub struct EvmTerms {
    /// The token contract.
    pub asset: Address,
    /// The recipient.
    pub pay_to: Address,
    /// The EIP-712 domain separator to check signatures with, computed once.
    pub domain: B256,
}
