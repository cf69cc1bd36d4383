//! Another proxy forwards, and asks the wall before: nginx, Caddy and Envoy, as we ship their
//! configurations, and the ways in which Traefik and Envoy ask, to the byte.

mod fronts;

use std::net::SocketAddr;

use farewall::sandbox::{Misbehaviour, Misdeed, Scope};
use reqwest::Method;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use self::fronts::{ALL, Front, asked_wall, front, front_for};
use crate::support::{Answer, Signer, client, eventually, offer, raw_request, send};

/// What an unpaid request gets, but for what differs from answer to answer.
fn told(answer: &Answer) -> (u16, Vec<Option<&str>>, &str) {
    let headers = ["payment-required", "content-type", "cache-control"];
    let headers = headers.map(|name| answer.header(name)).to_vec();
    (answer.status, headers, &answer.body)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_payment_the_client_gets_the_walls_own_challenge() {
    for name in ALL {
        let Some(front) = front(name).await else {
            continue;
        };
        for method in [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS] {
            let path = "/before/report?of=today";
            let asked = send(front.request(method.clone(), path)).await;
            let direct = send(front.wall.request(method.clone(), path)).await;
            assert_eq!(asked.status, 402, "{name} {method}");
            assert!(asked.header("payment-required").is_some());
            let mut expected = told(&direct);
            if name == "envoy" && method == Method::HEAD {
                // It takes the type of a body away with the body.
                expected.1[1] = None;
            }
            assert_eq!(told(&asked), expected, "{name} {method}");
        }
        // Of 5xx, Envoy would make a bare 403.
        let unsold = if name == "envoy" { 409 } else { 501 };
        for (path, status) in [("/admin/x", 403), ("/nowhere", 404), ("/v1/quote", unsold)] {
            assert_eq!(front.get(path).await.status, status, "{name} {path}");
        }
        assert_eq!(front.wall.origin.seen().len(), 0, "{name}");
        assert_eq!(front.wall.sandbox.stats().verify_calls, 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_request_reaches_the_origin_as_it_was_with_who_paid() {
    for name in ALL {
        let Some(front) = front(name).await else {
            continue;
        };
        let signer = Signer::new();
        let request = front
            .request(Method::POST, "/before/echo?a=b%20c&d")
            .header("PAYMENT-SIGNATURE", signer.proof(&offer(3000)))
            .header("X-Farewall-Payer", "0xforged")
            .body("the body of the request");
        let answer = send(request).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.body);
        assert_eq!(answer.receipt()["success"], true, "{name}");
        // Envoy leaves that to the origin.
        let cache = answer.header("cache-control").unwrap_or_default();
        assert!(
            name == "envoy" || cache.contains("private"),
            "{name}: {cache}"
        );
        let seen = front.wall.origin.last();
        assert_eq!(seen.method, "POST", "{name}");
        assert_eq!(seen.target, "/before/echo?a=b%20c&d", "{name}");
        assert_eq!(seen.body, "the body of the request", "{name}");
        assert_eq!(
            seen.header("x-farewall-payer").map(str::to_lowercase),
            Some(signer.address.to_string().to_lowercase()),
            "{name}"
        );
        for (header, value) in [
            ("x-farewall-amount", Some("3000")),
            ("x-farewall-rule", Some("before")),
            ("x-farewall-network", Some("eip155:84532")),
            ("payment-signature", None),
            ("x-accel-redirect", None),
        ] {
            assert_eq!(seen.header(header), value, "{name} {header}");
        }
        assert!(seen.header("x-farewall-payment-id").is_some(), "{name}");
        eventually("it is delivered", || front.wall.states() == ["delivered"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn version_1_clients_get_their_receipt_too() {
    for name in ALL {
        let Some(front) = front(name).await else {
            continue;
        };
        let proof = Signer::new().proof_v1(&offer(3000));
        let request = front.request(Method::GET, "/before/report");
        let answer = send(request.header("X-PAYMENT", proof)).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.body);
        assert!(answer.header("x-payment-response").is_some(), "{name}");
        assert_eq!(answer.header("payment-response"), None, "{name}");
        let seen = front.wall.origin.last();
        assert_eq!(seen.header("x-payment"), None, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_buys_one_request_and_no_copy_of_it() {
    for name in ALL {
        let Some(front) = front(name).await else {
            continue;
        };
        let proof = Signer::new().proof(&offer(3000));
        assert_eq!(
            front.pay(Method::GET, "/before/one", &proof).await.status,
            200
        );
        // The answer is written before the ledger says so.
        eventually("it is delivered", || front.wall.states() == ["delivered"]);
        for (method, path) in [
            (Method::GET, "/before/one"),
            (Method::GET, "/before/two"),
            (Method::POST, "/before/one"),
        ] {
            let again = front.pay(method.clone(), path, &proof).await;
            assert_eq!(
                (again.status, again.reason().as_str()),
                (402, "payment_already_used"),
                "{name} {method} {path}"
            );
        }
        let direct = front.wall.pay("/before/one", &proof).await;
        assert_eq!(direct.reason(), "payment_already_used", "{name}");
        assert_eq!(front.wall.origin.seen().len(), 1, "{name}");
        assert_eq!(front.wall.sandbox.stats().settle_calls, 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_origin_fails_after_the_payment_is_paid() {
    for name in ALL {
        let Some(front) = front(name).await else {
            continue;
        };
        let proof = Signer::new().proof(&offer(3000));
        let path = "/before/fail?status=500";
        let failed = front.pay(Method::GET, path, &proof).await;
        assert_eq!(failed.status, 500, "{name}");
        assert_eq!(
            failed.receipt()["success"],
            true,
            "{name}: who paid can show it"
        );
        eventually("it is delivered", || front.wall.states() == ["delivered"]);
        assert_eq!(
            front.pay(Method::GET, path, &proof).await.status,
            402,
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_client_says_stands_for_the_wall() {
    for name in ALL {
        let Some(front) = front(name).await else {
            continue;
        };
        let free = || front.request(Method::GET, "/health");
        let mut request = free();
        for header in [
            "X-Farewall-Payer",
            "X-Farewall-Amount",
            "X-Farewall-Payment-Id",
            "X-Farewall-Rule",
            "PAYMENT-SIGNATURE",
            "X-PAYMENT",
            "X-HTTP-Method-Override",
            "X-HTTP-Method",
            "X-Method-Override",
            "X-Original-URL",
            "X-Original-URI",
            "X-Original-Method",
            "X-Original-Path",
            "X-Rewrite-URL",
            "X-Rewrite-URI",
            "X-Replaced-Path",
            "X-Script-Name",
            "X-Envoy-Original-Path",
        ] {
            request = request.header(header, "forged");
        }
        assert_eq!(send(request).await.status, 200, "{name}");
        let seen = front.wall.origin.last();
        let forged = seen.headers.iter().filter(|(_, value)| value == "forged");
        assert_eq!(
            forged.collect::<Vec<_>>(),
            Vec::<&(String, String)>::new(),
            "{name}"
        );

        // nginx and Caddy drop a name in disguise, Envoy refuses it.
        let disguised = send(free().header("x_farewall_payer", "forged")).await;
        let expected = if name == "envoy" { 400 } else { 200 };
        assert_eq!(disguised.status, expected, "{name}");
        let seen = front.wall.origin.last();
        assert_eq!(seen.header("x_farewall_payer"), None, "{name}");

        // And the ask is about the request that came, whatever it says that it was.
        let before = front.wall.origin.seen().len();
        for (header, value) in [
            ("X-Forwarded-Uri", "/health"),
            ("X-Forwarded-Method", "OPTIONS"),
            ("X-Original-URL", "/health"),
            ("X-Accel-Redirect", "@farewall_pass"),
            ("X-Rewrite-URL", "/health"),
            ("Connection", "X-Forwarded-Uri, X-Forwarded-Method"),
        ] {
            let request = front.request(Method::GET, "/before/report");
            let answer = send(request.header(header, value)).await;
            assert!(answer.status >= 400, "{name} {header}: {}", answer.status);
        }
        assert_eq!(front.wall.origin.seen().len(), before, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_path_is_a_way_round_the_price() {
    for name in ALL {
        let Some(front) = front(name).await else {
            continue;
        };
        for target in [
            "/health/../before/report",
            "/health/%2e%2e/before/report",
            "/health%2f..%2fbefore/report",
            "//before/report",
            "/before//report",
            "/./before/report",
            "/%62efore/report",
            "/before%2freport",
            "/before%2Freport",
            "/before/report;x=/health",
            "/before\\report",
            "/before%5creport",
            "/before/report%00",
            "/BEFORE/report",
            "/before/report/",
            "/health#/before/report",
            "/health?_method=POST",
            "/%2562efore/report",
            "/health/.%2e/before/report",
        ] {
            assert_unpaid(&front, target).await;
        }
        let absolute = format!("http://{}/before/report", front.address);
        assert_unpaid(&front, &absolute).await;
    }
}

#[track_caller]
fn assert_unpaid(front: &Front, target: &str) -> impl Future<Output = ()> {
    let name = front.name;
    let host = front.address;
    async move {
        let before = front.wall.origin.seen().len();
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = raw_request(front.address, request.as_bytes()).await;
        assert!(answer.status >= 400, "{name} {target}: {}", answer.head);
        assert_eq!(front.wall.origin.seen().len(), before, "{name} {target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_is_answered_by_the_wall_and_never_passes() {
    for name in ALL {
        let Some(front) = front(name).await else {
            continue;
        };
        let request = front
            .request(Method::OPTIONS, "/before/report")
            .header("Origin", "https://app.example")
            .header("Access-Control-Request-Method", "GET");
        let answer = send(request).await;
        assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{name}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        let allowed = answer.header("access-control-allow-headers").unwrap();
        assert!(allowed.contains("PAYMENT-SIGNATURE"), "{name}: {allowed}");
        assert_eq!(front.wall.origin.seen().len(), 0, "{name}");
        let unpaid = front.request(Method::GET, "/before/report");
        let unpaid = send(unpaid.header("Origin", "https://app.example")).await;
        assert_eq!(unpaid.header("access-control-allow-origin"), Some("*"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_not_trusted_gets_nothing_through() {
    for name in ALL {
        let Some(front) = front_for(name, "192.0.2.1").await else {
            continue;
        };
        let proof = Signer::new().proof(&offer(3000));
        for path in ["/health", "/before/report"] {
            let answer = front.pay(Method::GET, path, &proof).await;
            assert_eq!(
                (answer.status, answer.error().as_str()),
                (403, "peer_not_trusted"),
                "{name} {path}"
            );
        }
        assert_eq!(front.wall.origin.seen().len(), 0, "{name}");
        assert_eq!(front.wall.sandbox.stats().verify_calls, 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_wall_nothing_passes() {
    for name in ALL {
        let Some(mut front) = front(name).await else {
            continue;
        };
        front.wall.kill();
        for path in ["/health", "/before/report"] {
            assert_eq!(front.get(path).await.status, 502, "{name} {path}");
        }
        assert_eq!(front.wall.origin.seen().len(), 0, "{name}");
    }
}

/// Asks as Caddy and Traefik do.
fn ask(asked: SocketAddr, method: &str, target: &str) -> reqwest::RequestBuilder {
    client()
        .get(format!("http://{asked}/"))
        .header("X-Forwarded-Method", method)
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "api.example.com")
        .header("X-Forwarded-Uri", target)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_asks_that_can_mean_one_thing_are_answered() {
    let (wall, asked) = asked_wall("traefik", "127.0.0.1").await;
    let free = send(ask(asked, "GET", "/health")).await;
    assert_eq!((free.status, free.body.as_str()), (200, ""));
    assert_eq!(free.header("x-accel-redirect"), None);
    let bare = client().get(format!("http://{asked}/health"));
    assert_eq!(send(bare).await.status, 400, "its own path means nothing");
    let twice = ask(asked, "GET", "/health").header("X-Forwarded-Uri", "/before/report");
    assert_eq!(send(twice).await.status, 400);
    for target in [
        "/%68ealth",
        "/health/",
        "https://api.example.com/health",
        "*",
        "",
    ] {
        let answer = send(ask(asked, "GET", target)).await;
        let may_pass = target == "/health/";
        assert_eq!(
            answer.status == 200,
            may_pass,
            "{target}: {}",
            answer.status
        );
    }
    for method in ["TRACE", "CONNECT"] {
        assert_eq!(
            send(ask(asked, method, "/health")).await.status,
            405,
            "{method}"
        );
    }
    let preflight = ask(asked, "OPTIONS", "/before/report")
        .header("Origin", "https://app.example")
        .header("Access-Control-Request-Method", "GET");
    let preflight = send(preflight).await;
    assert_eq!(preflight.status, 403, "2xx would mean: may pass");
    assert_eq!(preflight.header("x-farewall-preflight"), Some("204"));
    let after = send(ask(asked, "GET", "/v1/quote")).await;
    assert_eq!(after.error(), "settles_after_delivery");
    assert_eq!(wall.origin.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_disguise_is_refused_because_the_proxy_would_hand_it_on() {
    let (_wall, asked) = asked_wall("traefik", "127.0.0.1").await;
    for name in [
        "x_farewall_payer",
        "x.farewall.payer",
        "x_http_method_override",
        "x-script_name",
        "x_forwarded_for",
    ] {
        let disguised = ask(asked, "GET", "/health").header(name, "1");
        assert_eq!(send(disguised).await.status, 400, "{name}");
    }
    for name in ["x-farewall-payer", "x.custom", "my_header"] {
        let plain = ask(asked, "GET", "/health").header(name, "1");
        assert_eq!(send(plain).await.status, 200, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_asks_with_the_request_itself() {
    let (wall, asked) = asked_wall("envoy", "127.0.0.1").await;
    let itself = |method: Method, path: &str| {
        // What a client could have smuggled in says nothing here.
        let request = client().request(method, format!("http://{asked}{path}"));
        request
            .header("Host", "api.example.com")
            .header("X-Forwarded-Uri", "/health")
            .header("X-Forwarded-Method", "GET")
    };
    for method in [Method::GET, Method::HEAD, Method::PUT] {
        let answer = send(itself(method.clone(), "/before/report")).await;
        assert_eq!(answer.status, 402, "{method}");
    }
    assert_eq!(send(itself(Method::GET, "/%68ealth")).await.status, 400);
    let unsold = send(itself(Method::GET, "/v1/quote")).await;
    assert_eq!(unsold.status, 409, "Envoy would make a bare 403 of a 501");
    let proof = Signer::new().proof(&offer(3000));
    let paid = itself(Method::PUT, "/before/report").header("PAYMENT-SIGNATURE", &proof);
    let paid = send(paid).await;
    assert_eq!(paid.status, 200);
    assert_eq!(paid.header("x-farewall-amount"), Some("3000"));
    assert_eq!(paid.receipt()["success"], true);
    eventually("it is delivered", || wall.states() == ["delivered"]);
    let preflight = itself(Method::OPTIONS, "/before/report")
        .header("Origin", "https://app.example")
        .header("Access-Control-Request-Method", "GET");
    assert_eq!(
        send(preflight).await.status,
        204,
        "Envoy lets 200 alone pass"
    );
    assert_eq!(
        wall.origin.seen().len(),
        0,
        "the wall forwards nothing here"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_whose_leave_nobody_waited_for_still_buys_the_request() {
    let (wall, asked) = asked_wall("caddy", "127.0.0.1").await;
    wall.sandbox.misbehave(Misbehaviour {
        kind: Misdeed::SlowBody { ms: 700 },
        scope: Scope::Settle,
        times: 1,
    });
    let proof = Signer::new().proof(&offer(3000));
    let mut stream = TcpStream::connect(asked).await.unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: wall\r\nX-Forwarded-Method: POST\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: api.example.com\r\nX-Forwarded-Uri: /before/report\r\n\
         PAYMENT-SIGNATURE: {proof}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    eventually("it settles", || wall.sandbox.stats().settle_calls == 1);
    drop(stream);
    eventually("it is paid, and owed", || wall.states() == ["settled"]);
    let again = ask(asked, "POST", "/before/report").header("PAYMENT-SIGNATURE", &proof);
    let again = send(again).await;
    assert_eq!(again.status, 200, "{}", again.body);
    assert_eq!(again.receipt()["success"], true);
    eventually("it is delivered", || wall.states() == ["delivered"]);
    let third = ask(asked, "POST", "/before/report").header("PAYMENT-SIGNATURE", &proof);
    assert_eq!(send(third).await.reason(), "payment_already_used");
    assert_eq!(wall.sandbox.stats().settle_calls, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_wall_delivered_itself_does_not_pass_elsewhere() {
    let (wall, asked) = asked_wall("traefik", "127.0.0.1").await;
    let proof = Signer::new().proof(&offer(3000));
    let direct = wall
        .request(Method::GET, "/before/report")
        .header("Host", "api.example.com:443")
        .header("PAYMENT-SIGNATURE", &proof);
    assert_eq!(send(direct).await.status, 200);
    let elsewhere = ask(asked, "GET", "/before/report").header("PAYMENT-SIGNATURE", &proof);
    let elsewhere = send(elsewhere).await;
    assert_eq!(
        (elsewhere.status, elsewhere.reason().as_str()),
        (402, "payment_already_used")
    );
}

#[test]
fn the_shipped_configuration_of_the_wall_is_sound() {
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let shipped = shipped.join("conf/forward-auth/farewall.toml");
    let checked = crate::support::wall::farewall(&["check", "--config", shipped.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    let said = said + &String::from_utf8_lossy(&checked.stdout);
    assert!(
        checked.status.success() && said.contains("no warnings"),
        "{said}"
    );
}
