//! Header names, and JSON in base64 both ways. Sizes are bounded before anything is decoded.
//!
//! Written: padded standard base64 of compact UTF-8 JSON. Read: padded wholly or not at all, never
//! base64url.
//! Rule: fact sheet sections 1.1 and 1.2. Header text is never compared, only what it decodes to.

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use crate::x402::json::{Borrowed, Object};

/// Response, version 2: the challenge.
pub const PAYMENT_REQUIRED: &str = "PAYMENT-REQUIRED";
/// Request, version 2: the proof.
pub const PAYMENT_SIGNATURE: &str = "PAYMENT-SIGNATURE";
/// Response, version 2: the receipt of a settlement, good or failed.
pub const PAYMENT_RESPONSE: &str = "PAYMENT-RESPONSE";
/// Request, version 1: the proof.
pub const X_PAYMENT: &str = "X-PAYMENT";
/// Response, version 1: the receipt.
pub const X_PAYMENT_RESPONSE: &str = "X-PAYMENT-RESPONSE";
/// Request: proof of an identity that paid before. Not sold by this release, but never forwarded.
pub const SIGN_IN_WITH_X: &str = "SIGN-IN-WITH-X";
/// From an upstream: what to charge of a metered price. Never reaches a buyer.
pub const SETTLEMENT_OVERRIDES: &str = "SETTLEMENT-OVERRIDES";
/// From a facilitator: for the log only. Never forwarded.
pub const EXTENSION_RESPONSES: &str = "EXTENSION-RESPONSES";

/// Standard alphabet; padding may be missing, and bits after the last byte are dropped, as `atob` does.
/// Padding in part is refused before.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Why a header value is not a message. To the client all of these are "no payment was sent".
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// More bytes than the wall takes.
    #[error("longer than {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// Not of the standard alphabet, or wrongly padded.
    #[error("not standard base64: {0}")]
    Base64(#[source] base64::DecodeError),
    /// Not UTF-8 JSON, or nested deeper than 128 levels.
    #[error("not JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// JSON, but not an object.
    #[error("not a JSON object")]
    NotObject,
}

/// Padded standard base64 of `message` as compact UTF-8 JSON.
///
/// The messages of the protocol always serialise; a value that JSON cannot express gives an empty text.
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> String {
    serde_json::to_vec(message).map_or_else(|_| String::new(), |json| STANDARD.encode(json))
}

/// The JSON object in a header value of at most `bytes_max` bytes.
///
/// # Errors
///
/// [`HeaderError`], whose text is for the log.
pub fn decode(value: &[u8], bytes_max: usize) -> Result<Value, HeaderError> {
    let json = decode_bytes(value, bytes_max)?;
    let message: Value = serde_json::from_slice(&json).map_err(HeaderError::Json)?;
    if message.is_object() {
        Ok(message)
    } else {
        Err(HeaderError::NotObject)
    }
}

/// What a header value of at most `bytes_max` bytes encodes: the half of [`decode`] before JSON is read.
///
/// # Errors
///
/// [`HeaderError::TooLarge`] or [`HeaderError::Base64`].
pub fn decode_bytes(value: &[u8], bytes_max: usize) -> Result<Vec<u8>, HeaderError> {
    if value.len() > bytes_max {
        return Err(HeaderError::TooLarge { bytes_max });
    }
    decode_base64(value).map_err(HeaderError::Base64)
}

/// The other half, without copying texts: the members of the JSON object in `json`.
///
/// # Errors
///
/// [`HeaderError::Json`] or [`HeaderError::NotObject`].
pub fn members(json: &[u8]) -> Result<Object<'_>, HeaderError> {
    match serde_json::from_slice(json).map_err(HeaderError::Json)? {
        Borrowed::Object(members) => Ok(members),
        Borrowed::Null
        | Borrowed::Bool(_)
        | Borrowed::Number(_)
        | Borrowed::Text(_)
        | Borrowed::List(_) => Err(HeaderError::NotObject),
    }
}

/// Standard base64, padded wholly or not at all, as `atob` has it. The caller bounds its length.
///
/// # Errors
///
/// The first byte that does not belong, or wrong padding.
pub fn decode_base64(text: &[u8]) -> Result<Vec<u8>, base64::DecodeError> {
    if text.ends_with(b"=") && !text.len().is_multiple_of(4) {
        return Err(base64::DecodeError::InvalidPadding);
    }
    LENIENT.decode(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[track_caller]
    fn refused(value: &str) {
        assert!(decode(value.as_bytes(), 1000).is_err(), "{value}");
    }

    #[test]
    fn padding_may_be_whole_or_missing() {
        for value in ["eyJhIjoxfQ==", "eyJhIjoxfQ", "eyJhIjoxMH0=", "eyJhIjoxMH0"] {
            assert!(decode(value.as_bytes(), 1000).is_ok(), "{value}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        refused("");
        refused("eyJhIjoxfQ=");
        refused("eyJhIjoxfQ===");
        refused("eyJh IjoxfQ==");
        refused("eyJhIjoxfQ==, eyJhIjoxfQ==");
        refused(&STANDARD.encode(r#""text""#));
        refused(&STANDARD.encode("[1]"));
        refused(&STANDARD.encode(b"{\"a\":\"\xff\"}"));
        refused(&STANDARD.encode("[".repeat(500)));
        let needs_both = json!({"a": "\u{3f}\u{3f}\u{3e}~~~ÿÿÿ>>>???"});
        let text = encode(&needs_both);
        assert!(text.contains(['+', '/']), "{text}");
        assert!(decode(text.as_bytes(), 1000).is_ok());
        refused(&text.replace('+', "-").replace('/', "_"));
    }

    #[test]
    fn a_value_at_the_limit_is_read_and_one_byte_more_is_not() {
        let value = encode(&json!({"a": 1}));
        assert!(decode(value.as_bytes(), value.len()).is_ok());
        assert!(matches!(
            decode(value.as_bytes(), value.len() - 1),
            Err(HeaderError::TooLarge { .. })
        ));
    }

    /// Facilitators are sent what was read here: it must be the number that the client wrote.
    #[test]
    fn a_fraction_is_read_to_the_last_bit() {
        for text in ["901071.245270191439438", "31.245270191439438", "2.5e-321"] {
            let json = format!("{{\"a\":{text}}}");
            let message = decode(STANDARD.encode(json).as_bytes(), 1000).unwrap();
            assert_eq!(message["a"].as_f64(), text.parse().ok(), "{text}");
            let again = decode(encode(&message).as_bytes(), 1000).unwrap();
            assert_eq!(again, message);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(text in ".*", number in any::<u64>()) {
            let message = json!({"text": text, "nested": {"number": number, "list": [null, true]}});
            prop_assert_eq!(decode(encode(&message).as_bytes(), usize::MAX).ok(), Some(message));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, 100);
            let _ = decode(STANDARD.encode(&bytes).as_bytes(), 1000);
        }
    }
}
