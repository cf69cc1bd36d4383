//! What lenient origins make of characters outside ASCII: compatibility forms become plain ones.
//!
//! Frameworks that normalise (NFKC) or map to a code page ("best fit") read `ｓ`, `ⓢ` and `𝐬` as `s`,
//! `／` and `∕` as a slash. Folding is for judging and loose comparison only, never for forwarding.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizer;

/// Compatibility forms in their plain form, characters without a look of their own left out, and
/// whatever looks like a slash or backslash as just that.
#[must_use]
pub fn folded(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let seen: String = text
        .chars()
        .filter(|c| !is_invisible(*c))
        .map(|c| match c {
            '\u{2044}' | '\u{2215}' | '\u{29f8}' => '/',
            '\u{2216}' | '\u{29f5}' => '\\',
            c => c,
        })
        .collect();
    let normalizer = ComposingNormalizer::new_nfkc();
    Cow::Owned(normalizer.normalize(&seen).into_owned())
}

/// Whether an origin that drops blanks could take a folded segment for `.` or `..`.
#[must_use]
pub(super) fn is_dots(folded: &str) -> bool {
    let mut dots = 0_usize;
    let mut only_dots = true;
    for c in folded.chars().filter(|c| !c.is_whitespace()) {
        only_dots &= c == '.';
        dots = dots.saturating_add(1);
    }
    only_dots && (1..=2).contains(&dots)
}

/// Default ignorable code points that clients can hide in a name.
/// Rule: Unicode, `Default_Ignorable_Code_Point`.
const fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_or_counts_the_same_is_the_same() {
        for (text, want) in [
            ("plain/../", "plain/../"),
            ("ｓecret", "secret"),
            ("ⓢecret", "secret"),
            ("𝐬ecret", "secret"),
            ("v¹", "v1"),
            ("se\u{200b}cr\u{ad}et", "secret"),
            ("a／b∕c⁄d", "a/b/c/d"),
            ("a＼b∖c", "a\\b\\c"),
            ("．．", ".."),
            ("‥", ".."),
            ("％２ｆ", "%2f"),
            ("é", "é"),
            ("e\u{301}", "é"),
            ("日本", "日本"),
        ] {
            assert_eq!(folded(text), want, "{text}");
        }
    }

    #[test]
    fn dots_between_blanks_are_dots() {
        for text in [".", "..", ".. ", " ..", ". .", "..\u{a0}", "\u{3000}."] {
            assert!(is_dots(text), "{text:?}");
        }
        for text in ["", " ", "...", "..a", "a..", ".a."] {
            assert!(!is_dots(text), "{text:?}");
        }
    }
}
