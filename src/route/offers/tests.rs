use serde_json::json;

use super::*;
use crate::facilitator::supported::{Kind, Supported};
use crate::route::fixture::{accept, priced_by, rules, settings, solana};
use crate::route::{Access, RequestLine, RouteTable};

fn book(name: &str, kinds: Vec<Kind>) -> SupportedBook {
    let supported = Supported {
        kinds,
        ..Supported::default()
    };
    SupportedBook::from([(Arc::from(name), Arc::new(supported))])
}

fn kind(of: &AcceptSettings, extra: Value) -> Kind {
    Kind {
        x402_version: 2,
        scheme: of.scheme.to_string(),
        network: of.network.to_string(),
        extra: extra.as_object().cloned(),
    }
}

fn table(accept: &AcceptSettings, book: &SupportedBook) -> Result<RouteTable, String> {
    let mut settings = settings(rules(&[("/a", priced_by(&[&accept.name], 1_000))]));
    settings
        .accepts
        .insert(Arc::clone(&accept.name), accept.clone());
    let built = RouteTable::build(&settings, book).map_err(|e| e[0].to_string());
    check_completed(&settings, book, &built);
    built
}

/// A table that was made with nothing known of facilitators is completed to the one made with `book`.
#[track_caller]
fn check_completed(settings: &Settings, book: &SupportedBook, built: &Result<RouteTable, String>) {
    let Ok(before) = RouteTable::build(settings, &SupportedBook::new()) else {
        return;
    };
    let completed = before.completed(settings, book);
    match (built, completed.map_err(|e| e[0].to_string())) {
        (Ok(built), Ok(completed)) => {
            assert_eq!(built.missing(), completed.missing());
            assert!(built.sells_like(&completed) && completed.sells_like(built));
        }
        (built, completed) => assert_eq!(built.as_ref().err(), completed.as_ref().err()),
    }
}

fn offer(accept: &AcceptSettings, book: &SupportedBook) -> Option<Arc<Offer>> {
    let request = RequestLine {
        method: "GET",
        host: "",
        path: "/a",
    };
    match table(accept, book).unwrap().access(&request) {
        Access::Priced(route) => route.price.quote().offers.first().cloned(),
        Access::Unavailable(_) => None,
        other @ (Access::Free(_)
        | Access::Shadow(_)
        | Access::Denied(_)
        | Access::Unlisted
        | Access::Ambiguous(_)) => {
            panic!("{other:?}")
        }
    }
}

#[test]
fn eip3009_offers_carry_the_domain() {
    let offer = offer(&accept("usdc"), &SupportedBook::new()).unwrap();
    assert_eq!(
        offer.requirements_json,
        json!({
            "scheme": "exact",
            "network": "eip155:84532",
            "amount": "1000",
            "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            "payTo": crate::route::fixture::PAY_TO,
            "maxTimeoutSeconds": 300,
            "extra": {"name": "USDC", "version": "2"},
        })
    );
    assert_eq!(offer.v1_network, Some("base-sepolia"));
    let Method::Eip3009(terms) = &offer.method else {
        panic!("{:?}", offer.method);
    };
    // Fact sheet, section 8.
    assert_eq!(
        terms.domain.to_string(),
        "0x71f17a3b2ff373b803d70a5a07c046c1a2bc8e89c09ef722fcb047abe94c9818"
    );
}

#[test]
fn the_operator_may_add_to_extra_but_not_change_the_domain() {
    let mut usdc = accept("usdc");
    usdc.extra = json!({"name": "Other", "note": 1})
        .as_object()
        .cloned()
        .unwrap();
    let offer = offer(&usdc, &SupportedBook::new()).unwrap();
    assert_eq!(
        offer.requirements_json["extra"],
        json!({"name": "USDC", "version": "2", "note": 1})
    );
}

#[test]
fn permit2_offers_say_so_and_name_the_token_only_for_eip2612() {
    let mut permit = accept("permit");
    permit.method = AcceptMethod::Permit2 { eip2612: None };
    let plain = offer(&permit, &SupportedBook::new()).unwrap();
    assert_eq!(
        plain.requirements_json["extra"],
        json!({"assetTransferMethod": "permit2"})
    );
    assert_eq!(plain.v1_network, None);
    permit.method = AcceptMethod::Permit2 {
        eip2612: Some(("T".to_owned(), "1".to_owned())),
    };
    let gasless = offer(&permit, &SupportedBook::new()).unwrap();
    assert_eq!(
        gasless.requirements_json["extra"],
        json!({"assetTransferMethod": "permit2", "name": "T", "version": "1"})
    );
}

#[test]
fn amounts_that_legacy_clients_cannot_read_are_not_offered_to_them() {
    let mut settings = settings(rules(&[
        ("/a", priced_by(&["usdc"], 999_999_999_999_999_999)),
        ("/b", priced_by(&["usdc"], 1_000_000_000_000_000_000)),
    ]));
    settings.limits.request_body_bytes_max = 0;
    let table = RouteTable::build(&settings, &SupportedBook::new()).unwrap();
    let v1 = |path| {
        let request = RequestLine {
            method: "GET",
            host: "",
            path,
        };
        let Access::Priced(route) = table.access(&request) else {
            panic!("not priced");
        };
        route.price.quote().offers[0].v1_network
    };
    assert_eq!(v1("/a"), Some("base-sepolia"));
    assert_eq!(v1("/b"), None);
}

#[test]
fn opaque_offers_merge_the_facilitators_extra_with_the_operators_over_it() {
    let mut sol = solana("sol");
    sol.extra = json!({"memo": "x"}).as_object().cloned().unwrap();
    let extra = json!({"feePayer": "F", "memo": "theirs"});
    let offer = offer(&sol, &book("fac", vec![kind(&sol, extra)])).unwrap();
    assert_eq!(
        offer.requirements_json["extra"],
        json!({"feePayer": "F", "memo": "x"})
    );
    assert_eq!(offer.v1_network, None);
    assert!(matches!(offer.method, Method::Opaque));
}

#[test]
fn an_opaque_offer_is_settled_only_through_facilitators_that_say_the_same() {
    let mut sol = solana("sol");
    sol.facilitators = ["a", "b", "c", "d"].map(Arc::from).to_vec();
    let mut all = book("b", vec![kind(&sol, json!({"feePayer": "F"}))]);
    all.extend(book("c", vec![kind(&sol, json!({"feePayer": "G"}))]));
    all.extend(book("d", vec![kind(&sol, json!({"feePayer": "F"}))]));
    let offer = offer(&sol, &all).unwrap();
    assert_eq!(offer.facilitators, ["b", "d"].map(Arc::from));
}

#[test]
fn what_no_facilitator_lists_is_missing_not_offered() {
    let sol = solana("sol");
    for (book, unknown) in [
        (SupportedBook::new(), vec![Arc::from("fac")]),
        (book("fac", Vec::new()), vec![]),
        (
            book(
                "fac",
                vec![Kind {
                    x402_version: 1,
                    ..kind(&sol, json!({}))
                }],
            ),
            vec![],
        ),
    ] {
        assert!(offer(&sol, &book).is_none());
        let table = table(&sol, &book).unwrap();
        assert_eq!(table.missing().len(), 1);
        assert_eq!(table.missing()[0].unknown, unknown);
    }
}

#[test]
fn one_missing_way_leaves_the_others() {
    let mut settings = settings(rules(&[("/a", priced_by(&["sol", "usdc"], 5))]));
    settings.accepts.insert("sol".into(), solana("sol"));
    let table = RouteTable::build(&settings, &SupportedBook::new()).unwrap();
    assert_eq!(table.missing().len(), 1);
    let request = RequestLine {
        method: "GET",
        host: "",
        path: "/a",
    };
    let Access::Priced(route) = table.access(&request) else {
        panic!("not priced");
    };
    assert_eq!(route.price.quote().offers.len(), 1);
}

#[test]
fn a_facilitator_that_is_known_not_to_handle_an_evm_offer_stops_the_start() {
    let usdc = accept("usdc");
    assert!(table(&usdc, &book("fac", vec![kind(&usdc, json!({}))])).is_ok());
    assert!(table(&usdc, &book("other", Vec::new())).is_ok());
    let why = table(&usdc, &book("fac", Vec::new())).unwrap_err();
    assert!(
        why.contains("facilitator \"fac\" does not handle exact on eip155:84532"),
        "{why}"
    );
}

#[test]
fn a_broken_way_of_paying_is_reported_once() {
    let mut settings = settings(rules(&[
        ("/a", priced_by(&["bad"], 1)),
        ("/b", priced_by(&["bad"], 2)),
        ("/c", priced_by(&["none"], 2)),
    ]));
    let bad = AcceptSettings {
        method: accept("x").method,
        ..solana("bad")
    };
    settings.accepts.insert("bad".into(), bad);
    let faults = RouteTable::build(&settings, &SupportedBook::new()).unwrap_err();
    let codes: Vec<_> = faults.iter().map(|e| (e.at.line, e.fault.code())).collect();
    assert_eq!(codes, [(1, "bad-accept"), (3, "unknown-accept")]);
}

#[test]
fn a_price_in_words() {
    let amount = AtomicAmount::new(1_000);
    assert_eq!(
        in_words(&accept("usdc"), amount),
        "0.001 USDC on Base Sepolia (1000 atomic units)"
    );
    assert_eq!(
        in_words(&solana("sol"), AtomicAmount::new(2_000_000)),
        "2 USDC on Solana devnet (2000000 atomic units)"
    );
}
