//! Judges one `/verify` or `/settle` request as the official facilitator does, without a chain.
//!
//! Same order, same reason codes (fact sheet 3.3 and 3.5). What needs a chain, balances and spent
//! nonces, is in `sandbox/book.rs`. Contract wallets are refused: nothing here could judge them.

use alloy_primitives::{Address, B256};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::chain::{Network, Nonce, NonceSpace, assets, parse_evm_address};
use crate::clock::UnixSeconds;
use crate::money::AtomicAmount;
use crate::x402::eip712::{self, Signature};
use crate::x402::eip3009;
use crate::x402::message::{PaymentPayload, PaymentRequirements};
use crate::x402::payload::PayloadError;
use crate::x402::permit2;

/// An authorization must still be good for so long, as with the official facilitator.
const SETTLE_MARGIN_S: u64 = 6;

/// A facilitator request whose parts are there; nothing in it is judged yet.
#[derive(Clone, Debug)]
pub struct Submitted {
    /// `x402Version` of the request.
    pub version: Option<u64>,
    /// `paymentPayload`.
    pub payload: Value,
    /// `paymentRequirements`.
    pub requirements: Value,
}

/// A transfer that the payer signed and that its requirement asks for.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// On which test network.
    pub network: Network,
    /// Which token.
    pub asset: Address,
    /// Who pays.
    pub from: Address,
    /// Who is paid.
    pub to: Address,
    /// How much.
    pub amount: AtomicAmount,
    /// What makes it unique.
    pub nonce: Nonce,
}

/// Why a payment is not accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rejection {
    /// The reason code.
    pub reason: &'static str,
    /// Who claims to pay, once that could be read.
    pub payer: Option<Address>,
}

/// What the requirement says, in binary form.
struct Terms {
    network: Network,
    chain_id: u64,
    asset: Address,
    pay_to: Address,
    amount: AtomicAmount,
    extra: Map<String, Value>,
    same_network: bool,
}

impl Submitted {
    /// Reads the body of a request.
    ///
    /// # Errors
    ///
    /// What the caller did wrong, for a 400.
    pub fn parse(body: &[u8]) -> Result<Self, &'static str> {
        let mut body: Map<String, Value> =
            serde_json::from_slice(body).map_err(|_| "the body is not a JSON object")?;
        let missing = "Missing paymentPayload or paymentRequirements";
        Ok(Self {
            version: body.get("x402Version").and_then(Value::as_u64),
            payload: body.remove("paymentPayload").ok_or(missing)?,
            requirements: body.remove("paymentRequirements").ok_or(missing)?,
        })
    }

    /// The signature, as text: what the official facilitator remembers pending settlements by.
    #[must_use]
    pub fn signature(&self) -> &str {
        self.payload
            .pointer("/payload/signature")
            .and_then(Value::as_str)
            .unwrap_or("")
    }

    /// The network that the requirement names, for receipts.
    #[must_use]
    pub fn network(&self) -> &str {
        self.requirements
            .get("network")
            .and_then(Value::as_str)
            .unwrap_or("")
    }
}

/// All checks that need no chain, in the official order.
///
/// # Errors
///
/// The first check that fails.
pub fn judge(submitted: &Submitted, now: UnixSeconds) -> Result<Transfer, Rejection> {
    let reject = |reason| Rejection {
        reason,
        payer: None,
    };
    let (payload, requirements) = read(submitted).map_err(reject)?;
    let is_permit2 = payload.payload.contains_key("permit2Authorization");
    let accepted = |name| payload.accepted.get(name).and_then(Value::as_str);
    if requirements.scheme != "exact" || accepted("scheme") != Some("exact") {
        return Err(reject(if is_permit2 {
            "unsupported_payload_type"
        } else {
            "invalid_exact_evm_scheme"
        }));
    }
    let same_network = accepted("network") == Some(&requirements.network);
    let terms = terms(requirements, same_network).map_err(reject)?;
    if is_permit2 {
        judge_permit2(&payload.payload, &terms, now)
    } else {
        judge_eip3009(&payload.payload, &terms, now)
    }
}

fn read(submitted: &Submitted) -> Result<(PaymentPayload, PaymentRequirements), &'static str> {
    let payload_version = submitted.payload.get("x402Version").and_then(Value::as_u64);
    if submitted.version != Some(2) || payload_version != Some(2) {
        return Err("invalid_x402_version");
    }
    let payload = PaymentPayload::deserialize(&submitted.payload).map_err(|_| "invalid_payload")?;
    let requirements = PaymentRequirements::deserialize(&submitted.requirements)
        .map_err(|_| "invalid_payment_requirements")?;
    Ok((payload, requirements))
}

fn terms(requirements: PaymentRequirements, same_network: bool) -> Result<Terms, &'static str> {
    let malformed = "invalid_payment_requirements";
    let network = Network::parse_caip2(&requirements.network).map_err(|_| "invalid_network")?;
    let chain_id = network.evm_chain_id().ok_or("invalid_network")?;
    if !assets::is_testnet(&network) {
        return Err("invalid_network");
    }
    Ok(Terms {
        chain_id,
        network,
        asset: parse_evm_address(&requirements.asset).map_err(|_| malformed)?,
        pay_to: parse_evm_address(&requirements.pay_to).map_err(|_| malformed)?,
        amount: AtomicAmount::parse(&requirements.amount).map_err(|_| malformed)?,
        extra: requirements.extra.unwrap_or_default(),
        same_network,
    })
}

fn judge_eip3009(
    payload: &Map<String, Value>,
    terms: &Terms,
    now: UnixSeconds,
) -> Result<Transfer, Rejection> {
    let unread = |reason| Rejection {
        reason,
        payer: None,
    };
    let domain = |name| {
        let text = terms.extra.get(name).and_then(Value::as_str);
        text.filter(|text| !text.is_empty())
            .ok_or(unread("invalid_exact_evm_missing_eip712_domain"))
    };
    let (name, version) = (domain("name")?, domain("version")?);
    if !terms.same_network {
        return Err(unread("invalid_exact_evm_network_mismatch"));
    }
    let (authorization, signature) = eip3009::from_payload(payload)
        .map_err(|error| unread(unreadable(&error, "invalid_exact_evm_signature")))?;
    let from = authorization.from;
    let ensure = |holds: bool, reason| ensure(holds, reason, from);
    let separator = eip712::domain_separator(name, Some(version), terms.chain_id, terms.asset);
    let is_signed = signed_by(&signature, authorization.digest(separator), from);
    ensure(is_signed, "invalid_exact_evm_signature")?;
    ensure(
        authorization.to == terms.pay_to,
        "invalid_exact_evm_recipient_mismatch",
    )?;
    ensure(
        authorization.valid_before() >= now.plus(SETTLE_MARGIN_S),
        "invalid_exact_evm_payload_authorization_valid_before",
    )?;
    ensure(
        authorization.valid_after() <= now,
        "invalid_exact_evm_payload_authorization_valid_after",
    )?;
    ensure(
        authorization.value == terms.amount,
        "invalid_exact_evm_payload_authorization_value_mismatch",
    )?;
    Ok(Transfer {
        network: terms.network.clone(),
        asset: terms.asset,
        from,
        to: authorization.to,
        amount: authorization.value,
        nonce: Nonce {
            space: NonceSpace::Eip3009,
            bytes: authorization.nonce,
        },
    })
}

fn judge_permit2(
    payload: &Map<String, Value>,
    terms: &Terms,
    now: UnixSeconds,
) -> Result<Transfer, Rejection> {
    let unread = |reason| Rejection {
        reason,
        payer: None,
    };
    if !terms.same_network {
        return Err(unread("invalid_exact_evm_network_mismatch"));
    }
    let (authorization, signature) = permit2::from_payload(payload)
        .map_err(|error| unread(unreadable(&error, "invalid_permit2_signature")))?;
    let from = authorization.from;
    let ensure = |holds: bool, reason| ensure(holds, reason, from);
    ensure(
        authorization.spender == permit2::EXACT_PROXY,
        "invalid_permit2_spender",
    )?;
    ensure(
        authorization.to == terms.pay_to,
        "invalid_permit2_recipient_mismatch",
    )?;
    ensure(
        authorization.deadline() >= now.plus(SETTLE_MARGIN_S),
        "permit2_deadline_expired",
    )?;
    ensure(authorization.valid_after() <= now, "permit2_not_yet_valid")?;
    ensure(
        authorization.amount == terms.amount,
        "permit2_amount_mismatch",
    )?;
    ensure(authorization.token == terms.asset, "permit2_token_mismatch")?;
    let digest = authorization.digest(permit2::domain(terms.chain_id));
    ensure(
        signed_by(&signature, digest, from),
        "invalid_permit2_signature",
    )?;
    Ok(Transfer {
        network: terms.network.clone(),
        asset: terms.asset,
        from,
        to: authorization.to,
        amount: authorization.amount,
        nonce: Nonce {
            space: NonceSpace::Permit2,
            bytes: authorization.nonce_word(),
        },
    })
}

/// A signature that cannot be one is a bad signature; anything else is a bad payload.
fn unreadable(error: &PayloadError, bad_signature: &'static str) -> &'static str {
    if matches!(error, PayloadError::Signature(_)) {
        bad_signature
    } else {
        "invalid_payload"
    }
}

fn ensure(holds: bool, reason: &'static str, from: Address) -> Result<(), Rejection> {
    let payer = Some(from);
    if holds {
        Ok(())
    } else {
        Err(Rejection { reason, payer })
    }
}

fn signed_by(signature: &Signature, digest: B256, from: Address) -> bool {
    match signature {
        Signature::Eoa(bytes) => eip712::recover(digest, bytes) == Ok(from),
        Signature::Contract(_) => false,
    }
}
