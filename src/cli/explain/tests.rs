use super::*;
use crate::config::settings::RuleAccess::{Deny, Free};
use crate::config::settings::Unmatched;
use crate::route::fixture::{priced, priced_by, rule, settings, solana};

fn wall() -> Settings {
    let mut settings = settings(vec![
        rule("weather", 3, "GET /v1/weather/{city}", priced(1_000)),
        rule("v1", 9, "/v1/{*rest}", priced(5)),
        rule("health", 12, "/health", Free),
        rule("admin", 15, "/admin/{*rest}", Deny),
        rule("sol", 18, "/sol", priced_by(&["sol"], 2_000_000)),
        rule("partner", 21, "partner.example.com/v1/{*rest}", Free),
    ]);
    settings.accepts.insert("sol".into(), solana("sol"));
    settings
}

fn ask(settings: &Settings, method: &str, url: &str, headers: &[&str]) -> Explained {
    let headers: Vec<String> = headers.iter().map(|h| (*h).to_owned()).collect();
    explain(settings, &SupportedBook::new(), method, url, &headers).unwrap()
}

#[track_caller]
fn check(method: &str, url: &str, headers: &[&str], want: (Outcome, &str)) {
    let explained = ask(&wall(), method, url, headers);
    assert_eq!(explained.outcome, want.0, "{method} {url}");
    let text = explained.to_string();
    assert!(text.contains(want.1), "{text}");
}

#[test]
fn it_says_what_the_wall_would_do() {
    use Outcome::{Denied, Free, Priced, Refused, Unlisted};
    check(
        "GET",
        "/v1/weather/paris",
        &[],
        (Priced, "\"weather\" (rules.toml:3)"),
    );
    check("HEAD", "/v1/weather/paris", &[], (Priced, "weather"));
    check(
        "POST",
        "/v1/weather/paris",
        &[],
        (Priced, "\"v1\" (rules.toml:9)"),
    );
    check(
        "GET",
        "https://api.example.com/health",
        &[],
        (Free, "without payment"),
    );
    check("GET", "/admin/x", &[], (Denied, "403"));
    check("GET", "/nowhere", &[], (Unlisted, "404"));
    check(
        "GET",
        "/v1/%2e%2e/x",
        &[],
        (Refused, "400: encoded dot segments"),
    );
    check("GET", "http://u@h/", &[], (Refused, "user information"));
    check(
        "GET",
        "/",
        &["Host: a", "host: b"],
        (Refused, "more than one Host"),
    );
    check(
        "GET",
        "/sol",
        &[],
        (Priced, "503 until a facilitator lists"),
    );
}

#[test]
fn the_host_comes_from_the_header_then_the_url_then_the_public_origin() {
    let host = |url, headers: &[&str]| ask(&wall(), "GET", url, headers).canonical.unwrap().host;
    assert_eq!(host("/x", &[]), "api.example.com");
    assert_eq!(host("https://Other.example:443/x", &[]), "other.example");
    assert_eq!(
        host("https://other.example/x", &["Host: h.example:8080"]),
        "h.example"
    );
    check(
        "GET",
        "/v1/x",
        &["Host: partner.example.com"],
        (Outcome::Free, "\"partner\""),
    );
}

#[test]
fn the_text_names_price_rule_settlement_upstream_and_near_misses() {
    let text = ask(&wall(), "GET", "/v1/weather/%70aris?d=1", &[]).to_string();
    for line in [
        "GET /v1/weather/%70aris?d=1\n",
        "  canonical  api.example.com /v1/weather/paris?d=1\n",
        "  answer     402 until it is paid, by rule \"weather\"\n",
        "  rule       \"weather\" (rules.toml:3): GET, any host, /v1/weather/{city}\n",
        "  price      1000 atomic\n",
        "  pay        0.001 USDC on Base Sepolia (1000 atomic units)\n",
        "             to 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 (usdc, through fac)\n",
        "  settle     after a good response",
        "  upstream   api\n",
        "near misses\n  \"v1\" (rules.toml:9): any method, any host, /v1/{*rest}\n",
        "    matches, but the governing rule is more specific at segment 2 of the path\n",
        "    host differs: the rule is for partner.example.com, not api.example.com\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}

#[test]
fn json_has_the_same_facts() {
    let mut wall = wall();
    wall.unmatched = Unmatched::Free("api".into());
    let json = serde_json::json!(ask(&wall, "GET", "/V1/weather/paris", &["X-A: b"]));
    assert_eq!(json["outcome"], "ambiguous");
    assert_eq!(json["rule"], serde_json::Value::Null);
    assert!(json["because"].as_str().unwrap().contains("\"weather\""));
    assert!(json["notes"][0].as_str().unwrap().contains("x-a"));
    let json = serde_json::json!(ask(&wall, "GET", "/v1/weather/paris", &[]));
    assert_eq!(json["price"]["ways"][0]["amount"], "1000");
    assert_eq!(json["price"]["settle"], "after");
    assert_eq!(json["near_misses"].as_array().unwrap().len(), NEAR_MAX);
    let json = serde_json::json!(ask(&wall, "GET", "/sol", &[]));
    assert_eq!(json["price"]["ways"][0]["offered"], false);
}

#[test]
fn a_command_line_that_makes_no_request_is_the_users_error() {
    let fault = |url: &str, header: &str| {
        let headers = [header.to_owned()];
        explain(&wall(), &SupportedBook::new(), "GET", url, &headers).unwrap_err()
    };
    assert!(matches!(fault("health", "a: b"), Fault::Usage(_)));
    assert!(matches!(fault("ftp://h/", "a: b"), Fault::Usage(_)));
    assert!(matches!(fault("/health", "no colon"), Fault::Usage(_)));
}

#[test]
fn rules_that_make_no_table_are_reported() {
    let clash = settings(vec![rule("a", 1, "/a", Free), rule("b", 2, "/a", Free)]);
    let fault = explain(&clash, &SupportedBook::new(), "GET", "/a", &[]).unwrap_err();
    assert!(matches!(fault, Fault::Rules(errors) if errors.len() == 1));
}
