//! `farewall explain`: what the wall would do with a request, which rule says so, and why no other does.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;

use crate::config;
use crate::config::settings::{PricedRule, RuleAccess, RuleSettings, Settings};
use crate::facilitator::supported::{SupportedBook, load_cached};
use crate::route::explain::{Explanation, Miss, NearMiss};
use crate::route::offers::in_words;
use crate::route::table::Rule;
use crate::route::{Access, RequestLine, RouteError, RouteTable};
use crate::settlement::SettleWhen;
use crate::target::{CanonicalHost, CanonicalTarget, Scheme, split_absolute_form};

const EXAMPLES: &str = "\
Examples:
  farewall explain GET /v1/weather/paris
  farewall explain POST https://api.example.com/v1/report --json
  farewall explain GET /v1/report -H 'Host: partner.example.com'

Exit codes:
  0  the wall would forward the request, for money or for free
  1  it would refuse it: canonical form, denied, unlisted, ambiguous
  2  the command line was wrong
  3  the configuration was wrong";

/// How many near misses are shown.
const NEAR_MAX: usize = 5;

/// Arguments of `farewall explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Method, as the client sends it
    method: String,
    /// `https://host/path?query`, or a path at the configured public origin
    url: String,
    /// A request header; Host decides which rules match
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = "conf/farewall.toml")]
    config: PathBuf,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    let settings = match config::load(&args.config) {
        Ok(loaded) => loaded.settings,
        Err(report) => {
            eprintln!("{report}");
            return ExitCode::from(super::EXIT_CONFIG);
        }
    };
    let book = cached_book(&settings);
    match explain(&settings, &book, &args.method, &args.url, &args.headers) {
        Ok(explained) => {
            if args.json {
                println!("{:#}", serde_json::json!(explained));
            } else {
                print!("{explained}");
            }
            let forwarded = explained.outcome.is_forwarded();
            ExitCode::from(if forwarded { 0 } else { super::EXIT_NO })
        }
        Err(Fault::Usage(problem)) => {
            eprintln!("farewall explain: {problem}");
            ExitCode::from(2)
        }
        Err(Fault::Rules(errors)) => {
            for error in errors {
                eprintln!("{}:{}: {error}", error.at.file, error.at.line);
            }
            ExitCode::from(super::EXIT_CONFIG)
        }
    }
}

/// What facilitators said when the wall last asked them. Nobody is asked now.
fn cached_book(settings: &Settings) -> SupportedBook {
    let cached = |f: &crate::config::settings::FacilitatorSettings| {
        load_cached(&f.supported_cache).map(|s| (Arc::clone(&f.name), Arc::new(s)))
    };
    settings.facilitators.values().filter_map(cached).collect()
}

/// Why nothing can be explained.
#[derive(Debug)]
enum Fault {
    Usage(String),
    Rules(Vec<RouteError>),
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// 402 until it is paid.
    Priced,
    Free,
    /// Forwarded for nothing, and told what it would cost.
    Shadow,
    Denied,
    Unlisted,
    Ambiguous,
    /// The request itself is refused with 400.
    Refused,
}

impl Outcome {
    const fn is_forwarded(self) -> bool {
        match self {
            Self::Priced | Self::Free | Self::Shadow => true,
            Self::Denied | Self::Unlisted | Self::Ambiguous | Self::Refused => false,
        }
    }
}

/// The answer, for people by `Display` and for programs by `Serialize`.
#[derive(Debug, Serialize)]
struct Explained {
    method: String,
    url: String,
    /// `None` when the request is refused before it is matched.
    canonical: Option<Canonical>,
    outcome: Outcome,
    because: String,
    rule: Option<RuleView>,
    upstream: Option<Arc<str>>,
    price: Option<PriceView>,
    near_misses: Vec<NearView>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Canonical {
    host: String,
    path: String,
    query: Option<String>,
}

#[derive(Debug, Serialize)]
struct RuleView {
    name: Arc<str>,
    file: Arc<str>,
    line: usize,
    methods: String,
    host: String,
    path: String,
}

#[derive(Debug, Serialize)]
struct PriceView {
    written: String,
    settle: &'static str,
    ways: Vec<WayView>,
}

#[derive(Debug, Serialize)]
struct WayView {
    accept: Arc<str>,
    words: String,
    amount: String,
    scheme: Arc<str>,
    network: String,
    asset: String,
    pay_to: String,
    facilitators: Vec<Arc<str>>,
    /// `false`: not until a facilitator lists it.
    offered: bool,
}

#[derive(Debug, Serialize)]
struct NearView {
    rule: RuleView,
    why: Vec<String>,
}

impl From<&Rule> for RuleView {
    fn from(rule: &Rule) -> Self {
        Self {
            name: Arc::clone(&rule.name),
            file: Arc::clone(&rule.at.file),
            line: rule.at.line,
            methods: rule.methods.to_string(),
            host: rule.host.to_string(),
            path: rule.path.to_string(),
        }
    }
}

impl From<&NearMiss<'_>> for NearView {
    fn from(near: &NearMiss<'_>) -> Self {
        Self {
            rule: near.rule.into(),
            why: near.why.iter().map(Miss::to_string).collect(),
        }
    }
}

fn explain(
    settings: &Settings,
    book: &SupportedBook,
    method: &str,
    url: &str,
    headers: &[String],
) -> Result<Explained, Fault> {
    let headers = parse_headers(headers)?;
    let mut notes = header_notes(method, &headers);
    let table = match RouteTable::build(settings, book) {
        Ok(table) => table,
        Err(errors) => {
            // The cache may be old; errors that do not come from it come again.
            let table = RouteTable::build(settings, &SupportedBook::new()).map_err(Fault::Rules)?;
            notes.extend(errors.iter().map(ToString::to_string));
            table
        }
    };
    let refused = |because: String| Explained {
        method: method.to_owned(),
        url: url.to_owned(),
        canonical: None,
        outcome: Outcome::Refused,
        because,
        rule: None,
        upstream: None,
        price: None,
        near_misses: Vec::new(),
        notes: Vec::new(),
    };
    let canonical = match canonical(settings, url, &headers)? {
        Ok(canonical) => canonical,
        Err(because) => return Ok(refused(format!("400: {because}"))),
    };
    let line = RequestLine {
        method,
        host: &canonical.host,
        path: &canonical.path,
    };
    let explanation = table.explain(&line, NEAR_MAX);
    let (outcome, because) = judge(&explanation);
    let price = explanation
        .governing
        .and_then(|rule| settings.rules.iter().find(|r| r.name == rule.name))
        .and_then(|rule| price_view(settings, &table, rule));
    Ok(Explained {
        outcome,
        because,
        rule: explanation.governing.map(RuleView::from),
        upstream: upstream(&table, &explanation),
        price,
        near_misses: explanation.near_misses.iter().map(NearView::from).collect(),
        notes,
        canonical: Some(canonical),
        ..refused(String::new())
    })
}

fn parse_headers(headers: &[String]) -> Result<Vec<(String, String)>, Fault> {
    let parse = |header: &String| {
        let (name, value) = header
            .split_once(':')
            .filter(|(name, _)| !name.trim().is_empty())
            .ok_or_else(|| Fault::Usage(format!("{header:?} is not \"Name: value\"")))?;
        Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
    };
    headers.iter().map(parse).collect()
}

fn header_notes(method: &str, headers: &[(String, String)]) -> Vec<String> {
    let has = |name: &str| headers.iter().any(|(n, _)| n == name);
    let mut notes = Vec::new();
    if method == "OPTIONS" && has("origin") && has("access-control-request-method") {
        notes.push("a CORS preflight: the wall answers it itself, free of charge".to_owned());
    }
    if method.bytes().any(|b| b.is_ascii_lowercase()) {
        notes.push("methods are case-sensitive; rules name them in upper case".to_owned());
    }
    let other: Vec<&str> = headers
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| !matches!(*name, "host" | "origin" | "access-control-request-method"))
        .collect();
    if !other.is_empty() {
        notes.push(format!(
            "method, host and path decide which rule governs; not looked at: {}",
            other.join(", ")
        ));
    }
    notes
}

/// The outer error is the user's, the inner text is why the wall refuses the request.
fn canonical(
    settings: &Settings,
    url: &str,
    headers: &[(String, String)],
) -> Result<Result<Canonical, String>, Fault> {
    let origin = settings.server.public_origin.as_bytes();
    let split = |raw| split_absolute_form(raw).map_err(|e| Fault::Usage(e.to_string()));
    let home = split(origin)?.map(|form| (form.scheme, form.authority.to_vec()));
    let (scheme, mut authority) = home.unwrap_or((Scheme::Https, Vec::new()));
    let mut scheme = scheme;
    let mut raw = url.as_bytes().to_vec();
    if !url.starts_with('/') {
        let form = split(url.as_bytes())?
            .ok_or_else(|| Fault::Usage(format!("{url:?} is neither a URL nor a path")))?;
        scheme = form.scheme;
        authority = form.authority.to_vec();
        raw = form.path_and_query.into_owned();
    }
    let hosts: Vec<&str> = headers
        .iter()
        .filter(|(name, _)| name == "host")
        .map(|(_, value)| value.as_str())
        .collect();
    match hosts.as_slice() {
        [] => {}
        [host] => authority = host.as_bytes().to_vec(),
        _ => return Ok(Err("more than one Host header".to_owned())),
    }
    let host = CanonicalHost::parse(&authority, scheme).map_err(|e| e.to_string());
    let target = CanonicalTarget::parse(&raw, settings.limits.target_bytes_max);
    Ok(host.and_then(|host| {
        let target = target.map_err(|e| e.to_string())?;
        Ok(Canonical {
            host: host.host,
            path: target.path,
            query: target.query,
        })
    }))
}

fn judge(explanation: &Explanation<'_>) -> (Outcome, String) {
    match &explanation.access {
        Access::Priced(route) => (
            Outcome::Priced,
            format!("402 until it is paid, by rule {:?}", route.rule),
        ),
        Access::Unavailable(rule) => (
            Outcome::Priced,
            format!("priced by rule {rule:?}; 503 until a facilitator lists a way of paying"),
        ),
        Access::Free(route) => (
            Outcome::Free,
            format!("forwarded without payment, by {:?}", route.rule),
        ),
        Access::Shadow(route) if route.is_unlisted => (
            Outcome::Shadow,
            "forwarded without payment: no rule governs it, and the whole wall is in shadow"
                .to_owned(),
        ),
        Access::Shadow(route) => (
            Outcome::Shadow,
            format!(
                "forwarded without payment: rule {:?} has a price, and is in shadow",
                route.free.rule
            ),
        ),
        Access::Denied(rule) => (Outcome::Denied, format!("403, by rule {rule:?}")),
        Access::Unlisted => (Outcome::Unlisted, "404: no rule governs it".to_owned()),
        Access::Ambiguous(why) => (
            Outcome::Ambiguous,
            format!(
                "404: {:?} governs it as it is spelled, but an origin lenient about spelling \
                 would take it for a request of rule {:?}, which costs more or is denied",
                why.granted, why.guarded
            ),
        ),
    }
}

fn upstream(table: &RouteTable, explanation: &Explanation<'_>) -> Option<Arc<str>> {
    match explanation.governing {
        Some(rule) => rule.grant.upstream().cloned(),
        None => table.unmatched().map(|free| Arc::clone(&free.upstream)),
    }
}

fn price_view(settings: &Settings, table: &RouteTable, rule: &RuleSettings) -> Option<PriceView> {
    let RuleAccess::Priced(priced) = &rule.access else {
        return None;
    };
    Some(PriceView {
        written: priced.price.to_string(),
        settle: match priced.settle {
            SettleWhen::AfterResponse => "after",
            SettleWhen::BeforeForward => "before",
        },
        ways: ways(settings, table, priced),
    })
}

fn ways(settings: &Settings, table: &RouteTable, priced: &PricedRule) -> Vec<WayView> {
    let way = |(name, amount): &(Arc<str>, crate::money::AtomicAmount)| {
        let accept = settings.accepts.get(name)?;
        Some(WayView {
            accept: Arc::clone(name),
            words: in_words(accept, *amount),
            amount: amount.to_string(),
            scheme: Arc::clone(&accept.scheme),
            network: accept.network.to_string(),
            asset: accept.asset.to_string(),
            pay_to: accept.pay_to.to_string(),
            facilitators: accept.facilitators.clone(),
            offered: table.missing().iter().all(|m| m.accept != *name),
        })
    };
    priced.accepts.iter().filter_map(way).collect()
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.method, self.url)?;
        if let Some(canonical) = &self.canonical {
            let query = canonical.query.as_deref();
            let query = query.map(|q| format!("?{q}")).unwrap_or_default();
            writeln!(
                f,
                "  canonical  {} {}{query}",
                canonical.host, canonical.path
            )?;
        }
        writeln!(f, "  answer     {}", self.because)?;
        if let Some(rule) = &self.rule {
            writeln!(f, "  rule       {rule}")?;
        }
        if let Some(price) = &self.price {
            writeln!(f, "{price}")?;
        }
        if let Some(upstream) = self
            .upstream
            .as_ref()
            .filter(|_| self.outcome.is_forwarded())
        {
            writeln!(f, "  upstream   {upstream}")?;
        }
        if !self.near_misses.is_empty() {
            writeln!(f, "near misses")?;
        }
        for near in &self.near_misses {
            writeln!(f, "  {}", near.rule)?;
            for why in &near.why {
                writeln!(f, "    {why}")?;
            }
        }
        self.notes.iter().try_for_each(|n| writeln!(f, "note: {n}"))
    }
}

impl fmt::Display for RuleView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} ({}:{}): {}, {}, {}",
            self.name, self.file, self.line, self.methods, self.host, self.path
        )
    }
}

impl fmt::Display for PriceView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  price      {}", self.written)?;
        for way in &self.ways {
            let facilitators = way.facilitators.join(", ");
            writeln!(f, "  pay        {}", way.words)?;
            writeln!(
                f,
                "             to {} ({}, through {facilitators})",
                way.pay_to, way.accept
            )?;
            if !way.offered {
                writeln!(f, "             not offered until a facilitator lists it")?;
            }
        }
        let settle = match self.settle {
            "before" => "before the request is forwarded",
            _ => "after a good response, before its first byte leaves",
        };
        write!(f, "  settle     {settle}")
    }
}

#[cfg(test)]
mod tests;
