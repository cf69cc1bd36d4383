//! What a rule matches: patterns of host and path, read once, refused when they could mean two things.
//!
//! A path pattern is literal segments, `{name}` for exactly one whole segment, and at its end
//! `{*rest}` for one or more. Literals are written in the canonical form of [`crate::target`],
//! because that is all that requests are compared with. Which further paths a pattern governs
//! unless another rule names them is in [`PathPattern::forms`].

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::target::fold::folded;
use crate::target::{CanonicalHost, CanonicalTarget, Scheme, decoded};

/// At most so many `{name}` in one path; the router takes 25.
const PARAMETERS_MAX: usize = 16;
/// At most so many bytes in one path.
const PATTERN_BYTES_MAX: usize = 2048;

/// A path pattern.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct PathPattern {
    text: Arc<str>,
    segments: Vec<Segment>,
    trailing_slash: bool,
}

/// One segment of a pattern.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Segment {
    /// These bytes.
    Literal(String),
    /// `{name}`: any one segment.
    Parameter(String),
    /// `{*rest}`: one or more segments up to the end.
    Rest(String),
}

/// How specific a segment is; the later the more.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// `{*rest}`.
    Rest,
    /// `{name}`.
    Parameter,
    /// A literal.
    Literal,
}

/// How firmly a pattern stands for a path shape; the later the firmer.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Standing {
    /// `/files/{*rest}` for `/files` and `/files/`.
    BarePrefix,
    /// `/a` for `/a/`, and `/a/` for `/a`.
    SlashTwin,
    /// As written.
    Written,
}

/// One path shape that a pattern governs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Form {
    /// The shape in the router's language; parameter names are gone, so equal shapes are equal text.
    pub shape: String,
    /// How specific it is, segment by segment.
    pub kinds: Arc<[Kind]>,
    /// How firmly the pattern stands for it.
    pub standing: Standing,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum PatternError {
    /// Does not start with `/`.
    #[error("{0:?} does not start with a slash")]
    NoSlash(String),
    /// `//`.
    #[error("{0:?} has an empty segment; requests with // are refused")]
    EmptySegment(String),
    /// A query or fragment.
    #[error("{0:?} has a query or fragment; rules match paths only")]
    Query(String),
    /// `img-{id}.png`, `{a}{b}`, an unclosed brace.
    #[error("segment {0:?} mixes literal text and a parameter; a parameter is a whole segment")]
    PartialSegment(String),
    /// A parameter without a proper name.
    #[error("{0:?} is no parameter; a name is letters, digits and underscores")]
    ParameterName(String),
    /// The same name twice.
    #[error("parameter {0:?} appears twice")]
    DuplicateName(String),
    /// `{*rest}` before the end.
    #[error("{0:?} must be the last segment")]
    RestNotLast(String),
    /// `*` or `**`.
    #[error("{0:?} is not a wildcard here")]
    Glob(String),
    /// A literal in another spelling than requests have after normalisation.
    #[error("segment {written:?} is not in canonical form and would never match")]
    NotCanonical {
        /// As written.
        written: String,
        /// As it has to be written.
        canonical: String,
    },
    /// A literal that no request can have.
    #[error("segment {segment:?} can never match: {why}")]
    Refused {
        /// As written.
        segment: String,
        /// Why requests with it are refused.
        why: String,
    },
    /// Too many parameters or bytes.
    #[error("{0:?} is too long: at most 16 parameters and 2048 bytes")]
    TooLong(String),
    /// Neither a host name nor `*.` and a host name.
    #[error("{text:?} is not a host pattern: {why}")]
    Host {
        /// As written.
        text: String,
        /// Why not.
        why: String,
    },
}

impl PatternError {
    /// How to mend it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::NoSlash(text) => format!("write \"/{text}\""),
            Self::EmptySegment(_) => "write a single slash".to_owned(),
            Self::Query(_) => "remove everything from ? or #".to_owned(),
            Self::PartialSegment(_) => {
                "write {name} for the whole segment; the rule then governs more paths, never fewer"
                    .to_owned()
            }
            Self::ParameterName(_) => "write {name}, or {*rest} at the end".to_owned(),
            Self::DuplicateName(_) => "give each parameter its own name".to_owned(),
            Self::RestNotLast(_) => "end the path there, or write {name} for one segment".to_owned(),
            Self::Glob(_) => {
                "write {name} for one segment, {*rest} at the end for all that follow".to_owned()
            }
            Self::NotCanonical { canonical, .. } => format!("write {canonical:?}"),
            Self::Refused { .. } => "requests with it are answered 400; remove the rule".to_owned(),
            Self::TooLong(_) => "end the path earlier with {*rest}".to_owned(),
            Self::Host { .. } => {
                "write a name such as \"api.example.com\", or \"*.example.com\"; no port, lower case"
                    .to_owned()
            }
        }
    }
}

impl PathPattern {
    /// Reads a path pattern.
    ///
    /// # Errors
    ///
    /// [`PatternError`].
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let rest = text
            .strip_prefix('/')
            .ok_or_else(|| PatternError::NoSlash(text.to_owned()))?;
        if text.contains(['?', '#']) {
            return Err(PatternError::Query(text.to_owned()));
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong(text.to_owned()));
        }
        let trailing_slash = rest.ends_with('/') || rest.is_empty();
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let mut segments = Vec::new();
        if !(rest.is_empty() && text == "/") {
            for part in rest.split('/') {
                if part.is_empty() {
                    return Err(PatternError::EmptySegment(text.to_owned()));
                }
                segments.push(segment(part)?);
            }
        }
        check_parameters(text, &segments, trailing_slash)?;
        Ok(Self {
            text: text.into(),
            segments,
            trailing_slash,
        })
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its segments in order.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether it ends with `{*rest}`.
    #[must_use]
    pub fn is_open_ended(&self) -> bool {
        matches!(self.segments.last(), Some(Segment::Rest(_)))
    }

    /// Whether it is written with a slash at its end; so is `/`.
    #[must_use]
    pub const fn has_trailing_slash(&self) -> bool {
        self.trailing_slash
    }

    /// Every path shape that the pattern governs.
    ///
    /// A trailing slash is no way round a price, so `/a` also governs `/a/` and the other way
    /// round, and `/files/{*rest}` also governs `/files` and `/files/`, each unless another rule
    /// stands for that shape more firmly.
    #[must_use]
    pub fn forms(&self) -> Vec<Form> {
        let written = form(&self.segments, self.trailing_slash, Standing::Written);
        if self.segments.is_empty() {
            return vec![written];
        }
        if !self.is_open_ended() {
            let twin = form(&self.segments, !self.trailing_slash, Standing::SlashTwin);
            return vec![written, twin];
        }
        let bare = self.segments.split_last().map_or(&[][..], |(_, bare)| bare);
        let mut forms = vec![written, form(bare, true, Standing::BarePrefix)];
        if !bare.is_empty() {
            forms.push(form(bare, false, Standing::BarePrefix));
        }
        forms
    }

    /// The shapes by which an origin that is lenient about spelling would recognise the pattern.
    ///
    /// For paths in the form of [`loose`]: no trailing slash, no case, no escapes.
    #[must_use]
    pub fn loose_forms(&self) -> Vec<Form> {
        let segments: Vec<Segment> = self
            .segments
            .iter()
            .map(|segment| match segment {
                Segment::Literal(text) => Segment::Literal(loose_segment(text)),
                Segment::Parameter(_) | Segment::Rest(_) => segment.clone(),
            })
            .filter(|s| !matches!(s, Segment::Literal(text) if text.is_empty()))
            .collect();
        let written = form(&segments, segments.is_empty(), Standing::Written);
        match segments.split_last() {
            Some((Segment::Rest(_), bare)) => {
                vec![written, form(bare, bare.is_empty(), Standing::BarePrefix)]
            }
            Some(_) | None => vec![written],
        }
    }

    /// Whether the loose shapes are those as written, so that looking twice finds nothing new.
    #[must_use]
    pub fn is_loose(&self) -> bool {
        (self.segments.is_empty() || !self.trailing_slash)
            && self.segments.iter().all(|segment| match segment {
                Segment::Literal(text) => is_loose_text(text),
                Segment::Parameter(_) | Segment::Rest(_) => true,
            })
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Segment {
    /// How specific it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Literal(_) => Kind::Literal,
            Self::Parameter(_) => Kind::Parameter,
            Self::Rest(_) => Kind::Rest,
        }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => f.write_str(text),
            Self::Parameter(name) => write!(f, "{{{name}}}"),
            Self::Rest(name) => write!(f, "{{*{name}}}"),
        }
    }
}

/// A canonical path as an origin might read it that ignores case, decodes escapes, normalises
/// characters, drops trailing slashes, and trims spaces and dots from the ends of segments.
#[must_use]
pub fn loose(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for segment in path.split('/') {
        let segment = loose_segment(segment);
        if !segment.is_empty() {
            out.push('/');
            out.push_str(&segment);
        }
    }
    if out.is_empty() {
        out.push('/');
    }
    out
}

/// The same for an origin that decodes first and then looks for a query, a fragment or parameters,
/// which `%3F`, `%23` and wide forms then begin; `None` where there are none.
#[must_use]
pub fn loose_cut(path: &str) -> Option<String> {
    if !path.contains('%') {
        return None;
    }
    let text = decoded(path);
    let text = folded(&text);
    if !text.contains(['?', '#', ';']) {
        return None;
    }
    let cut = text.split(['?', '#']).next().unwrap_or_default();
    let segments = cut.split('/');
    let bare = segments.map(|segment| segment.split(';').next().unwrap_or_default());
    Some(loose(&bare.collect::<Vec<_>>().join("/")))
}

/// Whether [`loose`] gives the path back.
#[must_use]
pub fn is_loose(path: &str) -> bool {
    let ends_with_dot = |pair: &[u8]| pair == b"./";
    path == "/"
        || (!path.ends_with('/')
            && is_loose_text(path)
            && !path.as_bytes().windows(2).any(ends_with_dot))
}

fn is_loose_text(segment: &str) -> bool {
    !segment.ends_with('.')
        && !segment
            .bytes()
            .any(|b| b == b'%' || b.is_ascii_uppercase() || !b.is_ascii())
}

/// Upper case first: `ſ` has no other lower case, but is equal to `s` for who compares upper case.
fn loose_segment(segment: &str) -> String {
    let text = decoded(segment);
    let text = folded(&text);
    let text = text.trim_end_matches(|c: char| c == '.' || c.is_whitespace());
    let text = text.trim_start_matches(char::is_whitespace);
    if text.is_ascii() {
        text.to_ascii_lowercase()
    } else {
        text.to_uppercase().to_lowercase()
    }
}

fn form(segments: &[Segment], trailing_slash: bool, standing: Standing) -> Form {
    let mut shape = String::new();
    for segment in segments {
        shape.push('/');
        match segment {
            Segment::Literal(text) if !text.contains(['{', '}']) => shape.push_str(text),
            // Braces are the router's own; loose literals may have them.
            Segment::Literal(text) => shape.push_str(&text.replace('{', "{{").replace('}', "}}")),
            Segment::Parameter(_) => shape.push_str("{p}"),
            Segment::Rest(_) => shape.push_str("{*r}"),
        }
    }
    if trailing_slash {
        shape.push('/');
    }
    Form {
        shape,
        kinds: segments.iter().map(Segment::kind).collect(),
        standing,
    }
}

fn segment(text: &str) -> Result<Segment, PatternError> {
    if matches!(text, "*" | "**") {
        return Err(PatternError::Glob(text.to_owned()));
    }
    if !text.contains(['{', '}']) {
        return literal(text);
    }
    let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
    let inner = inner
        .filter(|inner| !inner.contains(['{', '}']))
        .ok_or_else(|| PatternError::PartialSegment(text.to_owned()))?;
    let (name, is_rest) = match inner.strip_prefix('*') {
        Some(name) => (name, true),
        None => (inner, false),
    };
    let named = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.is_empty() || !name.bytes().all(named) {
        return Err(PatternError::ParameterName(text.to_owned()));
    }
    Ok(if is_rest {
        Segment::Rest(name.to_owned())
    } else {
        Segment::Parameter(name.to_owned())
    })
}

fn literal(text: &str) -> Result<Segment, PatternError> {
    let mut escaped = String::from("/");
    for byte in text.bytes() {
        match byte {
            b' ' | b'"' | b'<' | b'>' | b'^' | b'`' | b'|' | b'[' | b']' | 0x80.. => {
                escaped.push_str(&format!("%{byte:02X}"));
            }
            byte => escaped.push(char::from(byte)),
        }
    }
    match CanonicalTarget::parse(escaped.as_bytes(), usize::MAX) {
        Ok(target) if target.path.strip_prefix('/') == Some(text) => {
            Ok(Segment::Literal(text.to_owned()))
        }
        Ok(target) => Err(PatternError::NotCanonical {
            written: text.to_owned(),
            canonical: target.path.trim_start_matches('/').to_owned(),
        }),
        Err(why) => Err(PatternError::Refused {
            segment: text.to_owned(),
            why: why.to_string(),
        }),
    }
}

fn check_parameters(
    text: &str,
    segments: &[Segment],
    trailing_slash: bool,
) -> Result<(), PatternError> {
    let mut names: Vec<&str> = Vec::new();
    for (at, segment) in segments.iter().enumerate() {
        let name = match segment {
            Segment::Literal(_) => continue,
            Segment::Parameter(name) => name,
            Segment::Rest(name) => {
                if at.saturating_add(1) < segments.len() || trailing_slash {
                    return Err(PatternError::RestNotLast(segment.to_string()));
                }
                name
            }
        };
        if names.contains(&name.as_str()) {
            return Err(PatternError::DuplicateName(name.clone()));
        }
        names.push(name);
    }
    if names.len() > PARAMETERS_MAX {
        return Err(PatternError::TooLong(text.to_owned()));
    }
    Ok(())
}

/// Which hosts a rule is for.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum HostPattern {
    /// This one.
    Exact(String),
    /// `*.example.com`: any name that ends so, at any depth, but not `example.com` itself.
    Wildcard(String),
    /// All, and requests that name none.
    Any,
}

impl HostPattern {
    /// Reads a host pattern; `None` is any host.
    ///
    /// # Errors
    ///
    /// [`PatternError::Host`].
    pub fn parse(text: Option<&str>) -> Result<Self, PatternError> {
        let Some(text) = text else {
            return Ok(Self::Any);
        };
        let wrong = |why: String| PatternError::Host {
            text: text.to_owned(),
            why,
        };
        let (suffix, is_wildcard) = match text.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (text, false),
        };
        let host = CanonicalHost::parse(suffix.as_bytes(), Scheme::Http)
            .map_err(|e| wrong(e.to_string()))?;
        if host.host != suffix {
            return Err(wrong(format!("its canonical form is {:?}", host.host)));
        }
        Ok(if is_wildcard {
            Self::Wildcard(host.host)
        } else {
            Self::Exact(host.host)
        })
    }

    /// Whether it is for this host.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Wildcard(suffix) => host
                .strip_suffix(suffix.as_str())
                .and_then(|head| head.strip_suffix('.'))
                .is_some_and(|head| !head.is_empty()),
            Self::Any => true,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
            Self::Any => f.write_str("any host"),
        }
    }
}

/// Which methods a rule is for: `Named` is sorted, not empty, and never has `HEAD`, which goes with `GET`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Methods {
    /// All.
    Any,
    /// These.
    Named(Vec<String>),
}

impl Methods {
    /// Reads the methods of a rule; `None` when it names `HEAD` without `GET`.
    #[must_use]
    pub fn parse(methods: &[String]) -> Option<Self> {
        if methods.is_empty() {
            return Some(Self::Any);
        }
        let has = |name: &str| methods.iter().any(|m| m == name);
        if has("HEAD") && !has("GET") {
            return None;
        }
        let mut named: Vec<String> = methods.iter().filter(|m| *m != "HEAD").cloned().collect();
        named.sort_unstable();
        named.dedup();
        Some(Self::Named(named))
    }

    /// Whether it is for this method.
    #[must_use]
    pub fn contains(&self, method: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Named(names) => names.iter().any(|m| m == governed_as(method)),
        }
    }
}

impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any method"),
            Self::Named(names) => f.write_str(&names.join(", ")),
        }
    }
}

/// The method whose rules govern this one: HEAD costs what GET costs.
#[must_use]
pub fn governed_as(method: &str) -> &str {
    match method {
        "HEAD" => "GET",
        other => other,
    }
}

#[cfg(test)]
mod tests;
