//! Which of the offered ways of paying a buyer takes, and for how much at most. Pure.
//!
//! Taken is the first offer of `exact` with EIP-3009 on a known network within the limit, as the
//! official client does (fact sheet 1.5). Everything else is skipped, with a reason.

use std::fmt;

use alloy_primitives::Address;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::chain::assets::{self, KnownAsset};
use crate::chain::{Network, parse_evm_address};
use crate::money::{AtomicAmount, Decimals, MoneyError, PriceText};
use crate::x402::Version;
use crate::x402::header;

/// The longest challenge that is read, in base64 or as a body.
pub const CHALLENGE_BYTES_MAX: usize = 64 * 1024;

/// A challenge as it came: its members go back into the proof to the letter.
#[derive(Clone, Debug, PartialEq)]
pub struct Challenge {
    version: Version,
    message: Map<String, Value>,
}

/// What the buyer is willing to spend on one request.
#[derive(Clone, Debug)]
pub struct SpendLimit {
    /// At most this. Dollars are compared with known dollar tokens only.
    pub max_price: PriceText,
    /// On this network only, when given.
    pub network: Option<Network>,
}

/// The offer that was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The protocol version of the challenge.
    pub version: Version,
    /// The offer, to the letter.
    pub offer: Value,
    /// Where the money moves.
    pub network: Network,
    /// Its chain id.
    pub chain_id: u64,
    /// The token.
    pub asset: Address,
    /// Who is paid.
    pub pay_to: Address,
    /// How much.
    pub amount: AtomicAmount,
    /// How long the authorization should be valid, in seconds.
    pub timeout_s: u64,
    /// EIP-712 domain name and version of the token.
    pub domain: (String, String),
    known: Option<&'static KnownAsset>,
}

/// Why an answer is not a challenge that can be paid.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChallengeError {
    /// `PAYMENT-REQUIRED` cannot be decoded.
    #[error("PAYMENT-REQUIRED cannot be read: {0}")]
    Header(#[from] header::HeaderError),
    /// Neither a header nor a body of version 1.
    #[error("402 without a PAYMENT-REQUIRED header and without a version 1 body")]
    Missing,
    /// `x402Version` is something else.
    #[error("the challenge is not of version {0}")]
    Version(u8),
}

/// None of the offers can be taken.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub struct NoChoice {
    /// Each offer, and why it was skipped.
    pub skipped: Vec<(String, Skipped)>,
}

/// Why an offer was skipped.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Skipped {
    /// A member is missing or malformed.
    #[error("`{0}` is missing or malformed")]
    Unreadable(&'static str),
    /// Not `exact`.
    #[error("this buyer pays with the scheme `exact` only")]
    Scheme,
    /// A network that is not in the built-in table, or not an EVM network.
    #[error("the network is not one that this buyer knows")]
    Network,
    /// Not the network that the limit names.
    #[error("another network was asked for")]
    OtherNetwork,
    /// Paid by something else than EIP-3009.
    #[error("this buyer pays with EIP-3009 only")]
    Method,
    /// The limit is in another token, or in dollars and the token is not known to be one.
    #[error("the limit of {0} cannot be compared with this token")]
    Token(String),
    /// The limit cannot be expressed in the token.
    #[error("the limit {0}")]
    Limit(MoneyError),
    /// More than the limit.
    #[error("costs {price}, the limit is {limit}")]
    TooDear {
        /// The price, for people.
        price: String,
        /// The limit, as it was given.
        limit: String,
    },
}

impl fmt::Display for NoChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing was paid: no offer can be taken")?;
        self.skipped
            .iter()
            .try_for_each(|(offer, why)| write!(f, "\n  {offer}: {why}"))
    }
}

impl Challenge {
    /// Reads the value of `PAYMENT-REQUIRED`.
    ///
    /// # Errors
    ///
    /// [`ChallengeError::Header`], or [`ChallengeError::Version`] for any version but 2.
    pub fn from_header(value: &[u8]) -> Result<Self, ChallengeError> {
        let Value::Object(message) = header::decode(value, CHALLENGE_BYTES_MAX)? else {
            return Err(ChallengeError::Header(header::HeaderError::NotObject));
        };
        Self::new(Version::V2, message)
    }

    /// Reads the body of a 402 without that header: only version 1 keeps its challenge there.
    ///
    /// # Errors
    ///
    /// [`ChallengeError::Missing`], or [`ChallengeError::Version`] for any version but 1.
    pub fn from_body(body: &[u8]) -> Result<Self, ChallengeError> {
        let message = serde_json::from_slice(body).map_err(|_| ChallengeError::Missing)?;
        Self::new(Version::V1, message)
    }

    fn new(version: Version, message: Map<String, Value>) -> Result<Self, ChallengeError> {
        let wanted = match version {
            Version::V1 => 1,
            Version::V2 => 2,
        };
        if message.get("x402Version").and_then(Value::as_u64) == Some(u64::from(wanted)) {
            Ok(Self { version, message })
        } else {
            Err(ChallengeError::Version(wanted))
        }
    }

    /// The protocol version.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// All of it, as it came.
    #[must_use]
    pub const fn message(&self) -> &Map<String, Value> {
        &self.message
    }

    /// The first offer that can be taken.
    ///
    /// # Errors
    ///
    /// [`NoChoice`] says why each offer was skipped.
    pub fn choose(&self, limit: &SpendLimit) -> Result<Choice, NoChoice> {
        let offers = self.message.get("accepts").and_then(Value::as_array);
        let mut skipped = Vec::new();
        for offer in offers.into_iter().flatten() {
            match self.consider(offer, limit) {
                Ok(choice) => return Ok(choice),
                Err(why) => skipped.push((describe(offer), why)),
            }
        }
        Err(NoChoice { skipped })
    }

    fn consider(&self, offer: &Value, limit: &SpendLimit) -> Result<Choice, Skipped> {
        if text(offer, "scheme")? != "exact" {
            return Err(Skipped::Scheme);
        }
        let (network, amount) = match self.version {
            Version::V1 => (
                assets::network_by_name(text(offer, "network")?),
                text(offer, "maxAmountRequired")?,
            ),
            Version::V2 => (
                Network::parse_caip2(text(offer, "network")?).ok(),
                text(offer, "amount")?,
            ),
        };
        let network = network.ok_or(Skipped::Network)?;
        let chain_id = network.evm_chain_id().ok_or(Skipped::Network)?;
        if limit.network.as_ref().is_some_and(|only| *only != network) {
            return Err(Skipped::OtherNetwork);
        }
        let unread = |name| move |_| Skipped::Unreadable(name);
        let asset = parse_evm_address(text(offer, "asset")?).map_err(unread("asset"))?;
        let choice = Choice {
            version: self.version,
            offer: offer.clone(),
            known: assets::find(&network, &asset.to_checksum(None)),
            chain_id,
            asset,
            pay_to: parse_evm_address(text(offer, "payTo")?).map_err(unread("payTo"))?,
            amount: AtomicAmount::parse(amount).map_err(|_| Skipped::Unreadable("amount"))?,
            timeout_s: offer
                .get("maxTimeoutSeconds")
                .and_then(Value::as_u64)
                .ok_or(Skipped::Unreadable("maxTimeoutSeconds"))?,
            domain: domain(offer)?,
            network,
        };
        choice.within(&limit.max_price)?;
        Ok(choice)
    }
}

impl Choice {
    /// The price in whole tokens and the token's symbol, or in units of the contract.
    #[must_use]
    pub fn price(&self) -> String {
        match self.token() {
            Some((known, decimals)) => {
                format!("{} {}", self.amount.in_tokens(decimals), known.symbol)
            }
            None => format!("{} units of {}", self.amount, self.asset),
        }
    }

    fn token(&self) -> Option<(&'static KnownAsset, Decimals)> {
        let known = self.known?;
        Some((known, Decimals::new(known.decimals.into()).ok()?))
    }

    fn within(&self, max_price: &PriceText) -> Result<(), Skipped> {
        let no_token = || Skipped::Token(max_price.to_string());
        let most = match max_price {
            PriceText::Atomic(most) => *most,
            PriceText::Dollars(amount) => {
                // Every token of the built-in table is a dollar token.
                let (_, decimals) = self.token().ok_or_else(no_token)?;
                amount.to_atomic(decimals).map_err(Skipped::Limit)?
            }
            PriceText::Tokens(amount, symbol) => {
                let (known, decimals) = self.token().ok_or_else(no_token)?;
                if !known.symbol.eq_ignore_ascii_case(symbol) {
                    return Err(no_token());
                }
                amount.to_atomic(decimals).map_err(Skipped::Limit)?
            }
        };
        if self.amount <= most {
            return Ok(());
        }
        Err(Skipped::TooDear {
            price: self.price(),
            limit: max_price.to_string(),
        })
    }
}

fn text<'a>(offer: &'a Value, name: &'static str) -> Result<&'a str, Skipped> {
    let value = offer.get(name).and_then(Value::as_str);
    value.ok_or(Skipped::Unreadable(name))
}

/// The EIP-712 domain, when the offer is to be paid by EIP-3009 in the usual flow.
fn domain(offer: &Value) -> Result<(String, String), Skipped> {
    let extra = |name| offer.pointer("/extra").and_then(|extra| extra.get(name));
    let is = |name, usual| extra(name).is_none_or(|value| value == usual);
    let is_usual_flow = is("paymentFlow", "authorization") || is("paymentFlow", "upfront");
    if !is("assetTransferMethod", "eip3009") || !is_usual_flow {
        return Err(Skipped::Method);
    }
    let member = |name: &'static str| {
        let text = extra(name).and_then(Value::as_str);
        text.map(str::to_owned)
            .ok_or(Skipped::Unreadable("extra.name and extra.version"))
    };
    Ok((member("name")?, member("version")?))
}

fn describe(offer: &Value) -> String {
    let member = |name| offer.get(name).and_then(Value::as_str).unwrap_or("?");
    let text = format!(
        "{} on {} in {}",
        member("scheme"),
        member("network"),
        member("asset")
    );
    // From a stranger, and on its way to a terminal.
    let shown = text.chars().filter(|c| !c.is_control());
    shown.take(160).collect()
}
