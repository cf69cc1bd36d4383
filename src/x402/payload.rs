//! Reads the values of a scheme's `payload`: addresses, 256-bit numbers, 32-byte words.
//!
//! Numbers are decimal text: the facilitators differ on anything else, so anything else is refused.

use alloy_primitives::{Address, B256, U256};
use thiserror::Error;

use crate::clock::UnixSeconds;
use crate::money::AtomicAmount;
use crate::x402::eip712::{Signature, SignatureError};
use crate::x402::json::{Json, Members};

/// Why a payload is not an authorization.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum PayloadError {
    /// An object is missing or is something else.
    #[error("`{0}` is not an object")]
    NotObject(&'static str),
    /// Not `0x` and 40 hexadecimal digits, or a wrong checksum where it counts.
    #[error("`{0}` is not an address")]
    NotAddress(&'static str),
    /// Not decimal digits in a string, or over 256 bits.
    #[error("`{0}` is not a decimal number of at most 256 bits in a string")]
    NotNumber(&'static str),
    /// Not `0x` and 64 hexadecimal digits.
    #[error("`{0}` is not 32 bytes of hexadecimal")]
    NotWord(&'static str),
    /// Larger than any price.
    #[error("`{0}` is larger than any price")]
    AmountTooLarge(&'static str),
    /// Another kind of authorization than the offer asks for, or two kinds at once.
    #[error("the payload is not the kind of authorization that the offer asks for")]
    WrongKind,
    /// The signature cannot be one.
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

/// A member that must be an object.
pub(in crate::x402) fn object<'a, M: Members>(
    members: &'a M,
    name: &'static str,
) -> Result<&'a M, PayloadError> {
    members
        .member(name)
        .and_then(Json::members)
        .ok_or(PayloadError::NotObject(name))
}

/// `0x` and 40 hexadecimal digits in any case: accounts are compared as bytes.
pub(in crate::x402) fn address(
    members: &impl Members,
    name: &'static str,
) -> Result<Address, PayloadError> {
    text(members, name)
        .filter(|text| text.len() == 42 && text.starts_with("0x"))
        .and_then(|text| text.parse().ok())
        .ok_or(PayloadError::NotAddress(name))
}

/// As [`address`], and mixed case must satisfy EIP-55: what is signed with EIP-3009 is hashed by the
/// official packages only if it does, so that the facilitator would find the signature bad. Of `known`
/// it is known that it does.
pub(in crate::x402) fn address_with_checksum(
    members: &impl Members,
    name: &'static str,
    known: &str,
) -> Result<Address, PayloadError> {
    let account = address(members, name)?;
    let is_lower = |text: &str| !text.bytes().any(|b| b.is_ascii_uppercase());
    let is_checksum = |text: &str| text == known || account.to_checksum(None) == *text;
    text(members, name)
        .filter(|text| is_lower(text) || is_checksum(text))
        .map(|_| account)
        .ok_or(PayloadError::NotAddress(name))
}

/// `0x` and 64 hexadecimal digits.
pub(in crate::x402) fn bytes32(
    members: &impl Members,
    name: &'static str,
) -> Result<B256, PayloadError> {
    text(members, name)
        .filter(|text| text.len() == 66 && text.starts_with("0x"))
        .and_then(|text| text.parse().ok())
        .ok_or(PayloadError::NotWord(name))
}

/// Decimal digits in a string, at most 256 bits.
pub(in crate::x402) fn uint256(
    members: &impl Members,
    name: &'static str,
) -> Result<U256, PayloadError> {
    text(members, name)
        .filter(|text| (1..=78).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|text| match text.len() {
            // Nearly all of them; 256 bits cost a long multiplication for each digit.
            ..=38 => text.parse::<u128>().ok().map(U256::from),
            _ => U256::from_str_radix(text, 10).ok(),
        })
        .ok_or(PayloadError::NotNumber(name))
}

/// Decimal digits in a string, at most 128 bits.
pub(in crate::x402) fn amount(
    members: &impl Members,
    name: &'static str,
) -> Result<AtomicAmount, PayloadError> {
    u128::try_from(uint256(members, name)?)
        .map(AtomicAmount::new)
        .map_err(|_| PayloadError::AmountTooLarge(name))
}

/// The member `signature`.
pub(in crate::x402) fn signature(members: &impl Members) -> Result<Signature, PayloadError> {
    let text = text(members, "signature").ok_or(SignatureError::NotHex)?;
    Ok(Signature::parse(text)?)
}

/// A 256-bit time for comparing with the clock: what lies beyond 64 bits is the end of time.
pub(in crate::x402) fn seconds(time: U256) -> UnixSeconds {
    UnixSeconds(time.saturating_to())
}

fn text<'a>(members: &'a impl Members, name: &str) -> Option<&'a str> {
    members.member(name).and_then(Json::text)
}
