//! `[ledger]`: a file or a server, and how the way to the server is protected.

use super::*;
use crate::config::settings::LedgerTls;

/// One complaint, its code, and no word of the password.
#[track_caller]
fn refused(text: &str, code: &str) {
    let report = parse(&format!("{text}\n{BASE}"), "site.toml", &no_env).unwrap_err();
    let found: Vec<&str> = report.diagnostics.iter().map(|d| d.code).collect();
    assert_eq!(found, [code], "{text}");
    assert!(!report.to_string().contains("hunter2"), "{report}");
    assert!(!format!("{report:?}").contains("hunter2"), "{report:?}");
}

#[track_caller]
fn server(text: &str) -> crate::config::settings::LedgerServer {
    match settings_of(&format!("{text}\n{BASE}")).ledger {
        LedgerSettings::Server(server) => *server,
        LedgerSettings::File(path) => panic!("{text}: {}", path.display()),
    }
}

#[test]
fn it_is_a_file_or_a_server_in_one_word_or_in_a_table() {
    for text in ["ledger = \"x.db\"", "[ledger]\npath = \"x.db\""] {
        let settings = settings_of(&format!("{text}\n{BASE}"));
        let LedgerSettings::File(path) = settings.ledger else {
            panic!("{text}")
        };
        assert_eq!(path.to_str(), Some("x.db"));
    }
    let local = "postgres://u:hunter2@localhost:5433/db";
    let plain = server(&format!("ledger = \"{local}\""));
    assert_eq!(&*plain.place, "postgres://localhost:5433/db");
    assert_eq!((plain.lease.as_secs(), plain.connections_max), (15, 8));
    assert!(!format!("{plain:?}").contains("hunter2"));
    let tuned = format!("[ledger]\nurl = \"{local}\"\nlease_s = 2\nconnections_max = 3");
    let tuned = server(&tuned);
    assert_eq!((tuned.lease.as_secs(), tuned.connections_max), (2, 3));
    refused(
        &format!("[ledger]\npath = \"x\"\nurl = \"{local}\""),
        "contradiction",
    );
    refused(
        &format!("[ledger]\nurl = \"{local}\"\nlease_s = 1"),
        "out-of-range",
    );
    refused(
        "[ledger]\nurl = \"mysql://u:hunter2@localhost/db\"",
        "bad-url",
    );
    refused(
        "[ledger]\nurl = \"postgres://u:hunter2@localhost:x/db\"",
        "bad-url",
    );
    refused(
        "[ledger]\nurl = \"postgres://u:hunter2@localhost/db?sslmod=x\"",
        "bad-url",
    );
    refused("[ledger]\nurl = \"postgres:///db\"", "bad-url");
    refused("[ledger]\nurl = 7", "wrong-type");
    for mistyped in ["mysql", "postgre", "sqlite"] {
        let url = format!("{mistyped}://u:hunter2@localhost/db");
        refused(&format!("ledger = \"{url}\""), "bad-url");
        refused(&format!("[ledger]\npath = \"{url}\""), "bad-url");
    }
    let loud = server("ledger = \"PostgreSQL://u:hunter%32@localhost/db\"");
    assert_eq!(&*loud.place, "postgres://localhost:5432/db");
    assert_eq!(loud.connection.get_password(), Some(b"hunter2".as_slice()));
    let idle = diagnostics(&format!("[ledger]\nlease_s = 3\n{BASE}"));
    assert_eq!(idle[0].code, "no-effect");
}

#[test]
fn the_way_to_another_machine_is_verified_or_the_operator_says_otherwise() {
    let url =
        |host: &str, query: &str| format!("ledger = \"postgres://u:hunter2@{host}/db{query}\"");
    let tls = |host: &str, query: &str| server(&url(host, query)).tls;
    let verified = LedgerTls::Verified { ca_file: None };
    for local in ["localhost", "127.0.0.1", "[::1]", "%2frun%2fpostgresql"] {
        assert_eq!(tls(local, ""), LedgerTls::Off, "{local}");
        assert_eq!(tls(local, "?sslmode=require"), verified, "{local}");
    }
    assert_eq!(tls("db.example", "?sslmode=verify-full"), verified);
    assert_eq!(tls("db.example", "?sslmode=disable"), LedgerTls::Off);
    let bundle = tls("db.example", "?sslmode=verify-full&sslrootcert=ca.pem");
    let ca_file = Some("ca.pem".into());
    assert_eq!(bundle, LedgerTls::Verified { ca_file });
    for (host, query) in [
        ("db.example", ""),
        ("localhost,db.example", ""),
        ("10.0.0.1", "?connect_timeout=3"),
        ("localhost", "?sslmode=prefer"),
        ("db.example", "?sslmode=allow"),
        ("db.example", "?sslmode=on"),
    ] {
        refused(&url(host, query), "bad-url");
    }
}
