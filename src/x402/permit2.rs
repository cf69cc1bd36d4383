//! Permit2 `PermitWitnessTransferFrom`: paying `exact` in tokens that lack EIP-3009.
//!
//! Reads, writes and hashes it. Only the exact witness: `upto` signs another type.
//! Rule: fact sheet section 3.5; the addresses are the same on every chain.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::LazyLock;

use alloy_primitives::{Address, B256, U256, address, hex, keccak256};
use serde_json::{Map, Value, json};

use crate::clock::UnixSeconds;
use crate::money::AtomicAmount;
use crate::x402::eip712::{self, Signature};
use crate::x402::json::Members;
use crate::x402::payload::{self, PayloadError};

/// The Permit2 contract: the verifying contract of every Permit2 signature.
pub const PERMIT2: Address = address!("0x000000000022D473030F116dDEE9F6B43aC78BA3");
/// The spender of `exact`, which pays the witness's recipient and nobody else.
pub const EXACT_PROXY: Address = address!("0x402085c248EeA27D92E8b30b2C58ed07f9E20001");
/// The spender of `upto`, which may charge less than was permitted. Never good for `exact`.
pub const UPTO_PROXY: Address = address!("0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002");

static TYPE_HASH: LazyLock<B256> = LazyLock::new(|| {
    keccak256(
        "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,\
         uint256 deadline,Witness witness)TokenPermissions(address token,uint256 amount)\
         Witness(address to,uint256 validAfter)",
    )
});
static PERMISSIONS_HASH: LazyLock<B256> =
    LazyLock::new(|| keccak256("TokenPermissions(address token,uint256 amount)"));
static WITNESS_HASH: LazyLock<B256> =
    LazyLock::new(|| keccak256("Witness(address to,uint256 validAfter)"));

/// What the payer signs: so much of the token through this spender to this account, once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Authorization {
    /// Whose money. Not part of what is signed; the signature proves it.
    pub from: Address,
    /// The token.
    pub token: Address,
    /// How much, in the token's smallest unit.
    pub amount: AtomicAmount,
    /// The contract that may move it; [`EXACT_PROXY`] for `exact`.
    pub spender: Address,
    /// Who is paid.
    pub to: Address,
    /// Unique per payer over all tokens.
    pub nonce: U256,
    valid_after: U256,
    deadline: U256,
}

impl Authorization {
    /// An `exact` authorization of so much of a token, good from `valid_after` until `deadline`.
    #[must_use]
    pub fn exact(
        from: Address,
        (token, amount): (Address, AtomicAmount),
        to: Address,
        valid_after: UnixSeconds,
        deadline: UnixSeconds,
        nonce: U256,
    ) -> Self {
        let (valid_after, deadline) = (U256::from(valid_after.0), U256::from(deadline.0));
        let spender = EXACT_PROXY;
        Self {
            from,
            token,
            amount,
            spender,
            to,
            nonce,
            valid_after,
            deadline,
        }
    }

    /// Not to be settled before. Beyond 64 bits it is the end of time; the hash keeps what was signed.
    #[must_use]
    pub fn valid_after(&self) -> UnixSeconds {
        payload::seconds(self.valid_after)
    }

    /// Not to be settled after; bounded as [`Self::valid_after`] is.
    #[must_use]
    pub fn deadline(&self) -> UnixSeconds {
        payload::seconds(self.deadline)
    }

    /// All that the digest commits to beside the domain.
    #[must_use]
    pub fn words(&self) -> [B256; 8] {
        [
            *TYPE_HASH,
            self.token.into_word(),
            eip712::word(U256::from(self.amount.units())),
            self.spender.into_word(),
            eip712::word(self.nonce),
            eip712::word(self.deadline),
            self.to.into_word(),
            eip712::word(self.valid_after),
        ]
    }

    /// `hashStruct` of EIP-712.
    #[must_use]
    pub fn struct_hash(&self) -> B256 {
        let permitted = eip712::hash_words(&[
            *PERMISSIONS_HASH,
            self.token.into_word(),
            eip712::word(U256::from(self.amount.units())),
        ]);
        let witness = eip712::hash_words(&[
            *WITNESS_HASH,
            self.to.into_word(),
            eip712::word(self.valid_after),
        ]);
        eip712::hash_words(&[
            *TYPE_HASH,
            permitted,
            self.spender.into_word(),
            eip712::word(self.nonce),
            eip712::word(self.deadline),
            witness,
        ])
    }

    /// What is signed, under [`domain`].
    #[must_use]
    pub fn digest(&self, domain: B256) -> B256 {
        eip712::digest(domain, self.struct_hash())
    }

    /// The nonce as 32 bytes, big-endian.
    #[must_use]
    pub fn nonce_word(&self) -> B256 {
        eip712::word(self.nonce)
    }

    /// The payload as JSON, byte for byte that of [`Self::to_payload`] with this signature. `spelled` gives
    /// accounts as EIP-55 spells them.
    pub fn write_payload<'a>(
        &self,
        signature: &[u8],
        spelled: impl Fn(Address) -> Cow<'a, str>,
        out: &mut String,
    ) {
        // Nothing that JSON would escape is among these texts. To a String nothing fails.
        let _ = write!(
            out,
            r#"{{"signature":"{}","permit2Authorization":{{"from":"{}","permitted":{{"token":"{}","amount":"{}"}},"#,
            hex::encode_prefixed(signature),
            spelled(self.from),
            spelled(self.token),
            self.amount,
        );
        let _ = write!(
            out,
            r#""spender":"{}","nonce":"{}","deadline":"{}","witness":{{"to":"{}","validAfter":"{}"}}}}}}"#,
            spelled(self.spender),
            self.nonce,
            self.deadline,
            spelled(self.to),
            self.valid_after,
        );
    }

    /// The scheme payload that a buyer sends, in the member order of the official client.
    #[must_use]
    pub fn to_payload(&self, signature: &[u8; 65]) -> Map<String, Value> {
        let authorization = json!({
            "from": self.from.to_checksum(None),
            "permitted": {
                "token": self.token.to_checksum(None),
                "amount": self.amount.to_string(),
            },
            "spender": self.spender.to_checksum(None),
            "nonce": self.nonce.to_string(),
            "deadline": self.deadline.to_string(),
            "witness": {
                "to": self.to.to_checksum(None),
                "validAfter": self.valid_after.to_string(),
            },
        });
        let mut payload = Map::new();
        payload.insert(
            "signature".to_owned(),
            hex::encode_prefixed(signature).into(),
        );
        payload.insert("permit2Authorization".to_owned(), authorization);
        payload
    }
}

/// The domain separator of Permit2 on a chain. It has a name but no version.
#[must_use]
pub fn domain(chain_id: u64) -> B256 {
    eip712::domain_separator("Permit2", None, chain_id, PERMIT2)
}

/// Reads `{"signature": "0x…", "permit2Authorization": {…}}`.
///
/// A payload that also carries an EIP-3009 authorization is refused: not every facilitator would
/// judge the same one as we do.
///
/// # Errors
///
/// [`PayloadError`], naming the member.
pub fn from_payload(payload: &impl Members) -> Result<(Authorization, Signature), PayloadError> {
    if payload.member("authorization").is_some() {
        return Err(PayloadError::WrongKind);
    }
    let members = payload::object(payload, "permit2Authorization")?;
    let permitted = payload::object(members, "permitted")?;
    let witness = payload::object(members, "witness")?;
    let authorization = Authorization {
        from: payload::address(members, "from")?,
        token: payload::address(permitted, "token")?,
        amount: payload::amount(permitted, "amount")?,
        spender: payload::address(members, "spender")?,
        to: payload::address(witness, "to")?,
        nonce: payload::uint256(members, "nonce")?,
        valid_after: payload::uint256(witness, "validAfter")?,
        deadline: payload::uint256(members, "deadline")?,
    };
    Ok((authorization, payload::signature(payload)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::b256;

    fn sample() -> Authorization {
        Authorization::exact(
            Address::repeat_byte(1),
            (Address::repeat_byte(2), AtomicAmount::new(30)),
            Address::repeat_byte(4),
            UnixSeconds(5),
            UnixSeconds(1_760_000_300),
            U256::MAX,
        )
    }

    #[test]
    fn the_type_hash_is_the_published_one() {
        assert_eq!(
            *TYPE_HASH,
            b256!("0xebc156cd23678a74c94df13d772ef5478420637f0c94bd10d509e1dc98f521c7")
        );
    }

    #[test]
    fn what_a_buyer_writes_is_read_back() {
        let payload = sample().to_payload(&[1; 65]);
        assert_eq!(
            from_payload(&payload),
            Ok((sample(), Signature::Eoa([1; 65])))
        );
    }

    #[test]
    fn what_is_written_is_what_a_buyer_writes() {
        let mut written = String::new();
        let spelled = |account: Address| account.to_checksum(None).into();
        sample().write_payload(&[1; 65], spelled, &mut written);
        let payload = Value::from(sample().to_payload(&[1; 65]));
        assert_eq!(written, payload.to_string());
    }

    #[test]
    fn two_kinds_of_authorization_at_once_are_refused() {
        let mut payload = sample().to_payload(&[1; 65]);
        payload.insert("authorization".to_owned(), json!({}));
        assert_eq!(from_payload(&payload), Err(PayloadError::WrongKind));
    }

    #[test]
    fn each_part_must_be_there() {
        for (object, want) in [
            ("permitted", PayloadError::NotObject("permitted")),
            ("witness", PayloadError::NotObject("witness")),
            ("nonce", PayloadError::NotNumber("nonce")),
            ("spender", PayloadError::NotAddress("spender")),
        ] {
            let mut payload = sample().to_payload(&[1; 65]);
            payload["permit2Authorization"][object] = json!(null);
            assert_eq!(from_payload(&payload), Err(want));
        }
    }
}
