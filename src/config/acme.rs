//! `[acme]`: certificates from an ACME server.

use std::net::SocketAddr;
use std::path::Path;

use super::diagnostic::Diagnostic;
use super::keys;
use super::reader::Reader;
use super::secrets::Surroundings;
use super::server::{ADDRESS_HELP, address, section, warn_if_absent};
use super::settings::{AcmeSettings, AdminAddress, ListenSettings, ServerSettings};
use super::values;

const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Each name costs the server work: 100 are a third of what Let's Encrypt grants in three hours.
const NAMES_MAX: usize = 100;

const NAMES_HELP: &str = "write the host names that lead here, as names = [\"api.example.com\"]";
const DIRECTORY_HELP: &str = "write the https:// URL of the server's directory, without a query";
const CONTACT_HELP: &str = "write mail addresses, as contact = [\"ops@example.com\"]";
const TERMS_HELP: &str =
    "read the terms of service of the ACME server, and write accept_terms = true";

/// `None` without the section. `folder` is where the state goes that nobody placed.
pub(super) fn acme(
    top: &Reader<'_>,
    around: &dyn Surroundings,
    folder: &Path,
    server: Option<&ServerSettings>,
    listeners: &[ListenSettings],
) -> Option<AcmeSettings> {
    let is_wanted = listeners.iter().any(|listener| listener.acme);
    if !top.has("acme") {
        if is_wanted {
            let message = "a listener has acme = true, and there is no [acme]";
            let help = "write [acme] with names and accept_terms, or remove acme";
            top.wrong("listen", "missing-section", message, help);
        }
        return None;
    }
    if !is_wanted {
        top.idle(&["acme"], "no [[listen]] has acme = true");
    }
    section(top, "acme", keys::ACME, |reader| {
        let ca_file = reader.path("ca_file");
        warn_if_absent(reader, "ca_file", ca_file.as_deref(), around);
        let listen = listen(reader, server, listeners);
        accept_terms(reader);
        let directory = reader.parsed("directory", "bad-url", DIRECTORY_HELP, directory);
        Some(AcmeSettings {
            names: names(reader)?,
            contact: contact(reader),
            directory: directory.unwrap_or_else(|| LETS_ENCRYPT.to_owned()),
            ca_file,
            state: reader.path("state").unwrap_or_else(|| folder.join("acme")),
            listen,
        })
    })
}

fn accept_terms(reader: &Reader<'_>) {
    if !reader.has("accept_terms") {
        reader.missing("accept_terms", TERMS_HELP);
    } else if reader.flag("accept_terms") == Some(false) {
        let message = "without accepted terms no server issues a certificate";
        reader.wrong("accept_terms", "bad-value", message, TERMS_HELP);
    }
}

fn names(reader: &Reader<'_>) -> Option<Vec<String>> {
    if !reader.has("names") {
        reader.missing("names", NAMES_HELP);
    }
    let mut names: Vec<String> = Vec::new();
    for (text, at) in reader.texts("names")? {
        let name = reader.parse(text, at, "bad-name", NAMES_HELP, name);
        let Some(name) = name else { continue };
        if names.contains(&name) {
            let twice = Diagnostic::error("duplicate-name", format!("{name:?} stands here twice"));
            reader.files.complain(at, twice.help("remove one of them"));
        }
        names.push(name);
    }
    if names.is_empty() || names.len() > NAMES_MAX {
        let message = format!("`names` must hold 1 to {NAMES_MAX} host names");
        reader.wrong("names", "out-of-range", &message, NAMES_HELP);
    }
    Some(names)
}

/// A host name in lower case: it becomes the name of a file too.
fn name(text: &str) -> Result<String, String> {
    if text.starts_with("*.") {
        let because = "a server must be asked over DNS for a wildcard, which the wall cannot";
        return Err(format!("{text:?}: {because}"));
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|b| b.is_ascii_digit());
    if text.len() <= 253 && text.contains('.') && text.split('.').all(is_label) && !is_number {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!("{text:?} is not a host name with a dot in it"))
    }
}

fn directory(text: &str) -> Result<String, String> {
    let url = values::url(text).map_err(|error| error.to_string())?;
    if url.is_tls {
        Ok(text.to_owned())
    } else {
        Err("the directory is not https://: anybody between could answer for the server".to_owned())
    }
}

fn contact(reader: &Reader<'_>) -> Vec<String> {
    let address = |text: &str| {
        let text = text.strip_prefix("mailto:").unwrap_or(text);
        let is_part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic());
        let parts = text.split_once('@').filter(|(user, host)| {
            is_part(user) && is_part(host) && !host.contains('@') && !text.contains([',', '?'])
        });
        match parts {
            Some(_) => Ok(text.to_owned()),
            None => Err(format!("{text:?} is not a mail address")),
        }
    };
    let texts = reader.texts("contact").unwrap_or_default();
    let read = |(text, at)| reader.parse(text, at, "bad-contact", CONTACT_HELP, address);
    texts.into_iter().filter_map(read).collect()
}

/// Where challenges are answered: on a socket of its own.
fn listen(
    reader: &Reader<'_>,
    server: Option<&ServerSettings>,
    listeners: &[ListenSettings],
) -> SocketAddr {
    let read = reader.parsed("listen", "bad-address", ADDRESS_HELP, address);
    let listen = read.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 80)));
    let admin = server.and_then(|server| server.admin.as_ref());
    let is_admin = admin.is_some_and(|admin| *admin == AdminAddress::Tcp(listen));
    if is_admin || listeners.iter().any(|listener| listener.address == listen) {
        let message = format!("{listen} is listened on twice");
        let help =
            "challenges are answered on a socket of their own: give [acme] listen another address";
        reader.wrong("listen", "duplicate-address", &message, help);
    }
    listen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::lint;
    use crate::config::parse;

    const BASE: &str = r#"
        [server]
        public_origin = "https://a.example"
        [upstream.api]
        url = "http://127.0.0.1:9000"
    "#;

    const LISTEN: &str = "[[listen]]\naddress = \"127.0.0.1:8443\"\nacme = true\n";

    /// The codes of what is wrong, or hardly meant.
    fn codes(more: &str) -> Vec<&'static str> {
        let diagnostics = match parse(&format!("{BASE}{more}"), "a.toml", &|_| None) {
            Ok(loaded) => {
                let mut all = loaded.warnings.clone();
                all.extend(lint(&loaded.settings));
                all
            }
            Err(report) => report.diagnostics,
        };
        let codes = diagnostics.iter().map(|d| d.code);
        codes
            .filter(|code| !["no-rules", "unused"].contains(code))
            .collect()
    }

    #[track_caller]
    fn check(keys: &str, want: &[&str]) {
        assert_eq!(codes(&format!("{LISTEN}[acme]\n{keys}\n")), want, "{keys}");
    }

    #[test]
    fn the_least_section_has_its_defaults() {
        let text =
            format!("{BASE}{LISTEN}[acme]\nnames = [\"API.Example.com\"]\naccept_terms = true\n");
        let acme = parse(&text, "dir/a.toml", &|_| None).unwrap().settings.acme;
        let want = AcmeSettings {
            names: vec!["api.example.com".to_owned()],
            contact: Vec::new(),
            directory: LETS_ENCRYPT.to_owned(),
            ca_file: None,
            state: "dir/acme".into(),
            listen: "0.0.0.0:80".parse().unwrap(),
        };
        assert_eq!(acme, Some(want));
    }

    #[test]
    fn what_no_server_would_issue_for_is_refused() {
        let good = "accept_terms = true\nnames = [\"a.example\"]";
        check(good, &[]);
        check("names = [\"a.example\"]", &["missing-key"]);
        check(
            "accept_terms = false\nnames = [\"a.example\"]",
            &["bad-value"],
        );
        check("accept_terms = true", &["missing-key"]);
        check("accept_terms = true\nnames = []", &["out-of-range"]);
        for name in [
            "*.a.example",
            "localhost",
            "192.0.2.1",
            "2001:db8::1",
            "a..example",
            "-a.example",
            "../a.example",
            "a_b.example",
            ".example",
        ] {
            let keys = format!("accept_terms = true\nnames = [\"a.example\", \"{name}\"]");
            check(&keys, &["bad-name"]);
        }
        check(
            "accept_terms = true\nnames = [\"a.example\", \"A.example\"]",
            &["duplicate-name"],
        );
        check(
            &format!("{good}\ndirectory = \"http://acme.example/dir\""),
            &["bad-url"],
        );
        check(
            &format!("{good}\ndirectory = \"https://u:p@acme.example/dir\""),
            &["bad-url"],
        );
        check(&format!("{good}\ncontact = [\"mailto:a@b.example\"]"), &[]);
        check(&format!("{good}\ncontact = [\"nobody\"]"), &["bad-contact"]);
        check(
            &format!("{good}\nlisten = \"127.0.0.1:8443\""),
            &["duplicate-address"],
        );
        check(
            &format!("{good}\nlisten = \"127.0.0.1:8086\""),
            &["duplicate-address"],
        );
        check(&format!("{good}\nlisten = \"80\""), &["bad-address"]);
    }

    #[test]
    fn what_would_hardly_work_is_said() {
        let terms = "accept_terms = true";
        let other = format!("{terms}\nnames = [\"b.example\"]");
        check(&other, &["origin-without-certificate"]);
        let port = format!("{terms}\nnames = [\"a.example\"]\nlisten = \"[::]:5002\"");
        check(&port, &["challenge-port"]);
    }

    #[test]
    fn section_and_listener_need_one_another() {
        assert_eq!(codes(LISTEN), ["missing-section"]);
        let alone = "[acme]\naccept_terms = true\nnames = [\"a.example\"]\n";
        assert_eq!(codes(alone), ["no-effect"]);
        let h2c = format!("{LISTEN}h2c = true\n{alone}");
        assert_eq!(codes(&h2c), ["contradiction"]);
    }
}
