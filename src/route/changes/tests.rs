use super::*;
use crate::config::settings::RuleAccess::{Deny, Free};
use crate::route::fixture::{accept, priced, priced_by, rule, settings, solana, upstream};

/// Differences between two configurations that each have one rule `r`.
#[track_caller]
fn check(old: RuleAccess, new: RuleAccess, want: &[&str]) {
    let with = |access| {
        let mut settings = settings(vec![rule("r", 1, "/a", access)]);
        settings.accepts.insert("sol".into(), solana("sol"));
        settings
    };
    check_settings(&with(old), &with(new), want);
}

#[track_caller]
fn check_settings(old: &Settings, new: &Settings, want: &[&str]) {
    let got: Vec<String> = changes(old, new).iter().map(ToString::to_string).collect();
    assert_eq!(got, want);
}

#[test]
fn prices_and_access_are_compared() {
    check(priced(1), priced(1), &[]);
    check(
        priced(1_000),
        priced(2_000),
        &[
            "dearer     rule \"r\": price 0.001 USDC on Base Sepolia (1000 atomic units) -> \
           0.002 USDC on Base Sepolia (2000 atomic units)",
        ],
    );
    check(
        priced(2_000_000),
        priced(1_000_000),
        &[
            "cheaper    rule \"r\": price 2 USDC on Base Sepolia (2000000 atomic units) -> \
           1 USDC on Base Sepolia (1000000 atomic units)",
        ],
    );
    let words = "0.001 USDC on Base Sepolia (1000 atomic units)";
    check(
        priced(1_000),
        Free,
        &[&format!("free       rule \"r\": access {words} -> free")],
    );
    check(
        Free,
        priced(1_000),
        &[&format!("dearer     rule \"r\": access free -> {words}")],
    );
    check(
        Deny,
        priced(1_000),
        &[&format!("sold       rule \"r\": access denied -> {words}")],
    );
    check(
        priced(1_000),
        Deny,
        &[&format!("denied     rule \"r\": access {words} -> denied")],
    );
    check(
        Deny,
        Free,
        &["free       rule \"r\": access denied -> free"],
    );
}

#[test]
fn the_same_price_written_in_another_way_is_no_difference() {
    let mut dollars = priced(1_000);
    if let RuleAccess::Priced(rule) = &mut dollars {
        rule.price = crate::money::PriceText::parse("$0.001").unwrap();
        rule.description = "other words".to_owned();
    }
    check(priced(1_000), dollars, &[]);
}

#[test]
fn other_ways_of_paying_are_repointed() {
    let sol = "Solana devnet";
    check(
        priced_by(&["usdc"], 5),
        priced_by(&["usdc", "sol"], 5),
        &[&format!(
            "repointed  rule \"r\": now accepts 0.000005 USDC on {sol} (5 atomic units)"
        )],
    );
    check(
        priced_by(&["sol", "usdc"], 5),
        priced_by(&["usdc"], 5),
        &[&format!(
            "repointed  rule \"r\": no longer accepts 0.000005 USDC on {sol} (5 atomic units)"
        )],
    );
    let old = settings(vec![rule("r", 1, "/a", priced(5))]);
    let mut new = old.clone();
    new.accepts.insert("usdc".into(), solana("usdc"));
    let got = changes(&old, &new);
    let what: Vec<&str> = got.iter().map(|c| c.what.as_str()).collect();
    assert_eq!(
        what,
        [
            "asset of usdc",
            "network of usdc",
            "pay_to of usdc",
            "price"
        ]
    );
    assert!(got.iter().all(|c| c.kind == ChangeKind::Repointed));
}

#[test]
fn a_renamed_way_of_paying_is_no_difference_but_another_recipient_is() {
    let old = settings(vec![rule("r", 1, "/a", priced(5))]);
    let mut new = settings(vec![rule("r", 1, "/a", priced_by(&["renamed"], 5))]);
    new.accepts.insert("renamed".into(), accept("renamed"));
    check_settings(&old, &new, &[]);
    new.accepts.get_mut("renamed").unwrap().pay_to = crate::chain::PayTo::verbatim("0xother");
    check_settings(
        &old,
        &new,
        &["repointed  rule \"r\": pay_to of renamed \
           0x70997970C51812dc3A010C7d01b50e0d17dc79C8 -> 0xother"],
    );
}

#[test]
fn what_a_rule_matches_and_where_it_goes_is_compared() {
    let mut old = settings(vec![rule("r", 1, "GET /a", Free)]);
    old.upstreams.insert("b".into(), upstream("b"));
    old.rules[0].upstream = Some("api".into());
    let mut new = old.clone();
    new.rules = vec![rule("r", 1, "GET,POST h.example/a/{x}", Free)];
    new.rules[0].upstream = Some("b".into());
    check_settings(
        &old,
        &new,
        &[
            "repointed  rule \"r\": host any -> h.example",
            "repointed  rule \"r\": methods GET -> GET, POST",
            "repointed  rule \"r\": path /a -> /a/{x}",
            "repointed  rule \"r\": upstream api -> b",
        ],
    );
}

#[test]
fn rules_come_and_go_by_name_whatever_their_order() {
    let old = settings(vec![
        rule("a", 1, "/a", Free),
        rule("b", 2, "GET h/b", priced(1)),
    ]);
    let new = settings(vec![rule("c", 1, "/c", Deny), rule("a", 2, "/a", Free)]);
    check_settings(
        &old,
        &new,
        &[
            "added      rule \"c\": is any method /c: denied",
            "removed    rule \"b\": was GET h/b: 0.000001 USDC on Base Sepolia (1 atomic units)",
        ],
    );
}

#[test]
fn settlement_upstreams_and_unmatched_requests_are_compared() {
    let old = settings(vec![rule("r", 1, "/a", priced(1))]);
    let mut new = old.clone();
    if let RuleAccess::Priced(rule) = &mut new.rules[0].access {
        rule.settle = SettleWhen::BeforeForward;
    }
    new.upstreams.get_mut("api").unwrap().servers[0].port = 9001;
    new.unmatched = Unmatched::Free("api".into());
    check_settings(
        &old,
        &new,
        &[
            "free       unmatched requests: access denied -> free, to upstream \"api\"",
            "repointed  upstream \"api\": servers http://127.0.0.1:9000 -> http://127.0.0.1:9001",
            "settled    rule \"r\": settle after -> before",
        ],
    );
}
