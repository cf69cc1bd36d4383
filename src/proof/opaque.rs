//! Which payment an opaque payload is: a digest that re-signing or re-encoding does not change.
//!
//! Nothing is judged here. For Solana `exact` the transaction's message is hashed, without the
//! signatures; for everything else the payload as canonical JSON. A second payload for one and the
//! same transfer can still be written for schemes we do not read; only its facilitator sees that,
//! and refuses to settle it twice.

use alloy_primitives::B256;
use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::x402::header;

/// Why the transaction of a Solana payload cannot be read.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum TransactionError {
    /// No text in `payload.transaction`.
    #[error("no transaction")]
    Absent,
    /// Not standard base64.
    #[error("not base64")]
    Base64,
    /// Not a legacy or version 0 transaction from the first to the last byte.
    #[error("not a transaction of a known version, or bytes after its end")]
    Malformed,
}

/// SHA-256 of what makes this payload unique on this network under this scheme.
///
/// # Errors
///
/// [`TransactionError`], for Solana `exact` only.
pub(in crate::proof) fn digest(
    scheme: &str,
    network: &str,
    payload: &Map<String, Value>,
) -> Result<B256, TransactionError> {
    if scheme == "exact" && network.starts_with("solana:") {
        let text = payload
            .get("transaction")
            .and_then(Value::as_str)
            .ok_or(TransactionError::Absent)?;
        let bytes = header::decode_base64(text.as_bytes()).map_err(|_| TransactionError::Base64)?;
        let message = solana_message(&bytes).ok_or(TransactionError::Malformed)?;
        return Ok(B256::from(<[u8; 32]>::from(Sha256::digest(message))));
    }
    let mut canonical = String::new();
    write_object(payload, &mut canonical);
    Ok(B256::from(<[u8; 32]>::from(Sha256::digest(canonical))))
}

/// Compact JSON with sorted members and numbers in one spelling.
fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => write_object(map, out),
        Value::Array(list) => {
            out.push('[');
            for (i, item) in list.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Number(number) => out.push_str(&spelled(number)),
        Value::Null | Value::Bool(_) | Value::String(_) => out.push_str(&value.to_string()),
    }
}

fn write_object(map: &Map<String, Value>, out: &mut String) {
    let mut members: Vec<_> = map.iter().collect();
    members.sort_unstable_by_key(|(key, _)| *key);
    out.push('{');
    for (i, (key, value)) in members.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(&Value::from(key.as_str()).to_string());
        out.push(':');
        write(value, out);
    }
    out.push('}');
}

/// `300`, `300.0` and `3e2` are one number, and so are `0` and `-0.0`.
fn spelled(number: &Number) -> String {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(0.0) => "0".to_owned(),
        Some(fraction) => fraction.to_string(),
        None => number.to_string(),
    }
}

/// The signed message of a serialised transaction: what follows the signatures, to the last byte.
///
/// Lengths that are not in their shortest form and bytes after the end are refused: decoders that
/// tolerate them would see the same transaction behind another digest.
/// Rule: Solana, "Transactions", compact-array format, legacy and version 0.
fn solana_message(transaction: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader(transaction);
    let signatures = reader.length()?;
    reader.skip(signatures.checked_mul(64)?)?;
    let message = reader.0;
    let versioned = match reader.byte()? {
        0x80 => {
            reader.byte()?;
            true
        }
        legacy if legacy < 0x80 => false,
        _ => return None,
    };
    reader.skip(2)?;
    let accounts = reader.length()?;
    reader.skip(accounts.checked_mul(32)?)?;
    reader.skip(32)?;
    for _ in 0..reader.length()? {
        reader.byte()?;
        reader.skip_list()?;
        reader.skip_list()?;
    }
    if versioned {
        for _ in 0..reader.length()? {
            reader.skip(32)?;
            reader.skip_list()?;
            reader.skip_list()?;
        }
    }
    reader.0.is_empty().then_some(message)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }

    fn skip_list(&mut self) -> Option<()> {
        let bytes = self.length()?;
        self.skip(bytes)
    }

    /// Compact-u16: seven bits a byte, least significant first, at most three bytes.
    fn length(&mut self) -> Option<usize> {
        let mut length = 0_usize;
        for shift in [0_u32, 7, 14] {
            let byte = self.byte()?;
            let bits = usize::from(byte & 0x7f);
            length |= bits.checked_shl(shift)?;
            if byte & 0x80 == 0 {
                let shortest = shift == 0 || bits != 0;
                return (shortest && length <= usize::from(u16::MAX)).then_some(length);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;
    use serde_json::json;

    const SOLANA: &str = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp";

    /// Two accounts, one instruction with two account indices and three data bytes.
    fn message(versioned: bool, data: u8) -> Vec<u8> {
        let mut bytes = if versioned { vec![0x80] } else { vec![] };
        bytes.extend([1, 0, 1, 2]);
        bytes.extend([7; 64]);
        bytes.extend([9; 32]);
        bytes.extend([1, 1, 2, 0, 1, 3, data, 5, 6]);
        if versioned {
            bytes.extend([1]);
            bytes.extend([8; 32]);
            bytes.extend([1, 4, 0]);
        }
        bytes
    }

    fn transaction(signatures: u8, filler: u8, message: &[u8]) -> Vec<u8> {
        let mut bytes = vec![signatures];
        bytes.extend(vec![filler; usize::from(signatures) * 64]);
        bytes.extend(message);
        bytes
    }

    fn of(bytes: &[u8]) -> Result<B256, TransactionError> {
        let payload = json!({"transaction": STANDARD.encode(bytes)});
        digest("exact", SOLANA, payload.as_object().unwrap())
    }

    #[test]
    fn a_resigned_or_reencoded_transaction_is_the_same_payment() {
        for versioned in [false, true] {
            let message = message(versioned, 4);
            let one = of(&transaction(2, 0, &message)).unwrap();
            assert_eq!(of(&transaction(2, 1, &message)), Ok(one));
            assert_eq!(of(&transaction(1, 1, &message)), Ok(one));
            let unpadded = STANDARD.encode(transaction(2, 0, &message));
            let payload = json!({"junk": 1, "transaction": unpadded.trim_end_matches('=')});
            assert_eq!(
                digest("exact", SOLANA, payload.as_object().unwrap()),
                Ok(one)
            );
        }
    }

    #[test]
    fn another_message_is_another_payment() {
        let one = of(&transaction(1, 0, &message(true, 4))).unwrap();
        assert_ne!(of(&transaction(1, 0, &message(true, 5))), Ok(one));
        assert_ne!(of(&transaction(1, 0, &message(false, 4))), Ok(one));
    }

    #[test]
    fn what_hides_a_transaction_behind_another_digest_is_refused() {
        let good = transaction(1, 0, &message(true, 4));
        let mut longer = good.clone();
        longer.push(0);
        let mut alias = good.clone();
        alias.splice(0..1, [0x81, 0x00]);
        let mut future = good.clone();
        future[65] = 0x81;
        for bad in [&good[..good.len() - 1], &longer, &alias, &future, &[]] {
            assert_eq!(of(bad), Err(TransactionError::Malformed));
        }
        let read = |payload: Value| digest("exact", SOLANA, payload.as_object().unwrap());
        assert_eq!(
            read(json!({"transaction": "-_"})),
            Err(TransactionError::Base64)
        );
        assert_eq!(
            read(json!({"transaction": 1})),
            Err(TransactionError::Absent)
        );
    }

    #[test]
    fn other_payloads_are_their_canonical_json() {
        let of = |text: &str| {
            let payload: Value = serde_json::from_str(text).unwrap();
            digest("exact", "stellar:pubnet", payload.as_object().unwrap()).unwrap()
        };
        let one = of(r#"{"a":{"x":300,"y":[0,"é"]},"b":null}"#);
        assert_eq!(one, of(r#" {"b":null, "a":{"y":[-0.0,"\u00e9"],"x":3e2}}"#));
        for other in [
            r#"{"a":{"x":301,"y":[0,"é"]},"b":null}"#,
            r#"{"a":{"x":"300","y":[0,"é"]},"b":null}"#,
            r#"{"a":{"x":300,"y":["é",0]},"b":null}"#,
            r#"{"a":{"x":300,"y":[0,"é"]}}"#,
        ] {
            assert_ne!(one, of(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_transaction_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = of(&bytes);
            let _ = of(&transaction(1, 0, &bytes));
        }
    }
}
