//! Why a rule governs a request and others do not. For people: it walks all rules.

use std::fmt;

use crate::route::pattern::{HostPattern, Methods, PathPattern, Segment};
use crate::route::table::{RouteTable, Rule};
use crate::route::{Access, RequestLine};

/// What becomes of a request, and why.
#[derive(Debug)]
pub struct Explanation<'a> {
    /// What it may do.
    pub access: Access,
    /// The rule that governs it as it is spelled.
    pub governing: Option<&'a Rule>,
    /// Other rules, the closest first.
    pub near_misses: Vec<NearMiss<'a>>,
}

/// A rule that does not govern a request, and all reasons why.
#[derive(Debug)]
pub struct NearMiss<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// At least one.
    pub why: Vec<Miss>,
}

/// One reason why a rule does not govern a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Miss {
    /// It matches, but the governing rule is more specific in this.
    LessSpecific(Difference),
    /// It is for other methods.
    Method {
        /// Those of the rule, in words.
        wants: String,
        /// That of the request.
        has: String,
    },
    /// It is for other hosts.
    Host {
        /// Pattern of the rule.
        wants: String,
        /// That of the request; may be empty.
        has: String,
    },
    /// Its path differs.
    Path {
        /// The first segment that does, from 1.
        segment: usize,
        /// What the rule has there; `None` when it ends before.
        wants: Option<String>,
        /// What the request has there; `None` when it ends before.
        has: Option<String>,
    },
}

/// In what one matching rule is more specific than another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Difference {
    /// Its host.
    Host,
    /// Its path at this segment, from 1.
    Segment(usize),
    /// It is written for this path, the other only stands in for it (trailing slash, bare prefix).
    Written,
    /// It names the method.
    Method,
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LessSpecific(difference) => {
                write!(f, "matches, but the governing rule {difference}")
            }
            Self::Method { wants, has } => {
                write!(f, "method differs: the rule is for {wants}, not {has}")
            }
            Self::Host { wants, has } if has.is_empty() => {
                write!(
                    f,
                    "host differs: the rule is for {wants}, the request names none"
                )
            }
            Self::Host { wants, has } => {
                write!(f, "host differs: the rule is for {wants}, not {has}")
            }
            Self::Path {
                segment,
                wants: Some(wants),
                has: Some(has),
            } => write!(
                f,
                "path differs at segment {segment}: the rule has {wants:?}, the request {has:?}"
            ),
            Self::Path {
                wants: Some(wants), ..
            } => write!(f, "path is too short: the rule goes on with {wants:?}"),
            Self::Path { segment, has, .. } => write!(
                f,
                "path is too long: the rule ends before segment {segment} ({:?})",
                has.as_deref().unwrap_or_default()
            ),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("has a more specific host"),
            Self::Segment(at) => write!(f, "is more specific at segment {at} of the path"),
            Self::Written => f.write_str("is written for exactly this path"),
            Self::Method => f.write_str("names the method"),
        }
    }
}

impl RouteTable {
    /// What becomes of a request and why, with up to `near_max` other rules.
    #[must_use]
    pub fn explain(&self, request: &RequestLine<'_>, near_max: usize) -> Explanation<'_> {
        let governing = self.governing(request);
        let mut near: Vec<(Closeness, NearMiss<'_>)> = self
            .rules()
            .iter()
            .filter(|rule| governing.is_none_or(|g| g.name != rule.name))
            .map(|rule| near_miss(rule, governing, request))
            .collect();
        near.sort_by_key(|(closeness, _)| *closeness);
        near.truncate(near_max);
        Explanation {
            access: self.access(request),
            governing,
            near_misses: near.into_iter().map(|(_, miss)| miss).collect(),
        }
    }
}

/// Smaller is closer: whether the path differs, how much of it is left when it does, how many reasons there are.
type Closeness = (bool, usize, usize);

fn near_miss<'a>(
    rule: &'a Rule,
    governing: Option<&Rule>,
    request: &RequestLine<'_>,
) -> (Closeness, NearMiss<'a>) {
    let mut why = Vec::new();
    let path = path_miss(&rule.path, request.path);
    let depth = request.path.split('/').count();
    let left = match &path {
        Some(Miss::Path { segment, .. }) => depth.saturating_sub(*segment),
        Some(_) | None => 0,
    };
    let differs = path.is_some();
    why.extend(path);
    if !rule.methods.contains(request.method) {
        why.push(Miss::Method {
            wants: rule.methods.to_string(),
            has: request.method.to_owned(),
        });
    }
    if !rule.host.matches(request.host) {
        why.push(Miss::Host {
            wants: rule.host.to_string(),
            has: request.host.to_owned(),
        });
    }
    let reasons = why.len();
    if let (true, Some(governing)) = (why.is_empty(), governing) {
        why.push(Miss::LessSpecific(difference(governing, rule, request)));
    }
    ((differs, left, reasons), NearMiss { rule, why })
}

/// Where a path leaves a pattern. A trailing slash never makes a difference by itself.
fn path_miss(pattern: &PathPattern, path: &str) -> Option<Miss> {
    let inner = path.strip_prefix('/').unwrap_or(path);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    let mut has = inner.split('/').filter(|_| !inner.is_empty());
    let mut wants = pattern.segments().iter();
    let mut segment = 0_usize;
    loop {
        segment = segment.saturating_add(1);
        let (want, have) = (wants.next(), has.next());
        let fits = match (want, have) {
            (None, None) | (Some(Segment::Rest(_)), _) => return None,
            (Some(Segment::Parameter(_)), Some(_)) => true,
            (Some(Segment::Literal(want)), Some(have)) => want == have,
            (Some(Segment::Literal(_) | Segment::Parameter(_)), None) | (None, Some(_)) => false,
        };
        if !fits {
            return Some(Miss::Path {
                segment,
                wants: want.map(Segment::to_string),
                has: have.map(str::to_owned),
            });
        }
    }
}

/// Why `winner` beats `loser` on a request that both match.
fn difference(winner: &Rule, loser: &Rule, request: &RequestLine<'_>) -> Difference {
    let rank = |host: &HostPattern| match host {
        HostPattern::Exact(_) => (2, 0),
        HostPattern::Wildcard(suffix) => (1, suffix.len()),
        HostPattern::Any => (0, 0),
    };
    if rank(&winner.host) != rank(&loser.host) {
        return Difference::Host;
    }
    let kinds = |rule: &Rule| rule.path.segments().iter().map(Segment::kind).collect();
    let (winning, losing): (Vec<_>, Vec<_>) = (kinds(winner), kinds(loser));
    let depth = request.path.split('/').filter(|s| !s.is_empty()).count();
    let at = winning.iter().zip(&losing).position(|(w, l)| w != l);
    if let Some(at) = at.filter(|at| *at < depth) {
        return Difference::Segment(at.saturating_add(1));
    }
    let shape = |rule: &Rule| (rule.path.segments().len(), rule.path.has_trailing_slash());
    if shape(winner) != shape(loser) {
        return Difference::Written;
    }
    match winner.methods {
        Methods::Named(_) => Difference::Method,
        Methods::Any => Difference::Written,
    }
}

#[cfg(test)]
mod tests;
