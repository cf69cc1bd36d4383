//! Prices as integers: an amount of a token in its smallest unit, and the text operators write for it.
//!
//! Deliberately absent: floats, rounding, and any arithmetic that can overflow unseen.

use std::fmt;

use thiserror::Error;

/// An amount of one token in its smallest unit: 1 is 0.000001 USDC.
///
/// `u128`, not `U256`: a larger value cannot equal any configured price, so parsing refuses it.
/// There is no float constructor and no unchecked operator.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AtomicAmount(u128);

/// How many decimal digits a token has: 6 for USDC, 18 for most others. At most 36.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Decimals(u8);

/// A price as the operator wrote it, before the token is known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PriceText {
    /// `"$0.001"`: so many US dollars, payable in any accepted dollar token.
    Dollars(DecimalText),
    /// `"0.001 USDC"`: so many whole tokens of this symbol.
    Tokens(DecimalText, String),
    /// `"1000 atomic"`: so many smallest units, whatever the token.
    Atomic(AtomicAmount),
}

/// Digits with at most one point, kept as text until the token's decimals are known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DecimalText {
    whole: String,
    fraction: String,
}

/// Why a text is not a price, or cannot be expressed in the token.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum MoneyError {
    /// Not digits with at most one point between digits.
    #[error(
        "{0:?} is not an amount; write digits with at most one point, as \"0.001\" \
         (no sign, no exponent, no separators)"
    )]
    NotDecimal(String),
    /// A price text of none of the three forms.
    #[error("{0:?} is not a price; write \"$0.001\", \"0.001 USDC\" or \"1000 atomic\"")]
    NotPrice(String),
    /// More digits after the point than the token has.
    #[error("has {given} decimal places, the token has {allowed}")]
    TooPrecise {
        /// Digits after the point, trailing zeros not counted.
        given: usize,
        /// The token's decimals.
        allowed: u8,
    },
    /// Does not fit 128 bits.
    #[error("is larger than any token amount")]
    TooLarge,
    /// A price of zero, which must be written `free = true`.
    #[error("is zero; a rule that costs nothing is written `free = true`")]
    Zero,
    /// More than 36 decimals.
    #[error("{0} decimals; a token has at most 36")]
    Decimals(u64),
}

impl AtomicAmount {
    /// Exactly `units` smallest units.
    #[must_use]
    pub const fn new(units: u128) -> Self {
        Self(units)
    }

    /// The number of smallest units.
    #[must_use]
    pub const fn units(self) -> u128 {
        self.0
    }

    /// Reads a decimal integer as the x402 messages carry it: digits only, no sign.
    ///
    /// Leading zeros are accepted here; where x402 compares text, it compares text.
    ///
    /// # Errors
    ///
    /// [`MoneyError::NotDecimal`] or [`MoneyError::TooLarge`].
    pub fn parse(text: &str) -> Result<Self, MoneyError> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(MoneyError::NotDecimal(text.to_owned()));
        }
        text.parse().map(Self).map_err(|_| MoneyError::TooLarge)
    }

    /// The sum, or `None` past 128 bits.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, or `None` below zero.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// The amount in whole tokens, exact, without trailing zeros: `0.01`, `12`, `0.000001`.
    #[must_use]
    pub fn in_tokens(self, decimals: Decimals) -> String {
        let places = usize::from(decimals.0);
        if places == 0 {
            return self.0.to_string();
        }
        let digits = format!("{:0>width$}", self.0, width = places.saturating_add(1));
        let (whole, fraction) = digits.split_at(digits.len().saturating_sub(places));
        let fraction = fraction.trim_end_matches('0');
        if fraction.is_empty() {
            whole.to_owned()
        } else {
            format!("{whole}.{fraction}")
        }
    }
}

impl fmt::Display for AtomicAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Decimals {
    /// At most 36 decimals, so that one whole token fits an [`AtomicAmount`] with room to spare.
    ///
    /// # Errors
    ///
    /// [`MoneyError::Decimals`] above 36.
    pub fn new(decimals: u64) -> Result<Self, MoneyError> {
        match u8::try_from(decimals) {
            Ok(d) if d <= 36 => Ok(Self(d)),
            _ => Err(MoneyError::Decimals(decimals)),
        }
    }

    /// The number of digits after the point.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl DecimalText {
    /// Reads `"12"`, `"0.001"`; refuses `".5"`, `"5."`, signs, exponents, spaces, `NaN`.
    ///
    /// # Errors
    ///
    /// [`MoneyError::NotDecimal`].
    pub fn parse(text: &str) -> Result<Self, MoneyError> {
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        let (whole, fraction) = match text.split_once('.') {
            Some((whole, fraction)) if digits(fraction) => (whole, fraction),
            None => (text, ""),
            Some(_) => return Err(MoneyError::NotDecimal(text.to_owned())),
        };
        if !digits(whole) || text.len() > 80 {
            return Err(MoneyError::NotDecimal(text.to_owned()));
        }
        Ok(Self {
            whole: whole.to_owned(),
            fraction: fraction.trim_end_matches('0').to_owned(),
        })
    }

    /// The exact number of smallest units.
    ///
    /// # Errors
    ///
    /// [`MoneyError::TooPrecise`] instead of rounding, [`MoneyError::TooLarge`] past 128 bits.
    pub fn to_atomic(&self, decimals: Decimals) -> Result<AtomicAmount, MoneyError> {
        let places = usize::from(decimals.0);
        if self.fraction.len() > places {
            let given = self.fraction.len();
            return Err(MoneyError::TooPrecise {
                given,
                allowed: decimals.0,
            });
        }
        let digits = format!("{}{:0<places$}", self.whole, self.fraction);
        digits
            .parse()
            .map(AtomicAmount)
            .map_err(|_| MoneyError::TooLarge)
    }
}

impl fmt::Display for DecimalText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.fraction.is_empty() {
            write!(f, "{}", self.whole)
        } else {
            write!(f, "{}.{}", self.whole, self.fraction)
        }
    }
}

impl PriceText {
    /// Reads `"$0.001"`, `"0.001 USDC"` or `"1000 atomic"`.
    ///
    /// # Errors
    ///
    /// [`MoneyError::NotPrice`] for any other shape, [`MoneyError::NotDecimal`] for bad digits.
    pub fn parse(text: &str) -> Result<Self, MoneyError> {
        if let Some(dollars) = text.strip_prefix('$') {
            return DecimalText::parse(dollars).map(Self::Dollars);
        }
        let Some((amount, unit)) = text.split_once(' ') else {
            return Err(MoneyError::NotPrice(text.to_owned()));
        };
        let is_symbol = !unit.is_empty() && !unit.contains(char::is_whitespace);
        match unit {
            "atomic" => AtomicAmount::parse(amount).map(Self::Atomic),
            symbol if is_symbol => {
                DecimalText::parse(amount).map(|amount| Self::Tokens(amount, symbol.to_owned()))
            }
            _ => Err(MoneyError::NotPrice(text.to_owned())),
        }
    }
}

impl fmt::Display for PriceText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dollars(amount) => write!(f, "${amount}"),
            Self::Tokens(amount, symbol) => write!(f, "{amount} {symbol}"),
            Self::Atomic(amount) => write!(f, "{amount} atomic"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, decimals: u64, want: Result<u128, MoneyError>) {
        let decimals = Decimals::new(decimals).unwrap();
        let got = DecimalText::parse(text).and_then(|d| d.to_atomic(decimals));
        assert_eq!(got.map(AtomicAmount::units), want, "{text}");
    }

    #[test]
    fn digits_become_the_exact_number_of_units() {
        check("0.001", 6, Ok(1_000));
        check("1", 6, Ok(1_000_000));
        check("0.0000010", 6, Ok(1));
        check("12.5", 1, Ok(125));
        check("7", 0, Ok(7));
        check("340282366920938463463374607431768211455", 0, Ok(u128::MAX));
    }

    #[test]
    fn what_the_token_cannot_express_is_refused_not_rounded() {
        check(
            "0.0000001",
            6,
            Err(MoneyError::TooPrecise {
                given: 7,
                allowed: 6,
            }),
        );
        check(
            "0.1",
            0,
            Err(MoneyError::TooPrecise {
                given: 1,
                allowed: 0,
            }),
        );
        check(
            "340282366920938463463374607431768211456",
            0,
            Err(MoneyError::TooLarge),
        );
    }

    #[test]
    fn only_plain_digits_are_an_amount() {
        for text in [
            "", ".5", "5.", "+1", "-1", "1e3", "NaN", "1_000", "1,5", " 1", "0x10", "1.2.3", "١",
        ] {
            check(text, 6, Err(MoneyError::NotDecimal(text.to_owned())));
        }
    }

    #[test]
    fn the_three_price_forms_are_read() {
        let price = |text| PriceText::parse(text).map(|p| p.to_string());
        assert_eq!(price("$0.0010"), Ok("$0.001".to_owned()));
        assert_eq!(price("0.25 USDC"), Ok("0.25 USDC".to_owned()));
        assert_eq!(price("1000 atomic"), Ok("1000 atomic".to_owned()));
        for text in [
            "0.001",
            "USDC 1",
            "1  USDC",
            "$",
            "$ 1",
            "1.5 atomic",
            "$1 USDC",
            "",
            "1 ",
        ] {
            assert!(PriceText::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn tokens_and_units_say_the_same(units in any::<u128>(), places in 0_u64..=36) {
            let decimals = Decimals::new(places).unwrap();
            let text = AtomicAmount::new(units).in_tokens(decimals);
            let back = DecimalText::parse(&text).unwrap().to_atomic(decimals);
            prop_assert_eq!(back, Ok(AtomicAmount::new(units)));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            let _ = PriceText::parse(&text);
            let _ = AtomicAmount::parse(&text);
        }
    }
}
