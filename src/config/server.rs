//! `[server]`, `[[listen]]`, `[limits]`, `[cors]`: what is there once.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::diagnostic::Diagnostic;
use super::document::{Span, Table, Value};
use super::forward_auth;
use super::keys::{self, Section};
use super::reader::Reader;
use super::secrets::Surroundings;
use super::settings::{
    AdminAddress, ControlSettings, CorsSettings, IpRange, Limits, ListenSettings, ServerSettings,
    TlsFiles,
};
use super::values;

pub(super) const ADDRESS_HELP: &str =
    "write an IP address and a port, as \"127.0.0.1:8402\" or \"[::]:443\"";

/// Calls `read` with the table `key`, which may be missing.
pub(super) fn section<T>(
    top: &Reader<'_>,
    key: &str,
    section: Section,
    read: impl FnOnce(&Reader<'_>) -> T,
) -> T {
    let nothing = Table {
        at: top.table.at,
        entries: Vec::new(),
    };
    let table = top.table(key, &format!("write {}", section.header));
    let table = table.unwrap_or(&nothing);
    read(&Reader::new(
        top.files,
        table,
        section,
        section.header.to_owned(),
    ))
}

/// `beside` is where the control socket goes that nobody named: a file whose name begins so.
pub(super) fn server(
    top: &Reader<'_>,
    around: &dyn Surroundings,
    beside: Option<&Path>,
) -> Option<ServerSettings> {
    section(top, "server", keys::SERVER, |reader| {
        let help = "write the origin that clients use, as \"https://api.example.com\"";
        let origin = reader
            .required("public_origin", help)
            .and_then(|(text, at)| reader.parse(text, at, "bad-origin", help, values::origin));
        let service_name = reader.parsed(
            "service_name",
            "bad-value",
            "challenges carry at most 32 printable ASCII characters here",
            values::service_name,
        );
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let worker_threads = reader.size("worker_threads", cores, 1..=1024);
        reader.usual("worker_threads", || "one for each core".to_owned());
        let ca_file = reader.path("ca_file");
        warn_if_absent(reader, "ca_file", ca_file.as_deref(), around);
        let admin_token_file = reader.path("admin_token_file");
        let token = admin_token_file.as_deref();
        warn_if_absent(reader, "admin_token_file", token, around);
        let work_stealing = reader.boolean("work_stealing", worker_threads > 1);
        let usual = || "true, but false with one thread".to_owned();
        reader.usual("work_stealing", usual);
        let settings = ServerSettings {
            public_origin: origin.as_ref()?.origin().into(),
            service_name: service_name.map(Arc::from),
            worker_threads,
            work_stealing,
            shutdown_grace: reader.seconds("shutdown_grace_s", 30, 0..=3600),
            trusted_proxies: trusted_proxies(reader),
            admin: admin(reader),
            ca_file,
            permit2_allowance_as_402: reader.boolean("permit2_allowance_as_402", false),
            control: own_control(reader, around, beside),
            shadow: reader.boolean("shadow", false),
            admin_token_file,
        };
        Some(settings)
    })
}

fn trusted_proxies(reader: &Reader<'_>) -> Vec<IpRange> {
    let help = "write addresses or ranges, as \"10.0.0.0/8\" or \"2001:db8::1\"";
    let texts = reader.texts("trusted_proxies").unwrap_or_default();
    let read = |(text, at)| reader.parse(text, at, "bad-range", help, values::range);
    texts.into_iter().filter_map(read).collect()
}

fn admin(reader: &Reader<'_>) -> Option<AdminAddress> {
    let usual = SocketAddr::from(([127, 0, 0, 1], 8086));
    reader.usual("admin", || format!("\"{usual}\""));
    if !reader.has("admin") {
        return Some(AdminAddress::Tcp(usual));
    }
    let (text, at) = reader.text("admin")?;
    if text.value == "off" {
        return None;
    }
    if let Some(path) = text.value.strip_prefix("unix:").filter(|p| !p.is_empty()) {
        let folder = reader.files.folder(at);
        return Some(AdminAddress::Unix(folder.join(path)));
    }
    let help = "write an IP address and a port, as \"127.0.0.1:8086\", \"unix:PATH\", or \"off\"";
    let address = reader.parse(text, at, "bad-address", help, address);
    address.map(AdminAddress::Tcp)
}

/// The control socket alone, whatever is wrong with the rest.
pub(super) fn control(
    top: &Reader<'_>,
    around: &dyn Surroundings,
    beside: Option<&Path>,
) -> Option<ControlSettings> {
    section(top, "server", keys::SERVER, |reader| {
        own_control(reader, around, beside)
    })
}

/// A path, `"off"`, or by default a file in the service's own directory, else beside the ledger.
fn own_control(
    reader: &Reader<'_>,
    around: &dyn Surroundings,
    beside: Option<&Path>,
) -> Option<ControlSettings> {
    if let Some((text, _)) = reader.text("control") {
        return (text.value != "off")
            .then(|| reader.path("control"))
            .flatten()
            .map(|path| ControlSettings {
                path,
                is_wanted: true,
            });
    }
    // systemd separates several directories by colons.
    let own = around.variable("RUNTIME_DIRECTORY").unwrap_or_default();
    let own = own.split(':').next().filter(|own| !own.is_empty());
    let path = match own {
        Some(own) => Path::new(own).join("control"),
        None => {
            let mut path = beside?.as_os_str().to_owned();
            path.push(".control");
            path.into()
        }
    };
    Some(ControlSettings {
        path,
        is_wanted: false,
    })
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(address),
        Ok(_) => Err(format!("{text:?} has port 0: clients could not find it")),
        Err(_) => Err(format!("{text:?} is not an address to listen on")),
    }
}

/// At least one: `127.0.0.1:8402` when there is no `[[listen]]`.
pub(super) fn listeners(top: &Reader<'_>, around: &dyn Surroundings) -> Vec<ListenSettings> {
    let usual = || ListenSettings {
        address: SocketAddr::from(([127, 0, 0, 1], 8402)),
        h2c: false,
        tls: Vec::new(),
        acme: false,
        forward_auth: None,
    };
    let Some(entry) = top.entry("listen") else {
        return vec![usual()];
    };
    let Value::List(nodes) = &entry.node.value else {
        top.wrong(
            "listen",
            "wrong-type",
            "`listen` must be a list of tables",
            "write [[listen]]",
        );
        return Vec::new();
    };
    if nodes.is_empty() {
        let help = "leave it out to listen on 127.0.0.1:8402";
        top.wrong("listen", "empty-list", "`listen` is empty", help);
    }
    let mut listeners = Vec::new();
    for node in nodes {
        if let Value::Table(table) = &node.value {
            let reader = Reader::new(top.files, table, keys::LISTEN, "[[listen]]".to_owned());
            listeners.extend(listener(&reader, around));
        } else {
            let wrong = Diagnostic::error("wrong-type", "`listen` must be a list of tables");
            top.files.complain(node.at, wrong.help("write [[listen]]"));
        }
    }
    listeners
}

fn listener(reader: &Reader<'_>, around: &dyn Surroundings) -> Option<ListenSettings> {
    let bound = reader
        .required("address", ADDRESS_HELP)
        .and_then(|(text, at)| reader.parse(text, at, "bad-address", ADDRESS_HELP, address));
    let h2c = reader.boolean("h2c", false);
    let (cert, key) = (reader.path("tls_cert"), reader.path("tls_key"));
    warn_if_absent(reader, "tls_cert", cert.as_deref(), around);
    warn_if_absent(reader, "tls_key", key.as_deref(), around);
    match (reader.has("tls_cert"), reader.has("tls_key")) {
        (true, false) => reader.missing("tls_key", "TLS needs the certificate's private key too"),
        (false, true) => reader.missing("tls_cert", "TLS needs the certificate too"),
        (true, true) | (false, false) => {}
    }
    let mut tls: Vec<_> = cert
        .zip(key)
        .map(|(cert, key)| TlsFiles { cert, key })
        .into_iter()
        .collect();
    tls.extend(more_certificates(reader, around));
    let acme = reader.boolean("acme", false);
    if h2c && (reader.has("tls_cert") && reader.has("tls_key") || reader.has("tls") || acme) {
        let message = "h2c is HTTP/2 without TLS, and this listener has TLS";
        let help = "remove h2c: TLS offers HTTP/2 by itself";
        reader.wrong("h2c", "contradiction", message, help);
    }
    Some(ListenSettings {
        address: bound?,
        h2c,
        tls,
        acme,
        forward_auth: forward_auth::forward_auth(reader)?,
    })
}

/// `[[listen.tls]]`: certificates for clients that ask for other names.
fn more_certificates(reader: &Reader<'_>, around: &dyn Surroundings) -> Vec<TlsFiles> {
    let help = "write [[listen.tls]] below its [[listen]], with cert and key";
    let Some(entry) = reader.entry("tls") else {
        return Vec::new();
    };
    let Value::List(nodes) = &entry.node.value else {
        let message = "`tls` of [[listen]] must be a list of tables";
        reader.wrong("tls", "wrong-type", message, help);
        return Vec::new();
    };
    let mut certificates = Vec::new();
    for node in nodes {
        let Value::Table(table) = &node.value else {
            let wrong = Diagnostic::error("wrong-type", "`tls` of [[listen]] holds tables only");
            reader.files.complain(node.at, wrong.help(help));
            continue;
        };
        let title = "[[listen.tls]]".to_owned();
        let reader = Reader::new(reader.files, table, keys::LISTEN_TLS, title);
        let file = |key, help| {
            if !reader.has(key) {
                reader.missing(key, help);
            }
            let path = reader.path(key);
            warn_if_absent(&reader, key, path.as_deref(), around);
            path
        };
        let cert = file(
            "cert",
            "name the PEM file of the certificate chain, leaf first",
        );
        let key = file("key", "name the PEM file of the certificate's private key");
        certificates.extend(cert.zip(key).map(|(cert, key)| TlsFiles { cert, key }));
    }
    certificates
}

/// A file that is not there yet may come with the deployment, so this is no error.
pub(super) fn warn_if_absent(
    reader: &Reader<'_>,
    key: &str,
    path: Option<&Path>,
    around: &dyn Surroundings,
) {
    let Some(path) = path else { return };
    let read = around.read(path);
    if read.is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        let message = format!("there is no file {}", path.display());
        let absent = Diagnostic::warning("absent-file", message);
        reader.files.complain(
            reader.at(key),
            absent.help("the wall does not start without it"),
        );
    }
}

/// Refuses two sockets on one address.
pub(super) fn distinct_addresses(
    top: &Reader<'_>,
    server: &ServerSettings,
    listeners: &[ListenSettings],
) {
    let mut taken = Vec::new();
    if let Some(AdminAddress::Tcp(admin)) = &server.admin {
        taken.push(*admin);
    }
    for (index, listener) in listeners.iter().enumerate() {
        if taken.contains(&listener.address) {
            let message = format!("{} is listened on twice", listener.address);
            let twice = Diagnostic::error("duplicate-address", message);
            let help = "give each listener, and `admin` in [server], its own address";
            top.files
                .complain(listener_at(top, index), twice.help(help));
        }
        taken.push(listener.address);
    }
}

fn listener_at(top: &Reader<'_>, index: usize) -> Span {
    let at = top
        .entry("listen")
        .and_then(|entry| match &entry.node.value {
            Value::List(nodes) => nodes.get(index).map(|node| node.at),
            Value::Text(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime
            | Value::Table(_)
            | Value::Broken => None,
        });
    at.unwrap_or(top.table.at)
}

pub(super) fn limits(top: &Reader<'_>) -> Limits {
    section(top, "limits", keys::LIMITS, |reader| {
        let bytes = |key, default| reader.number(key, default, 0..=1 << 40);
        Limits {
            request_body_bytes_max: bytes("request_body_bytes_max", 10 << 20),
            payment_header_bytes_max: reader.size(
                "payment_header_bytes_max",
                16 << 10,
                1024..=1 << 20,
            ),
            target_bytes_max: reader.size("target_bytes_max", 8 << 10, 64..=64 << 10),
            unverified_proofs_max: reader.size("unverified_proofs_max", 1024, 1..=1 << 20),
            verdict_cache_entries_max: reader.number(
                "verdict_cache_entries_max",
                100_000,
                0..=100_000_000,
            ),
            kept_response_bytes_max: bytes("kept_response_bytes_max", 256 << 10),
            kept_responses_bytes_max: bytes("kept_responses_bytes_max", 64 << 20),
            retry_window: reader.seconds("retry_window_s", 60, 0..=86_400),
            duplicate_wait: Duration::from_millis(reader.number(
                "duplicate_wait_ms",
                10_000,
                0..=600_000,
            )),
            unverified_proofs_per_client_max: reader.size(
                "unverified_proofs_per_client_max",
                256,
                1..=1 << 20,
            ),
            verify_calls_per_minute_per_client: reader
                .rate("verify_calls_per_minute_per_client", 6_000),
            verify_calls_per_minute_per_payer: reader
                .rate("verify_calls_per_minute_per_payer", 6_000),
            refused_proofs_per_minute_per_client: reader
                .rate("refused_proofs_per_minute_per_client", 120),
            rate_limit_keys_max: reader.number("rate_limit_keys_max", 65_536, 1..=100_000_000),
            connections_max: reader.size("connections_max", 20_000, 1..=1 << 24),
            connections_per_client_max: reader.size(
                "connections_per_client_max",
                2_000,
                1..=1 << 24,
            ),
            request_header_bytes_max: reader.size(
                "request_header_bytes_max",
                64 << 10,
                1024..=1 << 20,
            ),
            header_timeout: reader.timeout("header_timeout_ms", 10_000),
            idle_timeout: reader.timeout("idle_timeout_ms", 60_000),
            body_timeout: reader.timeout("body_timeout_ms", 30_000),
            send_timeout: reader.timeout("send_timeout_ms", 60_000),
        }
    })
}

pub(super) fn cors(top: &Reader<'_>) -> CorsSettings {
    section(top, "cors", keys::CORS, |reader| CorsSettings {
        allow_origins: list(reader, "allow_origins", "bad-origin", values::cors_origin),
        allow_headers: list(reader, "allow_headers", "bad-header", |text| {
            match http::HeaderName::from_bytes(text.as_bytes()) {
                Ok(name) => Ok(name.as_str().to_owned()),
                Err(_) => Err(values::ValueError::NotHeaderName(text.to_owned())),
            }
        }),
        max_age: reader.seconds("max_age_s", 600, 0..=86_400),
    })
}

/// Names, or `["*"]`, which is the default and stands alone.
fn list(
    reader: &Reader<'_>,
    key: &str,
    code: &'static str,
    parse: impl Fn(&str) -> Result<String, values::ValueError>,
) -> Vec<String> {
    const ALL: &str = "*";
    reader.usual(key, || format!("[\"{ALL}\"]"));
    let Some(texts) = reader.texts(key) else {
        return vec![ALL.to_owned()];
    };
    if texts.len() > 1 && texts.iter().any(|(text, _)| text.value == "*") {
        let message = format!("\"*\" in `{key}` already allows everything else");
        reader.wrong(
            key,
            "contradiction",
            &message,
            "write [\"*\"], or leave the \"*\" out",
        );
    }
    let help = format!("write {key} = [\"*\"], or name each one");
    let read = |(text, at)| reader.parse(text, at, code, &help, &parse);
    texts.into_iter().filter_map(read).collect()
}
