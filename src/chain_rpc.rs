//! Asks a chain what became of an authorization: was it used, and did it pay us?
//!
//! [`Chain`] is the question, [`EvmChain`] asks it over JSON-RPC. `evidence` judges logs without a
//! socket. Deliberately absent: anything that sends a transaction.

mod client;
mod evidence;
mod evm;

#[cfg(test)]
pub mod fake;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_primitives::{Address, B256};
use async_trait::async_trait;
use thiserror::Error;

pub use self::client::BuildError;
pub use self::evm::EvmChain;

use crate::chain::{Network, Nonce, NonceSpace, parse_evm_address};
use crate::clock::UnixSeconds;
use crate::ledger::Record;
use crate::money::AtomicAmount;

/// The chains that may be asked.
pub type Chains = BTreeMap<Network, Arc<dyn Chain>>;

/// The payment that is looked for.
#[derive(Clone, Debug)]
pub struct Question {
    /// The token contract.
    pub token: Address,
    /// Whose money it is.
    pub payer: Address,
    /// Who should have got it.
    pub pay_to: Address,
    /// How much, exactly, in the token's smallest unit.
    pub amount: AtomicAmount,
    /// What makes it unique; EIP-3009 or Permit2.
    pub nonce: Nonce,
    /// The payer's signature. Permit2 leaves no other trace in a transaction.
    pub signature: Vec<u8>,
    /// When it was claimed: a settlement is not older.
    pub claimed_at: UnixSeconds,
    /// From when on the token refuses it.
    pub valid_before: UnixSeconds,
}

impl Question {
    /// What to ask about a claim; `None` when no chain could tell: another scheme than `exact`,
    /// another family of networks, or a payment that only its facilitator can read.
    #[must_use]
    pub fn about(record: &Record) -> Option<Self> {
        let claim = &record.claim;
        let address = |text| parse_evm_address(text).ok();
        let nonce = Nonce::parse(&claim.nonce).filter(|n| n.space != NonceSpace::Opaque)?;
        claim
            .network
            .evm_chain_id()
            .filter(|_| &*claim.scheme == "exact")?;
        Some(Self {
            token: address(claim.asset.as_str())?,
            payer: address(claim.payer.as_str())?,
            pay_to: address(claim.pay_to.as_str())?,
            amount: claim.amount,
            nonce,
            signature: evidence::signature(&claim.settle_request)?,
            claimed_at: record.claimed_at,
            valid_before: claim.valid_before,
        })
    }
}

/// What a chain says. All but [`Finding::Unused`] and [`Finding::Unexplained`] are final.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Finding {
    /// Used, and the transaction that used it paid us the exact amount.
    Paid {
        /// Which transaction.
        transaction: B256,
    },
    /// The payer cancelled it.
    Cancelled,
    /// Used, and not for us.
    UsedElsewhere,
    /// Not used, and it cannot be used any more.
    NeverUsed,
    /// Not used so far.
    Unused {
        /// The time of the newest block that is deep enough to be believed; 0 when there is none yet.
        as_of: UnixSeconds,
    },
    /// Used, but the logs do not tell what for.
    Unexplained(&'static str),
}

/// Why a chain gave no answer. The outcome stays unknown.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RpcFault {
    /// No connection, or it broke.
    #[error("cannot ask: {0}")]
    Broken(String),
    /// No complete answer in time.
    #[error("no answer within {0} ms")]
    Timeout(u64),
    /// A status other than 200.
    #[error("HTTP status {0}")]
    Status(u16),
    /// A body over the limit.
    #[error("answer larger than {0} bytes")]
    TooLarge(usize),
    /// An answer that is not the protocol's.
    #[error("unusable answer to {0}")]
    Junk(&'static str),
    /// The node says no.
    #[error("the node refused {method}: {message} ({code})")]
    Refused {
        /// Which call.
        method: &'static str,
        /// Its number for it.
        code: i64,
        /// Its words for it, shortened.
        message: String,
    },
    /// The endpoint serves another chain than the configuration says.
    #[error("the endpoint serves chain {found}, not {wanted}")]
    WrongChain {
        /// The chain that it serves.
        found: u64,
        /// The chain that was configured.
        wanted: u64,
    },
    /// The look would take too many calls.
    #[error("too many calls for one look")]
    TooManyCalls,
}

/// One chain.
#[async_trait]
pub trait Chain: Send + Sync {
    /// What became of this authorization?
    async fn look(&self, question: &Question) -> Result<Finding, RpcFault>;
}
