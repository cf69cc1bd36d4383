//! Which rule governs a request: the most specific one, whatever the order in the file.
//!
//! Decided in this order: the host (exact, then wildcards, longer first, then any), the path (at the
//! first segment that differs a literal beats `{name}`, which beats `{*rest}`), a path as it is
//! written over one that is only implied (trailing slash), a named method over any method. Two rules
//! that are equal in all of that are an error when the configuration is read.

pub mod price;
pub mod pattern;
pub mod paths;
pub mod hosts;
pub mod offers;
pub mod table;
pub mod lint;
pub mod explain;
pub mod shadow;
mod unlisted;
pub mod changes;
pub mod complaints;

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use thiserror::Error;

use crate::config::settings::{Location, RateLimit};
use crate::metrics::RuleMeter;
use crate::route::pattern::PatternError;
use crate::route::price::PriceRule;
use crate::route::shadow::ShadowRoute;
use crate::settlement::SettleWhen;

pub use crate::route::table::RouteTable;

/// The rule name under which requests go that no rule governs, when `unmatched = "free"`.
pub const UNMATCHED: &str = "unmatched";

/// What of a request decides which rule governs it.
#[derive(Clone, Copy, Debug)]
pub struct RequestLine<'a> {
    /// As sent; case-sensitive.
    pub method: &'a str,
    /// Name only, in the form of [`crate::target::CanonicalHost`]; empty when the request has none.
    pub host: &'a str,
    /// In the form of [`crate::target::CanonicalTarget`].
    pub path: &'a str,
}

/// What a request may do.
#[derive(Clone, Debug)]
pub enum Access {
    /// It costs something.
    Priced(Arc<PricedRoute>),
    /// It is free, by a rule or because unmatched requests are.
    Free(Arc<FreeRoute>),
    /// This rule says no: 403.
    Denied(Arc<str>),
    /// No rule governs it: 404.
    Unlisted,
    /// Free or cheap as it is spelled, but an origin that is lenient about spelling would take it
    /// for a request that is dearer or denied. Fails closed: 404, and the log says why.
    Ambiguous(Arc<Ambiguity>),
    /// Priced by this rule, but no way of paying for it is known at present: 503.
    Unavailable(Arc<str>),
    /// It would cost something or be refused, but is in shadow: let through, and told so.
    Shadow(Arc<ShadowRoute>),
}

/// Why a request was not let through.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ambiguity {
    /// The rule that governs it as it is spelled, or [`UNMATCHED`].
    pub granted: Arc<str>,
    /// The dearer or denying rule that would govern it if its spelling were read leniently.
    pub guarded: Arc<str>,
}

/// A rule that costs something, ready for use.
#[derive(Debug)]
pub struct PricedRoute {
    /// The rule's name.
    pub rule: Arc<str>,
    /// Name of the upstream.
    pub upstream: Arc<str>,
    /// What it costs.
    pub price: PriceRule,
    /// When the money moves.
    pub settle: SettleWhen,
    /// Shown in the challenge.
    pub description: Arc<str>,
    /// Shown in the challenge.
    pub mime_type: Arc<str>,
    /// Largest request body, in bytes.
    pub request_body_bytes_max: u64,
    /// Largest response that is kept for retries, in bytes; 0 keeps none.
    pub kept_response_bytes_max: u64,
    /// Whether `If-*` and `Range` are passed on.
    pub forward_conditional: bool,
    /// How often it may be asked for.
    pub rate_limit: Option<RateLimit>,
    /// What is made of all this once, by whoever answers.
    pub prepared: Prepared,
    /// Counts its requests.
    pub meter: Arc<RuleMeter>,
}

/// Room for one value that a later module makes of a rule when it first needs it. It lives as long
/// as the rule: another price, or another way of paying, is another rule.
#[derive(Default)]
pub struct Prepared(OnceLock<Box<dyn Any + Send + Sync>>);

impl Prepared {
    /// The value, made now when it is not there yet. `None` when somebody else has put a value of
    /// another type there.
    pub fn get_or_make<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Option<&T> {
        self.0.get_or_init(|| Box::new(make())).downcast_ref()
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Prepared")
            .field(&self.0.get().is_some())
            .finish()
    }
}

/// Where a free request goes.
#[derive(Debug)]
pub struct FreeRoute {
    /// The rule's name, or [`UNMATCHED`].
    pub rule: Arc<str>,
    /// Name of the upstream.
    pub upstream: Arc<str>,
    /// Largest request body, in bytes.
    pub request_body_bytes_max: u64,
    /// How often it may be asked for.
    pub rate_limit: Option<RateLimit>,
    /// Counts its requests.
    pub meter: Arc<RuleMeter>,
}

/// Why rules cannot be made into a table. All of them are reported at once.
#[derive(Clone, Debug, Error)]
#[error("rule {rule:?}: {fault}")]
pub struct RouteError {
    /// The rule's name.
    pub rule: Arc<str>,
    /// Where it is written.
    pub at: Location,
    /// What is wrong with it.
    #[source]
    pub fault: RouteFault,
}

/// What is wrong with a rule.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum RouteFault {
    /// `path` is no pattern.
    #[error("path: {0}")]
    Path(PatternError),
    /// `host` is no pattern.
    #[error("host: {0}")]
    Host(PatternError),
    /// `HEAD` without `GET`.
    #[error("methods: HEAD costs what GET costs, so it cannot be named without GET")]
    HeadAlone,
    /// Two rules that match the same requests, neither more specific.
    #[error(
        "matches the same requests as rule {other:?} ({}:{}): same host, same path, {what}",
        other_at.file,
        other_at.line
    )]
    Ambiguous {
        /// The other rule's name.
        other: Arc<str>,
        /// Where it is written.
        other_at: Location,
        /// The methods that both have, in words.
        what: String,
    },
    /// Neither the rule names an upstream, nor is there just one.
    #[error("names no upstream, and there is not just one to choose")]
    NoUpstream,
    /// No `[accept.NAME]` of that name.
    #[error("accepts {0:?}, which is not defined")]
    UnknownAccept(Arc<str>),
    /// An EVM way of paying with values that are not EVM's.
    #[error("accept {accept:?}: {problem}")]
    BadAccept {
        /// Name in the configuration.
        accept: Arc<str>,
        /// What is wrong.
        problem: String,
    },
    /// The facilitator says that it does not do this.
    #[error("accept {accept:?}: facilitator {facilitator:?} does not handle {scheme} on {network}")]
    NotSupported {
        /// Name in the configuration.
        accept: Arc<str>,
        /// Its name in the configuration.
        facilitator: Arc<str>,
        /// The scheme.
        scheme: Arc<str>,
        /// The network, CAIP-2.
        network: String,
    },
    /// The router refuses what the pattern parser let through: our mistake.
    #[error("the router does not take this path: {0}")]
    Router(String),
}

impl RouteFault {
    /// Stable name in kebab-case.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Path(_) => "bad-path-pattern",
            Self::Host(_) => "bad-host-pattern",
            Self::HeadAlone => "head-without-get",
            Self::Ambiguous { .. } => "ambiguous-rules",
            Self::NoUpstream => "no-upstream",
            Self::UnknownAccept(_) => "unknown-accept",
            Self::BadAccept { .. } => "bad-accept",
            Self::NotSupported { .. } => "not-supported",
            Self::Router(_) => "router",
        }
    }

    /// How to mend it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Path(fault) | Self::Host(fault) => fault.help(),
            Self::HeadAlone => "write methods = [\"GET\"]; HEAD is then included".to_owned(),
            Self::Ambiguous { .. } => {
                "remove one of the two, or let them differ in host, path or methods".to_owned()
            }
            Self::NoUpstream => "write upstream = \"NAME\" in the rule".to_owned(),
            Self::UnknownAccept(name) => format!("define [accept.{name}]"),
            Self::BadAccept { .. } => "network, asset and pay_to must be EVM's".to_owned(),
            Self::NotSupported { .. } => {
                "choose another facilitator or network, or remove this way of paying".to_owned()
            }
            Self::Router(_) => "please report this with the rule".to_owned(),
        }
    }
}

#[cfg(test)]
pub(crate) mod fixture;
