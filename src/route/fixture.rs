//! Small configurations for tests, without a file.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Map;

use crate::chain::{Asset, Network, PayTo, parse_evm_address};
use crate::config::settings::{
    AcceptMethod, AcceptSettings, CorsSettings, LedgerSettings, Limits, Location, LogSettings,
    PricedRule, RuleAccess, RuleSettings, ServerAddress, ServerSettings, Settings, Unmatched,
    UpstreamSettings,
};
use crate::money::{AtomicAmount, Decimals, PriceText};
use crate::settlement::SettleWhen;

pub(crate) const PAY_TO: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

/// A whole configuration: upstream `api`, way of paying `usdc`, one facilitator `fac`.
pub(crate) fn settings(rules: Vec<RuleSettings>) -> Settings {
    let ms = Duration::from_millis;
    Settings {
        server: ServerSettings {
            public_origin: "https://api.example.com".into(),
            service_name: None,
            worker_threads: 1,
            work_stealing: true,
            shutdown_grace: ms(1),
            trusted_proxies: Vec::new(),
            admin: None,
            ca_file: None,
            permit2_allowance_as_402: false,
            control: None,
            shadow: false,
            admin_token_file: None,
        },
        listeners: Vec::new(),
        limits: Limits {
            request_body_bytes_max: 10,
            payment_header_bytes_max: 16_384,
            target_bytes_max: 8_192,
            unverified_proofs_max: 1,
            verdict_cache_entries_max: 1,
            kept_response_bytes_max: 1,
            kept_responses_bytes_max: 1,
            retry_window: ms(1),
            duplicate_wait: ms(1),
            unverified_proofs_per_client_max: 1,
            verify_calls_per_minute_per_client: NonZeroU32::MIN,
            verify_calls_per_minute_per_payer: NonZeroU32::MIN,
            refused_proofs_per_minute_per_client: NonZeroU32::MIN,
            rate_limit_keys_max: 1,
            connections_max: 1,
            connections_per_client_max: 1,
            request_header_bytes_max: 1024,
            header_timeout: ms(1),
            idle_timeout: ms(1),
            body_timeout: ms(1),
            send_timeout: ms(1),
        },
        ledger: LedgerSettings::File(PathBuf::new()),
        retention_days: None,
        facilitators: BTreeMap::new(),
        accepts: [accept("usdc")]
            .into_iter()
            .map(|a| (a.name.clone(), a))
            .collect(),
        upstreams: BTreeMap::from([("api".into(), upstream("api"))]),
        rules,
        unmatched: Unmatched::Deny,
        cors: CorsSettings {
            allow_origins: Vec::new(),
            allow_headers: Vec::new(),
            max_age: ms(1),
        },
        networks: BTreeMap::new(),
        acme: None,
        log: LogSettings::default(),
    }
}

pub(crate) fn upstream(name: &str) -> UpstreamSettings {
    let ms = Duration::from_millis;
    UpstreamSettings {
        name: name.into(),
        servers: vec![ServerAddress {
            host: "127.0.0.1".to_owned(),
            port: 9000,
        }],
        tls: false,
        tls_server_name: String::new(),
        tls_verify: true,
        http2: false,
        host: None,
        strip_prefix: None,
        add_prefix: None,
        headers: Vec::new(),
        connect_timeout: ms(1),
        read_timeout: ms(1),
        write_timeout: ms(1),
        total_timeout: ms(1),
        idle_timeout: ms(1),
        health: None,
    }
}

/// USDC on Base Sepolia.
pub(crate) fn accept(name: &str) -> AcceptSettings {
    let address = |text| parse_evm_address(text).unwrap();
    AcceptSettings {
        name: name.into(),
        scheme: "exact".into(),
        network: Network::parse_caip2("eip155:84532").unwrap(),
        asset: Asset::evm(address("0x036CbD53842c5426634e7929541eC2318f3dCF7e")),
        symbol: "USDC".into(),
        decimals: Decimals::new(6).unwrap(),
        is_dollar: true,
        pay_to: PayTo::evm(address(PAY_TO)),
        method: AcceptMethod::Eip3009 {
            name: "USDC".to_owned(),
            version: "2".to_owned(),
        },
        max_timeout: Duration::from_secs(300),
        extra: Map::new(),
        facilitators: vec!["fac".into()],
    }
}

/// Opaque: `exact` on Solana devnet.
pub(crate) fn solana(name: &str) -> AcceptSettings {
    AcceptSettings {
        network: Network::parse_caip2("solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1").unwrap(),
        asset: Asset::verbatim("4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU"),
        pay_to: PayTo::verbatim("2wKupLR9q6wXYppw8Gr2NvWxKBUqm4PPJKkQfoxHDBg4"),
        method: AcceptMethod::Opaque,
        ..accept(name)
    }
}

/// A rule from `"[METHOD,METHOD] [HOST]PATH"`, such as `"GET,POST api.example.com/v1/{id}"`.
/// The line is found in `ambiguous` messages.
pub(crate) fn rule(name: &str, line: usize, matches: &str, access: RuleAccess) -> RuleSettings {
    let (methods, target) = matches.split_once(' ').unwrap_or(("", matches));
    let (host, path) = target.split_at(target.find('/').unwrap());
    RuleSettings {
        name: name.into(),
        at: Location {
            file: "rules.toml".into(),
            line,
            column: 1,
        },
        methods: methods
            .split(',')
            .filter(|m| !m.is_empty())
            .map(str::to_owned)
            .collect(),
        host: (!host.is_empty()).then(|| host.to_owned()),
        path: path.to_owned(),
        upstream: None,
        request_body_bytes_max: 20,
        access,
        rate_limit: None,
    }
}

/// So many atomic units of `usdc`.
pub(crate) fn priced(units: u128) -> RuleAccess {
    priced_by(&["usdc"], units)
}

pub(crate) fn priced_by(accepts: &[&str], units: u128) -> RuleAccess {
    let amount = AtomicAmount::new(units);
    let accepts = accepts
        .iter()
        .map(|name| (Arc::from(*name), amount))
        .collect();
    RuleAccess::Priced(PricedRule {
        price: PriceText::Atomic(amount),
        accepts,
        description: "a thing".to_owned(),
        mime_type: "application/json".to_owned(),
        settle: SettleWhen::AfterResponse,
        kept_response_bytes_max: 30,
        forward_conditional: false,
        shadow: false,
    })
}

/// So many atomic units of `usdc`, and in shadow.
pub(crate) fn shadowed(units: u128) -> RuleAccess {
    match priced(units) {
        RuleAccess::Priced(rule) => RuleAccess::Priced(PricedRule {
            shadow: true,
            ..rule
        }),
        other @ (RuleAccess::Free | RuleAccess::Deny) => other,
    }
}

/// Rules by name from `(what it matches, what it grants)`; the name is the text of the match.
pub(crate) fn rules(list: &[(&str, RuleAccess)]) -> Vec<RuleSettings> {
    (1..)
        .zip(list)
        .map(|(line, (matches, access))| rule(matches, line, matches, access.clone()))
        .collect()
}
