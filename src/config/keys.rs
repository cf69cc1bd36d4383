//! Every key of the configuration, by section. What is not listed here is refused.

use super::reader::closest;

/// The keys of one section.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Section {
    /// As it is written: `[server]`, `[[rule]]`; empty at the top of the file.
    pub header: &'static str,
    /// The keys.
    pub keys: &'static [&'static str],
}

pub(super) const TOP: Section = Section {
    header: "",
    keys: &[
        "include",
        "unmatched",
        "unmatched_upstream",
        "server",
        "listen",
        "acme",
        "limits",
        "ledger",
        "cors",
        "facilitator",
        "accept",
        "upstream",
        "rule",
        "network",
        "log",
    ],
};

/// What an included file may hold.
pub(super) const INCLUDED: [&str; 5] = ["facilitator", "accept", "upstream", "rule", "network"];

pub(super) const SERVER: Section = Section {
    header: "[server]",
    keys: &[
        "public_origin",
        "service_name",
        "permit2_allowance_as_402",
        "worker_threads",
        "work_stealing",
        "shutdown_grace_s",
        "trusted_proxies",
        "admin",
        "ca_file",
        "control",
        "shadow",
        "admin_token_file",
    ],
};

pub(super) const LISTEN: Section = Section {
    header: "[[listen]]",
    keys: &[
        "address", "h2c", "tls_cert", "tls_key", "tls", "acme", "mode", "asked_by", "trusted",
    ],
};

pub(super) const LISTEN_TLS: Section = Section {
    header: "[[listen.tls]]",
    keys: &["cert", "key"],
};

pub(super) const ACME: Section = Section {
    header: "[acme]",
    keys: &[
        "names",
        "accept_terms",
        "contact",
        "directory",
        "ca_file",
        "state",
        "listen",
    ],
};

pub(super) const LIMITS: Section = Section {
    header: "[limits]",
    keys: &[
        "request_body_bytes_max",
        "payment_header_bytes_max",
        "target_bytes_max",
        "unverified_proofs_max",
        "verdict_cache_entries_max",
        "kept_response_bytes_max",
        "kept_responses_bytes_max",
        "retry_window_s",
        "duplicate_wait_ms",
        "unverified_proofs_per_client_max",
        "verify_calls_per_minute_per_client",
        "verify_calls_per_minute_per_payer",
        "refused_proofs_per_minute_per_client",
        "rate_limit_keys_max",
        "connections_max",
        "connections_per_client_max",
        "request_header_bytes_max",
        "header_timeout_ms",
        "idle_timeout_ms",
        "body_timeout_ms",
        "send_timeout_ms",
    ],
};

pub(super) const LEDGER: Section = Section {
    header: "[ledger]",
    keys: &[
        "path",
        "url",
        "lease_s",
        "connections_max",
        "retention_days",
    ],
};

pub(super) const CORS: Section = Section {
    header: "[cors]",
    keys: &["allow_origins", "allow_headers", "max_age_s"],
};

pub(super) const FACILITATOR: Section = Section {
    header: "[facilitator.NAME]",
    keys: &[
        "url",
        "sandbox",
        "connect_timeout_ms",
        "verify_timeout_ms",
        "settle_timeout_ms",
        "calls_max",
        "answer_bytes_max",
        "headers",
        "verify_headers",
        "settle_headers",
        "supported_headers",
        "supported_cache",
        "verify_retries",
        "breaker_failures",
        "breaker_open_ms",
    ],
};

pub(super) const ACCEPT: Section = Section {
    header: "[accept.NAME]",
    keys: &[
        "scheme",
        "network",
        "asset",
        "symbol",
        "decimals",
        "is_dollar",
        "transfer_method",
        "eip712_name",
        "eip712_version",
        "pay_to",
        "max_timeout_s",
        "extra",
        "facilitators",
    ],
};

pub(super) const UPSTREAM: Section = Section {
    header: "[upstream.NAME]",
    keys: &[
        "url",
        "servers",
        "tls_server_name",
        "tls_verify",
        "http2",
        "host",
        "strip_prefix",
        "add_prefix",
        "headers",
        "connect_timeout_ms",
        "read_timeout_ms",
        "write_timeout_ms",
        "total_timeout_ms",
        "idle_timeout_ms",
        "health",
    ],
};

pub(super) const HEALTH: Section = Section {
    header: "[upstream.NAME.health]",
    keys: &[
        "path",
        "interval_ms",
        "timeout_ms",
        "unhealthy_after",
        "healthy_after",
    ],
};

pub(super) const RULE: Section = Section {
    header: "[[rule]]",
    keys: &[
        "name",
        "methods",
        "host",
        "path",
        "upstream",
        "price",
        "free",
        "deny",
        "accept",
        "description",
        "mime_type",
        "settle",
        "request_body_bytes_max",
        "kept_response_bytes_max",
        "forward_conditional",
        "rate_limit",
        "shadow",
    ],
};

pub(super) const RATE_LIMIT: Section = Section {
    header: "rate_limit of [[rule]]",
    keys: &["requests", "per_s", "by"],
};

pub(super) const NETWORK: Section = Section {
    header: "[network.NAME]",
    keys: &["rpc_url", "rpc_timeout_ms", "confirmations"],
};

pub(super) const LOG: Section = Section {
    header: "[log]",
    keys: &["filter", "format", "otlp_endpoint"],
};

/// All sections, in the order of `conf/full.toml`.
pub static SECTIONS: [Section; 15] = [
    TOP,
    SERVER,
    LISTEN,
    LISTEN_TLS,
    ACME,
    LIMITS,
    LEDGER,
    CORS,
    FACILITATOR,
    ACCEPT,
    UPSTREAM,
    HEALTH,
    RULE,
    NETWORK,
    LOG,
];

/// How to mend an unknown key: the key that was meant, the section it belongs in, or all keys.
pub(super) fn help_for(key: &str, section: &Section) -> String {
    if let Some(meant) = closest(key, section.keys.iter().copied()) {
        return format!("did you mean `{meant}`?");
    }
    if let Some(home) = SECTIONS.iter().find(|other| other.keys.contains(&key)) {
        return if home.header.is_empty() {
            format!("`{key}` belongs at the top of the file, before the first [table]")
        } else {
            format!("`{key}` belongs in {}", home.header)
        };
    }
    format!("the keys here are {}", section.keys.join(", "))
}
