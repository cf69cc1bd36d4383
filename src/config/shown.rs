//! The configuration in force, for people who ask a running wall. Secrets are starred out.
//!
//! What is shown is written down field by field: a new setting is not shown before somebody decides
//! whether it may be.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::mask::starred;
use super::settings::{
    AcceptSettings, AcmeSettings, FacilitatorSettings, LedgerSettings, LedgerTls, Limits,
    LogFormat, RuleAccess, RuleSettings, ServerSettings, Settings, Unmatched, UpstreamSettings,
};
use crate::settlement::SettleWhen;

/// What stands in place of a secret.
const STARS: &str = "***";

/// The settings as JSON, in the order and under the names of the configuration file. Amounts are
/// texts; times carry their unit in the name.
#[must_use]
pub fn shown(settings: &Settings) -> Value {
    let unmatched = match &settings.unmatched {
        Unmatched::Deny => json!("deny"),
        Unmatched::Free(upstream) => json!({ "free": upstream }),
        Unmatched::Shadow(upstream) => json!({ "shadow": upstream }),
    };
    let listen = settings.listeners.iter().map(|listener| {
        let tls = listener.tls.iter();
        let tls = tls.map(|tls| json!({ "cert": path(&tls.cert), "key": path(&tls.key) }));
        json!({
            "address": listener.address.to_string(),
            "h2c": listener.h2c,
            "tls": tls.collect::<Vec<_>>(),
            "acme": listener.acme,
            "forward_auth": listener.forward_auth.as_ref().map(|asked| json!({
                "asked_by": asked.asked_by.word(),
                "trusted": asked.trusted.iter().map(|r| format!("{}/{}", r.address, r.prefix)).collect::<Vec<_>>(),
            })),
        })
    });
    let listen = listen.collect::<Vec<_>>();
    let named = |entries: Vec<(String, Value)>| Value::Object(entries.into_iter().collect());
    json!({
        "unmatched": unmatched,
        "server": server(&settings.server),
        "listen": listen,
        "acme": settings.acme.as_ref().map(acme),
        "limits": limits(&settings.limits),
        "ledger": ledger(&settings.ledger),
        "retention_days": settings.retention_days,
        "cors": {
            "allow_origins": settings.cors.allow_origins,
            "allow_headers": settings.cors.allow_headers,
            "max_age_s": settings.cors.max_age.as_secs(),
        },
        "facilitator": named(settings.facilitators.iter().map(|(n, f)| (n.to_string(), facilitator(f))).collect()),
        "accept": named(settings.accepts.iter().map(|(n, a)| (n.to_string(), accept(a))).collect()),
        "upstream": named(settings.upstreams.iter().map(|(n, u)| (n.to_string(), upstream(u))).collect()),
        "rule": settings.rules.iter().map(rule).collect::<Vec<_>>(),
        "network": named(settings.networks.iter().map(|(network, n)| (network.to_string(), json!({
            "rpc_url": STARS,
            "rpc_timeout_ms": ms(n.rpc_timeout),
            "confirmations": n.confirmations,
        }))).collect()),
        "log": {
            "filter": settings.log.filter,
            "format": match settings.log.format {
                LogFormat::Auto => "auto",
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            },
            "otlp_endpoint": settings.log.otlp_endpoint,
        },
    })
}

fn server(server: &ServerSettings) -> Value {
    let proxies = server.trusted_proxies.iter();
    let proxies = proxies.map(|range| format!("{}/{}", range.address, range.prefix));
    json!({
        "public_origin": server.public_origin,
        "service_name": server.service_name,
        "worker_threads": server.worker_threads,
        "work_stealing": server.work_stealing,
        "shutdown_grace_s": server.shutdown_grace.as_secs(),
        "trusted_proxies": proxies.collect::<Vec<_>>(),
        "admin": server.admin.as_ref().map_or_else(|| "off".to_owned(), ToString::to_string),
        "ca_file": server.ca_file.as_deref().map(path),
        "permit2_allowance_as_402": server.permit2_allowance_as_402,
        "control": server.control.as_ref().map_or_else(|| "off".to_owned(), |c| path(&c.path)),
        "shadow": server.shadow,
        "admin_token_file": server.admin_token_file.as_deref().map(path),
    })
}

fn acme(acme: &AcmeSettings) -> Value {
    json!({
        "names": acme.names,
        "contact": acme.contact,
        "directory": acme.directory,
        "ca_file": acme.ca_file.as_deref().map(path),
        "state": path(&acme.state),
        "listen": acme.listen.to_string(),
    })
}

fn limits(limits: &Limits) -> Value {
    json!({
        "request_body_bytes_max": limits.request_body_bytes_max,
        "payment_header_bytes_max": limits.payment_header_bytes_max,
        "target_bytes_max": limits.target_bytes_max,
        "unverified_proofs_max": limits.unverified_proofs_max,
        "verdict_cache_entries_max": limits.verdict_cache_entries_max,
        "kept_response_bytes_max": limits.kept_response_bytes_max,
        "kept_responses_bytes_max": limits.kept_responses_bytes_max,
        "retry_window_s": limits.retry_window.as_secs(),
        "duplicate_wait_ms": ms(limits.duplicate_wait),
        "unverified_proofs_per_client_max": limits.unverified_proofs_per_client_max,
        "verify_calls_per_minute_per_client": limits.verify_calls_per_minute_per_client,
        "verify_calls_per_minute_per_payer": limits.verify_calls_per_minute_per_payer,
        "refused_proofs_per_minute_per_client": limits.refused_proofs_per_minute_per_client,
        "rate_limit_keys_max": limits.rate_limit_keys_max,
        "connections_max": limits.connections_max,
        "connections_per_client_max": limits.connections_per_client_max,
        "request_header_bytes_max": limits.request_header_bytes_max,
        "header_timeout_ms": ms(limits.header_timeout),
        "idle_timeout_ms": ms(limits.idle_timeout),
        "body_timeout_ms": ms(limits.body_timeout),
        "send_timeout_ms": ms(limits.send_timeout),
    })
}

fn ledger(ledger: &LedgerSettings) -> Value {
    match ledger {
        LedgerSettings::File(file) => json!({ "path": path(file) }),
        LedgerSettings::Server(server) => json!({
            "url": format!("postgres://{STARS}@{}", server.place),
            "sslmode": match &server.tls {
                LedgerTls::Off => "disable",
                LedgerTls::Verified { .. } => "verify-full",
            },
            "lease_s": server.lease.as_secs(),
            "connections_max": server.connections_max,
        }),
    }
}

fn facilitator(f: &FacilitatorSettings) -> Value {
    json!({
        "url": starred(&f.url),
        "sandbox": f.sandbox,
        "connect_timeout_ms": ms(f.connect_timeout),
        "verify_timeout_ms": ms(f.verify_timeout),
        "settle_timeout_ms": ms(f.settle_timeout),
        "calls_max": f.calls_max,
        "answer_bytes_max": f.answer_bytes_max,
        "verify_headers": headers(&f.headers.verify),
        "settle_headers": headers(&f.headers.settle),
        "supported_headers": headers(&f.headers.supported),
        "supported_cache": path(&f.supported_cache),
        "verify_retries": f.verify_retries,
        "breaker_failures": f.breaker_failures,
        "breaker_open_ms": ms(f.breaker_open),
    })
}

fn accept(a: &AcceptSettings) -> Value {
    json!({
        "scheme": a.scheme,
        "network": a.network.as_str(),
        "asset": a.asset.as_str(),
        "symbol": a.symbol,
        "decimals": a.decimals.get(),
        "is_dollar": a.is_dollar,
        "pay_to": a.pay_to.as_str(),
        "max_timeout_s": a.max_timeout.as_secs(),
        "extra": a.extra,
        "facilitators": a.facilitators,
    })
}

fn upstream(u: &UpstreamSettings) -> Value {
    let servers = u.servers.iter().map(|s| format!("{}:{}", s.host, s.port));
    json!({
        "servers": servers.collect::<Vec<_>>(),
        "tls": u.tls,
        "tls_server_name": u.tls_server_name,
        "tls_verify": u.tls_verify,
        "http2": u.http2,
        "host": u.host,
        "strip_prefix": u.strip_prefix,
        "add_prefix": u.add_prefix,
        "headers": headers(&u.headers),
        "connect_timeout_ms": ms(u.connect_timeout),
        "read_timeout_ms": ms(u.read_timeout),
        "write_timeout_ms": ms(u.write_timeout),
        "total_timeout_ms": ms(u.total_timeout),
        "idle_timeout_ms": ms(u.idle_timeout),
        "health": u.health.as_ref().map(|health| json!({
            "path": health.path,
            "interval_ms": ms(health.interval),
            "timeout_ms": ms(health.timeout),
            "unhealthy_after": health.unhealthy_after,
            "healthy_after": health.healthy_after,
        })),
    })
}

fn rule(rule: &RuleSettings) -> Value {
    let mut shown = json!({
        "name": rule.name,
        "at": format!("{}:{}", rule.at.file, rule.at.line),
        "methods": rule.methods,
        "host": rule.host,
        "path": rule.path,
        "upstream": rule.upstream,
        "request_body_bytes_max": rule.request_body_bytes_max,
    });
    let access = match &rule.access {
        RuleAccess::Free => json!({ "free": true }),
        RuleAccess::Deny => json!({ "deny": true }),
        RuleAccess::Priced(priced) => {
            let accept = priced.accepts.iter();
            let accept = accept.map(
                |(name, amount)| json!({ "accept": name, "amount_atomic": amount.to_string() }),
            );
            json!({
                "accept": accept.collect::<Vec<_>>(),
                "description": priced.description,
                "mime_type": priced.mime_type,
                "settle": match priced.settle {
                    SettleWhen::AfterResponse => "after",
                    SettleWhen::BeforeForward => "before",
                },
                "kept_response_bytes_max": priced.kept_response_bytes_max,
                "forward_conditional": priced.forward_conditional,
                "shadow": priced.shadow,
            })
        }
    };
    if let (Value::Object(shown), Value::Object(access)) = (&mut shown, access) {
        shown.extend(access);
    }
    shown
}

fn headers(headers: &[(String, String)]) -> Value {
    let names = headers.iter();
    let names = names.map(|(name, _)| (name.clone(), Value::from(STARS)));
    Value::Object(names.collect::<Map<_, _>>())
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
