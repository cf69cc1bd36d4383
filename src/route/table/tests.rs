use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::config::settings::Unmatched;
use crate::route::fixture::{priced, rules, settings};
use crate::route::pattern::{Kind, Segment, governed_as};
use RuleAccess::{Deny, Free};

fn table(list: &[(&str, RuleAccess)]) -> RouteTable {
    RouteTable::build(&settings(rules(list)), &SupportedBook::new()).unwrap()
}

fn open_table(list: &[(&str, RuleAccess)]) -> RouteTable {
    let mut settings = settings(rules(list));
    settings.unmatched = Unmatched::Free("api".into());
    RouteTable::build(&settings, &SupportedBook::new()).unwrap()
}

fn errors(list: &[(&str, RuleAccess)]) -> Vec<String> {
    let faults = RouteTable::build(&settings(rules(list)), &SupportedBook::new()).unwrap_err();
    faults.iter().map(ToString::to_string).collect()
}

/// `"METHOD [host]/path"`.
fn ask(table: &RouteTable, request: &str) -> String {
    let (method, target) = request.split_once(' ').unwrap();
    let (host, path) = target.split_at(target.find('/').unwrap());
    match table.access(&RequestLine { method, host, path }) {
        Access::Priced(route) => format!("priced {}", route.rule),
        Access::Free(route) => format!("free {}", route.rule),
        Access::Denied(rule) => format!("denied {rule}"),
        Access::Unlisted => "unlisted".to_owned(),
        Access::Ambiguous(a) => format!("ambiguous {} / {}", a.granted, a.guarded),
        Access::Unavailable(rule) => format!("unavailable {rule}"),
        Access::Shadow(route) => format!("shadow {}", route.free.rule),
    }
}

#[track_caller]
fn check(table: &RouteTable, request: &str, want: &str) {
    assert_eq!(ask(table, request), want, "{request}");
}

#[test]
fn the_most_specific_rule_wins_whatever_the_order() {
    let mut list = vec![
        ("/{*all}", priced(1)),
        ("/v1/{*rest}", priced(2)),
        ("/v1/{id}", priced(3)),
        ("/v1/users", priced(4)),
        ("GET /v1/users", priced(5)),
        ("/v1/{id}/mail", priced(6)),
        ("/v1/users/{*rest}", priced(7)),
        ("/v1/{id}/{*rest}", priced(8)),
        ("*.example.com/v1/{id}", priced(9)),
        ("*.eu.example.com/{*all}", priced(10)),
        ("api.example.com/{*all}", priced(11)),
    ];
    for _ in 0..2 {
        let table = table(&list);
        for (request, rule) in [
            ("GET /", "/{*all}"),
            ("GET /x", "/{*all}"),
            ("GET /v1", "/v1/{*rest}"),
            ("GET /v1/", "/v1/{*rest}"),
            ("GET /v1/x", "/v1/{id}"),
            ("GET /v1/x/", "/v1/{id}"),
            ("GET /v1/users", "GET /v1/users"),
            ("HEAD /v1/users", "GET /v1/users"),
            ("GET /v1/users/", "GET /v1/users"),
            ("POST /v1/users", "/v1/users"),
            ("PURGE /v1/users", "/v1/users"),
            ("POST /v1/x/mail", "/v1/{id}/mail"),
            ("POST /v1/x/post", "/v1/{id}/{*rest}"),
            // the leftmost difference decides: `users` before `{id}`
            ("POST /v1/users/mail", "/v1/users/{*rest}"),
            ("POST /v1/x/mail/y", "/v1/{id}/{*rest}"),
            // the host decides before the path
            ("GET a.example.com/v1/users", "*.example.com/v1/{id}"),
            ("GET a.example.com/v1/users/7", "/v1/users/{*rest}"),
            ("GET a.eu.example.com/v1/users", "*.eu.example.com/{*all}"),
            ("GET api.example.com/v1/users", "api.example.com/{*all}"),
            ("GET example.com/v1/users", "GET /v1/users"),
        ] {
            check(&table, request, &format!("priced {rule}"));
        }
        list.reverse();
    }
}

#[test]
fn a_path_that_is_taken_for_another_method_does_not_hide_a_wider_rule() {
    let table = table(&[
        ("POST /a/b", priced(1)),
        ("GET /a/{x}", priced(2)),
        ("/a/{*rest}", priced(3)),
    ]);
    check(&table, "GET /a/b", "priced GET /a/{x}");
    check(&table, "POST /a/b", "priced POST /a/b");
    check(&table, "PUT /a/b", "priced /a/{*rest}");
    check(&table, "POST /a/c", "priced /a/{*rest}");
}

#[test]
fn static_prefixes_do_not_hide_parameters() {
    let table = table(&[
        ("/ab/x/y", priced(1)),
        ("/{p}/x/z", priced(2)),
        ("/abc", priced(3)),
        ("/{p}/{q}", priced(4)),
    ]);
    check(&table, "GET /ab/x/z", "priced /{p}/x/z");
    check(&table, "GET /ab/x", "priced /{p}/{q}");
    check(&table, "GET /abd", "unlisted");
    check(&table, "GET /abc/", "priced /abc");
}

#[test]
fn a_trailing_slash_is_no_way_round_a_price() {
    let implied = table(&[("/a", priced(1)), ("/b/", priced(2)), ("/{*rest}", Free)]);
    check(&implied, "GET /a/", "priced /a");
    check(&implied, "GET /b", "priced /b/");
    let named = table(&[
        ("/files/{*rest}", priced(1)),
        ("/files", priced(2)),
        ("/b/{*rest}", priced(3)),
        ("/b/", priced(4)),
    ]);
    check(&named, "GET /files", "priced /files");
    check(&named, "GET /files/", "priced /files");
    check(&named, "GET /files/x/", "priced /files/{*rest}");
    check(&named, "GET /b/", "priced /b/");
    check(&named, "GET /b", "priced /b/");
    let both = table(&[("/a", priced(1)), ("/a/", priced(2))]);
    check(&both, "GET /a", "priced /a");
    check(&both, "GET /a/", "priced /a/");
}

#[test]
fn head_is_governed_by_the_rule_for_get() {
    let table = table(&[
        ("GET /a", priced(1)),
        ("GET,HEAD /b", priced(2)),
        ("/a", Free),
    ]);
    check(&table, "HEAD /a", "priced GET /a");
    check(&table, "HEAD /b", "priced GET,HEAD /b");
    check(&table, "POST /a", "free /a");
    let wrong = errors(&[("HEAD /a", Free), ("HEAD,POST /b", priced(1))]);
    assert_eq!(wrong.len(), 2);
    assert!(wrong[0].contains("HEAD costs what GET costs"), "{wrong:?}");
}

#[test]
fn equally_specific_rules_are_an_error_that_names_both() {
    let wrong = errors(&[
        ("/a/{x}", priced(1)),
        ("/a/{y}", Free),
        ("GET,POST /b", priced(1)),
        ("POST,PUT /b", Deny),
        ("h.example/{*x}", Free),
        ("h.example/{*y}", Free),
    ]);
    assert_eq!(
        wrong,
        [
            "rule \"/a/{y}\": matches the same requests as rule \"/a/{x}\" (rules.toml:1): \
             same host, same path, any method",
            "rule \"POST,PUT /b\": matches the same requests as rule \"GET,POST /b\" \
             (rules.toml:3): same host, same path, both for POST",
            "rule \"h.example/{*y}\": matches the same requests as rule \"h.example/{*x}\" \
             (rules.toml:5): same host, same path, any method",
        ]
    );
    // Different in host, slash or method level: not ambiguous.
    table(&[
        ("/a", Free),
        ("/a/", Free),
        ("GET /a", Free),
        ("POST /a", Free),
        ("h.example/a", Free),
        ("*.h.example/a", Free),
        ("/{x}", Free),
        ("/{*x}", Free),
    ]);
}

#[test]
fn all_faults_are_reported_at_once() {
    let mut rules = rules(&[("/a//b", Free), ("HEAD /%61", priced(1)), ("/c", Free)]);
    rules[2].host = Some("Example.com".to_owned());
    let faults = RouteTable::build(&settings(rules), &SupportedBook::new()).unwrap_err();
    let codes: Vec<_> = faults.iter().map(|e| (e.at.line, e.fault.code())).collect();
    assert_eq!(
        codes,
        [
            (1, "bad-path-pattern"),
            (2, "bad-path-pattern"),
            (2, "head-without-get"),
            (3, "bad-host-pattern"),
        ]
    );
}

#[test]
fn free_and_cheap_requests_that_a_lenient_origin_takes_for_dearer_ones_are_ambiguous() {
    let table = table(&[
        ("/paid/Report", priced(100)),
        ("/paid/{x}", priced(1)),
        ("/secret!", Deny),
        ("GET /caf%C3%A9", priced(5)),
        ("/{*all}", Free),
    ]);
    for (request, want) in [
        ("GET /PAID/x", "ambiguous /{*all} / /paid/{x}"),
        ("GET /Paid/report/", "ambiguous /{*all} / /paid/Report"),
        ("GET /paid/report", "ambiguous /paid/{x} / /paid/Report"),
        ("GET /paid/Report", "priced /paid/Report"),
        ("GET /paid/Other", "priced /paid/{x}"),
        ("GET /secret%21", "ambiguous /{*all} / /secret!"),
        ("GET /secret!", "denied /secret!"),
        ("GET /CAF%C3%89", "ambiguous /{*all} / GET /caf%C3%A9"),
        ("get /caf%C3%A9", "ambiguous /{*all} / GET /caf%C3%A9"),
        ("HEAD /CAF%C3%89", "ambiguous /{*all} / GET /caf%C3%A9"),
        ("POST /caf%C3%A9", "free /{*all}"),
        ("GET /paid/Report./", "ambiguous /paid/{x} / /paid/Report"),
        ("GET /Free/x", "free /{*all}"),
        ("GET /free%21", "free /{*all}"),
    ] {
        check(&table, request, want);
    }
}

#[test]
fn a_free_rule_beside_a_priced_twin_is_ambiguous_not_free() {
    let table = table(&[
        ("GET /a", priced(1)),
        ("/a/", Free),
        ("/B", Free),
        ("/b", priced(1)),
    ]);
    check(&table, "GET /a", "priced GET /a");
    check(&table, "GET /a/", "ambiguous /a/ / GET /a");
    check(&table, "POST /a/", "free /a/");
    check(&table, "GET /B", "ambiguous /B / /b");
    check(&table, "GET /b", "priced /b");
}

#[test]
fn unmatched_requests_are_denied_unless_the_operator_wrote_otherwise() {
    let list = [
        ("GET /a", priced(1)),
        ("api.example.com/b", priced(1)),
        ("/c", Deny),
    ];
    let closed = table(&list);
    check(&closed, "GET /x", "unlisted");
    check(&closed, "POST /a", "unlisted");
    check(&closed, "GET /A", "unlisted");
    check(&closed, "GET other.example/b", "unlisted");
    let open = open_table(&list);
    check(&open, "GET /x", "free unmatched");
    check(&open, "POST /a", "free unmatched");
    check(&open, "GET /A", "ambiguous unmatched / GET /a");
    check(&open, "get /a", "ambiguous unmatched / GET /a");
    check(&open, "GET /C/", "ambiguous unmatched / /c");
    // An origin that ignores Host would serve the priced path under any name.
    check(
        &open,
        "GET other.example/b",
        "ambiguous unmatched / api.example.com/b",
    );
    check(&open, "GET other.example/x", "free unmatched");
}

#[test]
fn an_unmatched_request_for_another_host_is_free_when_it_goes_to_another_upstream() {
    let mut settings = settings(rules(&[("api.example.com/b", priced(1))]));
    let other = crate::route::fixture::upstream("blog");
    settings.upstreams.insert("blog".into(), other);
    settings.rules[0].upstream = Some("api".into());
    settings.unmatched = Unmatched::Free("blog".into());
    let table = RouteTable::build(&settings, &SupportedBook::new()).unwrap();
    check(&table, "GET other.example/b", "free unmatched");
}

#[test]
fn routes_carry_what_the_rule_says() {
    let table = table(&[("/a", priced(1_000)), ("/f", Free)]);
    let line = |path| RequestLine {
        method: "GET",
        host: "",
        path,
    };
    let Access::Priced(route) = table.access(&line("/a")) else {
        panic!("not priced");
    };
    assert_eq!(&*route.upstream, "api");
    assert_eq!(
        (&*route.description, &*route.mime_type),
        ("a thing", "application/json")
    );
    assert_eq!(
        (route.request_body_bytes_max, route.kept_response_bytes_max),
        (20, 30)
    );
    assert_eq!(route.price.quote().offers[0].amount.units(), 1_000);
    let Access::Free(route) = table.access(&line("/f")) else {
        panic!("not free");
    };
    assert_eq!(
        (&*route.upstream, route.request_body_bytes_max),
        ("api", 20)
    );
}

#[test]
fn a_rule_must_have_an_upstream_unless_there_is_only_one() {
    let mut settings = settings(rules(&[("/a", priced(1)), ("/b", Free), ("/c", Deny)]));
    let other = crate::route::fixture::upstream("other");
    settings.upstreams.insert("other".into(), other);
    let faults = RouteTable::build(&settings, &SupportedBook::new()).unwrap_err();
    let codes: Vec<_> = faults.iter().map(|e| (e.at.line, e.fault.code())).collect();
    assert_eq!(codes, [(1, "no-upstream"), (2, "no-upstream")]);
}

#[test]
fn ten_thousand_rules_are_each_found() {
    let mut list = Vec::new();
    for i in 0..2_500 {
        list.push((format!("/svc{i}/items/{{id}}"), priced(1)));
        list.push((
            format!("GET,PUT /svc{i}/items/{{id}}/parts/{{part}}"),
            priced(2),
        ));
        list.push((format!("/svc{i}/{{*rest}}"), Free));
        list.push((format!("h{i}.example.com/{{*rest}}"), priced(3)));
    }
    let list: Vec<(&str, RuleAccess)> = list.iter().map(|(m, a)| (m.as_str(), a.clone())).collect();
    let settings = settings(rules(&list));
    let start = Instant::now();
    let table = RouteTable::build(&settings, &SupportedBook::new()).unwrap();
    let built = start.elapsed();
    let start = Instant::now();
    for i in 0..2_500 {
        for (request, rule) in [
            (
                format!("POST /svc{i}/items/7"),
                format!("priced /svc{i}/items/{{id}}"),
            ),
            (
                format!("PUT /svc{i}/items/7/parts/8"),
                format!("priced GET,PUT /svc{i}/items/{{id}}/parts/{{part}}"),
            ),
            (
                format!("DELETE /svc{i}/items/7/parts/8"),
                format!("free /svc{i}/{{*rest}}"),
            ),
            (
                format!("GET h{i}.example.com/svc1/items/7"),
                format!("priced h{i}.example.com/{{*rest}}"),
            ),
        ] {
            check(&table, &request, &rule);
        }
    }
    eprintln!(
        "built in {built:?}, 10,000 lookups in {:?}",
        start.elapsed()
    );
}

/// The precedence as a specification: every rule is tried, the best is kept.
fn governing_by_scan(table: &RouteTable, request: &RequestLine<'_>) -> Option<Arc<str>> {
    let method = governed_as(request.method);
    let score = |rule: &Rule| {
        let host = match &rule.host {
            HostPattern::Any => (0, 0),
            HostPattern::Exact(name) if name == request.host => (2, 0),
            HostPattern::Wildcard(suffix) if request.host.ends_with(&format!(".{suffix}")) => {
                (1, suffix.len())
            }
            HostPattern::Exact(_) | HostPattern::Wildcard(_) => return None,
        };
        let named = match &rule.methods {
            Methods::Any => false,
            Methods::Named(names) if names.iter().any(|m| m == method) => true,
            Methods::Named(_) => return None,
        };
        let (kinds, standing) = scan_path(rule, request.path)?;
        Some((host, kinds, standing, named))
    };
    table
        .rules()
        .iter()
        .filter_map(|rule| Some((score(rule)?, Arc::clone(&rule.name))))
        .max()
        .map(|(_, name)| name)
}

fn scan_path(rule: &Rule, path: &str) -> Option<(Vec<Kind>, u8)> {
    let slash = path.ends_with('/');
    let has: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let mut kinds = Vec::new();
    for (at, segment) in rule.path.segments().iter().enumerate() {
        match (segment, has.get(at)) {
            (Segment::Rest(_), None) => return Some((kinds, 0)),
            (Segment::Rest(_), Some(_)) => {
                kinds.push(Kind::Rest);
                return Some((kinds, 2));
            }
            (Segment::Parameter(_), Some(_)) => kinds.push(Kind::Parameter),
            (Segment::Literal(want), Some(have)) if want == have => kinds.push(Kind::Literal),
            (Segment::Parameter(_) | Segment::Literal(_), _) => return None,
        }
    }
    let as_written = slash == rule.path.has_trailing_slash();
    (has.len() == kinds.len()).then_some((kinds, if as_written { 2 } else { 1 }))
}

fn rule_text() -> impl Strategy<Value = String> {
    let method = prop::sample::select(vec!["", "GET ", "POST ", "GET,PUT "]);
    let host = prop::sample::select(vec!["", "", "h.x", "*.x", "*.h.x"]);
    let segment = prop::sample::select(vec!["a", "ab", "A", "b", "{}", "{}"]);
    let end = prop::sample::select(vec!["", "", "/", "/{*rest}"]);
    (method, host, prop::collection::vec(segment, 0..4), end).prop_map(
        |(method, host, segments, end)| {
            let mut path: String = segments
                .iter()
                .enumerate()
                .map(|(i, s)| format!("/{}", s.replace("{}", &format!("{{p{i}}}"))))
                .collect();
            path.push_str(if path.is_empty() && end.is_empty() {
                "/"
            } else {
                end
            });
            format!("{method}{host}{path}")
        },
    )
}

fn path_text() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["a", "ab", "A", "b", "c"]);
    (prop::collection::vec(segment, 0..5), any::<bool>()).prop_map(|(segments, slash)| {
        let path: String = segments.iter().map(|s| format!("/{s}")).collect();
        if slash || path.is_empty() {
            format!("{path}/")
        } else {
            path
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn access_agrees_with_a_scan_over_all_rules(
        texts in prop::collection::vec((rule_text(), 0..3_u128), 1..12),
        asked in prop::collection::vec(
            (
                prop::sample::select(vec!["GET", "HEAD", "POST", "PUT", "get", "X"]),
                prop::sample::select(vec!["", "x", "h.x", "a.x", "a.h.x"]),
                path_text(),
            ),
            24,
        ),
    ) {
        // Keep what does not clash, one rule after the other.
        let mut list: Vec<(&str, RuleAccess)> = Vec::new();
        for (text, cost) in &texts {
            list.push((text, if *cost == 0 { Free } else { priced(*cost) }));
            if RouteTable::build(&settings(rules(&list)), &SupportedBook::new()).is_err() {
                list.pop();
            }
        }
        let table = table(&list);
        for (method, host, path) in &asked {
            let line = RequestLine { method, host, path };
            let got = table.governing(&line).map(|rule| Arc::clone(&rule.name));
            let want = governing_by_scan(&table, &line);
            prop_assert_eq!(&got, &want, "{} {}{} in {:?}", method, host, path, texts);
            // The guard only ever takes away, and never without a reason.
            match (table.access(&line), want) {
                (Access::Priced(route), Some(want)) => prop_assert_eq!(&route.rule, &want),
                (Access::Free(route), Some(want)) => prop_assert_eq!(&route.rule, &want),
                (Access::Ambiguous(a), Some(want)) => {
                    prop_assert_eq!(&a.granted, &want);
                    prop_assert_ne!(&a.guarded, &want);
                }
                (Access::Unlisted, None) => {}
                (got, want) => prop_assert!(false, "{:?}, not {:?}", got, want),
            }
        }
    }

    #[test]
    fn skipping_the_second_look_changes_nothing(
        texts in prop::collection::vec((rule_text(), 0..3_u128), 1..10),
        asked in prop::collection::vec(path_text(), 16),
    ) {
        let mut list: Vec<(&str, RuleAccess)> = Vec::new();
        for (text, cost) in &texts {
            list.push((text, if *cost == 0 { Free } else { priced(*cost) }));
            if RouteTable::build(&settings(rules(&list)), &SupportedBook::new()).is_err() {
                list.pop();
            }
        }
        let quick = table(&list);
        let thorough = RouteTable { look_twice: true, ..table(&list) };
        for path in &asked {
            let request = format!("GET h.x{path}");
            prop_assert_eq!(ask(&quick, &request), ask(&thorough, &request), "{:?}", texts);
        }
    }

    #[test]
    fn no_lenient_spelling_of_a_priced_path_is_free(
        texts in prop::collection::vec(rule_text(), 1..8),
        asked in prop::collection::vec(path_text(), 16),
        change in 0..4_u8,
    ) {
        let mut list: Vec<(&str, RuleAccess)> = vec![("/{*all}", Free)];
        for text in &texts {
            list.push((text, priced(1)));
            if RouteTable::build(&settings(rules(&list)), &SupportedBook::new()).is_err() {
                list.pop();
            }
        }
        let table = table(&list);
        for path in &asked {
            let priced = ask(&table, &format!("GET h.x{path}")).starts_with("priced");
            if path == "/" || !priced {
                continue;
            }
            let variant = match change {
                0 => path.to_uppercase(),
                1 => path.replace('A', "a"),
                2 => path.strip_suffix('/').map_or(format!("{path}/"), str::to_owned),
                _ => format!("{}.", path.trim_end_matches('/')),
            };
            let got = ask(&table, &format!("GET h.x{variant}"));
            prop_assert!(!got.starts_with("free"), "{} is priced, {} is {} in {:?}", path, variant, got, texts);
        }
    }
}
