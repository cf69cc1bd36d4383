//! What of a configuration takes effect with a restart only.
//!
//! Every key is decided on here, by name: a new one does not compile until somebody has said which
//! kind it is.

use super::diagnostic::Diagnostic;
use super::settings::{Limits, LogSettings, ServerSettings, Settings};

/// One error for each part of `new` that a running wall cannot take over. `Loaded::locate` of the
/// new configuration adds the lines.
#[must_use]
pub fn needs_restart(old: &Settings, new: &Settings) -> Vec<Diagnostic> {
    let Settings {
        server,
        listeners,
        limits,
        ledger,
        retention_days,
        // Taken over whole.
        facilitators: _,
        accepts: _,
        upstreams: _,
        rules: _,
        unmatched: _,
        cors: _,
        networks: _,
        log,
        acme,
    } = new;
    let mut keys = Vec::new();
    keys.extend(changed(server_keys(&old.server), server_keys(server)));
    if *listeners != old.listeners {
        keys.push("listen");
    }
    keys.extend(changed(limit_keys(&old.limits), limit_keys(limits)));
    if *ledger != old.ledger {
        keys.push("ledger");
    }
    if *retention_days != old.retention_days {
        keys.push("ledger.retention_days");
    }
    keys.extend(changed(log_keys(&old.log), log_keys(log)));
    if *acme != old.acme {
        keys.push("acme");
    }
    keys.into_iter().map(complaint).collect()
}

fn complaint(key: &'static str) -> Diagnostic {
    let message = format!("`{key}` has changed, and that takes effect with a restart only");
    Diagnostic::error("needs-restart", message)
        .about(key)
        .help("restart farewall, or put the old value back and reload")
}

type Values = Vec<(&'static str, String)>;

fn changed(old: Values, new: Values) -> Vec<&'static str> {
    let pairs = old.into_iter().zip(new);
    let differ = pairs.filter(|((_, old), (_, new))| old != new);
    differ.map(|((key, _), _)| key).collect()
}

/// The keys of `[server]` that need a restart, with their values.
fn server_keys(server: &ServerSettings) -> Values {
    let ServerSettings {
        worker_threads,
        work_stealing,
        shutdown_grace,
        admin,
        // Its token was read at the start.
        admin_token_file,
        // Pooled connections, the ledger's and pingora's own were made with it.
        ca_file,
        control,
        public_origin: _,
        service_name: _,
        trusted_proxies: _,
        permit2_allowance_as_402: _,
        shadow: _,
    } = server;
    let control = match control {
        None => "off".to_owned(),
        Some(control) if control.is_wanted => control.path.display().to_string(),
        // Goes with the ledger.
        Some(_) => String::new(),
    };
    vec![
        ("server.worker_threads", worker_threads.to_string()),
        ("server.work_stealing", work_stealing.to_string()),
        ("server.shutdown_grace_s", format!("{shutdown_grace:?}")),
        ("server.admin", format!("{admin:?}")),
        ("server.admin_token_file", format!("{admin_token_file:?}")),
        ("server.ca_file", format!("{ca_file:?}")),
        ("server.control", control),
    ]
}

/// The same of `[log]`.
fn log_keys(log: &LogSettings) -> Values {
    let LogSettings {
        format,
        otlp_endpoint,
        filter: _,
    } = log;
    vec![
        ("log.format", format!("{format:?}")),
        ("log.otlp_endpoint", format!("{otlp_endpoint:?}")),
    ]
}

/// The same of `[limits]`: caches, and what is counted over all connections.
fn limit_keys(limits: &Limits) -> Values {
    let Limits {
        verdict_cache_entries_max,
        kept_responses_bytes_max,
        rate_limit_keys_max,
        connections_max,
        connections_per_client_max,
        request_header_bytes_max,
        header_timeout,
        idle_timeout,
        send_timeout,
        request_body_bytes_max: _,
        payment_header_bytes_max: _,
        target_bytes_max: _,
        unverified_proofs_max: _,
        kept_response_bytes_max: _,
        retry_window: _,
        duplicate_wait: _,
        unverified_proofs_per_client_max: _,
        verify_calls_per_minute_per_client: _,
        verify_calls_per_minute_per_payer: _,
        refused_proofs_per_minute_per_client: _,
        body_timeout: _,
    } = limits;
    vec![
        (
            "limits.verdict_cache_entries_max",
            verdict_cache_entries_max.to_string(),
        ),
        (
            "limits.kept_responses_bytes_max",
            kept_responses_bytes_max.to_string(),
        ),
        (
            "limits.rate_limit_keys_max",
            rate_limit_keys_max.to_string(),
        ),
        ("limits.connections_max", connections_max.to_string()),
        (
            "limits.connections_per_client_max",
            connections_per_client_max.to_string(),
        ),
        (
            "limits.request_header_bytes_max",
            request_header_bytes_max.to_string(),
        ),
        ("limits.header_timeout_ms", format!("{header_timeout:?}")),
        ("limits.idle_timeout_ms", format!("{idle_timeout:?}")),
        ("limits.send_timeout_ms", format!("{send_timeout:?}")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const BASE: &str = r#"
        [server]
        public_origin = "https://a.example"
        [limits]
        retry_window_s = 60
        [upstream.api]
        url = "http://127.0.0.1:9000"
    "#;

    #[track_caller]
    fn check(from: &str, to: &str, want: &[&str]) {
        let read = |text: &str| parse(text, "a.toml", &|_| None).unwrap().settings;
        let changed = BASE.replacen(from, to, 1);
        assert_ne!(changed, BASE);
        let found = needs_restart(&read(BASE), &read(&changed));
        let keys: Vec<_> = found.iter().map(|d| d.key.as_deref().unwrap()).collect();
        assert_eq!(keys, want);
    }

    #[test]
    fn what_the_process_is_built_of_needs_a_restart_and_the_rest_does_not() {
        check(
            "[limits]",
            "worker_threads = 77\n[limits]",
            &["server.worker_threads"],
        );
        check("[limits]", "admin = \"off\"\n[limits]", &["server.admin"]);
        check(
            "[limits]",
            "control = \"off\"\n[limits]",
            &["server.control"],
        );
        let listen = "[[listen]]\naddress = \"127.0.0.1:9999\"\n[limits]";
        check("[limits]", listen, &["listen"]);
        check(
            "[limits]",
            "[ledger]\npath = \"b.db\"\n[limits]",
            &["ledger"],
        );
        check(
            "retry_window_s = 60",
            "connections_max = 7\nidle_timeout_ms = 7\nsend_timeout_ms = 7",
            &[
                "limits.connections_max",
                "limits.idle_timeout_ms",
                "limits.send_timeout_ms",
            ],
        );
        check(
            "retry_window_s = 60",
            "retry_window_s = 7\nbody_timeout_ms = 7",
            &[],
        );
        check(
            "[limits]",
            "admin_token_file = \"token\"\n[limits]",
            &["server.admin_token_file"],
        );
        let log = "[log]\nfilter = \"debug\"\nformat = \"json\"\n[limits]";
        check("[limits]", log, &["log.format"]);
        check("[limits]", "[log]\nfilter = \"debug\"\n[limits]", &[]);
        let listen = "[[listen]]\naddress = \"127.0.0.1:8402\"\nacme = true\n";
        let acme = "[acme]\nnames = [\"a.example\"]\naccept_terms = true\n[limits]";
        check("[limits]", &format!("{listen}{acme}"), &["listen", "acme"]);
        check("a.example", "b.example", &[]);
        check(":9000", ":9001", &[]);
        check("[limits]", "shadow = true\n[limits]", &[]);
    }
}
