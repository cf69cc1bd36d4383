use super::*;
use crate::config::settings::RuleAccess::{Deny, Free};
use crate::config::settings::{RuleAccess, Unmatched};
use crate::facilitator::supported::SupportedBook;
use crate::route::fixture::{priced, rules, settings};

#[track_caller]
fn check(list: &[(&str, RuleAccess)], want: &[(NoteKind, &str)]) {
    let settings = settings(rules(list));
    let table = RouteTable::build(&settings, &SupportedBook::new()).unwrap();
    let notes = lint(&settings, &table);
    let got: Vec<_> = notes.iter().map(|n| (n.kind, &*n.rule)).collect();
    assert_eq!(got, want, "{notes:#?}");
}

#[test]
fn an_ordinary_configuration_has_no_notes() {
    check(
        &[
            ("/", Free),
            ("/health", Free),
            ("GET /v1/weather/{city}", priced(1)),
            ("/v1/{*rest}", priced(2)),
            ("/admin/{*rest}", Deny),
        ],
        &[],
    );
}

#[test]
fn a_rule_that_others_take_everything_from_is_unreachable() {
    check(
        &[
            ("/a", priced(1)),
            ("GET,POST,PUT,PATCH,DELETE /a", priced(2)),
        ],
        &[(NoteKind::Unreachable, "/a")],
    );
    check(
        &[("/a", priced(1)), ("GET,POST,PUT,PATCH /a", priced(2))],
        &[],
    );
}

#[test]
fn a_free_rule_inside_a_priced_prefix_is_a_hole() {
    check(
        &[("/v1/{*rest}", priced(1)), ("/v1/users/{id}", Free)],
        &[(NoteKind::FreeUnderPriced, "/v1/users/{id}")],
    );
    check(
        &[("/v1/{*rest}", priced(1)), ("a.example/v1/health", Free)],
        &[(NoteKind::FreeUnderPriced, "a.example/v1/health")],
    );
    check(&[("/v1/{*rest}", priced(1)), ("/v2/{*rest}", Free)], &[]);
    check(&[("/v1/{*rest}", priced(1)), ("/v1/users/{id}", Deny)], &[]);
}

#[test]
fn other_methods_of_a_priced_path_that_are_free_are_noted() {
    check(
        &[("GET /v1/x", priced(1)), ("POST /v1/x", Free)],
        &[(NoteKind::FreeMethod, "GET /v1/x")],
    );
    check(
        &[("GET /v1/x", priced(1)), ("/{*all}", Free)],
        &[(NoteKind::FreeMethod, "GET /v1/x")],
    );
    check(&[("GET /v1/x", priced(1)), ("OPTIONS /v1/x", Free)], &[]);
    check(&[("/v1/x", priced(1)), ("/{*all}", Free)], &[]);
}

#[test]
fn a_priced_host_that_is_free_under_another_name_is_noted() {
    check(
        &[("a.example/v1/x", priced(1)), ("/{*all}", Free)],
        &[(NoteKind::FreeHost, "a.example/v1/x")],
    );
    check(
        &[("*.example/v1/x", priced(1)), ("example/{*all}", Free)],
        &[(NoteKind::FreeHost, "*.example/v1/x")],
    );
    check(
        &[("a.example/v1/x", priced(1)), ("b.example/{*all}", Free)],
        &[],
    );
}

#[test]
fn rules_that_differ_only_in_spelling_are_noted() {
    check(
        &[("/A", Free), ("/a", priced(1))],
        &[(NoteKind::Refused, "/A")],
    );
    check(
        &[("/b/", Free), ("GET /b", priced(1))],
        &[(NoteKind::Refused, "/b/"), (NoteKind::FreeMethod, "GET /b")],
    );
    check(
        &[("/items/Gold", priced(100)), ("/items/gold", priced(1))],
        &[],
    );
}

#[test]
fn unmatched_free_beside_prices_is_noted() {
    let mut settings = settings(rules(&[("/a", priced(1)), ("/b", priced(1))]));
    settings.unmatched = Unmatched::Free("api".into());
    let table = RouteTable::build(&settings, &SupportedBook::new()).unwrap();
    let notes = lint(&settings, &table);
    assert_eq!(notes.len(), 1);
    assert_eq!(notes[0].kind, NoteKind::UnmatchedFree);
    assert!(
        notes[0].message.contains("2 priced of 2 rules"),
        "{notes:?}"
    );
}
