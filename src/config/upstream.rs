//! `[upstream.NAME]`: the API behind the wall.

use std::sync::Arc;

use super::diagnostic::Diagnostic;
use super::facilitator;
use super::keys;
use super::reader::Reader;
use super::settings::{HealthSettings, ServerAddress, UpstreamSettings};
use super::values;

const SERVER_HELP: &str = "write scheme, host and port, as \"http://127.0.0.1:9000\"; \
                           a path goes into `add_prefix`";
const PREFIX_HELP: &str = "write a path such as \"/v1\": a slash in front, none at the end";

pub(super) fn upstream(reader: &Reader<'_>, name: &Arc<str>) -> Option<UpstreamSettings> {
    let servers = servers(reader);
    let tls = servers.iter().any(|(_, is_tls)| *is_tls);
    if servers.iter().any(|(_, is_tls)| *is_tls != tls) {
        let message = "some servers speak TLS and some do not";
        let help = "write all with https:// or all with http://, or make two upstreams";
        reader.wrong("servers", "contradiction", message, help);
    }
    if !tls {
        reader.idle(
            &["tls_server_name", "tls_verify"],
            "the servers are http://",
        );
    }
    let first = servers
        .first()
        .map_or("", |(server, _)| &server.host)
        .to_owned();
    let server_name = reader.parsed(
        "tls_server_name",
        "bad-host",
        "write the name in the servers' certificate",
        values::host_pattern,
    );
    let prefix = |key| reader.parsed(key, "bad-prefix", PREFIX_HELP, values::prefix);
    let host_help = "write the Host header that the servers expect, as \"api.internal\"";
    Some(UpstreamSettings {
        name: Arc::clone(name),
        servers: servers.into_iter().map(|(server, _)| server).collect(),
        tls,
        tls_server_name: server_name.unwrap_or(first),
        tls_verify: reader.boolean("tls_verify", true),
        http2: reader.boolean("http2", false),
        host: reader.parsed("host", "bad-host", host_help, values::authority),
        strip_prefix: prefix("strip_prefix"),
        add_prefix: prefix("add_prefix"),
        headers: facilitator::headers(reader, "headers"),
        connect_timeout: reader.timeout("connect_timeout_ms", 3_000),
        read_timeout: reader.timeout("read_timeout_ms", 60_000),
        write_timeout: reader.timeout("write_timeout_ms", 60_000),
        total_timeout: reader.timeout("total_timeout_ms", 120_000),
        idle_timeout: reader.timeout("idle_timeout_ms", 60_000),
        health: health(reader),
    })
}

fn servers(reader: &Reader<'_>) -> Vec<(ServerAddress, bool)> {
    let texts = match (reader.has("url"), reader.has("servers")) {
        (true, false) => reader.text("url").into_iter().collect(),
        (false, true) => reader.texts("servers").unwrap_or_default(),
        (true, true) => {
            let message = "`url` and `servers` say the same thing twice";
            reader.wrong(
                "url",
                "contradiction",
                message,
                "keep `servers` and remove `url`",
            );
            Vec::new()
        }
        (false, false) => {
            reader.missing("servers", SERVER_HELP);
            Vec::new()
        }
    };
    if texts.is_empty() && reader.has("servers") && !reader.has("url") {
        reader.wrong(
            "servers",
            "empty-list",
            "`servers` names no server",
            SERVER_HELP,
        );
    }
    let mut servers: Vec<(ServerAddress, bool)> = Vec::new();
    for (text, at) in texts {
        let server = reader.parse(text, at, "bad-server", SERVER_HELP, values::server);
        if server
            .as_ref()
            .is_some_and(|server| servers.contains(server))
        {
            let twice = Diagnostic::error("listed-twice", "this server is listed twice");
            reader.files.complain(at, twice.help("remove one of them"));
        }
        servers.extend(server);
    }
    servers
}

fn health(above: &Reader<'_>) -> Option<HealthSettings> {
    let header = above.title.replace(']', ".health]");
    let table = above.table("health", &format!("write {header}"))?;
    let reader = Reader::new(above.files, table, keys::HEALTH, header);
    let help = "write the path to ask for, as \"/health\"; without it a TCP connection is enough";
    Some(HealthSettings {
        path: reader.parsed("path", "bad-path", help, values::request_path),
        interval: reader.timeout("interval_ms", 5_000),
        timeout: reader.timeout("timeout_ms", 2_000),
        unhealthy_after: reader.size("unhealthy_after", 3, 1..=1_000),
        healthy_after: reader.size("healthy_after", 1, 1..=1_000),
    })
}
