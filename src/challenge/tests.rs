use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::support::{group, offer, vectors};
use super::*;
use crate::x402::message::SettlementResponse;

fn text<'a>(vector: &'a Value, name: &str) -> &'a str {
    vector[name].as_str().unwrap()
}

/// A decoded challenge, rendered again from its offers and resource, has the same bytes.
#[track_caller]
fn check(header: &str) {
    let challenge = header::decode(header.as_bytes(), 10_000).unwrap();
    let offers: Vec<_> = challenge["accepts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| Arc::new(offer(r)))
        .collect();
    let resource: ResourceInfo = serde_json::from_value(challenge["resource"].clone()).unwrap();
    assert_eq!(render(&offers, &resource, None).header, header);
}

#[test]
fn challenges_have_the_bytes_of_the_official_sdk() {
    for vector in group("valid", 12) {
        check(text(&vector, "paymentRequiredHeader"));
    }
    for vector in group("permit2", 12) {
        check(text(&vector, "paymentRequiredHeader"));
    }
    for vector in group("codec", 5) {
        if text(&vector, "header") == header::PAYMENT_REQUIRED {
            check(text(&vector, "base64"));
        }
    }
}

#[test]
fn codec_vectors_are_written_and_read_byte_for_byte() {
    for vector in group("codec", 5) {
        let (json, base64) = (text(&vector, "json"), text(&vector, "base64"));
        let written = match text(&vector, "header") {
            header::PAYMENT_REQUIRED => {
                header::encode(&serde_json::from_str::<PaymentRequired>(json).unwrap())
            }
            header::PAYMENT_RESPONSE => {
                header::encode(&serde_json::from_str::<SettlementResponse>(json).unwrap())
            }
            other => panic!("{other}"),
        };
        assert_eq!(written, base64, "{}", vector["id"]);
        assert_eq!(
            header::decode(base64.as_bytes(), 10_000).unwrap(),
            vector["value"]
        );
    }
}

#[test]
fn legacy_clients_find_their_challenge_in_the_body() {
    let v1 = &vectors()["v1"];
    let ours = &v1["body402"]["accepts"][0];
    let requirements = json!({
        "scheme": "exact", "network": "eip155:84532", "amount": "10000", "asset": ours["asset"],
        "payTo": ours["payTo"], "maxTimeoutSeconds": 300, "extra": ours["extra"],
    });
    let resource = ResourceInfo {
        url: text(ours, "resource").to_owned(),
        description: text(ours, "description").to_owned(),
        mime_type: text(ours, "mimeType").to_owned(),
        service_name: None,
    };
    let permit2 = &group("permit2", 12)[0]["requirements"];
    let offers = [Arc::new(offer(permit2)), Arc::new(offer(&requirements))];
    let body = String::from_utf8(render(&offers, &resource, None).body).unwrap();
    assert_eq!(body, v1["body402"].to_string());

    let refused = render(&offers, &resource, Some("some_reason"));
    let body: Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!(body["error"], "some_reason");
    let v2 = header::decode(refused.header.as_bytes(), 10_000).unwrap();
    assert_eq!(v2["error"], "some_reason");
    assert_eq!(v2["accepts"].as_array().unwrap().len(), 2);
}

#[test]
fn without_an_offer_for_legacy_clients_the_body_is_an_empty_object() {
    let permit2 = Arc::new(offer(&group("permit2", 12)[0]["requirements"]));
    let no_v1_name = Arc::new(offer(&group("valid", 12)[2]["requirements"]));
    assert_eq!(no_v1_name.v1_network, None);
    let challenge = render(&[permit2, no_v1_name], &ResourceInfo::default(), None);
    assert_eq!(challenge.body, b"{}");
}

proptest! {
    #[test]
    fn a_prepared_challenge_is_the_rendered_one(
        which in proptest::collection::vec(0_usize..24, 1..4),
        origin in "https://[a-z.]{1,9}(:[0-9]{2,4})?",
        path in "(/[A-Za-z0-9._~!$&'()*+,=:@%-]{0,12}){1,4}",
        description in ".{0,20}", mime_type in "[a-z/\"{}]{0,9}", service in proptest::option::of("[ -~]{1,9}"),
    ) {
        let vectors: Vec<_> = [group("valid", 12), group("permit2", 12)].concat();
        let offers: Vec<_> = which.iter().map(|n| Arc::new(offer(&vectors[*n]["requirements"]))).collect();
        let resource = ResourceInfo { url: origin.clone(), description, mime_type, service_name: service };
        let prepared = Prepared::new(&offers, &resource).unwrap();
        let resource = ResourceInfo { url: format!("{origin}{path}"), ..resource };
        prop_assert_eq!(prepared.fill(&path), Some(render(&offers, &resource, None)));
    }
}

#[test]
fn a_description_that_looks_like_the_place_of_the_path_is_not_taken_for_it() {
    let offers = [Arc::new(offer(&group("valid", 12)[0]["requirements"]))];
    let resource = ResourceInfo {
        description: format!("GET {PATH}"),
        ..ResourceInfo::default()
    };
    assert!(Prepared::new(&offers, &resource).is_none());
}
