//! What a change of configuration means for those who pay and are paid. Pure.
//!
//! What changes neither price, access nor destination is no difference here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::config::settings::{
    AcceptSettings, PricedRule, RuleAccess, RuleSettings, Settings, Unmatched, UpstreamSettings,
};
use crate::money::AtomicAmount;
use crate::route::offers::in_words;
use crate::settlement::SettleWhen;

/// What kind of difference, the most alarming first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// Costs nothing now.
    Free,
    /// Costs less.
    Cheaper,
    /// Is sold now, and was denied.
    Sold,
    /// Costs more.
    Dearer,
    /// Money or requests go elsewhere, or other requests are meant.
    Repointed,
    /// Charged at another moment.
    Settled,
    /// Costs nothing as before, and is told what it will cost.
    Shadow,
    /// No longer allowed.
    Denied,
    /// A new rule.
    Added,
    /// No such rule any more.
    Removed,
}

/// One difference.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Change {
    /// What kind.
    pub kind: ChangeKind,
    /// `rule "NAME"`, `upstream "NAME"` or `unmatched requests`.
    pub subject: String,
    /// What of it: `price`, `path`, `pay_to of base-usdc`.
    pub what: String,
    /// As it was; `None` when it was not there.
    pub old: Option<String>,
    /// As it is; `None` when it is not there any more.
    pub new: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChangeKind::Free => "free",
            ChangeKind::Cheaper => "cheaper",
            ChangeKind::Sold => "sold",
            ChangeKind::Dearer => "dearer",
            ChangeKind::Repointed => "repointed",
            ChangeKind::Settled => "settled",
            ChangeKind::Shadow => "shadow",
            ChangeKind::Denied => "denied",
            ChangeKind::Added => "added",
            ChangeKind::Removed => "removed",
        };
        write!(f, "{kind:<10} {}: {}", self.subject, self.what)?;
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => write!(f, " {old} -> {new}"),
            (Some(only), None) | (None, Some(only)) => write!(f, " {only}"),
            (None, None) => Ok(()),
        }
    }
}

/// Collects the differences of one subject.
struct Changes<'a> {
    subject: String,
    list: &'a mut Vec<Change>,
}

impl Changes<'_> {
    fn push(&mut self, kind: ChangeKind, what: &str, old: Option<String>, new: Option<String>) {
        self.list.push(Change {
            kind,
            subject: self.subject.clone(),
            what: what.to_owned(),
            old,
            new,
        });
    }

    /// Adds a difference if there is one.
    fn compare(&mut self, kind: ChangeKind, what: &str, old: String, new: String) {
        if old != new {
            self.push(kind, what, Some(old), Some(new));
        }
    }
}

/// All differences that matter, the most alarming first. Rules are compared by name.
#[must_use]
pub fn changes(old: &Settings, new: &Settings) -> Vec<Change> {
    let mut list = Vec::new();
    let by_name = |settings: &'_ Settings| -> BTreeMap<Arc<str>, RuleSettings> {
        let named = |rule: &RuleSettings| (Arc::clone(&rule.name), rule.clone());
        settings.rules.iter().map(named).collect()
    };
    let (before, after) = (by_name(old), by_name(new));
    for (name, rule) in &before {
        let mut changes = Changes {
            subject: format!("rule {name:?}"),
            list: &mut list,
        };
        match after.get(name) {
            Some(now) => compare_rules((old, rule), (new, now), &mut changes),
            None => changes.push(ChangeKind::Removed, "was", Some(whole(old, rule)), None),
        }
    }
    for (name, rule) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
        let mut changes = Changes {
            subject: format!("rule {name:?}"),
            list: &mut list,
        };
        changes.push(ChangeKind::Added, "is", None, Some(whole(new, rule)));
    }
    compare_upstreams(old, new, &mut list);
    compare_unmatched(old, new, &mut list);
    list.sort();
    list
}

fn compare_rules(
    old: (&Settings, &RuleSettings),
    new: (&Settings, &RuleSettings),
    to: &mut Changes<'_>,
) {
    let ((old_settings, before), (new_settings, after)) = (old, new);
    let methods = |rule: &RuleSettings| match rule.methods.as_slice() {
        [] => "any".to_owned(),
        named => {
            let mut named = named.to_vec();
            named.sort_unstable();
            named.join(", ")
        }
    };
    let host = |rule: &RuleSettings| rule.host.clone().unwrap_or_else(|| "any".to_owned());
    let upstream = |rule: &RuleSettings| rule.upstream.as_deref().unwrap_or("none").to_owned();
    let moved = ChangeKind::Repointed;
    to.compare(moved, "methods", methods(before), methods(after));
    to.compare(moved, "host", host(before), host(after));
    to.compare(moved, "path", before.path.clone(), after.path.clone());
    if !matches!(
        (&before.access, &after.access),
        (RuleAccess::Deny, _) | (_, RuleAccess::Deny)
    ) {
        to.compare(moved, "upstream", upstream(before), upstream(after));
    }
    let price = |settings, rule| Some(access_in_words(settings, rule));
    let (was, is) = (price(old_settings, before), price(new_settings, after));
    match (&before.access, &after.access) {
        (RuleAccess::Free, RuleAccess::Free) | (RuleAccess::Deny, RuleAccess::Deny) => {}
        (_, RuleAccess::Free) => to.push(ChangeKind::Free, "access", was, is),
        (_, RuleAccess::Deny) => to.push(ChangeKind::Denied, "access", was, is),
        (RuleAccess::Free, RuleAccess::Priced(rule)) if rule.shadow => {
            to.push(ChangeKind::Shadow, "access", was, is);
        }
        (RuleAccess::Deny, RuleAccess::Priced(rule)) if rule.shadow => {
            to.push(ChangeKind::Free, "access", was, is);
        }
        (RuleAccess::Deny, RuleAccess::Priced(_)) => to.push(ChangeKind::Sold, "access", was, is),
        (RuleAccess::Free, RuleAccess::Priced(_)) => to.push(ChangeKind::Dearer, "access", was, is),
        (RuleAccess::Priced(before), RuleAccess::Priced(after)) => {
            match (before.shadow, after.shadow) {
                (false, true) => to.push(ChangeKind::Free, "access", was, is),
                (true, false) => to.push(ChangeKind::Dearer, "access", was, is),
                (true, true) | (false, false) => {}
            }
            compare_prices((old_settings, before), (new_settings, after), to);
        }
    }
}

/// One accepted way of paying with its amount.
type Way<'a> = (&'a AcceptSettings, AtomicAmount);

fn ways<'a>(settings: &'a Settings, rule: &'a PricedRule) -> Vec<Way<'a>> {
    let way = |(name, amount): &(Arc<str>, AtomicAmount)| {
        settings.accepts.get(name).map(|accept| (accept, *amount))
    };
    rule.accepts.iter().filter_map(way).collect()
}

/// Ways of paying are compared in the same token where there is one, else under the same name, else
/// the one that is left with the one that is left.
fn compare_prices(
    old: (&Settings, &PricedRule),
    new: (&Settings, &PricedRule),
    to: &mut Changes<'_>,
) {
    let mut before = ways(old.0, old.1);
    let mut after = ways(new.0, new.1);
    let token = |a: &AcceptSettings| (a.scheme.clone(), a.network.clone(), a.asset.clone());
    let mut pairs = take_pairs(&mut before, &mut after, |a, b| {
        token(a.0) == token(b.0) && a.0.pay_to == b.0.pay_to
    });
    pairs.extend(take_pairs(&mut before, &mut after, |a, b| {
        token(a.0) == token(b.0)
    }));
    pairs.extend(take_pairs(&mut before, &mut after, |a, b| {
        a.0.name == b.0.name
    }));
    if let ([a], [b]) = (before.as_slice(), after.as_slice()) {
        pairs.push((*a, *b));
        before.clear();
        after.clear();
    }
    for (before, after) in pairs {
        compare_ways(before, after, to);
    }
    for (accept, amount) in before {
        to.push(
            ChangeKind::Repointed,
            "no longer accepts",
            Some(in_words(accept, amount)),
            None,
        );
    }
    for (accept, amount) in after {
        to.push(
            ChangeKind::Repointed,
            "now accepts",
            None,
            Some(in_words(accept, amount)),
        );
    }
    let settle = |rule: &PricedRule| match rule.settle {
        SettleWhen::AfterResponse => "after".to_owned(),
        SettleWhen::BeforeForward => "before".to_owned(),
    };
    to.compare(ChangeKind::Settled, "settle", settle(old.1), settle(new.1));
}

fn take_pairs<'a>(
    before: &mut Vec<Way<'a>>,
    after: &mut Vec<Way<'a>>,
    same: impl Fn(&Way<'a>, &Way<'a>) -> bool,
) -> Vec<(Way<'a>, Way<'a>)> {
    let mut pairs = Vec::new();
    before.retain(|a| match after.iter().position(|b| same(a, b)) {
        Some(at) => {
            pairs.push((*a, after.remove(at)));
            false
        }
        None => true,
    });
    pairs
}

fn compare_ways((was, old): Way<'_>, (is, new): Way<'_>, to: &mut Changes<'_>) {
    let moved = ChangeKind::Repointed;
    let of = |what: &str| format!("{what} of {}", is.name);
    if (&was.scheme, &was.network, &was.asset) == (&is.scheme, &is.network, &is.asset) {
        let kind = if new > old {
            ChangeKind::Dearer
        } else {
            ChangeKind::Cheaper
        };
        to.compare(kind, "price", in_words(was, old), in_words(is, new));
    } else {
        to.push(
            moved,
            "price",
            Some(in_words(was, old)),
            Some(in_words(is, new)),
        );
        to.compare(
            moved,
            &of("scheme"),
            was.scheme.to_string(),
            is.scheme.to_string(),
        );
        to.compare(
            moved,
            &of("network"),
            was.network.to_string(),
            is.network.to_string(),
        );
        to.compare(
            moved,
            &of("asset"),
            was.asset.to_string(),
            is.asset.to_string(),
        );
    }
    to.compare(
        moved,
        &of("pay_to"),
        was.pay_to.to_string(),
        is.pay_to.to_string(),
    );
}

/// Where requests of an upstream really go; header values are secrets and stay out.
fn compare_upstreams(old: &Settings, new: &Settings, list: &mut Vec<Change>) {
    let destination = |upstream: &UpstreamSettings| {
        let scheme = if upstream.tls { "https" } else { "http" };
        let server = |s: &crate::config::settings::ServerAddress| {
            format!("{scheme}://{}:{}", s.host, s.port)
        };
        let servers: Vec<String> = upstream.servers.iter().map(server).collect();
        servers.join(", ")
    };
    let prefix = |prefix: &Option<String>| prefix.clone().unwrap_or_else(|| "none".to_owned());
    for (name, before) in &old.upstreams {
        let Some(after) = new.upstreams.get(name) else {
            continue; // the rules that used it tell
        };
        let mut to = Changes {
            subject: format!("upstream {name:?}"),
            list,
        };
        let moved = ChangeKind::Repointed;
        to.compare(moved, "servers", destination(before), destination(after));
        let (was, is) = (prefix(&before.strip_prefix), prefix(&after.strip_prefix));
        to.compare(moved, "strip_prefix", was, is);
        let (was, is) = (prefix(&before.add_prefix), prefix(&after.add_prefix));
        to.compare(moved, "add_prefix", was, is);
    }
}

fn compare_unmatched(old: &Settings, new: &Settings, list: &mut Vec<Change>) {
    let words = |unmatched: &Unmatched| match unmatched {
        Unmatched::Deny => "denied".to_owned(),
        Unmatched::Free(upstream) => format!("free, to upstream {upstream:?}"),
        Unmatched::Shadow(upstream) => format!("free, in shadow, to upstream {upstream:?}"),
    };
    let kind = match (&old.unmatched, &new.unmatched) {
        (Unmatched::Deny, Unmatched::Free(_) | Unmatched::Shadow(_)) => ChangeKind::Free,
        (_, Unmatched::Deny) => ChangeKind::Denied,
        (Unmatched::Free(_) | Unmatched::Shadow(_), Unmatched::Free(_) | Unmatched::Shadow(_)) => {
            ChangeKind::Repointed
        }
    };
    let mut to = Changes {
        subject: "unmatched requests".to_owned(),
        list,
    };
    to.compare(kind, "access", words(&old.unmatched), words(&new.unmatched));
}

fn access_in_words(settings: &Settings, rule: &RuleSettings) -> String {
    match &rule.access {
        RuleAccess::Free => "free".to_owned(),
        RuleAccess::Deny => "denied".to_owned(),
        RuleAccess::Priced(priced) => {
            let ways = ways(settings, priced);
            let words: Vec<String> = ways
                .iter()
                .map(|(a, amount)| in_words(a, *amount))
                .collect();
            let words = words.join(" or ");
            match priced.shadow {
                true => format!("free, in shadow of {words}"),
                false => words,
            }
        }
    }
}

fn whole(settings: &Settings, rule: &RuleSettings) -> String {
    let methods = match rule.methods.as_slice() {
        [] => "any method".to_owned(),
        named => named.join(", "),
    };
    let host = rule.host.as_deref().unwrap_or_default();
    let access = access_in_words(settings, rule);
    format!("{methods} {host}{}: {access}", rule.path)
}

#[cfg(test)]
mod tests;
