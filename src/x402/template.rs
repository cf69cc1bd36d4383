//! Messages that differ in one text only: what is constant of them is rendered once.
//!
//! A message is rendered with a marker in the text's place and cut there. The text itself is copied
//! in, so it must be one that JSON writes as it is; for any other there is no message.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// JSON with places for one text.
#[derive(Debug)]
pub struct Template {
    first: Box<[u8]>,
    others: Vec<Box<[u8]>>,
}

/// The same in padded standard base64, with one place.
#[derive(Debug)]
pub struct EncodedTemplate {
    /// Of as many whole groups of three bytes as stand before the place.
    before: Box<str>,
    /// Up to two bytes that stand between these and the place.
    remainder: Box<[u8]>,
    /// What follows, for each number of bytes that fill up the group in which the text ends.
    after: [Tail; 3],
}

/// What follows the text: bytes that share a group with its end, and the rest.
#[derive(Debug)]
struct Tail {
    shared: Box<[u8]>,
    encoded: Box<str>,
}

impl Template {
    /// Cuts `json` wherever `marker` stands; `None` unless that is in `places` places.
    #[must_use]
    pub fn cut(json: &[u8], marker: &str, places: usize) -> Option<Self> {
        let (mut rest, mut pieces) = (json, Vec::new());
        while let Some(at) = find(rest, marker.as_bytes()) {
            let (piece, after) = rest.split_at(at);
            pieces.push(Box::from(piece));
            rest = after.get(marker.len()..)?;
        }
        if pieces.len() != places {
            return None;
        }
        pieces.push(Box::from(rest));
        let mut pieces = pieces.into_iter();
        Some(Self {
            first: pieces.next()?,
            others: pieces.collect(),
        })
    }

    /// The message with `text` in every place.
    #[must_use]
    pub fn fill(&self, text: &str) -> Option<Vec<u8>> {
        if !is_plain(text) {
            return None;
        }
        let others: usize = self.others.iter().map(|piece| piece.len()).sum();
        let texts = text.len().saturating_mul(self.others.len());
        let length = self.first.len().saturating_add(others);
        let mut json = Vec::with_capacity(length.saturating_add(texts));
        json.extend_from_slice(&self.first);
        for piece in &self.others {
            json.extend_from_slice(text.as_bytes());
            json.extend_from_slice(piece);
        }
        Some(json)
    }
}

impl EncodedTemplate {
    /// Cuts `json` where `marker` stands; `None` unless that is in one place.
    #[must_use]
    pub fn cut(json: &[u8], marker: &str) -> Option<Self> {
        let template = Template::cut(json, marker, 1)?;
        let whole = template.first.len() / 3;
        let (before, remainder) = template.first.split_at(whole.saturating_mul(3));
        let after = template.others.into_iter().next()?;
        Some(Self {
            before: STANDARD.encode(before).into(),
            remainder: remainder.into(),
            after: [0, 1, 2].map(|shared: usize| {
                let (shared, rest) = after.split_at(shared.min(after.len()));
                Tail {
                    shared: shared.into(),
                    encoded: STANDARD.encode(rest).into(),
                }
            }),
        })
    }

    /// The encoded message with `text` in its place.
    #[must_use]
    pub fn fill(&self, text: &str) -> Option<String> {
        if !is_plain(text) {
            return None;
        }
        let length = self.remainder.len().saturating_add(text.len());
        let tail = match length % 3 {
            0 => self.after.first(),
            1 => self.after.get(2),
            _ => self.after.get(1),
        }?;
        let mut group = Vec::with_capacity(length.saturating_add(2));
        group.extend_from_slice(&self.remainder);
        group.extend_from_slice(text.as_bytes());
        group.extend_from_slice(&tail.shared);
        let encoded = group.len().div_ceil(3).saturating_mul(4);
        let length = self.before.len().saturating_add(tail.encoded.len());
        let mut message = String::with_capacity(length.saturating_add(encoded));
        message.push_str(&self.before);
        STANDARD.encode_string(&group, &mut message);
        message.push_str(&tail.encoded);
        Some(message)
    }
}

/// Whether JSON writes this text as it is.
fn is_plain(text: &str) -> bool {
    !text.bytes().any(|b| b < 0x20 || matches!(b, b'"' | b'\\'))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len().max(1)).position(|w| w == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MARKER: &str = "{here}";

    proptest! {
        #[test]
        fn a_filled_template_is_what_would_have_been_written(
            before in "[a-z\"]{0,9}", after in "[a-z\"]{0,9}", text in "[!#-\\[\\]-~é]{0,40}",
        ) {
            let json = |text: &str| format!("{before}{text}{after}").into_bytes();
            let template = EncodedTemplate::cut(&json(MARKER), MARKER).unwrap();
            prop_assert_eq!(template.fill(&text), Some(STANDARD.encode(json(&text))));
            let template = Template::cut(&json(MARKER), MARKER, 1).unwrap();
            prop_assert_eq!(template.fill(&text), Some(json(&text)));
        }
    }

    #[test]
    fn a_text_that_json_would_escape_is_left_to_json() {
        for text in ["a\"", "\\", "\n", "\u{1f}"] {
            assert_eq!(
                Template::cut(b"a{here}", MARKER, 1).unwrap().fill(text),
                None
            );
            assert_eq!(
                EncodedTemplate::cut(b"a{here}", MARKER).unwrap().fill(text),
                None
            );
        }
    }

    #[test]
    fn a_marker_in_another_number_of_places_is_no_marker() {
        for json in ["", "{here}{here}"] {
            assert!(Template::cut(json.as_bytes(), MARKER, 1).is_none());
            assert!(EncodedTemplate::cut(json.as_bytes(), MARKER).is_none());
        }
        let none = Template::cut(b"{}", MARKER, 0).unwrap();
        assert_eq!(none.fill("a").unwrap(), b"{}");
    }
}
