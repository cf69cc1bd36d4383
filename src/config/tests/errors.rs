//! What is refused, and where the caret stands.

use super::*;

#[test]
fn unknown_keys_are_refused_everywhere() {
    check_more("[limit]\n", ("unknown-key", 1, 2, "limit"));
    check_more("[server.tls]\n", ("unknown-key", 1, 9, "tls"));
    check_more("[accept.usdc.extras]\n", ("unknown-key", 1, 14, "extras"));
    check_more(
        "[upstream.api.health]\npth = \"/\"\n",
        ("unknown-key", 2, 1, "pth"),
    );
    check_rule(
        "price = \"$1\"\nprcie = \"$1\"",
        ("unknown-key", 5, 1, "prcie"),
    );
    check_rule("free = true\nx = {}", ("unknown-key", 5, 1, "x"));
}

#[test]
fn the_key_that_was_meant_is_suggested() {
    let help = |text: &str| diagnostics(text).remove(0).help.unwrap();
    let rule = |key: &str| {
        help(&format!(
            "{BASE}[[rule]]\nname = \"a\"\npath = \"/a\"\nfree = true\n{key} = 1\n"
        ))
    };
    assert_eq!(rule("prcie"), "did you mean `price`?");
    assert_eq!(rule("Settle"), "did you mean `settle`?");
    assert_eq!(rule("public_origin"), "`public_origin` belongs in [server]");
    assert_eq!(
        rule("unmatched"),
        "`unmatched` belongs at the top of the file, before the first [table]"
    );
    assert!(rule("zzz").starts_with("the keys here are name, methods, host"));
    let network = help(&BASE.replace("base-sepolia", "base-sepola"));
    assert_eq!(network, "did you mean \"base-sepolia\"?");
    let upstream = "[[rule]]\nname = \"a\"\npath = \"/a\"\nfree = true\nupstream = \"apo\"\n";
    assert_eq!(help(&format!("{BASE}{upstream}")), "did you mean \"api\"?");
}

#[test]
fn wrong_types_say_what_to_write() {
    check_rule("free = \"yes\"", ("wrong-type", 4, 8, "\"yes\""));
    check_rule("price = 0.01", ("wrong-type", 4, 9, "0.01"));
    check_rule(
        "free = true\nmethods = \"GET\"",
        ("wrong-type", 5, 11, "\"GET\""),
    );
    check_rule(
        "free = true\nmethods = [\"GET\", 1]",
        ("wrong-type", 5, 19, "1"),
    );
    check_more(
        "[limits]\ntarget_bytes_max = \"8k\"\n",
        ("wrong-type", 2, 20, "\"8k\""),
    );
    check_more("[rule]\nname = \"a\"\n", ("wrong-type", 1, 1, "[rule]"));
    check_more(
        "[listen]\naddress = \"127.0.0.1:1\"\n",
        ("wrong-type", 1, 1, "[listen]"),
    );
    check_more("[cors]\nmax_age_s = 1.5\n", ("wrong-type", 2, 13, "1.5"));
}

#[test]
fn numbers_have_bounds() {
    check_more(
        "[limits]\nretry_window_s = -1\n",
        ("out-of-range", 2, 18, "-1"),
    );
    check_more(
        "[limits]\nretry_window_s = 86401\n",
        ("out-of-range", 2, 18, "86401"),
    );
    check_more(
        "[upstream.b]\nurl = \"http://b\"\nread_timeout_ms = 0\n",
        ("out-of-range", 3, 19, "0"),
    );
    check_instead(
        "[facilitator.f]",
        "worker_threads = 99999999999999999999\n[facilitator.f]",
        ("out-of-range", 3, 18, "99999999999999999999"),
    );
}

#[test]
fn the_server_needs_an_origin_that_is_one() {
    let line = "public_origin = \"https://a.example\"";
    check_instead(line, "", ("missing-key", 1, 1, "[server]"));
    for origin in [
        "a.example",
        "https://a.example/v1",
        "https://u:p@a.example",
        "ftp://a.example",
    ] {
        let quoted = format!("\"{origin}\"");
        check_instead(
            "\"https://a.example\"",
            &quoted,
            ("bad-origin", 2, 17, &quoted.replace("u:p", "***")),
        );
    }
    let bad = |key: &str| format!("{line}\n{key}");
    check_instead(
        line,
        &bad("admin = \"localhost:1\""),
        ("bad-address", 3, 9, "\"localhost:1\""),
    );
    check_instead(
        line,
        &bad("trusted_proxies = [\"::1\", \"x\"]"),
        ("bad-range", 3, 27, "\"x\""),
    );
    check_instead(
        line,
        &bad("service_name = \"é\""),
        ("bad-value", 3, 16, "\"é\""),
    );
}

#[test]
fn listeners_do_not_contradict_themselves() {
    let listen = "[[listen]]\naddress = \"127.0.0.1:1\"\n";
    check_more(
        "[[listen]]\naddress = \"1\"\n",
        ("bad-address", 2, 11, "\"1\""),
    );
    check_more(
        &format!("{listen}tls_cert = \"c\"\n"),
        ("missing-key", 1, 1, "[[listen]]"),
    );
    check_more(
        &format!("{listen}tls_cert = \"c\"\ntls_key = \"k\"\nh2c = true\n"),
        ("contradiction", 5, 7, "true"),
    );
    check_more(
        &format!("{listen}[[listen.tls]]\ncert = \"c\"\n"),
        ("missing-key", 3, 1, "[[listen.tls]]"),
    );
    check_more(
        &format!("{listen}h2c = true\n[[listen.tls]]\ncert = \"c\"\nkey = \"k\"\n"),
        ("contradiction", 3, 7, "true"),
    );
    check_more(
        &format!("{listen}tls = \"c\"\n"),
        ("wrong-type", 3, 7, "\"c\""),
    );
    check_more(
        &format!("{listen}{listen}"),
        ("duplicate-address", 3, 1, "[[listen]]"),
    );
    check_more(
        "[[listen]]\naddress = \"127.0.0.1:8086\"\n",
        ("duplicate-address", 1, 1, "[[listen]]"),
    );
}

#[test]
fn rules_say_exactly_one_thing() {
    check_rule("", ("missing-key", 1, 1, "[[rule]]"));
    check_rule(
        "free = true\nprice = \"$1\"",
        ("contradiction", 4, 8, "true"),
    );
    check_rule("free = false", ("bad-value", 4, 8, "false"));
    check_rule(
        "free = true\nsettle = \"before\"",
        ("no-effect", 5, 1, "settle"),
    );
    check_rule(
        "deny = true\nupstream = \"api\"",
        ("no-effect", 5, 1, "upstream"),
    );
    check_rule(
        "price = \"$1\"\nsettle = \"never\"",
        ("bad-value", 5, 10, "\"never\""),
    );
    check_rule(
        "free = true\nmethods = [\"get\"]",
        ("bad-method", 5, 12, "\"get\""),
    );
    check_rule(
        "free = true\nhost = \"a:80\"",
        ("bad-host", 5, 8, "\"a:80\""),
    );
    check_more(
        "[[rule]]\nname = \"a\"\npath = \"a\"\nfree = true\n",
        ("bad-path", 3, 8, "\"a\""),
    );
    check_more(
        "[[rule]]\nname = \"A b\"\npath = \"/\"\nfree = true\n",
        ("bad-name", 2, 8, "\"A b\""),
    );
    check_more(
        "[[rule]]\nname = \"a\"\nfree = true\n",
        ("missing-key", 1, 1, "[[rule]]"),
    );
}

#[test]
fn a_rate_limit_says_how_many_in_which_time_and_by_whom() {
    let limit = |text: &str| format!("price = \"$1\"\nrate_limit = {text}");
    check_rule(&limit("100"), ("wrong-type", 5, 14, "100"));
    let fault = |text: &str| {
        let rule = format!(
            "{BASE}[[rule]]\nname = \"a\"\npath = \"/a\"\n{}\n",
            limit(text)
        );
        diagnostics(&rule).remove(0).code
    };
    assert_eq!(fault("{}"), "missing-key");
    assert_eq!(fault("{ requests = 0 }"), "out-of-range");
    assert_eq!(fault("{ requests = 1, per_s = 3601 }"), "out-of-range");
    assert_eq!(fault("{ requests = 1, by = \"ip\" }"), "bad-value");
    assert_eq!(fault("{ requests = 1, per = 1 }"), "unknown-key");
    let free = format!(
        "{BASE}[[rule]]\nname = \"a\"\npath = \"/a\"\nfree = true\n\
         rate_limit = {{ requests = 1, by = \"payer\" }}\n"
    );
    assert_eq!(diagnostics(&free).remove(0).code, "contradiction");
    let good = free.replace("payer", "rule");
    let limit = settings_of(&good).rules[0].rate_limit.unwrap();
    assert_eq!(
        (limit.requests.get(), limit.per, limit.by),
        (1, Duration::from_secs(60), LimitBy::Rule)
    );
}

#[test]
fn upstreams_are_servers_of_one_kind() {
    let url = "url = \"http://127.0.0.1:9000\"";
    check_instead(url, "", ("missing-key", 8, 1, "[upstream.api]"));
    check_instead(url, "servers = []", ("empty-list", 9, 11, "[]"));
    check_instead(
        url,
        "servers = [\"http://a\", \"https://b\"]",
        ("contradiction", 9, 11, "[\"http://a\", \"https://b\"]"),
    );
    check_instead(
        url,
        "url = \"http://a/v1\"",
        ("bad-server", 9, 7, "\"http://a/v1\""),
    );
    check_instead(
        url,
        &format!("{url}\nadd_prefix = \"v1/\""),
        ("bad-prefix", 10, 14, "\"v1/\""),
    );
    check_instead(
        url,
        &format!("{url}\nheaders = {{ Host = \"a\" }}"),
        ("bad-header", 10, 13, "Host"),
    );
    let tls = settings_of(&BASE.replace("http://127.0.0.1:9000", "https://api.internal"));
    let upstream = &tls.upstreams["api"];
    assert_eq!(
        (upstream.tls, upstream.tls_server_name.as_str()),
        (true, "api.internal")
    );
    assert_eq!(upstream.servers[0].port, 443);
}

#[test]
fn six_faults_are_found_in_one_run_in_the_order_of_the_file() {
    let text = r#"[server]
public_origin = "a.example"
[facilitator.f]
url = "https://f.example"
[accept.usdc]
network = "bass"
pay_to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
[upstream.api]
url = "http://127.0.0.1:9000"
read_timeout_ms = "1s"
[[rule]]
name = "a"
path = "a"
prcie = "$0.001"
free = true
[[rule]]
name = "a"
path = "/b"
free = true
"#;
    let found: Vec<_> = diagnostics(text)
        .iter()
        .map(|d| (d.code, d.place.as_ref().unwrap().line))
        .collect();
    assert_eq!(
        found,
        [
            ("bad-origin", 2),
            ("unknown-network", 6),
            ("wrong-type", 10),
            ("bad-path", 13),
            ("unknown-key", 14),
            ("duplicate-name", 17),
        ]
    );
}

#[test]
fn a_mistake_is_complained_about_once_and_not_again_by_those_who_refer_to_it() {
    let text = BASE.replace("base-sepolia", "bass");
    check(
        &format!(
            "{text}[[rule]]\nname = \"a\"\npath = \"/a\"\nprice = \"$1\"\naccept = [\"usdc\"]\n"
        ),
        ("unknown-network", 6, 11, "\"bass\""),
    );
}

#[test]
fn syntax_errors_have_places_too() {
    check("a = \n", ("syntax", 1, 5, ""));
    check("[server]\nx = 1\nx = 2\n", ("syntax", 3, 1, "x"));
    check("[server\n", ("syntax", 1, 8, ""));
    let two: Vec<_> = diagnostics("a = \nb = 1\nc = [1\nd = 'x\n")
        .iter()
        .map(|d| d.code)
        .collect();
    assert!(
        two.len() >= 2 && two.iter().all(|code| *code == "syntax"),
        "{two:?}"
    );
    check(
        &format!("{}a = 1\n", "a.".repeat(100_000)),
        ("syntax", 1, 202, "."),
    );
}

#[test]
fn columns_count_characters_and_lines_may_end_in_crlf() {
    let text = BASE.replace('\n', "\r\n");
    settings_of(&text);
    check(
        &format!(
            "{text}[[rule]]\r\nname = \"a\"\r\nmethods = [\"GET\"] # é\r\npath = \"/a\"\r\nfree = 1\r\n"
        ),
        ("wrong-type", 14, 8, "1"),
    );
    check_more("\"é\" = { \"ü\" = 1 }\n", ("unknown-key", 1, 1, "\"é\""));
    check_rule("free = true\nhost = \"ä\"; x", ("syntax", 5, 11, ";"));
}
