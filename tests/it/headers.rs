//! What passes in either direction, and what never does.

use reqwest::Method;

use crate::support::{Setup, Signer, Wall, offer, send};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_speak_for_the_wall_on_any_route() {
    let wall = Wall::start().await;
    let mut request = wall.request(Method::GET, "/health").header("X-Kept", "yes");
    let forged = [
        "X-Farewall-Payer",
        "x_farewall_payer",
        "X-FAREWALL_Amount",
        "PAYMENT-SIGNATURE",
        "payment_required",
        "X-PAYMENT",
        "x_payment",
        "SIGN-IN-WITH-X",
        "Settlement-Overrides",
        "X-HTTP-Method-Override",
        "X-Method-Override",
        "X-HTTP-Method",
        "X-Original-URL",
        "X-Rewrite-URL",
        "x_original_url",
        "X-Forwarded-For",
        "Forwarded",
        "X-Real-IP",
        "Proxy-Authorization",
    ];
    for name in forged {
        request = request.header(name, "forged");
    }
    assert_eq!(send(request).await.status, 200);
    let seen = wall.origin.last();
    assert_eq!(seen.header("x-kept"), Some("yes"));
    let leaked: Vec<_> = seen
        .headers
        .iter()
        .filter(|(_, value)| value.contains("forged"))
        .collect();
    assert!(leaked.is_empty(), "{leaked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_cannot_speak_for_the_wall() {
    let rules = "[[rule]]\nname = \"leaky\"\npath = \"/free/leaky\"\nfree = true\n\
                 [[rule]]\nname = \"paid\"\npath = \"/paid/leaky\"\nprice = \"$0.001\"\n";
    let wall = Setup::rules(rules).start().await;
    let free = wall.get("/free/leaky").await;
    let paid = wall
        .pay("/paid/leaky", &Signer::new().proof(&offer(1000)))
        .await;
    for answer in [&free, &paid] {
        assert_eq!(answer.body, "leaky");
        for name in [
            "payment-required",
            "x-payment-response",
            "settlement-overrides",
            "x-farewall-secret",
            "farewall-shadow",
        ] {
            assert_eq!(answer.header(name), None, "{name}");
        }
    }
    assert_eq!(free.header("payment-response"), None);
    assert_eq!(paid.receipt()["success"], true);
    assert_eq!(paid.header("cache-control"), Some("max-age=60, private"));
    assert_eq!(
        free.header("cache-control"),
        Some("public, max-age=60, s-maxage=600")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_and_ranges_do_not_reach_a_priced_handler_unless_the_rule_says_so() {
    let rules = "[[rule]]\nname = \"whole\"\npath = \"/whole\"\nprice = \"$0.001\"\n\
                 [[rule]]\nname = \"parts\"\npath = \"/parts\"\nprice = \"$0.001\"\nforward_conditional = true\n";
    let wall = Setup::rules(rules).start().await;
    for (path, passes) in [("/whole", false), ("/parts", true)] {
        let request = wall
            .request(Method::GET, path)
            .header("PAYMENT-SIGNATURE", Signer::new().proof(&offer(1000)))
            .header("If-None-Match", "\"v1\"")
            .header("Range", "bytes=0-1");
        assert_eq!(send(request).await.status, 200);
        let seen = wall.origin.last();
        assert_eq!(seen.header("if-none-match").is_some(), passes, "{path}");
        assert_eq!(seen.header("range").is_some(), passes, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_origin_gets_its_key_its_path_and_where_the_client_came_from() {
    let setup = Setup {
        upstream: "headers = { \"X-Api-Key\" = \"s3cret\" }\nhost = \"origin.internal\"\n\
                   strip_prefix = \"/v1\"\nadd_prefix = \"/api\""
            .to_owned(),
        ..Setup::rules("[[rule]]\nname = \"all\"\npath = \"/v1/{*rest}\"\nfree = true\n")
    };
    let wall = setup.start().await;
    let request = wall
        .request(Method::GET, "/v1/x/y?q=1")
        .header("Host", "shop.example")
        .header("X-Api-Key", "guess");
    assert_eq!(send(request).await.status, 200);
    let seen = wall.origin.last();
    assert_eq!(seen.target, "/api/x/y?q=1");
    assert_eq!(seen.header("host"), Some("origin.internal"));
    assert_eq!(seen.header("x-api-key"), Some("s3cret"));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-host"), Some("shop.example"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(
        seen.header("forwarded"),
        Some("for=127.0.0.1;host=\"shop.example\";proto=http")
    );
    assert_eq!(seen.header("x-request-id").map(str::len), Some(32));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_is_believed() {
    let setup = Setup {
        server: "trusted_proxies = [\"127.0.0.0/8\"]".to_owned(),
        ..Setup::default()
    };
    let wall = setup.start().await;
    let request = wall
        .request(Method::GET, "/health")
        .header("X-Forwarded-For", "192.0.2.7")
        .header("X-Forwarded-Proto", "https")
        .header("Forwarded", "for=192.0.2.7");
    assert_eq!(send(request).await.status, 200);
    let seen = wall.origin.last();
    assert_eq!(seen.header("x-forwarded-for"), Some("192.0.2.7, 127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert!(
        seen.header("forwarded")
            .unwrap()
            .starts_with("for=192.0.2.7, for=127.0.0.1;")
    );
}
