//! What is allowed but hardly meant. Pure: looks at the settings alone, so it knows keys, not lines.
//!
//! Unreachable rules and holes under priced prefixes need the routes, and are found there.

use serde_json::{Map, Value};

use crate::chain::assets;
use crate::settlement::SettleWhen;
use crate::x402::message::{PaymentRequired, PaymentRequirements, ResourceInfo};

use super::diagnostic::Diagnostic;
use super::settings::{
    AcceptMethod, AcceptSettings, AdminAddress, PricedRule, RuleAccess, RuleSettings, Settings,
    Unmatched, UpstreamSettings,
};
use super::values;

/// Above this, facilitators refuse the payment. Rule: fact sheet, section 2.2 and trap 16.
const DESCRIPTION_CHARS_MAX: usize = 500;
/// Above this, the challenge header meets limits of proxies and clients (trap 16).
const CHALLENGE_BYTES_MAX: usize = 6 << 10;

/// All warnings that need no routes. [`Loaded::locate`](crate::config::Loaded::locate) adds the lines.
#[must_use]
pub fn lint(settings: &Settings) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    server(settings, &mut found);
    acme(settings, &mut found);
    for facilitator in settings.facilitators.values() {
        let key = format!("facilitator.{}", facilitator.name);
        let open = values::url(&facilitator.url).is_ok_and(|url| is_open(&url));
        if open && !facilitator.sandbox {
            let message = "the facilitator is asked without TLS: anybody between can say \"paid\"";
            let plain = Diagnostic::warning("plain-facilitator", message);
            found.push(plain.about(format!("{key}.url")).help("write https://"));
        }
        if !settings
            .accepts
            .values()
            .any(|a| a.facilitators.contains(&facilitator.name))
        {
            found.push(unused(&key, "no [accept.NAME] uses this facilitator"));
        }
    }
    for accept in settings.accepts.values() {
        self::accept(settings, accept, &mut found);
    }
    for upstream in settings.upstreams.values() {
        self::upstream(settings, upstream, &mut found);
    }
    not_asked_about(settings, &mut found);
    for rule in &settings.rules {
        match &rule.access {
            RuleAccess::Priced(priced) => self::rule(settings, rule, priced, &mut found),
            RuleAccess::Free | RuleAccess::Deny => {}
        }
    }
    found
}

/// Rules that only some listeners can serve.
fn not_asked_about(settings: &Settings, found: &mut Vec<Diagnostic>) {
    if settings.listeners.iter().all(|l| l.forward_auth.is_none()) {
        return;
    }
    for rule in &settings.rules {
        if let RuleAccess::Priced(priced) = &rule.access
            && priced.settle == SettleWhen::AfterResponse
            && !priced.shadow
        {
            let message = "sold only where the wall delivers: asked over the forward-auth listener, \
                           it is refused with 501";
            let after = Diagnostic::warning("settles-after-delivery", message);
            let key = format!("rule.{}.settle", rule.name);
            found.push(
                after
                    .about(key)
                    .help("write settle = \"before\" to sell it there too"),
            );
        }
    }
}

fn unused(key: &str, message: &str) -> Diagnostic {
    Diagnostic::warning("unused", message)
        .about(key)
        .help("use it, or remove it")
}

/// Plain HTTP to another machine.
fn is_open(url: &values::Url) -> bool {
    !url.is_tls && !values::is_loopback(&url.host)
}

fn server(settings: &Settings, found: &mut Vec<Diagnostic>) {
    let server = &settings.server;
    if values::origin(&server.public_origin).is_ok_and(|url| is_open(&url)) {
        let message = "clients are told to use http://: anybody between can take their payment";
        let plain = Diagnostic::warning("plain-origin", message).about("server.public_origin");
        found.push(plain.help("write https://, with TLS here or in a proxy in front"));
    }
    if let Some(AdminAddress::Tcp(admin)) = &server.admin
        && !admin.ip().is_loopback()
    {
        let message = format!("health and metrics are open to the network at {admin}");
        let exposed = Diagnostic::warning("open-admin", message).about("server.admin");
        found.push(exposed.help("listen on 127.0.0.1, or see to it that only you reach it"));
    }
    if server.trusted_proxies.iter().any(|range| range.prefix == 0) {
        let message = "every client is believed to be a trusted proxy";
        let all = Diagnostic::warning("trusts-everybody", message).about("server.trusted_proxies");
        found.push(all.help("name the addresses of your own proxies"));
    }
    if settings.rules.is_empty() && settings.unmatched == Unmatched::Deny {
        let message = "there are no rules: every request is answered with 404";
        let none = Diagnostic::warning("no-rules", message);
        found.push(
            none.about("server")
                .help("write a [[rule]] with a path and a price"),
        );
    }
}

fn acme(settings: &Settings, found: &mut Vec<Diagnostic>) {
    let Some(acme) = &settings.acme else { return };
    let port = acme.listen.port();
    if port != 80 {
        let message = format!("ACME servers ask port 80, and challenges are answered on {port}");
        let elsewhere = Diagnostic::warning("challenge-port", message).about("acme.listen");
        found.push(elsewhere.help("see to it that port 80 of every name leads there"));
    }
    let has_files = settings.listeners.iter().any(|l| !l.tls.is_empty());
    let origin = values::origin(&settings.server.public_origin);
    let is_named = origin.is_ok_and(|origin| acme.names.contains(&origin.host));
    if !is_named && !has_files {
        let message = "no certificate will be for the host of public_origin";
        let other = Diagnostic::warning("origin-without-certificate", message);
        found.push(other.about("acme.names").help("add it to `names`"));
    }
}

fn accept(settings: &Settings, accept: &AcceptSettings, found: &mut Vec<Diagnostic>) {
    let key = format!("accept.{}", accept.name);
    if assets::find(&accept.network, accept.asset.as_str()).is_none() {
        let message = format!(
            "{} on {} is not a token that clients know: by default they refuse to pay in it",
            accept.symbol,
            assets::network_label(&accept.network)
        );
        let unknown = Diagnostic::warning("unknown-token", message).about(format!("{key}.asset"));
        found.push(unknown.help("accept a built-in token beside it, or tell your buyers"));
    }
    let prices = |rule: &RuleSettings| match &rule.access {
        RuleAccess::Priced(priced) => priced.accepts.iter().any(|(name, _)| *name == accept.name),
        RuleAccess::Free | RuleAccess::Deny => false,
    };
    if !settings.rules.iter().any(prices) {
        found.push(unused(&key, "no rule can be paid this way"));
    }
}

fn upstream(settings: &Settings, upstream: &UpstreamSettings, found: &mut Vec<Diagnostic>) {
    let key = format!("upstream.{}", upstream.name);
    if upstream.tls && !upstream.tls_verify {
        let message = "the servers' certificates are not verified";
        let blind =
            Diagnostic::warning("tls-unverified", message).about(format!("{key}.tls_verify"));
        found.push(blind.help("put their authority's certificate into `ca_file` in [server]"));
    }
    let is_fallback = settings.unmatched == Unmatched::Free(upstream.name.clone());
    let is_named = |rule: &RuleSettings| rule.upstream.as_ref() == Some(&upstream.name);
    if !is_fallback && !settings.rules.iter().any(is_named) {
        found.push(unused(&key, "no rule forwards to this upstream"));
    }
}

fn rule(
    settings: &Settings,
    rule: &RuleSettings,
    priced: &PricedRule,
    found: &mut Vec<Diagnostic>,
) {
    let warn = |code, key: &str, message: String, help: &str| {
        let key = format!("rule.{}.{key}", rule.name);
        Diagnostic::warning(code, message).about(key).help(help)
    };
    let chars = priced.description.chars().count();
    if chars > DESCRIPTION_CHARS_MAX {
        let message = format!(
            "the description has {chars} characters, facilitators refuse over {DESCRIPTION_CHARS_MAX}"
        );
        found.push(warn(
            "long-description",
            "description",
            message,
            "shorten it",
        ));
    }
    let bytes = challenge_bytes(settings, rule, priced);
    if bytes > CHALLENGE_BYTES_MAX {
        let message = format!(
            "the challenge takes about {bytes} bytes of a header, many clients and proxies stop at 8192"
        );
        let help = "accept fewer ways of paying in this rule, or shorten its description";
        found.push(warn("large-challenge", "path", message, help));
    }
    let accepts: Vec<_> = priced
        .accepts
        .iter()
        .filter_map(|(name, amount)| settings.accepts.get(name).map(|accept| (accept, *amount)))
        .collect();
    let over_a_dollar = |(accept, amount): &&(&AcceptSettings, crate::money::AtomicAmount)| {
        let one = 10_u128.checked_pow(u32::from(accept.decimals.get()));
        accept.is_dollar && one.is_some_and(|one| amount.units() > one)
    };
    if accepts.iter().any(|pair| over_a_dollar(&pair)) {
        let message = "the price is above $1, which clients refuse to pay unless told otherwise";
        let help = "tell your buyers to raise their limit, or sell smaller pieces";
        found.push(warn("price-above-cap", "price", message.to_owned(), help));
    }
    let is_test = |(accept, _): &(&AcceptSettings, _)| assets::is_testnet(&accept.network);
    if accepts.iter().any(is_test) && !accepts.iter().all(is_test) {
        let message =
            "what costs real money here can also be paid with play money of a test network";
        let help = "write `accept` without the test network";
        found.push(warn("test-money-too", "accept", message.to_owned(), help));
    }
    expiry(
        settings,
        rule,
        &accepts
            .iter()
            .map(|(accept, _)| *accept)
            .collect::<Vec<_>>(),
        found,
    );
}

/// A proof must outlive the upstream's work and the settlement after it.
fn expiry(
    settings: &Settings,
    rule: &RuleSettings,
    accepts: &[&AcceptSettings],
    found: &mut Vec<Diagnostic>,
) {
    let work = rule
        .upstream
        .as_ref()
        .and_then(|name| settings.upstreams.get(name));
    let Some(work) = work.map(|upstream| upstream.total_timeout) else {
        return;
    };
    for accept in accepts {
        let slowest = accept.facilitators.iter();
        let slowest =
            slowest.filter_map(|name| settings.facilitators.get(name)?.settle_timeout.into());
        let needed = work.saturating_add(slowest.max().unwrap_or_default());
        if needed > accept.max_timeout {
            let message = format!(
                "a payment may expire before it is settled: it is good for {} s, answer and settlement may take {} s",
                accept.max_timeout.as_secs(),
                needed.as_secs()
            );
            let expires = Diagnostic::warning("proof-may-expire", message);
            let key = format!("accept.{}.max_timeout_s", accept.name);
            let help = "raise `max_timeout_s`, or lower `total_timeout_ms` of the upstream";
            let expires = expires.about(key).help(help);
            if !found.contains(&expires) {
                found.push(expires);
            }
        }
    }
}

/// The size of `PAYMENT-REQUIRED` for a request to the rule's own pattern.
fn challenge_bytes(settings: &Settings, rule: &RuleSettings, priced: &PricedRule) -> usize {
    let accepts = priced.accepts.iter().filter_map(|(name, amount)| {
        let accept = settings.accepts.get(name)?;
        Some(PaymentRequirements {
            scheme: accept.scheme.to_string(),
            network: accept.network.to_string(),
            amount: amount.to_string(),
            asset: accept.asset.to_string(),
            pay_to: accept.pay_to.to_string(),
            max_timeout_seconds: accept.max_timeout.as_secs(),
            extra: Some(extra(accept)),
        })
    });
    let challenge = PaymentRequired {
        x402_version: 2,
        error: Some("Payment required".to_owned()),
        resource: ResourceInfo {
            url: format!("{}{}", settings.server.public_origin, rule.path),
            description: priced.description.clone(),
            mime_type: priced.mime_type.clone(),
            service_name: settings.server.service_name.as_deref().map(str::to_owned),
        },
        accepts: accepts.collect(),
        extensions: None,
    };
    let json = serde_json::to_string(&challenge).map_or(0, |json| json.len());
    json.div_ceil(3).saturating_mul(4)
}

fn extra(accept: &AcceptSettings) -> Map<String, Value> {
    let mut extra = accept.extra.clone();
    let mut put = |key: &str, value: &str| extra.insert(key.to_owned(), Value::from(value));
    match &accept.method {
        AcceptMethod::Eip3009 { name, version } => {
            put("name", name);
            put("version", version);
        }
        AcceptMethod::Permit2 { eip2612 } => {
            put("assetTransferMethod", "permit2");
            if let Some((name, version)) = eip2612 {
                put("name", name);
                put("version", version);
            }
        }
        AcceptMethod::Opaque => {}
    }
    extra
}
