//! Rules that are legal but hardly meant: dead rules, and free ways round a price.
//!
//! Nothing is proved about patterns here. Each rule is probed with sample requests, and the table
//! says what becomes of them; so a note is always about requests that really exist.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::settings::{Location, Settings};
use crate::route::hosts::{Hosts, HostsBuilder};
use crate::route::pattern::{HostPattern, Methods, Standing};
use crate::route::table::{Grant, RouteTable, Rule};
use crate::route::{Access, RequestLine};

/// A segment that no literal of a rule is likely to be.
const SAMPLE: &str = "farewall-sample";
/// A host that no rule names: RFC 2606 keeps `.invalid` free.
const SAMPLE_HOST: &str = "farewall-sample.invalid";
/// What a rule of any method is probed with. HEAD is GET; OPTIONS is mostly free for CORS.
const SAMPLE_METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// Something that the operator should look at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RouteNote {
    /// What kind of thing.
    pub kind: NoteKind,
    /// The rule it is about.
    pub rule: Arc<str>,
    /// Where that is written.
    pub at: Location,
    /// What is odd, in one sentence without a full stop.
    pub message: String,
    /// How to mend it.
    pub help: String,
}

/// Kinds of [`RouteNote`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum NoteKind {
    /// No request reaches the rule.
    Unreachable,
    /// A free rule takes requests out of a priced `{*rest}`.
    FreeUnderPriced,
    /// The same path is priced for some methods and free for others.
    FreeMethod,
    /// A priced host's path is free on another host, at the same upstream.
    FreeHost,
    /// `unmatched = "free"` beside priced rules.
    UnmatchedFree,
    /// Requests of the rule are refused, because in another spelling they are dearer or denied.
    Refused,
    /// The rule has a price and charges nothing.
    Shadow,
}

impl NoteKind {
    /// Stable name in kebab-case.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable-rule",
            Self::FreeUnderPriced => "free-under-priced",
            Self::FreeMethod => "free-method",
            Self::FreeHost => "free-host",
            Self::UnmatchedFree => "unmatched-free",
            Self::Refused => "refused-spelling",
            Self::Shadow => "shadow",
        }
    }
}

/// Notes on all rules, in file order.
#[must_use]
pub fn lint(settings: &Settings, table: &RouteTable) -> Vec<RouteNote> {
    let priced = priced_only(table);
    let mut notes = Vec::new();
    for rule in table.rules() {
        match rule.grant {
            Grant::Free(_) => {
                notes.extend(free_under_priced(table, &priced, rule));
                notes.extend(refused(table, rule));
            }
            Grant::Priced(_) | Grant::Unavailable(_) => {
                notes.extend(free_method(table, rule));
                notes.extend(free_host(table, rule));
                notes.extend(refused(table, rule));
            }
            Grant::Shadow(_) => {
                notes.push(shadow(rule));
                notes.extend(refused(table, rule));
            }
            Grant::Denied => {}
        }
        notes.extend(unreachable(table, rule));
    }
    notes.extend(unmatched_free(settings, table));
    notes
}

/// One request that `rule` might govern.
struct Sample {
    method: String,
    host: String,
    path: String,
}

impl Sample {
    fn line(&self) -> RequestLine<'_> {
        RequestLine {
            method: &self.method,
            host: &self.host,
            path: &self.path,
        }
    }
}

fn samples(rule: &Rule) -> Vec<Sample> {
    let methods: Vec<&str> = match &rule.methods {
        Methods::Any => SAMPLE_METHODS.to_vec(),
        Methods::Named(names) => names.iter().map(String::as_str).collect(),
    };
    let host = sample_host(&rule.host);
    let paths = sample_paths(rule);
    let each = |method: &str| -> Vec<Sample> {
        let sample = |path: &String| Sample {
            method: method.to_owned(),
            host: host.clone(),
            path: path.clone(),
        };
        paths.iter().map(sample).collect()
    };
    methods.into_iter().flat_map(each).collect()
}

fn sample_host(host: &HostPattern) -> String {
    match host {
        HostPattern::Exact(name) => name.clone(),
        HostPattern::Wildcard(suffix) => format!("{SAMPLE}.{suffix}"),
        HostPattern::Any => SAMPLE_HOST.to_owned(),
    }
}

/// The path as written comes first.
fn sample_paths(rule: &Rule) -> Vec<String> {
    let mut paths = Vec::new();
    for form in rule.path.forms() {
        let path = form.shape.replace("{p}", SAMPLE);
        if path.ends_with("{*r}") {
            paths.push(path.replace("{*r}", SAMPLE));
            paths.push(path.replace("{*r}", &format!("{SAMPLE}/{SAMPLE}")));
        } else {
            paths.push(path);
        }
    }
    paths
}

/// The priced rules alone: what would govern if nothing were free.
fn priced_only(table: &RouteTable) -> Hosts {
    let mut hosts = HostsBuilder::default();
    for (index, rule) in table.rules().iter().enumerate() {
        if !matches!(rule.grant, Grant::Priced(_) | Grant::Unavailable(_)) {
            continue;
        }
        let methods = match &rule.methods {
            Methods::Any => vec![None],
            Methods::Named(names) => names.iter().map(|m| Some(m.as_str())).collect(),
        };
        for method in methods {
            for form in rule.path.forms() {
                // Equal rules were refused when the table was built.
                let _ = hosts.insert(&rule.host, method, form, index);
            }
        }
    }
    hosts.build().unwrap_or_default()
}

fn governs(table: &RouteTable, rule: &Rule, sample: &Sample) -> bool {
    table
        .governing(&sample.line())
        .is_some_and(|governing| governing.name == rule.name)
}

fn note(kind: NoteKind, rule: &Rule, message: String, help: &str) -> RouteNote {
    RouteNote {
        kind,
        rule: Arc::clone(&rule.name),
        at: rule.at.clone(),
        message,
        help: help.to_owned(),
    }
}

fn place(rule: &Rule) -> String {
    format!("{:?} ({}:{})", rule.name, rule.at.file, rule.at.line)
}

fn shadow(rule: &Rule) -> RouteNote {
    let message = format!(
        "rule {:?} is in shadow: it charges nothing and refuses nobody",
        rule.name
    );
    let help = "take `shadow = true` out of the rule, or out of [server], to sell it";
    note(NoteKind::Shadow, rule, message, help)
}

fn unreachable(table: &RouteTable, rule: &Rule) -> Option<RouteNote> {
    let mut takers = BTreeSet::new();
    for sample in samples(rule) {
        let governing = table.governing(&sample.line())?;
        if governing.name == rule.name {
            return None;
        }
        takers.insert(place(governing));
    }
    let takers: Vec<String> = takers.into_iter().collect();
    Some(note(
        NoteKind::Unreachable,
        rule,
        format!(
            "no ordinary request reaches it: {} {} more specific for all that it matches",
            takers.join(" and "),
            if takers.len() == 1 { "is" } else { "are" },
        ),
        "remove it, or let it match something that the others do not",
    ))
}

fn free_under_priced(table: &RouteTable, priced: &Hosts, free: &Rule) -> Option<RouteNote> {
    samples(free).iter().find_map(|sample| {
        let line = sample.line();
        let leaf = priced.at(line.host, line.method, line.path)?;
        let over = table.rules().get(leaf.rule)?;
        let hole = over.path.is_open_ended() && governs(table, free, sample);
        hole.then(|| {
            note(
                NoteKind::FreeUnderPriced,
                free,
                format!(
                    "{} {} is free, though it lies under {}, which rule {} sells",
                    line.method,
                    free.path,
                    over.path,
                    place(over),
                ),
                "if that is not meant, give it a price or `deny = true`",
            )
        })
    })
}

fn free_method(table: &RouteTable, rule: &Rule) -> Option<RouteNote> {
    let host = sample_host(&rule.host);
    let path = sample_paths(rule).into_iter().next()?;
    let free_for = |method: &&'static str| {
        let line = RequestLine {
            method,
            host: &host,
            path: &path,
        };
        table.governing(&line).filter(|r| r.grant.is_free())
    };
    let free = SAMPLE_METHODS.iter().find_map(free_for)?;
    let methods: Vec<&str> = SAMPLE_METHODS
        .into_iter()
        .filter(|m| free_for(m).is_some())
        .collect();
    Some(note(
        NoteKind::FreeMethod,
        rule,
        format!(
            "{} is priced for {}, but {} {} free by rule {}",
            rule.path,
            rule.methods,
            methods.join(", "),
            if methods.len() == 1 { "is" } else { "are" },
            place(free),
        ),
        "leave `methods` out to price all of them, or add a rule with `deny = true` for the others",
    ))
}

fn free_host(table: &RouteTable, rule: &Rule) -> Option<RouteNote> {
    let hosts = match &rule.host {
        HostPattern::Any => return None,
        HostPattern::Exact(_) => vec![SAMPLE_HOST],
        HostPattern::Wildcard(suffix) => vec![SAMPLE_HOST, suffix.as_str()],
    };
    let path = sample_paths(rule).into_iter().next()?;
    let method = match &rule.methods {
        Methods::Any => SAMPLE_METHODS[0],
        Methods::Named(names) => names.first()?,
    };
    let free = hosts.into_iter().find_map(|host| {
        let line = RequestLine {
            method,
            host,
            path: &path,
        };
        let governing = table.governing(&line)?;
        let same_upstream = governing.grant.upstream() == rule.grant.upstream();
        (governing.grant.is_free() && same_upstream).then_some(governing)
    })?;
    Some(note(
        NoteKind::FreeHost,
        rule,
        format!(
            "{} is priced for {}, but with another Host header it is free by rule {} at the same \
             upstream",
            rule.path,
            rule.host,
            place(free),
        ),
        "leave `host` out of the priced rule, or name the hosts of the free one",
    ))
}

fn refused(table: &RouteTable, rule: &Rule) -> Option<RouteNote> {
    let written: Vec<String> = rule
        .path
        .forms()
        .into_iter()
        .filter(|form| form.standing == Standing::Written)
        .map(|form| form.shape.replace("{p}", SAMPLE).replace("{*r}", SAMPLE))
        .collect();
    samples(rule)
        .iter()
        .filter(|sample| written.contains(&sample.path) && governs(table, rule, sample))
        .find_map(|sample| {
            let Access::Ambiguous(ambiguity) = table.access(&sample.line()) else {
                return None;
            };
            let guarded = table.rules().iter().find(|r| r.name == ambiguity.guarded)?;
            Some(note(
                NoteKind::Refused,
                rule,
                format!(
                    "its requests are answered 404: in another spelling (case, trailing slash, \
                     escapes) they belong to rule {}, which costs more or is denied, and an \
                     origin may not see the difference",
                    place(guarded),
                ),
                "write both rules for the same spelling, or give both the same price",
            ))
        })
}

fn unmatched_free(settings: &Settings, table: &RouteTable) -> Option<RouteNote> {
    let free = table.unmatched()?;
    let priced = |rule: &&Rule| matches!(rule.grant, Grant::Priced(_) | Grant::Unavailable(_));
    let first = table.rules().iter().find(priced)?;
    let count = table.rules().iter().filter(priced).count();
    let total = settings.rules.len();
    Some(note(
        NoteKind::UnmatchedFree,
        first,
        format!(
            "unmatched = \"free\" forwards whatever no rule governs to upstream {:?}, beside \
             {count} priced of {total} rules; other methods of a priced path are then free too",
            free.upstream,
        ),
        "list what is free in rules with `free = true`, and remove `unmatched`",
    ))
}

#[cfg(test)]
mod tests;
