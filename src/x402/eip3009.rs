//! EIP-3009 `TransferWithAuthorization`: the default way of paying `exact` on EVM networks.
//!
//! Reads, writes and hashes it. Whether it pays for anything is decided in `proof::check`.
//! Rule: fact sheet section 3.3.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::sync::LazyLock;

use alloy_primitives::{Address, B256, U256, hex, keccak256};
use serde_json::{Map, Value, json};

use crate::clock::UnixSeconds;
use crate::money::AtomicAmount;
use crate::x402::eip712::{self, Signature};
use crate::x402::json::Members;
use crate::x402::payload::{self, PayloadError};

static TYPE_HASH: LazyLock<B256> = LazyLock::new(|| {
    keccak256(
        "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,\
         uint256 validBefore,bytes32 nonce)",
    )
});

/// What the payer signs: so much of the token to this account, in this window, once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Authorization {
    /// Whose money.
    pub from: Address,
    /// Who is paid.
    pub to: Address,
    /// How much, in the token's smallest unit.
    pub value: AtomicAmount,
    /// Unique per token and payer.
    pub nonce: B256,
    valid_after: U256,
    valid_before: U256,
}

impl Authorization {
    /// An authorization that can be settled after `valid_after` and before `valid_before`.
    #[must_use]
    pub fn new(
        from: Address,
        to: Address,
        value: AtomicAmount,
        valid_after: UnixSeconds,
        valid_before: UnixSeconds,
        nonce: B256,
    ) -> Self {
        let (valid_after, valid_before) = (U256::from(valid_after.0), U256::from(valid_before.0));
        Self {
            from,
            to,
            value,
            nonce,
            valid_after,
            valid_before,
        }
    }

    /// Not to be settled before. Some clients sign 256-bit times; beyond 64 bits this is the end of
    /// time, while the hash keeps the number that was signed.
    #[must_use]
    pub fn valid_after(&self) -> UnixSeconds {
        payload::seconds(self.valid_after)
    }

    /// Not to be settled from then on; bounded as [`Self::valid_after`] is.
    #[must_use]
    pub fn valid_before(&self) -> UnixSeconds {
        payload::seconds(self.valid_before)
    }

    /// All that the digest commits to beside the domain.
    #[must_use]
    pub fn words(&self) -> [B256; 7] {
        [
            *TYPE_HASH,
            self.from.into_word(),
            self.to.into_word(),
            eip712::word(U256::from(self.value.units())),
            eip712::word(self.valid_after),
            eip712::word(self.valid_before),
            self.nonce,
        ]
    }

    /// `hashStruct` of EIP-712.
    #[must_use]
    pub fn struct_hash(&self) -> B256 {
        eip712::hash_words(&self.words())
    }

    /// What is signed, under the token's domain separator.
    #[must_use]
    pub fn digest(&self, domain: B256) -> B256 {
        eip712::digest(domain, self.struct_hash())
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
            r#"{{"authorization":{{"from":"{}","to":"{}","value":"{}","validAfter":"{}","validBefore":"{}","#,
            spelled(self.from),
            spelled(self.to),
            self.value,
            Seconds(self.valid_after),
            Seconds(self.valid_before),
        );
        let _ = write!(
            out,
            r#""nonce":"{}"}},"signature":"{}"}}"#,
            hex::encode_prefixed(self.nonce),
            hex::encode_prefixed(signature),
        );
    }

    /// The scheme payload that a buyer sends, in the member order of the official client.
    #[must_use]
    pub fn to_payload(&self, signature: &[u8; 65]) -> Map<String, Value> {
        let authorization = json!({
            "from": self.from.to_checksum(None),
            "to": self.to.to_checksum(None),
            "value": self.value.to_string(),
            "validAfter": self.valid_after.to_string(),
            "validBefore": self.valid_before.to_string(),
            "nonce": self.nonce.to_string(),
        });
        let mut payload = Map::new();
        payload.insert("authorization".to_owned(), authorization);
        payload.insert(
            "signature".to_owned(),
            hex::encode_prefixed(signature).into(),
        );
        payload
    }
}

/// A number in decimal digits. Times fit 64 bits, and 256 are divided many times to be written.
struct Seconds(U256);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u64::try_from(self.0) {
            Ok(seconds) => seconds.fmt(f),
            Err(_) => self.0.fmt(f),
        }
    }
}

/// Reads `{"authorization": {…}, "signature": "0x…"}`.
///
/// A payload that also carries a Permit2 authorization is refused: facilitators would judge that
/// one, and we this one.
///
/// # Errors
///
/// [`PayloadError`], naming the member.
pub fn from_payload(payload: &impl Members) -> Result<(Authorization, Signature), PayloadError> {
    from_payload_to(payload, "")
}

/// As [`from_payload`], by who is most likely paid: `pay_to`, as EIP-55 spells it, or `""`. It only saves
/// work.
///
/// # Errors
///
/// [`PayloadError`], naming the member.
pub fn from_payload_to(
    payload: &impl Members,
    pay_to: &str,
) -> Result<(Authorization, Signature), PayloadError> {
    if payload.member("permit2Authorization").is_some() {
        return Err(PayloadError::WrongKind);
    }
    let members = payload::object(payload, "authorization")?;
    let authorization = Authorization {
        from: payload::address_with_checksum(members, "from", "")?,
        to: payload::address_with_checksum(members, "to", pay_to)?,
        value: payload::amount(members, "value")?,
        nonce: payload::bytes32(members, "nonce")?,
        valid_after: payload::uint256(members, "validAfter")?,
        valid_before: payload::uint256(members, "validBefore")?,
    };
    Ok((authorization, payload::signature(payload)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::b256;

    fn sample() -> Map<String, Value> {
        let authorization = Authorization::new(
            Address::repeat_byte(0xab),
            Address::repeat_byte(2),
            AtomicAmount::new(10_000),
            UnixSeconds(5),
            UnixSeconds(1_760_000_300),
            B256::repeat_byte(7),
        );
        authorization.to_payload(&[1; 65])
    }

    #[test]
    fn the_type_hash_is_the_published_one() {
        assert_eq!(
            *TYPE_HASH,
            b256!("0x7c7c6cdb67a18743f49ec6fa9b35f50d52ed05cbed4cc592e13b44501c1a2267")
        );
    }

    #[test]
    fn what_a_buyer_writes_is_read_back() {
        let (authorization, signature) = from_payload(&sample()).unwrap();
        assert_eq!(signature, Signature::Eoa([1; 65]));
        assert_eq!(authorization.to_payload(&[1; 65]), sample());
        assert_eq!(authorization.valid_before(), UnixSeconds(1_760_000_300));
        assert_eq!(authorization.valid_after(), UnixSeconds(5));
    }

    #[track_caller]
    fn check(member: &str, value: Value, want: PayloadError) {
        let mut payload = sample();
        payload["authorization"][member] = value;
        assert_eq!(from_payload(&payload), Err(want), "{member}");
    }

    #[test]
    fn only_decimal_text_is_a_number_and_only_full_hexadecimal_an_account() {
        for value in [
            json!("0x2710"),
            json!(10_000),
            json!("1_0"),
            json!("+1"),
            json!(""),
            json!("1e3"),
        ] {
            check("value", value, PayloadError::NotNumber("value"));
        }
        check(
            "value",
            json!("9".repeat(78)),
            PayloadError::NotNumber("value"),
        );
        check(
            "value",
            json!(U256::MAX.to_string()),
            PayloadError::AmountTooLarge("value"),
        );
        check(
            "validBefore",
            json!(null),
            PayloadError::NotNumber("validBefore"),
        );
        check(
            "validAfter",
            json!("-1"),
            PayloadError::NotNumber("validAfter"),
        );
        check(
            "from",
            json!("ab".repeat(20)),
            PayloadError::NotAddress("from"),
        );
        check("to", json!("0x12"), PayloadError::NotAddress("to"));
        check("nonce", json!("0x12"), PayloadError::NotWord("nonce"));
    }

    #[test]
    fn an_account_is_in_lower_case_or_satisfies_its_checksum() {
        let account = Address::repeat_byte(0xab).to_checksum(None);
        let read = |text: String| {
            let mut payload = sample();
            payload["authorization"]["from"] = json!(text);
            from_payload(&payload).map(|(authorization, _)| authorization.from)
        };
        let want = Ok(Address::repeat_byte(0xab));
        assert_eq!(read(account.clone()), want);
        assert_eq!(read(account.to_lowercase()), want);
        let upper = account.to_uppercase().replacen("0X", "0x", 1);
        assert_eq!(read(upper), Err(PayloadError::NotAddress("from")));
        let flipped = account.replacen('b', "B", 1);
        assert_ne!(flipped, account);
        assert_eq!(read(flipped), Err(PayloadError::NotAddress("from")));
    }

    #[test]
    fn a_time_of_256_bits_is_hashed_as_signed_and_compared_as_the_end_of_time() {
        let read = |time: U256| {
            let mut payload = sample();
            payload["authorization"]["validBefore"] = json!(time.to_string());
            from_payload(&payload).unwrap().0
        };
        let (end, later) = (read(U256::from(u64::MAX)), read(U256::MAX));
        assert_eq!(later.valid_before(), UnixSeconds(u64::MAX));
        assert_eq!(end.valid_before(), later.valid_before());
        assert_ne!(end.struct_hash(), later.struct_hash());
    }

    #[test]
    fn what_is_written_is_what_a_buyer_writes() {
        let spelled = |account: Address| account.to_checksum(None).into();
        for time in [U256::ZERO, U256::from(u64::MAX), U256::MAX] {
            let mut authorization = from_payload(&sample()).unwrap().0;
            authorization.valid_before = time;
            let mut written = String::new();
            authorization.write_payload(&[1; 65], spelled, &mut written);
            let payload = Value::from(authorization.to_payload(&[1; 65]));
            assert_eq!(written, payload.to_string());
        }
    }

    #[test]
    fn two_kinds_of_authorization_at_once_are_refused() {
        let mut payload = sample();
        payload.insert("permit2Authorization".to_owned(), json!({}));
        assert_eq!(from_payload(&payload), Err(PayloadError::WrongKind));
    }
}
