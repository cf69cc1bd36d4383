//! Machine-readable reason codes: the specification's where it has one, ours otherwise.

use std::borrow::Cow;
use std::fmt;

/// A short code that tells the client why a payment was not accepted. Never an internal text.
///
/// Codes that come from a facilitator are opaque (spec section 3.10) but bounded: 1 to 128
/// characters of `A-Z a-z 0-9 _ - . :` and space; anything else becomes `payment_rejected`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ReasonCode(Cow<'static, str>);

impl ReasonCode {
    /// One of ours.
    #[must_use]
    pub const fn fixed(code: &'static str) -> Self {
        Self(Cow::Borrowed(code))
    }

    /// One that a facilitator sent; replaced when it does not look like a code.
    #[must_use]
    pub fn foreign(code: &str) -> Self {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b" _-.:".contains(&b);
        if (1..=128).contains(&code.len()) && code.bytes().all(allowed) {
            Self(Cow::Owned(code.to_owned()))
        } else {
            Self::fixed("payment_rejected")
        }
    }

    /// The code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
