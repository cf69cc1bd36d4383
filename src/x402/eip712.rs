//! EIP-712.

use alloy_primitives::{Address, B256, U256, keccak256};

/// `hashStruct` of the domain, in the order name, version, chainId, verifyingContract.
#[must_use]
pub fn domain_separator(
    name: &str,
    version: Option<&str>,
    chain_id: u64,
    verifying_contract: Address,
) -> B256 {
    let kind = match version {
        Some(_) => {
            "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
        }
        None => "EIP712Domain(string name,uint256 chainId,address verifyingContract)",
    };
    let mut bytes = Vec::new();
    bytes.extend_from_slice(keccak256(kind).as_slice());
    bytes.extend_from_slice(keccak256(name).as_slice());
    if let Some(version) = version {
        bytes.extend_from_slice(keccak256(version).as_slice());
    }
    bytes.extend_from_slice(&U256::from(chain_id).to_be_bytes::<32>());
    bytes.extend_from_slice(verifying_contract.into_word().as_slice());
    keccak256(bytes)
}
