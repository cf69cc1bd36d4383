use super::*;
use crate::config::settings::RuleAccess::Free;
use crate::facilitator::supported::SupportedBook;
use crate::route::fixture::{priced, rules, settings};

fn table() -> RouteTable {
    let settings = settings(rules(&[
        ("GET /v1/users/{id}", priced(1)),
        ("/v1/{*rest}", priced(2)),
        ("POST /v1/users/{id}", priced(3)),
        ("h.example/v1/users/{id}", priced(4)),
        ("/v1/users/{id}/mail", priced(5)),
        ("/v1/Users/{id}", priced(6)),
        ("/about", Free),
        ("/v1/users/{id}", priced(7)),
    ]));
    RouteTable::build(&settings, &SupportedBook::new()).unwrap()
}

#[test]
fn each_near_miss_says_why_the_closest_first() {
    let table = table();
    let request = RequestLine {
        method: "GET",
        host: "a.example",
        path: "/v1/users/7",
    };
    let explanation = table.explain(&request, 20);
    assert_eq!(&*explanation.governing.unwrap().name, "GET /v1/users/{id}");
    let near: Vec<(&str, Vec<String>)> = explanation
        .near_misses
        .iter()
        .map(|n| (&*n.rule.name, n.why.iter().map(Miss::to_string).collect()))
        .collect();
    let why = |text: &str| vec![text.to_owned()];
    assert_eq!(
        near,
        [
            (
                "/v1/{*rest}",
                why("matches, but the governing rule is more specific at segment 2 of the path")
            ),
            (
                "/v1/users/{id}",
                why("matches, but the governing rule names the method")
            ),
            (
                "POST /v1/users/{id}",
                why("method differs: the rule is for POST, not GET")
            ),
            (
                "h.example/v1/users/{id}",
                why("host differs: the rule is for h.example, not a.example")
            ),
            (
                "/v1/users/{id}/mail",
                why("path is too short: the rule goes on with \"mail\"")
            ),
            (
                "/v1/Users/{id}",
                why("path differs at segment 2: the rule has \"Users\", the request \"users\"")
            ),
            (
                "/about",
                why("path differs at segment 1: the rule has \"about\", the request \"v1\"")
            ),
        ]
    );
    assert_eq!(table.explain(&request, 2).near_misses.len(), 2);
}

#[test]
fn without_a_governing_rule_the_misses_still_say_why() {
    let table = table();
    let request = RequestLine {
        method: "GET",
        host: "",
        path: "/about/us",
    };
    let explanation = table.explain(&request, 1);
    assert!(matches!(explanation.access, Access::Unlisted));
    assert_eq!(
        explanation.near_misses[0].why[0].to_string(),
        "path is too long: the rule ends before segment 2 (\"us\")"
    );
}
