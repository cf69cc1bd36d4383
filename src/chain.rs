//! Networks, accounts, assets and nonces: four kinds of text that must never be mistaken for one another.
//!
//! EVM addresses are kept in their EIP-55 form, so that equal accounts are equal text; those of
//! other chains are kept to the letter, because base58 is case-sensitive. The table of networks and
//! default tokens is in [`assets`].

pub mod assets;

use std::fmt;
use std::sync::Arc;

use alloy_primitives::{Address, B256};
use serde::Serialize;
use sha2::{Digest, Sha256};
use thiserror::Error;

/// A blockchain network by its CAIP-2 identifier, such as `eip155:8453`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Network(Arc<str>);

/// Why a text names no network or account.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ChainError {
    /// Neither a CAIP-2 identifier nor a known name.
    #[error(
        "{0:?} is not a network; write a CAIP-2 identifier such as \"eip155:8453\" or a name such as \"base\""
    )]
    Network(String),
    /// Not 20 bytes of hexadecimal.
    #[error("{0:?} is not an address; write 0x and 40 hexadecimal digits")]
    Address(String),
    /// Mixed case that fails EIP-55: most likely a typing error.
    #[error("{0:?} fails the EIP-55 checksum: a digit is wrong, or write it all in lower case")]
    Checksum(String),
}

impl Network {
    /// A CAIP-2 identifier: `namespace:reference`, as the standard spells both halves.
    ///
    /// # Errors
    ///
    /// [`ChainError::Network`].
    pub fn parse_caip2(text: &str) -> Result<Self, ChainError> {
        let wrong = || ChainError::Network(text.to_owned());
        let (namespace, reference) = text.split_once(':').ok_or_else(wrong)?;
        let named = (3..=8).contains(&namespace.len())
            && namespace
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let referenced = (1..=64).contains(&reference.len())
            && reference
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let numbered = namespace != "eip155"
            || (reference.parse::<u64>().is_ok()
                && (reference.len() == 1 || !reference.starts_with('0')));
        if named && referenced && numbered {
            Ok(Self(text.into()))
        } else {
            Err(wrong())
        }
    }

    /// The CAIP-2 text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The chain id of an EVM network, `None` for every other family.
    #[must_use]
    pub fn evm_chain_id(&self) -> Option<u64> {
        self.0
            .strip_prefix("eip155:")
            .and_then(|id| id.parse().ok())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads an EVM address; mixed case must satisfy EIP-55.
///
/// # Errors
///
/// [`ChainError::Address`] or [`ChainError::Checksum`].
pub fn parse_evm_address(text: &str) -> Result<Address, ChainError> {
    let digits = text
        .strip_prefix("0x")
        .ok_or_else(|| ChainError::Address(text.to_owned()))?;
    let address: Address = text
        .parse()
        .map_err(|_| ChainError::Address(text.to_owned()))?;
    let lower = digits.bytes().all(|b| !b.is_ascii_uppercase());
    let upper = digits.bytes().all(|b| !b.is_ascii_lowercase());
    if lower || upper || address.to_checksum(None) == text {
        Ok(address)
    } else {
        Err(ChainError::Checksum(text.to_owned()))
    }
}

macro_rules! account_text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// An EVM account, in EIP-55 form.
            #[must_use]
            pub fn evm(address: Address) -> Self {
                Self(address.to_checksum(None).into())
            }

            /// An account of another family, kept to the letter.
            #[must_use]
            pub fn verbatim(text: &str) -> Self {
                Self(text.into())
            }

            /// The account's text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

account_text! {
    /// A token: contract address on EVM, mint on Solana, asset id elsewhere.
    Asset
}
account_text! {
    /// Who is paid.
    PayTo
}
account_text! {
    /// Who pays. Empty for an opaque proof that no facilitator has looked at yet.
    Payer
}

/// In which space a nonce is unique: the token's own, Permit2's, or that of whole payloads.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum NonceSpace {
    /// EIP-3009: 32 random bytes, unique per token and payer.
    Eip3009,
    /// Permit2: an unordered uint256, unique per payer over all tokens.
    Permit2,
    /// Any other scheme: the digest of what was signed, or of the whole canonical payload.
    Opaque,
}

/// What makes a payment unique beside network, asset and payer.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Nonce {
    /// Where it is unique.
    pub space: NonceSpace,
    /// Its 32 bytes, big-endian where it is a number.
    pub bytes: B256,
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = match self.space {
            NonceSpace::Eip3009 => "eip3009",
            NonceSpace::Permit2 => "permit2",
            NonceSpace::Opaque => "opaque",
        };
        write!(f, "{space}:{}", self.bytes)
    }
}

impl Nonce {
    /// Reads what `Display` writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (space, bytes) = text.split_once(':')?;
        let space = match space {
            "eip3009" => NonceSpace::Eip3009,
            "permit2" => NonceSpace::Permit2,
            "opaque" => NonceSpace::Opaque,
            _ => return None,
        };
        let bytes = bytes.parse().ok().filter(|_| bytes.len() == 66)?;
        Some(Self { space, bytes })
    }
}

/// Which payment this is, from decoded and normalised fields; never from header text.
///
/// Two encodings of one authorization are one payment (DESIGN, section 2).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct PaymentId {
    /// The network that the money moves on.
    pub network: Network,
    /// The token that moves.
    pub asset: Asset,
    /// Whose money it is; empty for opaque proofs.
    pub payer: Payer,
    /// What the payer signed to make it unique.
    pub nonce: Nonce,
}

/// [`PaymentId`] as 32 bytes: the primary key of the ledger and the `X-Farewall-Payment-Id`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PaymentKey(pub [u8; 32]);

impl PaymentId {
    /// SHA-256 over the length-prefixed fields. The asset counts only where nonces are unique per
    /// token: one Permit2 nonce or one opaque payload is one payment, whichever token it is shown for.
    #[must_use]
    pub fn key(&self) -> PaymentKey {
        let nonce = self.nonce.to_string();
        let asset = match self.nonce.space {
            NonceSpace::Eip3009 => self.asset.as_str(),
            NonceSpace::Permit2 | NonceSpace::Opaque => "",
        };
        let mut hash = Sha256::new();
        for field in [self.network.as_str(), asset, self.payer.as_str(), &nonce] {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        }
        PaymentKey(hash.finalize().into())
    }
}

impl fmt::Display for PaymentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl PaymentKey {
    /// Reads the 64 hexadecimal digits that `Display` writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: B256 = text.parse().ok().filter(|_| text.len() == 64)?;
        Some(Self(bytes.0))
    }
}
