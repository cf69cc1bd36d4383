//! What logs prove about one authorization. Pure.
//!
//! A transaction may hold many transfers, and its sender may be our adversary: that the
//! authorization was used in it and that somebody paid us in it does not yet mean that the one
//! paid the other. EIP-3009 tokens log `AuthorizationUsed` and then at once the `Transfer` that it
//! authorized, so for them the next log of the token decides.

use std::sync::LazyLock;

use alloy_primitives::{Address, B256, U256, hex, keccak256};
use serde_json::{Map, Value};

use super::{Finding, Question};

/// `Transfer(from, to, value)`.
pub(super) static TRANSFER: LazyLock<B256> =
    LazyLock::new(|| keccak256("Transfer(address,address,uint256)"));
/// `AuthorizationUsed(authorizer, nonce)`, both indexed.
pub(super) static USED: LazyLock<B256> =
    LazyLock::new(|| keccak256("AuthorizationUsed(address,bytes32)"));
/// `AuthorizationCanceled(authorizer, nonce)`, both indexed.
pub(super) static CANCELLED: LazyLock<B256> =
    LazyLock::new(|| keccak256("AuthorizationCanceled(address,bytes32)"));
/// Permit2's `UnorderedNonceInvalidation(owner, word, mask)`, owner indexed.
pub(super) static INVALIDATED: LazyLock<B256> =
    LazyLock::new(|| keccak256("UnorderedNonceInvalidation(address,uint256,uint256)"));

/// A log, as far as it matters here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Log {
    pub(super) address: Address,
    pub(super) topics: Vec<B256>,
    pub(super) data: Vec<u8>,
    pub(super) transaction: B256,
}

impl Log {
    /// Reads a log object of JSON-RPC; `None` for anything else, and for logs of abandoned blocks.
    pub(super) fn read(value: &Value) -> Option<Self> {
        let text = |name| value.get(name).and_then(Value::as_str);
        if value.get("removed") == Some(&Value::Bool(true)) {
            return None;
        }
        let topics = value.get("topics")?.as_array()?.iter();
        Some(Self {
            address: text("address")?.parse().ok()?,
            topics: topics
                .map(|topic| topic.as_str()?.parse().ok())
                .collect::<Option<_>>()?,
            data: hex::decode(text("data")?).ok()?,
            transaction: text("transactionHash")?.parse().ok()?,
        })
    }

    /// Whether it is this event of this contract, with these indexed values.
    pub(super) fn is(&self, contract: Address, topics: &[B256]) -> bool {
        self.address == contract && self.topics == topics
    }

    fn number(&self) -> Option<U256> {
        <[u8; 32]>::try_from(self.data.as_slice())
            .ok()
            .map(U256::from_be_bytes)
    }
}

/// An array of logs; `None` when one of them is unreadable: half an answer proves nothing.
pub(super) fn read_logs(value: &Value) -> Option<Vec<Log>> {
    value.as_array()?.iter().map(Log::read).collect()
}

/// What the transaction that used an EIP-3009 authorization did with it, from all its logs in order.
pub(super) fn judge_use(question: &Question, transaction: B256, logs: &[Log]) -> Finding {
    let own: Vec<&Log> = logs
        .iter()
        .filter(|log| log.address == question.token)
        .collect();
    let used = [*USED, question.payer.into_word(), question.nonce.bytes];
    let Some(at) = own.iter().position(|log| log.is(question.token, &used)) else {
        return Finding::Unexplained("the transaction does not hold the log that named it");
    };
    let next = at.checked_add(1).and_then(|next| own.get(next));
    if next.is_some_and(|log| pays(question, log)) {
        return Finding::Paid { transaction };
    }
    if own.iter().any(|log| goes_to_us(question, log)) {
        return Finding::Unexplained("used in a transaction that paid us something else");
    }
    Finding::UsedElsewhere
}

/// Whether the log is a transfer from the payer to us, of any amount.
pub(super) fn goes_to_us(question: &Question, log: &Log) -> bool {
    let (from, to) = (question.payer.into_word(), question.pay_to.into_word());
    log.is(question.token, &[*TRANSFER, from, to])
}

/// Whether the log is the transfer that was asked for, to the unit.
pub(super) fn pays(question: &Question, log: &Log) -> bool {
    goes_to_us(question, log) && log.number() == Some(U256::from(question.amount.units()))
}

/// Whether the log invalidates a Permit2 nonce: its word, and its bit in the mask.
pub(super) fn invalidates(nonce: B256, log: &Log) -> bool {
    let (word, mask) = bit_of(nonce);
    let Some((first, second)) = log.data.split_at_checked(32) else {
        return false;
    };
    let number = |bytes: &[u8]| U256::try_from_be_slice(bytes);
    number(first) == Some(word) && number(second).is_some_and(|m| !(m & mask).is_zero())
}

/// Where Permit2 keeps a nonce: the number of its word, and its bit.
pub(super) fn bit_of(nonce: B256) -> (U256, U256) {
    let number = U256::from_be_bytes(nonce.0);
    let bit = usize::from(nonce.0.last().copied().unwrap_or_default());
    (number.wrapping_shr(8), U256::ONE.wrapping_shl(bit))
}

/// Whether a transaction carries the payer's signature: r and s of a key, all of a contract's.
pub(super) fn carries(input: &[u8], signature: &[u8]) -> bool {
    let needle = match signature.split_at_checked(64) {
        Some((key, rest)) if rest.len() == 1 => key,
        Some(_) | None => signature,
    };
    !needle.is_empty() && input.windows(needle.len()).any(|part| part == needle)
}

/// The payer's signature in a settle request.
pub(super) fn signature(settle_request: &str) -> Option<Vec<u8>> {
    let body: Map<String, Value> = serde_json::from_str(settle_request).ok()?;
    let payload = body.get("paymentPayload")?.get("payload")?;
    hex::decode(payload.get("signature")?.as_str()?).ok()
}
