//! Who signed what, remembered: recovering a signer is most of what a proof costs here.
//!
//! A key is all that recovery reads: the digest, which commits to domain, payer, recipient, amount, times
//! and nonce, and the 65 bytes of the signature. So a remembered answer is the answer that recovery would
//! give. What follows from it (recipient, amount, time, claim) is judged anew each time.

use alloy_primitives::{Address, B256};
use parking_lot::Mutex;

use crate::x402::eip712::{self, SignatureError};

/// Answers that are remembered: half a megabyte, and far more than are in flight at once.
const PLACES: usize = 4096;

/// The answers given last. Each digest has one place, and the newest answer has it: looking costs next to
/// nothing, and no flood of strangers' proofs makes it grow.
pub struct Signers(Box<[Mutex<Option<Kept>>]>);

struct Kept {
    digest: B256,
    signature: [u8; 65],
    signer: Result<Address, SignatureError>,
}

impl Default for Signers {
    fn default() -> Self {
        Self::of(PLACES)
    }
}

impl Signers {
    /// Remembers nothing.
    #[must_use]
    pub fn forgetful() -> Self {
        Self::of(0)
    }

    fn of(places: usize) -> Self {
        Self((0..places).map(|_| Mutex::new(None)).collect())
    }

    /// Whose key made `signature` over `digest`: [`eip712::recover`], once.
    ///
    /// # Errors
    ///
    /// As [`eip712::recover`], and those are remembered too.
    pub fn signer(&self, digest: B256, signature: &[u8; 65]) -> Result<Address, SignatureError> {
        let place = self.place(digest);
        let kept = place.and_then(|place| {
            let kept = place.lock();
            let same = kept.as_ref().filter(|k| k.is_of(digest, signature));
            same.map(|kept| kept.signer)
        });
        if let Some(signer) = kept {
            return signer;
        }
        // Without the lock: others want this place too.
        let signer = eip712::recover(digest, signature);
        if let Some(place) = place {
            let signature = *signature;
            *place.lock() = Some(Kept {
                digest,
                signature,
                signer,
            });
        }
        signer
    }

    fn place(&self, digest: B256) -> Option<&Mutex<Option<Kept>>> {
        let [a, b, c, d, ..] = digest.0;
        let number = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
        self.0.get(number.checked_rem(self.0.len())?)
    }
}

impl Kept {
    fn is_of(&self, digest: B256, signature: &[u8; 65]) -> bool {
        self.digest == digest && self.signature == *signature
    }
}

#[cfg(test)]
mod tests {
    use secp256k1::SecretKey;

    use super::*;

    const DIGEST: B256 = B256::repeat_byte(7);

    fn signed(digest: B256, key: u8) -> (Address, [u8; 65]) {
        let key = SecretKey::from_byte_array([key; 32]).unwrap();
        (eip712::address_of(&key), eip712::sign(digest, &key))
    }

    fn held(signers: &Signers) -> usize {
        let is_taken = |place: &&Mutex<Option<Kept>>| place.lock().is_some();
        signers.0.iter().filter(is_taken).count()
    }

    #[test]
    fn a_second_question_is_answered_from_memory() {
        let signers = Signers::default();
        let (account, signature) = signed(DIGEST, 1);
        assert_eq!(signers.signer(DIGEST, &signature), Ok(account));
        // Recovery would not say this.
        let place = signers.place(DIGEST).unwrap();
        place.lock().as_mut().unwrap().signer = Err(SignatureError::Unrecoverable);
        assert_eq!(
            signers.signer(DIGEST, &signature),
            Err(SignatureError::Unrecoverable)
        );
    }

    #[test]
    fn another_signature_or_digest_in_the_same_place_is_another_question() {
        let signers = Signers::of(1);
        let other = B256::repeat_byte(8);
        let (first, by_first) = signed(DIGEST, 1);
        let (second, by_second) = signed(DIGEST, 2);
        for _ in 0..2 {
            assert_eq!(signers.signer(DIGEST, &by_first), Ok(first));
            assert_eq!(signers.signer(DIGEST, &by_second), Ok(second));
            assert_ne!(signers.signer(other, &by_second), Ok(second));
        }
        assert_eq!(held(&signers), 1);
    }

    #[test]
    fn one_changed_bit_of_a_remembered_signature_is_judged_anew() {
        let signers = Signers::default();
        let (account, signature) = signed(DIGEST, 1);
        assert_eq!(signers.signer(DIGEST, &signature), Ok(account));
        for at in 0..65 {
            let mut changed = signature;
            changed[at] ^= 1;
            assert_eq!(
                signers.signer(DIGEST, &changed),
                eip712::recover(DIGEST, &changed)
            );
            assert_ne!(signers.signer(DIGEST, &changed), Ok(account));
        }
    }

    #[test]
    fn what_is_nobodys_is_remembered_too_and_the_forgetful_remembers_nothing() {
        let (signers, forgetful) = (Signers::default(), Signers::forgetful());
        let mut nobodys = [0; 65];
        nobodys[64] = 27;
        for signers in [&signers, &forgetful] {
            let signer = signers.signer(DIGEST, &nobodys);
            assert_eq!(signer, Err(SignatureError::Unrecoverable));
        }
        assert_eq!((held(&signers), held(&forgetful)), (1, 0));
    }
}
