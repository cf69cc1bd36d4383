//! EIP-712: domain separators, digests, and secp256k1 signatures over them.
//!
//! Deliberately strict: recovery refuses s > n/2 and every v but 27 and 28, because the tokens do.
//! Whether a signature belongs to a payer is decided in `proof::check`.

use std::sync::LazyLock;

use alloy_primitives::{Address, B256, Keccak256, U256, b256, hex, keccak256};
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{Message, PublicKey, SECP256K1, SecretKey};
use thiserror::Error;

/// The last 32 bytes of a signature of a wallet that is not deployed yet (ERC-6492).
pub const ERC6492_MAGIC: B256 =
    b256!("0x6492649264926492649264926492649264926492649264926492649264926492");

/// Half the order of secp256k1: a larger s is the malleated twin of a signature.
const HALF_ORDER: B256 =
    b256!("0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0");

static DOMAIN_WITH_VERSION: LazyLock<B256> = LazyLock::new(|| {
    keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
});
static DOMAIN_WITHOUT_VERSION: LazyLock<B256> = LazyLock::new(|| {
    keccak256("EIP712Domain(string name,uint256 chainId,address verifyingContract)")
});

/// A signature as it came, by who can judge it.
#[derive(Clone, Eq, PartialEq)]
pub enum Signature {
    /// r, s, v of a key: judged here.
    Eoa([u8; 65]),
    /// Of a contract wallet (EIP-1271, ERC-6492): only a chain can judge it, so the facilitator does.
    Contract(Vec<u8>),
}

/// Why bytes are not a signature of anybody.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum SignatureError {
    /// Not `0x` and an even number of hexadecimal digits.
    #[error("the signature is not 0x and hexadecimal digits")]
    NotHex,
    /// Under 65 bytes. EIP-2098's compact 64 bytes are refused, as the official facilitator does.
    #[error("the signature has {0} bytes, at least 65 are needed")]
    TooShort(usize),
    /// v is neither 27 nor 28.
    #[error("the recovery byte is {0}, not 27 or 28")]
    RecoveryByte(u8),
    /// s is above n/2, where the token reverts.
    #[error("s is above half the curve order")]
    HighS,
    /// No public key signs like this.
    #[error("no key recovers from the signature")]
    Unrecoverable,
}

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Whoever has it, and what it signs, can have the payment settled.
        match self {
            Self::Eoa(_) => f.write_str("Eoa(..)"),
            Self::Contract(bytes) => write!(f, "Contract({} bytes)", bytes.len()),
        }
    }
}

impl Signature {
    /// Reads `0x` and hexadecimal digits.
    ///
    /// 65 bytes are a key's, unless they end in [`ERC6492_MAGIC`]; more are a contract wallet's. A
    /// wallet whose EIP-1271 signature has exactly 65 bytes must wrap it as ERC-6492: anything else
    /// would let a forged key signature through to the facilitator.
    ///
    /// # Errors
    ///
    /// [`SignatureError::NotHex`] or [`SignatureError::TooShort`].
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        let digits = text.strip_prefix("0x").ok_or(SignatureError::NotHex)?;
        if digits.starts_with("0x") {
            return Err(SignatureError::NotHex);
        }
        let bytes = hex::decode(digits).map_err(|_| SignatureError::NotHex)?;
        if bytes.len() < 65 {
            return Err(SignatureError::TooShort(bytes.len()));
        }
        match <[u8; 65]>::try_from(bytes.as_slice()) {
            Ok(eoa) if !bytes.ends_with(ERC6492_MAGIC.as_slice()) => Ok(Self::Eoa(eoa)),
            _ => Ok(Self::Contract(bytes)),
        }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Eoa(bytes) => bytes,
            Self::Contract(bytes) => bytes,
        }
    }
}

/// `hashStruct` of the domain, in the order name, version, chainId, verifyingContract.
///
/// Without a version the member is left out of the type too, as Permit2 has it.
#[must_use]
pub fn domain_separator(
    name: &str,
    version: Option<&str>,
    chain_id: u64,
    verifying_contract: Address,
) -> B256 {
    let name = keccak256(name);
    let chain_id = word(U256::from(chain_id));
    let contract = verifying_contract.into_word();
    match version.map(keccak256) {
        Some(version) => hash_words(&[*DOMAIN_WITH_VERSION, name, version, chain_id, contract]),
        None => hash_words(&[*DOMAIN_WITHOUT_VERSION, name, chain_id, contract]),
    }
}

/// What is signed: keccak256 of `0x1901`, domain separator and struct hash.
#[must_use]
pub fn digest(domain: B256, struct_hash: B256) -> B256 {
    let mut hash = Keccak256::new();
    hash.update([0x19, 0x01]);
    hash.update(domain);
    hash.update(struct_hash);
    hash.finalize()
}

/// Whose key made `signature` over `digest`.
///
/// # Errors
///
/// [`SignatureError::RecoveryByte`], [`SignatureError::HighS`] or [`SignatureError::Unrecoverable`].
pub fn recover(digest: B256, signature: &[u8; 65]) -> Result<Address, SignatureError> {
    let [compact @ .., v] = signature;
    let recovery_id = match v {
        27 => RecoveryId::Zero,
        28 => RecoveryId::One,
        other => return Err(SignatureError::RecoveryByte(*other)),
    };
    let (_, s) = compact.split_at(32);
    if s > HALF_ORDER.as_slice() {
        return Err(SignatureError::HighS);
    }
    let signature = RecoverableSignature::from_compact(compact, recovery_id)
        .map_err(|_| SignatureError::Unrecoverable)?;
    SECP256K1
        .recover_ecdsa(Message::from_digest(digest.0), &signature)
        .map(|key| address_of_public(&key))
        .map_err(|_| SignatureError::Unrecoverable)
}

/// Signs `digest` (RFC 6979, low s): r, s, and v of 27 or 28.
#[must_use]
pub fn sign(digest: B256, key: &SecretKey) -> [u8; 65] {
    let signature = SECP256K1.sign_ecdsa_recoverable(Message::from_digest(digest.0), key);
    let (recovery_id, compact) = signature.serialize_compact();
    let mut bytes = [0; 65];
    let [rs @ .., v] = &mut bytes;
    rs.copy_from_slice(&compact);
    *v = match recovery_id {
        RecoveryId::Zero | RecoveryId::Two => 27,
        RecoveryId::One | RecoveryId::Three => 28,
    };
    bytes
}

/// The account that `key` controls.
#[must_use]
pub fn address_of(key: &SecretKey) -> Address {
    address_of_public(&PublicKey::from_secret_key(SECP256K1, key))
}

/// keccak256 over 32-byte words, as `hashStruct` needs it.
#[must_use]
pub(in crate::x402) fn hash_words(words: &[B256]) -> B256 {
    let mut hash = Keccak256::new();
    for word in words {
        hash.update(word);
    }
    hash.finalize()
}

/// A number as a big-endian 32-byte word.
#[must_use]
pub(in crate::x402) fn word(number: U256) -> B256 {
    B256::from(number.to_be_bytes::<32>())
}

fn address_of_public(key: &PublicKey) -> Address {
    let [_, point @ ..] = key.serialize_uncompressed();
    Address::from_word(keccak256(point))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::address;
    use proptest::prelude::*;

    const SOME_DIGEST: B256 =
        b256!("0x545c291d508b03068498d7dc514d05bf67299413593994b827669f0362f4c521");

    fn anvil_key() -> SecretKey {
        let bytes = hex!("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");
        SecretKey::from_byte_array(bytes).unwrap()
    }

    #[test]
    fn a_key_has_the_address_that_wallets_show() {
        assert_eq!(
            address_of(&anvil_key()),
            address!("0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266")
        );
    }

    #[test]
    fn the_twin_of_a_signature_and_other_recovery_bytes_are_refused() {
        let good = sign(SOME_DIGEST, &anvil_key());
        assert_eq!(recover(SOME_DIGEST, &good), Ok(address_of(&anvil_key())));
        for v in [0, 1, 26, 29, 255] {
            let mut bad = good;
            bad[64] = v;
            assert_eq!(
                recover(SOME_DIGEST, &bad),
                Err(SignatureError::RecoveryByte(v))
            );
        }
        let mut high = good;
        high[32..64].copy_from_slice(HALF_ORDER.as_slice());
        assert_ne!(
            recover(SOME_DIGEST, &high),
            Err(SignatureError::HighS),
            "n/2 itself is low"
        );
        high[63] += 1;
        assert_eq!(recover(SOME_DIGEST, &high), Err(SignatureError::HighS));
        assert_eq!(
            recover(SOME_DIGEST, &{
                let mut zero = [0; 65];
                zero[64] = 27;
                zero
            }),
            Err(SignatureError::Unrecoverable)
        );
    }

    #[track_caller]
    fn check(bytes: usize, magic: bool, want: Result<bool, SignatureError>) {
        let mut raw = vec![7; bytes];
        if magic {
            raw.truncate(bytes.saturating_sub(32));
            raw.extend(ERC6492_MAGIC);
        }
        let got = Signature::parse(&hex::encode_prefixed(&raw));
        assert_eq!(
            got.map(|s| matches!(s, Signature::Eoa(_))),
            want,
            "{bytes} {magic}"
        );
    }

    #[test]
    fn length_and_magic_decide_who_judges_a_signature() {
        check(0, false, Err(SignatureError::TooShort(0)));
        check(64, false, Err(SignatureError::TooShort(64)));
        check(65, false, Ok(true));
        check(65, true, Ok(false));
        check(66, false, Ok(false));
        check(500, true, Ok(false));
        for text in ["", "0x0", "zz", "0xzz", "0x0x00", &"00".repeat(65)] {
            assert!(Signature::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_signature_recovers_its_key_and_nobody_elses(
            secret in any::<[u8; 32]>(), digest in any::<[u8; 32]>(), other in any::<[u8; 32]>(),
        ) {
            prop_assume!(digest != other);
            let Ok(key) = SecretKey::from_byte_array(secret) else { return Ok(()) };
            let signature = sign(digest.into(), &key);
            prop_assert_eq!(recover(digest.into(), &signature), Ok(address_of(&key)));
            prop_assert_ne!(recover(other.into(), &signature), Ok(address_of(&key)));
        }

        #[test]
        fn no_signature_makes_it_panic(bytes in proptest::array::uniform32(any::<u8>()), v in any::<u8>()) {
            let mut signature = [0; 65];
            signature[..32].copy_from_slice(&bytes);
            signature[32..64].copy_from_slice(&bytes);
            signature[64] = v;
            let _ = recover(SOME_DIGEST, &signature);
        }
    }
}
