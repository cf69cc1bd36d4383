//! The loader from outside: what is refused, where the caret stands, and what the defaults are.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::settings::{
    AcceptMethod, LedgerSettings, LimitBy, LogSettings, RuleAccess, Settings, Unmatched,
};
use super::{Diagnostic, keys, lint, load, parse};
use crate::money::AtomicAmount;
use crate::settlement::SettleWhen;

mod errors;
mod forward_auth;
mod examples;
mod files;
mod ledger;
mod lints;
mod log;
mod networks;
mod noise;
mod pay;
mod reference;

/// Nine lines that load, with a place for everything that the cases add.
const BASE: &str = r#"[server]
public_origin = "https://a.example"
[facilitator.f]
url = "https://f.example"
[accept.usdc]
network = "base-sepolia"
pay_to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
[upstream.api]
url = "http://127.0.0.1:9000"
"#;

fn no_env(_name: &str) -> Option<String> {
    None
}

#[track_caller]
fn diagnostics(text: &str) -> Vec<Diagnostic> {
    match parse(text, "site.toml", &no_env) {
        Ok(loaded) => loaded.warnings,
        Err(report) => report.diagnostics,
    }
}

#[track_caller]
fn settings_of(text: &str) -> Settings {
    match parse(text, "site.toml", &no_env) {
        Ok(loaded) => loaded.settings,
        Err(report) => panic!("{report}"),
    }
}

/// The one complaint about `text`: its code, line, column, and what the caret marks.
#[track_caller]
fn check(text: &str, want: (&str, usize, usize, &str)) {
    let found = diagnostics(text);
    let [one] = found.as_slice() else {
        panic!("{text}\ngives {found:#?}");
    };
    let place = one.place.as_ref().unwrap();
    let marked: String = place
        .source
        .chars()
        .skip(place.column.saturating_sub(1))
        .take(place.length)
        .collect();
    assert_eq!(
        (one.code, place.line, place.column, marked.as_str()),
        want,
        "{one}"
    );
    assert!(one.help.is_some(), "{one}");
    assert_eq!(&*place.file, "site.toml");
}

/// The one complaint about [`BASE`] with `more` behind it; lines count from the first of `more`.
#[track_caller]
fn check_more(more: &str, (code, line, column, marked): (&str, usize, usize, &str)) {
    check(
        &format!("{BASE}{more}"),
        (code, line.saturating_add(9), column, marked),
    );
}

/// The one complaint about [`BASE`] with `old` replaced.
#[track_caller]
fn check_instead(old: &str, new: &str, want: (&str, usize, usize, &str)) {
    assert!(BASE.contains(old), "{old}");
    check(&BASE.replace(old, new), want);
}

/// The one complaint about a rule with these keys beside name and path.
#[track_caller]
fn check_rule(keys: &str, want: (&str, usize, usize, &str)) {
    check_more(
        &format!("[[rule]]\nname = \"a\"\npath = \"/a\"\n{keys}\n"),
        want,
    );
}

fn free_rule(name: &str) -> String {
    format!("[[rule]]\nname = \"{name}\"\npath = \"/{name}\"\nfree = true\n")
}

#[test]
fn settings_as_debug_text_hold_no_secret() {
    let text = format!(
        "{BASE}headers = {{ X-Key = \"${{UPSTREAM}}\" }}\n{}",
        "[facilitator.g]\nurl = \"https://g.example/${PATH_KEY}\"\n\
         headers = { Authorization = \"Bearer ${COMMON}\" }\n\
         settle_headers = { X-Settle = \"${SETTLE}\" }\n",
    );
    let text = text.replacen("pay_to", "facilitators = [\"f\"]\npay_to", 1);
    // No secret, and not named by the operator.
    let is_asked_for = |name: &str| name != "RUNTIME_DIRECTORY";
    let env = |name: &str| is_asked_for(name).then(|| format!("planted-{name}"));
    let loaded = parse(&text, "site.toml", &env).unwrap_or_else(|report| panic!("{report}"));
    let key = &loaded.settings.facilitators["g"].headers.settle;
    assert!(key.iter().any(|(_, value)| value == "planted-SETTLE"));
    for shown in [
        format!("{:?}", loaded.settings),
        format!("{:#?}", loaded.settings),
        format!("{loaded:?}"),
    ] {
        assert!(!shown.contains("planted-"), "{shown}");
    }
}

#[test]
fn the_control_socket_goes_with_the_ledger_unless_it_is_named() {
    #[track_caller]
    fn check(server: &str, env: &dyn Fn(&str) -> Option<String>, want: Option<(&str, bool)>) {
        let text = BASE.replacen("[server]\n", &format!("[server]\n{server}\n"), 1);
        let text = format!("{text}\n[ledger]\npath = \"a.db\"\n");
        let loaded = parse(&text, "site.toml", env).unwrap_or_else(|report| panic!("{report}"));
        let control = loaded.settings.server.control;
        let got = control
            .as_ref()
            .map(|c| (c.path.to_str().unwrap(), c.is_wanted));
        assert_eq!(got, want);
    }
    let service = |name: &str| (name == "RUNTIME_DIRECTORY").then(|| "/run/a:/run/b".to_owned());
    check("", &|_| None, Some(("a.db.control", false)));
    check("", &service, Some(("/run/a/control", false)));
    check("control = \"c\"", &service, Some(("c", true)));
    check("control = \"off\"", &service, None);
}
