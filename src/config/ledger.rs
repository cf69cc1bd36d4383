//! `[ledger]`, or in one word `ledger = "…"`: an SQLite file, or a PostgreSQL server that walls share.
//!
//! How the connection is protected is decided here, once: `sslmode` and `sslrootcert` are taken out of
//! the URL, because our meaning of them is stricter than libpq's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::config::Host;

use super::document::{Span, Text, Value};
use super::keys;
use super::reader::Reader;
use super::server::section;
use super::settings::{LedgerServer, LedgerSettings, LedgerTls};

const URL_HELP: &str = "write \"postgres://user:password@host/database?sslmode=verify-full\", \
                        with the password from ${NAME} or file:";

const DEFAULT_LEASE_S: u64 = 15;
const DEFAULT_CONNECTIONS: usize = 8;

/// Where the ledger is, and for how many days it keeps what is over.
pub(super) fn ledger(top: &Reader<'_>) -> (Option<LedgerSettings>, Option<u32>) {
    let folder = top.files.folder(top.table.at);
    if let Some(entry) = top.entry("ledger")
        && let Value::Text(text) = &entry.node.value
    {
        let place = if is_url(&text.value) {
            let server = server(top, text, entry.node.at);
            server.map(|server| LedgerSettings::Server(Box::new(server)))
        } else {
            top.path("ledger").map(LedgerSettings::File)
        };
        return (place, None);
    }
    section(top, "ledger", keys::LEDGER, |reader| {
        // From a day, the longest retry window: see `crate::ledger::upkeep`.
        let days = reader.integer("retention_days", 1..=36_500);
        let days = days.and_then(|days| u32::try_from(days).ok());
        (place_of(reader, folder), days)
    })
}

fn place_of(reader: &Reader<'_>, folder: &Path) -> Option<LedgerSettings> {
    let Some((text, at)) = reader.text("url") else {
        let because = "the ledger is a file";
        reader.idle(&["lease_s", "connections_max"], because);
        if let Some(entry) = reader.entry("path")
            && let Value::Text(text) = &entry.node.value
            && is_url(&text.value)
        {
            // The path of a file is shown, the password in a URL must not be.
            reader.files.mask(entry.node.at);
            let message = "`path` names a file, and this is a URL";
            reader.wrong("path", "bad-url", message, URL_HELP);
            return None;
        }
        let path = reader.path("path");
        // A `url` that is no string was complained about, and is not a wish for a file.
        return (!reader.has("url"))
            .then(|| LedgerSettings::File(path.unwrap_or(folder.join("farewall.db"))));
    };
    if reader.has("path") {
        let help = "keep `path` for a file of this wall alone, or `url` for a shared server";
        let message = "the ledger has both a `path` and a `url`";
        reader.wrong("path", "contradiction", message, help);
    }
    let mut server = server(reader, text, at)?;
    server.lease = reader.seconds("lease_s", DEFAULT_LEASE_S, 2..=300);
    server.connections_max = reader.size("connections_max", DEFAULT_CONNECTIONS, 1..=1000);
    Some(LedgerSettings::Server(Box::new(server)))
}

fn server(reader: &Reader<'_>, text: &Text, at: Span) -> Option<LedgerServer> {
    // With a password in it the line must not be shown.
    reader.files.mask(at);
    let hidden = Text {
        value: text.value.clone(),
        raw: "url".to_owned(),
        // A message of the parser may quote a part of the URL; ours never do.
        is_secret: false,
    };
    let folder = reader.files.folder(at);
    reader.parse(&hidden, at, "bad-url", URL_HELP, |text| {
        parse_url(text, folder)
    })
}

/// Whether a ledger is named by URL, of whatever kind: what is mistyped may hold a password too, and
/// must not be taken for a file, whose name is shown.
#[must_use]
pub fn is_url(text: &str) -> bool {
    text.contains("://")
}

/// Reads the URL of a ledger server. The error shows nothing of it.
///
/// `folder` is what a relative `sslrootcert` is relative to.
///
/// # Errors
///
/// A sentence, when it is no URL of this kind or `sslmode` would leave the money unprotected.
pub fn parse_url(text: &str, folder: &Path) -> Result<LedgerServer, String> {
    let known = |scheme: &str| ["postgres", "postgresql"].contains(&scheme);
    let Some((_, rest)) = text
        .split_once("://")
        .filter(|(scheme, _)| known(&scheme.to_ascii_lowercase()))
    else {
        return Err("the URL of a ledger server begins with postgres://".to_owned());
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let base = format!("postgres://{rest}");
    let (mut mode, mut ca_file, mut others) = (None, None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", value)) => mode = Some(value),
            Some(("sslrootcert", value)) => ca_file = Some(folder.join(value)),
            Some(_) | None => others.push(pair),
        }
    }
    let rest = format!("{base}?{}", others.join("&"));
    let connection: tokio_postgres::Config = rest
        .trim_end_matches('?')
        .parse()
        .map_err(|_| "this is not a PostgreSQL URL, or one of its parameters is unknown")?;
    if connection.get_hosts().is_empty() && connection.get_hostaddrs().is_empty() {
        return Err("the URL names no host; a socket is named by ?host=/run/postgresql".to_owned());
    }
    let tls = tls(mode, ca_file, is_local(&connection))?;
    Ok(LedgerServer {
        place: place(&connection).into(),
        connection,
        tls,
        lease: Duration::from_secs(DEFAULT_LEASE_S),
        connections_max: DEFAULT_CONNECTIONS,
    })
}

fn tls(mode: Option<&str>, ca_file: Option<PathBuf>, is_local: bool) -> Result<LedgerTls, String> {
    match mode {
        None if is_local => Ok(LedgerTls::Off),
        None => Err(
            "the server is on another machine and the URL has no `sslmode`: \
                     write sslmode=verify-full, or sslmode=disable for a network you trust"
                .to_owned(),
        ),
        Some("disable") => Ok(LedgerTls::Off),
        Some("require" | "verify-ca" | "verify-full") => Ok(LedgerTls::Verified { ca_file }),
        Some("prefer" | "allow") => Err(
            "with sslmode prefer or allow, whoever sits between can switch TLS off: \
                 write sslmode=verify-full, or sslmode=disable"
                .to_owned(),
        ),
        Some(_) => Err("`sslmode` is disable or verify-full".to_owned()),
    }
}

fn is_local(connection: &tokio_postgres::Config) -> bool {
    let named = connection.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .trim_matches(['[', ']'])
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|ip| ip.is_loopback())
        }
        Host::Unix(_) => true,
    });
    let addresses = connection.get_hostaddrs();
    named && addresses.iter().all(std::net::IpAddr::is_loopback)
}

fn place(connection: &tokio_postgres::Config) -> String {
    let hosts: Vec<String> = connection
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(index, host)| match host {
            Host::Tcp(name) => {
                let ports = connection.get_ports();
                let port = ports.get(index).or_else(|| ports.first());
                port.map_or_else(|| name.clone(), |port| format!("{name}:{port}"))
            }
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    let database = connection.get_dbname().unwrap_or("");
    format!("postgres://{}/{database}", hosts.join(","))
}
