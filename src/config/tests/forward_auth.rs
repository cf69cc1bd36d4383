//! `mode = "forward-auth"`.

use super::*;
use crate::config::settings::{AskingProxy, ForwardAuthSettings};

const ASKED: &str = "[[listen]]\naddress = \"127.0.0.1:8403\"\nmode = \"forward-auth\"\n";
const FORWARDS: &str = "[[listen]]\naddress = \"127.0.0.1:8402\"\n";
const PRICED: &str = "[[rule]]\nname = \"a\"\npath = \"/a\"\nprice = \"$1\"\n";

fn asked(keys: &str) -> String {
    format!("{ASKED}{keys}\n")
}

#[test]
fn who_asks_and_from_where_must_be_said() {
    check_more(
        &asked("trusted = [\"::1\"]"),
        ("missing-key", 1, 1, "[[listen]]"),
    );
    check_more(
        &asked("asked_by = \"nginx\""),
        ("missing-key", 1, 1, "[[listen]]"),
    );
    let nginx = |trusted: &str| asked(&format!("asked_by = \"nginx\"\ntrusted = {trusted}"));
    check_more(&nginx("[]"), ("empty-list", 5, 11, "[]"));
    check_more(
        &nginx("[\"localhost\"]"),
        ("bad-range", 5, 12, "\"localhost\""),
    );
    for everybody in ["[\"0.0.0.0/0\"]", "[\"::/0\"]"] {
        check_more(&nginx(everybody), ("trusts-everybody", 5, 11, everybody));
    }
    let other = asked("asked_by = \"apache\"\ntrusted = [\"::1\"]");
    check_more(&other, ("bad-value", 4, 12, "\"apache\""));
}

#[test]
fn a_listener_is_asked_only_where_it_says_so() {
    let text = format!(
        "{BASE}{}",
        asked("asked_by = \"envoy\"\ntrusted = [\"10.0.0.0/8\"]")
    );
    let loaded = parse(&text, "site.toml", &no_env).unwrap();
    let trusted = vec!["10.0.0.0/8".to_owned()];
    let read = loaded
        .settings
        .listeners
        .first()
        .unwrap()
        .forward_auth
        .clone();
    let ForwardAuthSettings {
        asked_by,
        trusted: ranges,
    } = read.unwrap();
    let ranges: Vec<_> = ranges
        .iter()
        .map(|r| format!("{}/{}", r.address, r.prefix))
        .collect();
    assert_eq!((asked_by, ranges), (AskingProxy::Envoy, trusted));
    let text = format!("{BASE}{FORWARDS}");
    let loaded = parse(&text, "site.toml", &no_env).unwrap();
    assert_eq!(
        loaded.settings.listeners.first().unwrap().forward_auth,
        None
    );
}

#[test]
fn what_settles_after_delivery_needs_a_listener_that_forwards() {
    let asked = asked("asked_by = \"nginx\"\ntrusted = [\"::1\"]");
    let after = format!("{asked}{PRICED}settle = \"after\"\n");
    check_more(&after, ("settles-after-delivery", 10, 10, "\"after\""));
    check_more(
        &format!("{asked}{PRICED}"),
        ("settles-after-delivery", 6, 1, "[[rule]]"),
    );
    let codes = |more: &str| {
        let loaded = parse(&format!("{BASE}{more}"), "site.toml", &no_env).unwrap();
        let found = lint(&loaded.settings).into_iter().map(|d| d.code);
        found
            .filter(|code| *code == "settles-after-delivery")
            .count()
    };
    assert_eq!(codes(&format!("{asked}{PRICED}settle = \"before\"\n")), 0);
    assert_eq!(codes(&format!("{asked}{PRICED}shadow = true\n")), 0);
    assert_eq!(codes(&format!("{FORWARDS}{asked}{PRICED}")), 1);
    assert_eq!(codes(&format!("{FORWARDS}{PRICED}")), 0);
}
