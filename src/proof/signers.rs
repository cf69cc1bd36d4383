//! Who signed what, remembered: recovering a signer is most of what a proof costs here.
//!
//! A key is all that recovery reads: what the digest commits to (domain, payer, recipient, amount, times,
//! nonce), and the 65 bytes of the signature; SHA-256 of it, which takes a fifth of the time of the digest
//! itself. So a remembered answer is the answer that recovery would give. What follows from it (recipient,
//! amount, time, claim) is judged anew each time.

use alloy_primitives::{Address, B256};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::x402::eip712::{self, SignatureError};

/// Answers that are remembered: a third of a megabyte, and far more than are in flight at once.
const PLACES: usize = 4096;

/// The answers given last. Each question has one place, and the newest answer has it: looking costs next to
/// nothing, and no flood of strangers' proofs makes it grow.
pub struct Signers(Box<[Mutex<Option<Kept>>]>);

struct Kept {
    question: [u8; 32],
    signer: Result<Address, SignatureError>,
}

/// What was signed.
pub(in crate::proof) struct Signed<'a> {
    /// The EIP-712 domain separator.
    pub(in crate::proof) domain: B256,
    /// All that the digest commits to beside it; the type comes first.
    pub(in crate::proof) words: &'a [B256],
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

    /// Whose key made `signature` over what was signed: [`eip712::recover`] with its `digest`, once.
    ///
    /// # Errors
    ///
    /// As [`eip712::recover`], and those are remembered too.
    pub(in crate::proof) fn signer(
        &self,
        signed: &Signed<'_>,
        signature: &[u8; 65],
        digest: impl FnOnce() -> B256,
    ) -> Result<Address, SignatureError> {
        if self.0.is_empty() {
            return eip712::recover(digest(), signature);
        }
        let question = signed.with(signature);
        let place = self.place(question);
        let kept = place.and_then(|place| {
            let kept = place.lock();
            let same = kept.as_ref().filter(|kept| kept.question == question);
            same.map(|kept| kept.signer)
        });
        if let Some(signer) = kept {
            return signer;
        }
        // Without the lock: others want this place too.
        let signer = eip712::recover(digest(), signature);
        if let Some(place) = place {
            *place.lock() = Some(Kept { question, signer });
        }
        signer
    }

    fn place(&self, question: [u8; 32]) -> Option<&Mutex<Option<Kept>>> {
        let [a, b, c, d, ..] = question;
        let number = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
        self.0.get(number.checked_rem(self.0.len())?)
    }
}

impl Signed<'_> {
    /// Words have one length and the signature has, so that nothing else gives the same bytes.
    fn with(&self, signature: &[u8; 65]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.domain);
        for word in self.words {
            hash.update(word);
        }
        hash.update(signature);
        hash.finalize().into()
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

    /// Something whose digest this is.
    fn of(digest: &B256) -> Signed<'_> {
        Signed {
            domain: B256::ZERO,
            words: std::slice::from_ref(digest),
        }
    }

    fn ask(
        signers: &Signers,
        digest: B256,
        signature: &[u8; 65],
    ) -> Result<Address, SignatureError> {
        signers.signer(&of(&digest), signature, || digest)
    }

    fn held(signers: &Signers) -> usize {
        let is_taken = |place: &&Mutex<Option<Kept>>| place.lock().is_some();
        signers.0.iter().filter(is_taken).count()
    }

    #[test]
    fn a_second_question_is_answered_from_memory() {
        let signers = Signers::default();
        let (account, signature) = signed(DIGEST, 1);
        assert_eq!(ask(&signers, DIGEST, &signature), Ok(account));
        let again = signers.signer(&of(&DIGEST), &signature, || panic!("hashed again"));
        assert_eq!(again, Ok(account));
    }

    #[test]
    fn another_signature_or_digest_in_the_same_place_is_another_question() {
        let signers = Signers::of(1);
        let other = B256::repeat_byte(8);
        let (first, by_first) = signed(DIGEST, 1);
        let (second, by_second) = signed(DIGEST, 2);
        for _ in 0..2 {
            assert_eq!(ask(&signers, DIGEST, &by_first), Ok(first));
            assert_eq!(ask(&signers, DIGEST, &by_second), Ok(second));
            assert_ne!(ask(&signers, other, &by_second), Ok(second));
        }
        assert_eq!(held(&signers), 1);
    }

    #[test]
    fn one_changed_bit_of_what_is_remembered_is_judged_anew() {
        let signers = Signers::default();
        let (account, signature) = signed(DIGEST, 1);
        assert_eq!(ask(&signers, DIGEST, &signature), Ok(account));
        for at in 0..65 {
            let mut changed = signature;
            changed[at] ^= 1;
            assert_eq!(
                ask(&signers, DIGEST, &changed),
                eip712::recover(DIGEST, &changed)
            );
            assert_ne!(ask(&signers, DIGEST, &changed), Ok(account));
        }
        let elsewhere = Signed {
            domain: B256::with_last_byte(1),
            ..of(&DIGEST)
        };
        let judged = signers.signer(&elsewhere, &signature, || B256::repeat_byte(9));
        assert_ne!(judged, Ok(account));
    }

    #[test]
    fn what_is_nobodys_is_remembered_too_and_the_forgetful_remembers_nothing() {
        let (signers, forgetful) = (Signers::default(), Signers::forgetful());
        let mut nobodys = [0; 65];
        nobodys[64] = 27;
        for signers in [&signers, &forgetful] {
            let signer = ask(signers, DIGEST, &nobodys);
            assert_eq!(signer, Err(SignatureError::Unrecoverable));
        }
        assert_eq!((held(&signers), held(&forgetful)), (1, 0));
    }
}
