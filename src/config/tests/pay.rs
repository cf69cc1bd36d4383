//! Ways of being paid and prices.

use super::*;

#[test]
fn a_way_of_being_paid_that_would_lose_money_is_refused() {
    let pay_to = "\"0x70997970C51812dc3A010C7d01b50e0d17dc79C8\"";
    let wrong_digit = "\"0x70997970C51812dc3A010C7d01b50e0d17dc79C9\"";
    let zero = "\"0x0000000000000000000000000000000000000000\"";
    let token = "\"0x036CbD53842c5426634e7929541eC2318f3dCF7e\"";
    check_instead(pay_to, wrong_digit, ("bad-recipient", 7, 10, wrong_digit));
    check_instead(pay_to, zero, ("bad-recipient", 7, 10, zero));
    check_instead(pay_to, token, ("bad-recipient", 7, 10, token));
    check_instead(pay_to, "\"me\"", ("bad-recipient", 7, 10, "\"me\""));
    check_instead(
        "\"base-sepolia\"",
        "\"bass\"",
        ("unknown-network", 6, 11, "\"bass\""),
    );
    check_instead(
        "\"base-sepolia\"",
        "\"solana\"",
        ("bad-recipient", 7, 10, pay_to),
    );
}

#[test]
fn real_money_never_goes_through_a_sandbox() {
    let text = BASE.replace("f.example\"", "f.example\"\nsandbox = true");
    settings_of(&text);
    let main = text.replace("base-sepolia", "base");
    check(&main, ("mainnet-through-sandbox", 7, 11, "\"base\""));
    let unknown = text.replace("\"base-sepolia\"", "\"eip155:7777\"\nasset = \"0x036CbD53842c5426634e7929541eC2318f3dCF7e\"\nsymbol = \"X\"\ndecimals = 6\ntransfer_method = \"permit2\"");
    check(
        &unknown,
        ("mainnet-through-sandbox", 7, 11, "\"eip155:7777\""),
    );
}

#[test]
fn a_token_that_is_not_built_in_must_be_described() {
    let asset = "asset = \"0x000000000022D473030F116dDEE9F6B43aC78BA3\"";
    let with = |more: &str| {
        BASE.replace(
            "\"base-sepolia\"",
            &format!("\"base-sepolia\"\n{asset}\n{more}"),
        )
    };
    let codes = |more: &str| -> Vec<_> {
        diagnostics(&with(more))
            .iter()
            .map(|d| (d.code, d.message.clone()))
            .collect()
    };
    let lacks = |key: &str| ("missing-key", format!("[accept.usdc] has no `{key}`"));
    assert_eq!(codes(""), [lacks("symbol"), lacks("decimals")]);
    assert_eq!(
        codes("symbol = \"EURC\"\ndecimals = 6"),
        [lacks("eip712_name"), lacks("eip712_version")]
    );
    let accept = |more: &str| settings_of(&with(more)).accepts.remove("usdc").unwrap();
    let permit2 = accept("symbol = \"DAI\"\ndecimals = 18\ntransfer_method = \"permit2\"");
    assert_eq!(permit2.method, AcceptMethod::Permit2 { eip2612: None });
    assert!(!permit2.is_dollar);
    let eurc =
        accept("symbol = \"EURC\"\ndecimals = 6\neip712_name = \"EURC\"\neip712_version = \"2\"");
    let domain = ("EURC".to_owned(), "2".to_owned());
    assert_eq!(
        eurc.method,
        AcceptMethod::Eip3009 {
            name: domain.0,
            version: domain.1
        }
    );
    check_instead(
        "\"base-sepolia\"",
        "\"base-sepolia\"\nasset = \"USDT\"",
        ("unknown-asset", 7, 9, "\"USDT\""),
    );
    check_instead(
        "\"base-sepolia\"",
        "\"base-sepolia\"\ndecimals = 18",
        ("contradiction", 7, 12, "18"),
    );
}

#[test]
fn a_price_is_exact_or_refused() {
    for (price, code) in [
        ("$0.0000001", "price-too-precise"),
        ("0.0000001 USDC", "price-too-precise"),
        ("$0.0000000", "price-zero"),
        ("0 atomic", "price-zero"),
        ("0.1 EURC", "price-unpayable"),
        ("0.1", "bad-price"),
        ("$1e3", "bad-price"),
        ("$-1", "bad-price"),
        ("$NaN", "bad-price"),
        ("$.5", "bad-price"),
        ("$340282366920938463463374607431768211456", "bad-price"),
    ] {
        let quoted = format!("\"{price}\"");
        check_rule(&format!("price = {quoted}"), (code, 4, 9, &quoted));
    }
    let rule = "[[rule]]\nname = \"a\"\npath = \"/a\"\nprice = \"$0.0000001\"\n";
    let message = diagnostics(&format!("{BASE}{rule}")).remove(0).message;
    assert_eq!(
        message,
        "the price \"$0.0000001\" has 7 decimal places, USDC of [accept.usdc] has 6"
    );
}

#[test]
fn the_amount_is_computed_for_every_accept_that_can_express_the_price() {
    let more = r#"
[accept.musd]
network = "mezo-testnet"
pay_to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
[accept.euro]
network = "base-sepolia"
asset = "0x000000000022D473030F116dDEE9F6B43aC78BA3"
symbol = "EURC"
decimals = 2
transfer_method = "permit2"
pay_to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
[[rule]]
name = "a"
path = "/a"
"#;
    let amounts = |keys: &str| -> Vec<(String, u128)> {
        let settings = settings_of(&format!("{BASE}{more}{keys}\n"));
        let RuleAccess::Priced(priced) = &settings.rules[0].access else {
            panic!("no price");
        };
        let pair = |(name, amount): &(Arc<str>, AtomicAmount)| (name.to_string(), amount.units());
        priced.accepts.iter().map(pair).collect()
    };
    let own = |list: &[(&str, u128)]| -> Vec<_> {
        list.iter()
            .map(|(name, units)| ((*name).to_owned(), *units))
            .collect()
    };
    let both = own(&[("usdc", 10_000), ("musd", 10_000_000_000_000_000)]);
    assert_eq!(amounts("price = \"$0.01\""), both);
    assert_eq!(amounts("price = \"0.01 EURC\""), own(&[("euro", 1)]));
    let turned = "price = \"$0.01\"\naccept = [\"musd\", \"usdc\"]";
    assert_eq!(amounts(turned), both.into_iter().rev().collect::<Vec<_>>());
    assert_eq!(
        amounts("price = \"7 atomic\"\naccept = [\"euro\"]"),
        own(&[("euro", 7)])
    );

    let rule = |keys: &str, want: (&str, usize, usize, &str)| {
        check_more(&format!("{more}{keys}\n"), want);
    };
    rule(
        "price = \"7 atomic\"",
        ("ambiguous-price", 15, 9, "\"7 atomic\""),
    );
    rule(
        "price = \"$1\"\naccept = [\"euro\"]",
        ("price-unpayable", 16, 10, "[\"euro\"]"),
    );
    rule(
        "price = \"$1\"\naccept = [\"usd\"]",
        ("unknown-name", 16, 11, "\"usd\""),
    );
    rule(
        "price = \"$1\"\naccept = [\"usdc\", \"usdc\"]",
        ("listed-twice", 16, 19, "\"usdc\""),
    );
    rule("price = \"$1\"\naccept = []", ("empty-list", 16, 10, "[]"));
}

#[test]
fn other_schemes_and_chains_are_left_to_their_facilitator() {
    let solana = BASE.replace("base-sepolia", "solana-devnet").replace(
        "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
        "4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU",
    );
    // That is the mint itself, which is nobody's account.
    check(
        &solana,
        (
            "bad-recipient",
            7,
            10,
            "\"4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU\"",
        ),
    );
    let solana = solana.replace(
        "4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU",
        "CXk2AMBfi3TwaEL2468s6zP8xq9NxTXjp9gjMgzeUynM",
    );
    assert_eq!(
        settings_of(&solana).accepts["usdc"].method,
        AcceptMethod::Opaque
    );
    let upto = BASE.replace(
        "\"base-sepolia\"",
        "\"base-sepolia\"\nscheme = \"upto\"\nextra = { a = [1, 2.5, true], name = \"USDC\" }",
    );
    let accept = &settings_of(&upto).accepts["usdc"];
    assert_eq!(accept.method, AcceptMethod::Opaque);
    let extra = serde_json::json!({"a": [1, 2.5, true], "name": "USDC"});
    assert_eq!(serde_json::Value::Object(accept.extra.clone()), extra);
    check_instead(
        "\"base-sepolia\"",
        "\"base-sepolia\"\nextra = { name = \"USDC\" }",
        ("contradiction", 7, 11, "name"),
    );
}
