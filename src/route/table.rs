//! The rules of a configuration as one immutable table, replaced whole when anything changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::settings::{Location, PricedRule, RuleAccess, RuleSettings, Settings};
use crate::facilitator::supported::SupportedBook;
use crate::metrics::RuleMeter;
use crate::route::hosts::{Hosts, HostsBuilder};
use crate::route::offers::{MissingOffer, OfferMaker, refuses_none};
use crate::route::paths::Leaf;
use crate::route::pattern::{
    HostPattern, Methods, PathPattern, Standing, is_loose, loose, loose_cut,
};
use crate::route::price::{Offer, PriceRule, Quote};
use crate::route::shadow::ShadowRoute;
use crate::route::unlisted::Unlisted;
use crate::route::{
    Access, Ambiguity, FreeRoute, Prepared, PricedRoute, RequestLine, RouteError, RouteFault,
    UNMATCHED,
};

/// Which rule governs a request.
#[derive(Debug)]
pub struct RouteTable {
    rules: Vec<Rule>,
    strict: Hosts,
    loose: Hosts,
    /// Loose paths of guarded rules for named hosts whose upstream unmatched requests reach too.
    elsewhere: Option<Hosts>,
    /// Whether some rule's loose shape is not its written one.
    look_twice: bool,
    unmatched: Option<Unlisted>,
    missing: Vec<MissingOffer>,
}

/// One rule, read.
#[derive(Debug)]
pub struct Rule {
    /// Its name.
    pub name: Arc<str>,
    /// Where it is written.
    pub at: Location,
    /// Which methods it is for.
    pub methods: Methods,
    /// Which hosts it is for.
    pub host: HostPattern,
    /// Which paths it is for.
    pub path: PathPattern,
    /// What it grants.
    pub grant: Grant,
}

/// What a rule grants.
#[derive(Clone, Debug)]
pub enum Grant {
    /// For money.
    Priced(Arc<PricedRoute>),
    /// For free.
    Free(Arc<FreeRoute>),
    /// Nothing.
    Denied,
    /// For money, but no way of paying can be offered now. Holds the upstream's name.
    Unavailable(Arc<str>),
    /// For nothing so far: it has a price, and is in shadow.
    Shadow(Arc<ShadowRoute>),
}

impl Grant {
    /// Whether it lets requests through without money.
    #[must_use]
    pub const fn is_free(&self) -> bool {
        matches!(self, Self::Free(_) | Self::Shadow(_))
    }

    /// Name of the upstream; a denied request has none.
    #[must_use]
    pub fn upstream(&self) -> Option<&Arc<str>> {
        match self {
            Self::Priced(route) => Some(&route.upstream),
            Self::Free(route) => Some(&route.upstream),
            Self::Unavailable(upstream) => Some(upstream),
            Self::Shadow(route) => Some(&route.free.upstream),
            Self::Denied => None,
        }
    }

    /// What it is sold for.
    fn quote(&self) -> Option<Arc<Quote>> {
        match self {
            Self::Priced(route) => Some(route.price.quote()),
            Self::Free(_) | Self::Denied | Self::Unavailable(_) | Self::Shadow(_) => None,
        }
    }

    /// Whether a request that this grants gets cheaper what `other` guards.
    fn undercuts(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Free(_) | Self::Shadow(_)) | (Self::Denied | Self::Unavailable(_), _) => {
                false
            }
            (Self::Free(_) | Self::Shadow(_), _)
            | (Self::Priced(_), Self::Denied | Self::Unavailable(_)) => true,
            (Self::Priced(mine), Self::Priced(theirs)) => {
                let theirs = theirs.price.quote();
                let covered = |offer: &Offer| {
                    theirs.offers.iter().any(|o| {
                        (&o.network, &o.asset) == (&offer.network, &offer.asset)
                            && o.amount <= offer.amount
                    })
                };
                !mine.price.quote().offers.iter().all(|o| covered(o))
            }
        }
    }
}

fn same_offers(one: Option<Arc<Quote>>, two: Option<Arc<Quote>>) -> bool {
    match (one, two) {
        (Some(one), Some(two)) => one.is_like(&two),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

impl RouteTable {
    /// Builds the table. Every fault of every rule is reported.
    ///
    /// Ways of paying that only a facilitator can judge are offered when `supported` lists them;
    /// otherwise they are in [`RouteTable::missing`], and the table is to be built again later.
    ///
    /// # Errors
    ///
    /// All [`RouteError`]s, in file order.
    pub fn build(settings: &Settings, supported: &SupportedBook) -> Result<Self, Vec<RouteError>> {
        let mut errors = Vec::new();
        let mut offers = OfferMaker::new(settings, supported);
        let mut rules = Vec::with_capacity(settings.rules.len());
        for rule in &settings.rules {
            let mut faults = Vec::new();
            rules.extend(read_rule(settings, rule, &mut offers, &mut faults));
            errors.extend(faults.into_iter().map(|fault| RouteError {
                rule: Arc::clone(&rule.name),
                at: rule.at.clone(),
                fault,
            }));
        }
        let unmatched = Unlisted::new(settings);
        let strict = strict_hosts(&rules, &mut errors);
        let loose = loose_hosts(&rules, &mut errors);
        let elsewhere = unmatched
            .as_ref()
            .and_then(|free| guarded_elsewhere(&rules, &free.route().upstream, &mut errors));
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self {
            look_twice: !rules.iter().all(|rule| rule.path.is_loose()),
            missing: offers.into_missing(),
            rules,
            strict,
            loose,
            elsewhere,
            unmatched,
        })
    }

    /// The table of `settings` with what facilitators say in `supported`, made of this one, which was
    /// built from the same settings with nothing known of facilitators. Mostly it is the same table.
    ///
    /// # Errors
    ///
    /// As [`RouteTable::build`].
    pub fn completed(
        self,
        settings: &Settings,
        supported: &SupportedBook,
    ) -> Result<Self, Vec<RouteError>> {
        // Whatever a facilitator has to say something about is missing here, or refused there.
        let is_same = self.missing.is_empty() && refuses_none(settings, supported);
        if is_same {
            return Ok(self);
        }
        Self::build(settings, supported)
    }

    /// What this request may do.
    #[must_use]
    pub fn access(&self, request: &RequestLine<'_>) -> Access {
        let found = self.governing_leaf(request);
        let Some((rule, leaf)) = found else {
            return match &self.unmatched {
                None => Access::Unlisted,
                Some(free) => self.guard(request, None).unwrap_or_else(|| free.access()),
            };
        };
        match &rule.grant {
            Grant::Denied => Access::Denied(Arc::clone(&rule.name)),
            Grant::Unavailable(_) => Access::Unavailable(Arc::clone(&rule.name)),
            Grant::Free(route) => self
                .guard(request, Some((rule, leaf)))
                .unwrap_or_else(|| Access::Free(Arc::clone(route))),
            Grant::Shadow(route) => self
                .guard(request, Some((rule, leaf)))
                .unwrap_or_else(|| Access::Shadow(Arc::clone(route))),
            Grant::Priced(route) => self
                .guard(request, Some((rule, leaf)))
                .unwrap_or_else(|| Access::Priced(Arc::clone(route))),
        }
    }

    /// Ways of paying that cannot be offered until their facilitator lists them.
    #[must_use]
    pub fn missing(&self) -> &[MissingOffer] {
        &self.missing
    }

    /// The rules, in file order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Where unmatched requests go, unless they are denied.
    #[must_use]
    pub fn unmatched(&self) -> Option<&Arc<FreeRoute>> {
        self.unmatched.as_ref().map(Unlisted::route)
    }

    /// Whether every request costs the same under `other`, for all that can be seen: the same rules
    /// for the same requests in the same order, with the same ways of paying.
    #[must_use]
    pub fn sells_like(&self, other: &Self) -> bool {
        let shape = |rule: &Rule| {
            (
                Arc::clone(&rule.name),
                rule.methods.to_string(),
                rule.host.to_string(),
                rule.path.to_string(),
            )
        };
        self.rules.len() == other.rules.len()
            && self.rules.iter().zip(&other.rules).all(|(one, two)| {
                shape(one) == shape(two) && same_offers(one.grant.quote(), two.grant.quote())
            })
    }

    /// The longest time that a challenge of this table gives its buyer, in seconds; `None` when it
    /// sells nothing.
    #[must_use]
    pub fn longest_timeout_s(&self) -> Option<u64> {
        let quotes = self.rules.iter().filter_map(|rule| rule.grant.quote());
        let timeouts = quotes.flat_map(|quote| {
            let of = |offer: &Arc<Offer>| offer.requirements.max_timeout_seconds;
            quote.offers.iter().map(of).collect::<Vec<_>>()
        });
        timeouts.max()
    }

    /// The rule that governs a request as it is spelled.
    #[must_use]
    pub fn governing(&self, request: &RequestLine<'_>) -> Option<&Rule> {
        self.governing_leaf(request).map(|(rule, _)| rule)
    }

    fn governing_leaf(&self, request: &RequestLine<'_>) -> Option<(&Rule, &Leaf)> {
        let leaf = self.strict.at(request.host, request.method, request.path)?;
        self.rules.get(leaf.rule).map(|rule| (rule, leaf))
    }

    /// Fails closed where a lenient reading of the same request meets a rule that `granted` would undercut.
    ///
    /// Lenient: as [`loose`] reads paths, and the method in upper case. For unmatched requests any
    /// host counts, because an origin that ignores `Host` answers all of them. Two prices for two
    /// spellings are the operator's will where both rules are equally specific; a free spelling of
    /// a priced path never is.
    fn guard(&self, request: &RequestLine<'_>, granted: Option<(&Rule, &Leaf)>) -> Option<Access> {
        let elsewhere = self.elsewhere.as_ref().filter(|_| granted.is_none());
        let as_spelled =
            is_loose(request.path) && !request.method.bytes().any(|b| b.is_ascii_lowercase());
        if as_spelled && !self.look_twice && elsewhere.is_none() {
            return None;
        }
        let paths = [Some(loose(request.path)), loose_cut(request.path)];
        let method = request.method.to_ascii_uppercase();
        let found = paths.iter().flatten().flat_map(|path| {
            let here = self.loose.at(request.host, &method, path);
            let there = elsewhere.and_then(|hosts| hosts.at("", &method, path));
            here.into_iter().chain(there)
        });
        let guarded = found.into_iter().find_map(|leaf| {
            let rule = self.rules.get(leaf.rule)?;
            let undercut = match granted {
                Some((granted, as_spelled)) => {
                    let meant = !granted.grant.is_free() && leaf.kinds <= as_spelled.kinds;
                    !meant && granted.grant.undercuts(&rule.grant)
                }
                None => !rule.grant.is_free(),
            };
            undercut.then_some(rule)
        })?;
        let granted = granted.map_or_else(|| UNMATCHED.into(), |(rule, _)| Arc::clone(&rule.name));
        Some(Access::Ambiguous(Arc::new(Ambiguity {
            granted,
            guarded: Arc::clone(&guarded.name),
        })))
    }
}

fn read_rule(
    settings: &Settings,
    rule: &RuleSettings,
    offers: &mut OfferMaker<'_>,
    faults: &mut Vec<RouteFault>,
) -> Option<Rule> {
    let path = PathPattern::parse(&rule.path).map_err(|e| faults.push(RouteFault::Path(e)));
    let host =
        HostPattern::parse(rule.host.as_deref()).map_err(|e| faults.push(RouteFault::Host(e)));
    let methods = Methods::parse(&rule.methods);
    if methods.is_none() {
        faults.push(RouteFault::HeadAlone);
    }
    let grant = grant(settings, rule, offers, faults);
    Some(Rule {
        name: Arc::clone(&rule.name),
        at: rule.at.clone(),
        methods: methods?,
        host: host.ok()?,
        path: path.ok()?,
        grant: grant?,
    })
}

fn grant(
    settings: &Settings,
    rule: &RuleSettings,
    offers: &mut OfferMaker<'_>,
    faults: &mut Vec<RouteFault>,
) -> Option<Grant> {
    let priced = match &rule.access {
        RuleAccess::Deny => return Some(Grant::Denied),
        RuleAccess::Free => None,
        RuleAccess::Priced(priced) => Some(priced),
    };
    let upstream = upstream_of(settings, rule);
    if upstream.is_none() {
        faults.push(RouteFault::NoUpstream);
    }
    let free = |upstream| FreeRoute {
        rule: Arc::clone(&rule.name),
        upstream,
        request_body_bytes_max: rule.request_body_bytes_max,
        rate_limit: rule.rate_limit,
        meter: RuleMeter::new(&rule.name),
    };
    let Some(priced) = priced else {
        return Some(Grant::Free(Arc::new(free(upstream?))));
    };
    let quote = offers.quote(&priced.accepts, faults);
    let upstream = upstream?;
    let price = quote.map(PriceRule::Fixed);
    let route = price.map(|price| priced_route(rule, priced, Arc::clone(&upstream), price));
    Some(match route {
        route if priced.shadow => {
            Grant::Shadow(Arc::new(ShadowRoute::of_rule(free(upstream), route)))
        }
        None => Grant::Unavailable(upstream),
        Some(route) => Grant::Priced(route),
    })
}

fn priced_route(
    rule: &RuleSettings,
    priced: &PricedRule,
    upstream: Arc<str>,
    price: PriceRule,
) -> Arc<PricedRoute> {
    Arc::new(PricedRoute {
        rule: Arc::clone(&rule.name),
        upstream,
        price,
        settle: priced.settle,
        description: priced.description.as_str().into(),
        mime_type: priced.mime_type.as_str().into(),
        request_body_bytes_max: rule.request_body_bytes_max,
        kept_response_bytes_max: priced.kept_response_bytes_max,
        forward_conditional: priced.forward_conditional,
        rate_limit: rule.rate_limit,
        prepared: Prepared::default(),
        meter: RuleMeter::new(&rule.name),
    })
}

/// The upstream that a rule names, or the only one there is.
fn upstream_of(settings: &Settings, rule: &RuleSettings) -> Option<Arc<str>> {
    if let Some(name) = &rule.upstream {
        return Some(Arc::clone(name));
    }
    let mut names = settings.upstreams.keys();
    match (names.next(), names.next()) {
        (Some(only), None) => Some(Arc::clone(only)),
        (Some(_) | None, _) => None,
    }
}

/// The methods under which a rule is entered; `None` for any.
fn entries(methods: &Methods) -> Vec<Option<&str>> {
    match methods {
        Methods::Any => vec![None],
        Methods::Named(names) => names.iter().map(|m| Some(m.as_str())).collect(),
    }
}

fn strict_hosts(rules: &[Rule], errors: &mut Vec<RouteError>) -> Hosts {
    let mut hosts = HostsBuilder::default();
    for (index, rule) in rules.iter().enumerate() {
        let mut rivals: BTreeMap<usize, Vec<Option<&str>>> = BTreeMap::new();
        for method in entries(&rule.methods) {
            for form in rule.path.forms() {
                let is_written = form.standing == Standing::Written;
                if let Err(rival) = hosts.insert(&rule.host, method, form, index)
                    && is_written
                {
                    rivals.entry(rival.rule).or_default().push(method);
                }
            }
        }
        for (rival, methods) in rivals {
            if let Some(rival) = rules.get(rival) {
                errors.push(ambiguous(rule, rival, &methods));
            }
        }
    }
    built(hosts, rules, errors)
}

fn ambiguous(rule: &Rule, rival: &Rule, methods: &[Option<&str>]) -> RouteError {
    let names: Vec<&str> = methods.iter().copied().flatten().collect();
    RouteError {
        rule: Arc::clone(&rule.name),
        at: rule.at.clone(),
        fault: RouteFault::Ambiguous {
            other: Arc::clone(&rival.name),
            other_at: rival.at.clone(),
            what: if names.is_empty() {
                "any method".to_owned()
            } else {
                format!("both for {}", names.join(" and "))
            },
        },
    }
}

/// The same rules under their loose shapes. Where rules become one, the strictest of them stays.
fn loose_hosts(rules: &[Rule], errors: &mut Vec<RouteError>) -> Hosts {
    let mut hosts = HostsBuilder::default();
    for (index, rule) in rules.iter().enumerate() {
        for method in entries(&rule.methods) {
            for form in rule.path.loose_forms() {
                let shape = form.shape.clone();
                let rival = hosts.insert(&rule.host, method, form, index).err();
                let rival = rival.and_then(|leaf| rules.get(leaf.rule));
                if rival.is_some_and(|rival| rival.grant.undercuts(&rule.grant)) {
                    hosts.replace(&rule.host, method, &shape, index);
                }
            }
        }
    }
    built(hosts, rules, errors)
}

/// Rules for named hosts that a client could get round by naming a host that no rule names.
fn guarded_elsewhere(
    rules: &[Rule],
    upstream: &Arc<str>,
    errors: &mut Vec<RouteError>,
) -> Option<Hosts> {
    let mut hosts = HostsBuilder::default();
    let mut found = false;
    for (index, rule) in rules.iter().enumerate() {
        let reachable = rule.grant.upstream().is_none_or(|name| name == upstream);
        if rule.host == HostPattern::Any || rule.grant.is_free() || !reachable {
            continue;
        }
        found = true;
        for method in entries(&rule.methods) {
            for form in rule.path.loose_forms() {
                // Whichever of several rules is found, none is free.
                let _ = hosts.insert(&HostPattern::Any, method, form, index);
            }
        }
    }
    found.then(|| built(hosts, rules, errors))
}

fn built(hosts: HostsBuilder, rules: &[Rule], errors: &mut Vec<RouteError>) -> Hosts {
    hosts.build().unwrap_or_else(|(index, problem)| {
        if let Some(rule) = rules.get(index) {
            errors.push(RouteError {
                rule: Arc::clone(&rule.name),
                at: rule.at.clone(),
                fault: RouteFault::Router(problem),
            });
        }
        Hosts::default()
    })
}

#[cfg(test)]
mod tests;
