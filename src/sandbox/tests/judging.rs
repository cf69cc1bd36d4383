//! What the sandbox accepts, without a socket.

use super::*;

/// Judges a request without a socket; `"valid"` or the reason.
#[track_caller]
fn check(request: &Value, want: &str) {
    let submitted = Submitted::parse(request.to_string().as_bytes()).unwrap();
    let got = check::judge(&submitted, NOW).map_or_else(|r| r.reason, |_| "valid");
    assert_eq!(got, want, "{request:#}");
}

#[track_caller]
fn check_signed(terms: Terms, want_eip3009: &str, want_permit2: &str) {
    check(&body(eip3009_payload(terms), requirement()), want_eip3009);
    check(
        &body(permit2_payload(terms, USDC), requirement()),
        want_permit2,
    );
}

#[test]
fn a_signed_authorization_is_judged_by_what_it_says() {
    check_signed(GOOD, "valid", "valid");
    let to = Address::repeat_byte(1);
    check_signed(
        Terms { to, ..GOOD },
        "invalid_exact_evm_recipient_mismatch",
        "invalid_permit2_recipient_mismatch",
    );
    for value in [PRICE - 1, PRICE + 1] {
        check_signed(
            Terms { value, ..GOOD },
            "invalid_exact_evm_payload_authorization_value_mismatch",
            "permit2_amount_mismatch",
        );
    }
    let valid_after = NOW.0 + 1;
    check_signed(
        Terms {
            valid_after,
            ..GOOD
        },
        "invalid_exact_evm_payload_authorization_valid_after",
        "permit2_not_yet_valid",
    );
    let valid_before = NOW.0 + 5;
    check_signed(
        Terms {
            valid_before,
            ..GOOD
        },
        "invalid_exact_evm_payload_authorization_valid_before",
        "permit2_deadline_expired",
    );
    let other_token = permit2_payload(GOOD, Address::repeat_byte(2));
    check(&body(other_token, requirement()), "permit2_token_mismatch");
}

/// A good request in which one member, by JSON pointer, is replaced.
#[track_caller]
fn check_with(payload: Value, pointer: &str, value: Value, want: &str) {
    let mut request = body(payload, requirement());
    *request.pointer_mut(pointer).unwrap() = value;
    check(&request, want);
}

#[test]
fn a_request_that_was_tampered_with_is_refused() {
    let with = |pointer: &str, value: Value, want: &str| {
        check_with(eip3009_payload(GOOD), pointer, value, want);
    };
    let requirements = |name: &str| format!("/paymentRequirements/{name}");
    with("/x402Version", json!(1), "invalid_x402_version");
    with(
        "/paymentPayload/x402Version",
        json!(1),
        "invalid_x402_version",
    );
    with(
        &requirements("scheme"),
        json!("upto"),
        "invalid_exact_evm_scheme",
    );
    with(
        "/paymentPayload/accepted/scheme",
        json!("upto"),
        "invalid_exact_evm_scheme",
    );
    with(
        "/paymentPayload/accepted/network",
        json!("eip155:8453"),
        "invalid_exact_evm_network_mismatch",
    );
    with(
        &requirements("extra/version"),
        json!(""),
        "invalid_exact_evm_missing_eip712_domain",
    );
    with(
        &requirements("extra/version"),
        json!("1"),
        "invalid_exact_evm_signature",
    );
    with(
        &requirements("amount"),
        json!("1e3"),
        "invalid_payment_requirements",
    );
    let authorization = "/paymentPayload/payload/authorization";
    let signature = "invalid_exact_evm_signature";
    with(&format!("{authorization}/value"), json!("1"), signature);
    with(
        &format!("{authorization}/from"),
        json!(SELLER.to_string()),
        signature,
    );
    with(
        "/paymentPayload/payload/signature",
        json!("0x00"),
        signature,
    );
    with(
        "/paymentPayload/payload/signature",
        json!(format!("0x{}", "11".repeat(200))),
        signature,
    );
}

#[test]
fn a_permit2_request_that_was_tampered_with_is_refused() {
    let permit2 = "/paymentPayload/payload/permit2Authorization";
    check_with(
        permit2_payload(GOOD, USDC),
        &format!("{permit2}/spender"),
        json!(permit2::UPTO_PROXY.to_string()),
        "invalid_permit2_spender",
    );
    check_with(
        permit2_payload(GOOD, USDC),
        &format!("{permit2}/nonce"),
        json!("1"),
        "invalid_permit2_signature",
    );
}

#[test]
fn a_high_s_and_another_recovery_byte_are_refused() {
    let payload = eip3009_payload(GOOD);
    let text = payload.get("signature").and_then(Value::as_str).unwrap();
    let mut bytes = hex::decode(text).unwrap();
    let order = U256::from_be_bytes(hex!(
        "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
    ));
    let s = U256::from_be_slice(&bytes[32..64]);
    let mut twin = bytes.clone();
    twin[32..64].copy_from_slice(&(order - s).to_be_bytes::<32>());
    twin[64] = 55 - twin[64];
    bytes[64] -= 27;
    for wrong in [twin, bytes] {
        check_with(
            payload.clone(),
            "/paymentPayload/payload/signature",
            json!(hex::encode_prefixed(&wrong)),
            "invalid_exact_evm_signature",
        );
    }
}

/// Every vector for a test network and `exact` gets the official verdict.
#[test]
fn the_published_vectors_are_judged_as_the_official_facilitator_does() {
    let text = include_str!("../../../tests/vectors/x402-exact-evm.json");
    let vectors: Value = serde_json::from_str(text).unwrap();
    let groups = ["valid", "invalid", "permit2"];
    let all = groups
        .iter()
        .flat_map(|name| vectors[*name].as_array().unwrap());
    let mut judged = 0;
    for vector in all {
        let requirement = &vector["requirements"];
        let header = ["headerValue", "paymentSignatureHeader"].map(|name| &vector[name]);
        let header = header.into_iter().find_map(Value::as_str).unwrap();
        let Ok(payment) = header::decode(header.as_bytes(), usize::MAX) else {
            continue;
        };
        let is_ours = requirement["network"] == "eip155:84532"
            && requirement["scheme"] == "exact"
            && !["decode", "match"]
                .map(Value::from)
                .contains(&vector["stage"]);
        if !is_ours {
            continue;
        }
        let want = match vector["stage"].as_str() {
            Some("simulate") => "invalid_exact_evm_signature",
            Some("divergent") => "invalid_payload",
            Some(_) | None => {
                let reason = vector.pointer("/expect/verify/invalidReason");
                reason.and_then(Value::as_str).unwrap_or("valid")
            }
        };
        let request = json!({"x402Version": 2, "paymentPayload": payment, "paymentRequirements": requirement});
        check(&request, want);
        judged += 1;
    }
    assert_eq!(judged, 4 + 20 + 8);
}

#[test]
fn a_mainnet_is_refused_whatever_is_signed() {
    for name in [
        "eip155:8453",
        "eip155:1",
        "eip155:999999",
        "solana:x",
        "base-sepolia",
    ] {
        let mut requirement = requirement();
        requirement["network"] = json!(name);
        check(&body(eip3009_payload(GOOD), requirement), "invalid_network");
    }
    let supported = Sandbox::supported();
    assert!(supported.v2("exact", "eip155:84532").is_some());
    for kind in &supported.kinds {
        assert!(assets::is_testnet(
            &Network::parse_caip2(&kind.network).unwrap()
        ));
    }
}
