//! Warnings.

use super::*;

/// The codes that [`lint`] gives, each with the line that [`Loaded::locate`] finds.
#[track_caller]
fn check_lint(text: &str, want: &[(&str, &str)]) {
    let loaded = parse(text, "site.toml", &no_env).unwrap_or_else(|report| panic!("{report}"));
    let found: Vec<_> = lint(&loaded.settings)
        .into_iter()
        .map(|d| loaded.locate(d))
        .collect();
    let found: Vec<_> = found
        .iter()
        .map(|d| {
            (
                d.code,
                d.place.as_ref().map_or("", |place| place.source.as_str()),
            )
        })
        .collect();
    assert_eq!(found, want, "{text}");
}

#[test]
fn what_is_hardly_meant_is_warned_about_at_its_line() {
    let priced = format!("{BASE}[[rule]]\nname = \"a\"\npath = \"/a\"\nprice = \"$1\"\n");
    check_lint(&priced, &[]);
    let instead = |old: &str, new: &str, want: &[(&str, &str)]| {
        assert!(priced.contains(old), "{old}");
        check_lint(&priced.replace(old, new), want);
    };
    instead(
        "\"$1\"",
        "\"$1.000001\"",
        &[("price-above-cap", "price = \"$1.000001\"")],
    );
    instead(
        "https://a",
        "http://a",
        &[("plain-origin", "public_origin = \"http://a.example\"")],
    );
    instead("https://a.example", "http://localhost:1", &[]);
    instead(
        "https://f",
        "http://f",
        &[("plain-facilitator", "url = \"http://f.example\"")],
    );
    instead("\"http://127", "\"https://127", &[]);
    instead(
        "url = \"http://127.0.0.1:9000\"",
        "url = \"https://127.0.0.1\"\ntls_verify = false",
        &[("tls-unverified", "tls_verify = false")],
    );
    instead(
        "[facilitator.f]",
        "admin = \"0.0.0.0:1\"\ntrusted_proxies = [\"::/0\"]\n[facilitator.f]",
        &[
            ("open-admin", "admin = \"0.0.0.0:1\""),
            ("trusts-everybody", "trusted_proxies = [\"::/0\"]"),
        ],
    );
    let two = format!("{priced}upstream = \"api\"\n[upstream.b]\nurl = \"http://b\"\n");
    check_lint(&two, &[("unused", "[upstream.b]")]);
    instead(
        "[upstream.api]",
        "max_timeout_s = 179\n[upstream.api]",
        &[("proof-may-expire", "max_timeout_s = 179")],
    );
    instead("[upstream.api]", "max_timeout_s = 180\n[upstream.api]", &[]);
}

#[test]
fn descriptions_and_challenges_have_limits() {
    let rule = |text: String| {
        format!(
            "{BASE}[[rule]]\nname = \"a\"\npath = \"/a\"\nprice = \"$1\"\ndescription = \"{text}\"\n"
        )
    };
    check_lint(&rule("é".repeat(500)), &[]);
    let codes =
        |text: &str| -> Vec<_> { lint(&settings_of(text)).iter().map(|d| d.code).collect() };
    assert_eq!(codes(&rule("é".repeat(501))), ["long-description"]);
    assert_eq!(
        codes(&rule("x".repeat(5000))),
        ["long-description", "large-challenge"]
    );
}

#[test]
fn money_that_buyers_do_not_know_or_that_is_worth_nothing_is_warned_about() {
    let euro = "asset = \"0x000000000022D473030F116dDEE9F6B43aC78BA3\"";
    let text = format!(
        "{}[[rule]]\nname = \"a\"\npath = \"/a\"\nprice = \"1 EURC\"\n",
        BASE.replace("\"base-sepolia\"", &format!("\"base-sepolia\"\n{euro}\nsymbol = \"EURC\"\ndecimals = 6\ntransfer_method = \"permit2\"")),
    );
    check_lint(&text, &[("unknown-token", euro)]);
    let both = format!(
        "{BASE}[accept.real]\nnetwork = \"base\"\npay_to = \"0x70997970C51812dc3A010C7d01b50e0d17dc79C8\"\n[[rule]]\nname = \"a\"\npath = \"/a\"\nprice = \"$1\"\n"
    );
    check_lint(&both, &[("test-money-too", "[[rule]]")]);
    check_lint(
        &both.replace("\"$1\"", "\"$1\"\naccept = [\"real\"]"),
        &[("unused", "[accept.usdc]")],
    );
}
