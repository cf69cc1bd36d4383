//! The x402 protocol, versions 2 and 1: messages under their names in the specification, and nothing else.
//!
//! A rail. Later rails (MPP, L402, transaction hashes) are siblings of this module: each turns a
//! quote into its part of the challenge, and a request into a proof.

pub mod reason;
pub mod message;
pub mod json;
pub mod header;
pub mod template;
pub mod matching;
pub mod eip712;
pub mod payload;
pub mod eip3009;
pub mod permit2;

/// Which version of the protocol a client speaks.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Version {
    /// `X-PAYMENT`, challenge in the body, networks by name.
    V1,
    /// `PAYMENT-SIGNATURE`, challenge in `PAYMENT-REQUIRED`, networks by CAIP-2.
    V2,
}
