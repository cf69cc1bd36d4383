//! The canonical request target and host, computed once: what is matched is what is forwarded.
//!
//! Origins disagree about odd spellings of a path, and every disagreement is a way round a price.
//! So one spelling is kept, and whatever could mean two things is refused with 400.
//!
//! | in the path | what happens | because |
//! |---|---|---|
//! | escape of an unreserved character: `%41`, `%7e` | decoded: `A`, `~` | RFC 3986, 6.2.2.2: the same path |
//! | any other escape: `%c3%a9`, `%20`, `%40` | kept, hex digits in upper case | RFC 3986, 6.2.2.1 |
//! | pchar: letters, digits, `-._~!$&'()*+,=:@` | kept, case as it is | case matters to most origins |
//! | raw character outside pchar: space, `"<>\^{}`, backtick, `\|`, `#`, bytes from 0x80 | refused | not a URI; origins mend it differently |
//! | `%2f`, `%5c`, raw `\` | refused | a separator to some origins, a character to others |
//! | `%00`, other control bytes, raw or escaped | refused | ends or splits the path for some origins |
//! | `%`, `%4`, `%zz` | refused | some decode, some keep |
//! | segments `.` and `..`, also as `%2e`, with blanks, or as `．．` and `‥` | refused | some resolve, some keep |
//! | escapes of what looks like a slash or backslash: `／`, `∕`, `＼` | refused | a separator to origins that normalise |
//! | `%25` before two hex digits, or before `u` and a hex digit | refused | decoded twice by some origins |
//! | `//` | refused | collapsed by some origins |
//! | `;`, `%3b` | refused | path parameters, dropped by some origins |
//! | escapes that are not UTF-8, overlong forms included | refused | decoded to other characters by some origins |
//! | a trailing slash | kept | the route table treats both spellings as one path unless a rule says otherwise |
//! | no leading slash: `*`, `http://…`, `host:port` | refused | only origin-form here; see [`split_absolute_form`] |
//!
//! The query is kept byte for byte. Refused in it: control bytes, raw spaces, `#`, bytes from 0x80,
//! and a parameter named `_method` (decoded, in any case), with which many origins let a client
//! override the method that was priced. Lower and upper case are both kept here; that an origin
//! may ignore case is the route table's business (its loose guard).

pub mod fold;
pub mod host;

use std::borrow::Cow;
use std::fmt;

use thiserror::Error;

pub use crate::target::host::{CanonicalHost, HostError, Scheme};

/// A request target in its one accepted spelling.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct CanonicalTarget {
    /// Starts with `/`; ASCII.
    pub path: String,
    /// What follows the first `?`, byte for byte; may be empty.
    pub query: Option<String>,
}

/// Why a request target is refused. The texts are safe to show to clients; the status is 400.
#[derive(Clone, Copy, Debug, Eq, Error, Hash, PartialEq)]
#[non_exhaustive]
pub enum TargetError {
    /// More bytes than `target_bytes_max`.
    #[error("the request target is too long")]
    TooLong,
    /// Does not start with `/`.
    #[error("the request target must start with a slash")]
    NotOriginForm,
    /// `%2f`.
    #[error("an encoded slash is not accepted in a path")]
    EncodedSlash,
    /// `%5c`.
    #[error("an encoded backslash is not accepted in a path")]
    EncodedBackslash,
    /// `%00`.
    #[error("an encoded NUL is not accepted in a path")]
    EncodedNul,
    /// A control byte, raw anywhere or escaped in the path.
    #[error("control characters are not accepted in a request target")]
    ControlCharacter,
    /// `%` without two hexadecimal digits.
    #[error("a percent sign must be followed by two hexadecimal digits")]
    MalformedEscape,
    /// A segment `.` or `..`.
    #[error("dot segments are not accepted in a path")]
    DotSegment,
    /// A dot segment with at least one `%2e`.
    #[error("encoded dot segments are not accepted in a path")]
    EncodedDotSegment,
    /// `%25` in front of what would then be an escape.
    #[error("double encoding is not accepted in a path")]
    DoubleEncoding,
    /// `//`.
    #[error("empty segments are not accepted in a path")]
    EmptySegment,
    /// `;`, raw or escaped.
    #[error("path parameters (;) are not accepted")]
    PathParameter,
    /// Escapes that decode to something else than UTF-8.
    #[error("the path is not valid UTF-8")]
    InvalidUtf8,
    /// A raw character that must be escaped, in the path or the query.
    #[error("the request target has a character that must be percent-encoded")]
    ForbiddenCharacter,
    /// A query parameter `_method`.
    #[error("overriding the method in the query is not accepted")]
    MethodOverride,
    /// An absolute-form target that is not `http` or `https`, or has no authority.
    #[error("the absolute request target is not an http or https URL")]
    AbsoluteForm,
}

impl CanonicalTarget {
    /// Reads an origin-form target as it came over the wire.
    ///
    /// # Errors
    ///
    /// [`TargetError`], by the table at the head of this module.
    pub fn parse(raw_path_and_query: &[u8], bytes_max: usize) -> Result<Self, TargetError> {
        if raw_path_and_query.len() > bytes_max {
            return Err(TargetError::TooLong);
        }
        let mut halves = raw_path_and_query.splitn(2, |&b| b == b'?');
        let path = canonical_path(halves.next().unwrap_or_default())?;
        let query = halves.next().map(checked_query).transpose()?;
        Ok(Self { path, query })
    }
}

impl fmt::Display for CanonicalTarget {
    /// The bytes to forward: path, and `?` with the query when there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        match &self.query {
            Some(query) => write!(f, "?{query}"),
            None => Ok(()),
        }
    }
}

/// An absolute-form target, taken apart but not yet judged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AbsoluteForm<'a> {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// What stands between `//` and the path: for [`CanonicalHost::parse`].
    pub authority: &'a [u8],
    /// For [`CanonicalTarget::parse`]; `/` where the URL has no path.
    pub path_and_query: Cow<'a, [u8]>,
}

/// Splits `http://host/path` of a request line; `None` when the target is in another form.
///
/// Rule: RFC 9112, section 3.2.2. A server must accept the form, and must prefer its authority to `Host`.
///
/// # Errors
///
/// [`TargetError::AbsoluteForm`] for another scheme or an empty authority.
pub fn split_absolute_form(raw: &[u8]) -> Result<Option<AbsoluteForm<'_>>, TargetError> {
    let Some(at) = raw.windows(3).position(|w| w == b"://") else {
        return Ok(None);
    };
    let (scheme, rest) = raw.split_at(at);
    if scheme.iter().any(|b| !is_scheme_byte(*b)) {
        return Ok(None); // the `://` lies in a path or a query
    }
    let scheme = match scheme.to_ascii_lowercase().as_slice() {
        b"http" => Scheme::Http,
        b"https" => Scheme::Https,
        _ => return Err(TargetError::AbsoluteForm),
    };
    let rest = rest.get(3..).unwrap_or_default();
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#'));
    let (authority, path) = rest.split_at(end.unwrap_or(rest.len()));
    if authority.is_empty() {
        return Err(TargetError::AbsoluteForm);
    }
    let path_and_query = match path.first() {
        Some(b'/') => Cow::Borrowed(path),
        Some(_) | None => Cow::Owned([b"/", path].concat()),
    };
    Ok(Some(AbsoluteForm {
        scheme,
        authority,
        path_and_query,
    }))
}

/// The path with every escape decoded, for people and for loose comparison; never for forwarding.
///
/// `path` must be canonical; a byte that is no escape is itself.
#[must_use]
pub fn decoded(path: &str) -> Cow<'_, str> {
    if path.contains('%') {
        Cow::Owned(String::from_utf8_lossy(&unescape(path.as_bytes())).into_owned())
    } else {
        Cow::Borrowed(path)
    }
}

const fn is_scheme_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')
}

const fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
}

/// pchar of RFC 3986 without `%`, which is handled apart, and `;`, which is refused.
const fn is_path_character(b: u8) -> bool {
    is_unreserved(b)
        || matches!(
            b,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@'
        )
}

fn hex(digit: Option<&u8>) -> Option<u8> {
    let digit = char::from(*digit?).to_digit(16)?;
    u8::try_from(digit).ok()
}

fn escape_at(bytes: &[u8]) -> Option<u8> {
    let high = hex(bytes.get(1))?;
    let low = hex(bytes.get(2))?;
    Some((high << 4) | low)
}

fn canonical_path(raw: &[u8]) -> Result<String, TargetError> {
    let Some((b'/', mut rest)) = raw.split_first() else {
        return Err(TargetError::NotOriginForm);
    };
    let mut path = String::with_capacity(raw.len());
    let mut high_bytes = false;
    loop {
        path.push('/');
        let end = rest.iter().position(|&b| b == b'/');
        let (segment, after) = rest.split_at(end.unwrap_or(rest.len()));
        if segment.is_empty() && end.is_some() {
            return Err(TargetError::EmptySegment);
        }
        high_bytes |= push_segment(segment, &mut path)?;
        match after.split_first() {
            Some((_, next)) => rest = next,
            None => break,
        }
    }
    refuse_double_encoding(path.as_bytes())?;
    if high_bytes && std::str::from_utf8(&unescape(path.as_bytes())).is_err() {
        return Err(TargetError::InvalidUtf8);
    }
    path.split('/')
        .filter(|segment| segment.contains('%'))
        .try_for_each(refuse_lookalikes)?;
    Ok(path)
}

/// Judges a segment as an origin sees it that normalises characters and drops blanks.
fn refuse_lookalikes(segment: &str) -> Result<(), TargetError> {
    let text = decoded(segment);
    let folded = fold::folded(&text);
    let is_escape = |w: &[u8]| escape_at(w).is_some();
    if folded.contains('/') {
        Err(TargetError::EncodedSlash)
    } else if folded.contains('\\') {
        Err(TargetError::EncodedBackslash)
    } else if fold::is_dots(&folded) {
        Err(TargetError::EncodedDotSegment)
    } else if folded
        .as_bytes()
        .windows(3)
        .any(|w| w.starts_with(b"%") && is_escape(w))
    {
        Err(TargetError::DoubleEncoding)
    } else {
        Ok(())
    }
}

/// Appends the canonical form of one segment; says whether it has escapes from 0x80.
fn push_segment(mut raw: &[u8], path: &mut String) -> Result<bool, TargetError> {
    let start = path.len();
    let (mut high_bytes, mut encoded_dot) = (false, false);
    while let Some((&byte, after)) = raw.split_first() {
        raw = after;
        if byte != b'%' {
            path.push(raw_character(byte)?);
            continue;
        }
        let value = match after {
            [high, low, next @ ..] => {
                raw = next;
                escape_at(&[b'%', *high, *low])
            }
            [] | [_] => None,
        };
        let value = value.ok_or(TargetError::MalformedEscape)?;
        high_bytes |= value >= 0x80;
        encoded_dot |= value == b'.';
        push_escape(value, path)?;
    }
    match path.get(start..) {
        Some("." | "..") if encoded_dot => Err(TargetError::EncodedDotSegment),
        Some("." | "..") => Err(TargetError::DotSegment),
        Some(_) | None => Ok(high_bytes),
    }
}

fn raw_character(byte: u8) -> Result<char, TargetError> {
    match byte {
        b';' => Err(TargetError::PathParameter),
        0..=0x1f | 0x7f => Err(TargetError::ControlCharacter),
        byte if is_path_character(byte) => Ok(char::from(byte)),
        _ => Err(TargetError::ForbiddenCharacter),
    }
}

fn push_escape(value: u8, path: &mut String) -> Result<(), TargetError> {
    const HEX: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    match value {
        b'/' => return Err(TargetError::EncodedSlash),
        b'\\' => return Err(TargetError::EncodedBackslash),
        b';' => return Err(TargetError::PathParameter),
        0 => return Err(TargetError::EncodedNul),
        1..=0x1f | 0x7f => return Err(TargetError::ControlCharacter),
        value if is_unreserved(value) => path.push(char::from(value)),
        value => {
            let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or('0');
            path.extend(['%', digit(value >> 4), digit(value & 0xf)]);
        }
    }
    Ok(())
}

/// Judged on the canonical form, so that `%25%32%66` is seen for what it is.
fn refuse_double_encoding(path: &[u8]) -> Result<(), TargetError> {
    let doubled = path.windows(5).any(|w| match w {
        [b'%', b'2', b'5', b'u' | b'U', c] => c.is_ascii_hexdigit(),
        [b'%', b'2', b'5', a, b] => a.is_ascii_hexdigit() && b.is_ascii_hexdigit(),
        _ => false,
    });
    if doubled {
        Err(TargetError::DoubleEncoding)
    } else {
        Ok(())
    }
}

/// Decodes escapes once; what is no escape stays.
fn unescape(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    while let Some((&byte, after)) = bytes.split_first() {
        match escape_at(bytes).filter(|_| byte == b'%') {
            Some(value) => {
                out.push(value);
                bytes = bytes.get(3..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                bytes = after;
            }
        }
    }
    out
}

fn checked_query(raw: &[u8]) -> Result<String, TargetError> {
    for &byte in raw {
        match byte {
            0..=0x1f | 0x7f => return Err(TargetError::ControlCharacter),
            b' ' | b'#' | 0x80.. => return Err(TargetError::ForbiddenCharacter),
            _ => {}
        }
    }
    if raw
        .split(|b| matches!(b, b'&' | b';' | b'?'))
        .any(overrides_method)
    {
        return Err(TargetError::MethodOverride);
    }
    String::from_utf8(raw.to_vec()).map_err(|_| TargetError::ForbiddenCharacter)
}

/// How often a name in the query is decoded to see what it may become.
const DECODINGS_MAX: usize = 4;

/// Whether a query parameter is read as `_method` by some origin.
///
/// Decoded more than once, because some do; `%u` escapes and wide forms included.
///
/// PHP drops leading spaces, cuts at NUL, turns dots, spaces and an unclosed bracket in a name into
/// underscores, and reads `_method[]` as `_method`.
fn overrides_method(parameter: &[u8]) -> bool {
    let key = parameter.split(|&b| b == b'=').next().unwrap_or_default();
    if !key.contains(&b'%') {
        return names_method(key);
    }
    let mut key = key.to_vec();
    for _ in 0..DECODINGS_MAX {
        let text = String::from_utf8_lossy(&unescape(&key)).into_owned();
        key = fold::folded(&unescaped_wide(&text)).as_bytes().to_vec();
        if names_method(key.split(|&b| b == b'=').next().unwrap_or_default()) {
            return true;
        }
    }
    false
}

/// Decodes `%u002f` and its like; what is no such escape stays.
fn unescaped_wide(text: &str) -> Cow<'_, str> {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let wide = part.strip_prefix(['u', 'U']).and_then(|rest| {
            let (digits, rest) = rest.split_at_checked(4)?;
            let all = digits.bytes().all(|b| b.is_ascii_hexdigit());
            let code = u32::from_str_radix(digits, 16).ok().filter(|_| all)?;
            Some((char::from_u32(code)?, rest))
        });
        match wide {
            Some((c, rest)) => {
                out.push(c);
                out.push_str(rest);
            }
            None => {
                out.push('%');
                out.push_str(part);
            }
        }
    }
    Cow::Owned(out)
}

fn names_method(key: &[u8]) -> bool {
    let mut key = key.to_vec();
    for byte in &mut key {
        if *byte == b'+' {
            *byte = b' ';
        }
    }
    let key = key.trim_ascii();
    let (first, rest) = match key.split_first() {
        Some((b'_' | b'.' | b'[', rest)) => (b'_', rest),
        Some((first, rest)) => (*first, rest),
        None => return false,
    };
    let name = rest.split(|b| matches!(b, 0 | b'[')).next();
    first == b'_' && name.is_some_and(|n| n.trim_ascii().eq_ignore_ascii_case(b"method"))
}

#[cfg(test)]
mod tests;
