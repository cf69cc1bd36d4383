//! Pools of servers: turns, health, TLS.

use std::time::{Duration, Instant};

use crate::support::{Origin, Setup, Signer, Wall, offer};

/// An upstream `pool` in front of these servers, and a free and a priced rule for it.
fn rules(servers: &[String], more: &str) -> String {
    format!(
        "[upstream.pool]\nservers = [{}]\n{more}\n\
         [[rule]]\nname = \"pool\"\npath = \"/pool/{{*rest}}\"\nfree = true\nupstream = \"pool\"\n\
         [[rule]]\nname = \"sold\"\npath = \"/sold/{{*rest}}\"\nprice = \"$0.001\"\nupstream = \"pool\"\n",
        servers
            .iter()
            .map(|s| format!("\"{s}\""))
            .collect::<Vec<_>>()
            .join(", ")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_take_turns() {
    let (one, two) = (Origin::start().await, Origin::start().await);
    let servers = [&one, &two].map(|o| format!("http://{}", o.address));
    let wall = Setup::rules(&rules(&servers, "")).start().await;
    for _ in 0..20 {
        assert_eq!(wall.get("/pool/x").await.status, 200);
    }
    assert_eq!((one.hits("/pool/x"), two.hits("/pool/x")), (10, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_left_out_after_its_health_check() {
    let one = Origin::start().await;
    let servers = [
        format!("http://{}", one.address),
        "http://127.0.0.1:9".to_owned(),
    ];
    let health = "[upstream.pool.health]\npath = \"/alive\"\ninterval_ms = 100\ntimeout_ms = 500\nunhealthy_after = 1\n";
    let wall = Setup::rules(&rules(&servers, health)).start().await;
    let end = Instant::now() + Duration::from_secs(15);
    let mut in_a_row = 0;
    while in_a_row < 20 {
        assert!(Instant::now() < end, "the dead server is still asked");
        let good = wall.get("/pool/x").await.status == 200;
        in_a_row = if good { in_a_row + 1 } else { 0 };
    }
    assert!(one.hits("/alive") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_the_origin_are_used_again() {
    let wall = Wall::start().await;
    for _ in 0..10 {
        assert_eq!(wall.get("/health").await.status, 200);
    }
    let peers: std::collections::HashSet<_> = wall.origin.seen().iter().map(|s| s.peer).collect();
    assert_eq!(peers.len(), 1, "one connection for all");
}

/// Another wall with a TLS listener is the origin here: a real TLS server with a real certificate.
#[tokio::test(flavor = "multi_thread")]
async fn tls_to_an_origin_is_verified() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (cert, key) = (
        file("cert.pem", certified.cert.pem()),
        file("key.pem", certified.signing_key.serialize_pem()),
    );
    let free = "[[rule]]\nname = \"all\"\npath = \"/{*rest}\"\nfree = true\n";
    let inner = Setup {
        listen: format!("tls_cert = \"{cert}\"\ntls_key = \"{key}\""),
        ..Setup::rules(free)
    }
    .start()
    .await;
    let servers = [format!("https://localhost:{}", inner.address.port())];

    let distrusting = Setup::rules(&rules(&servers, "")).start().await;
    assert_eq!(distrusting.get("/pool/x").await.status, 502);
    let proof = Signer::new().proof(&offer(1000));
    assert_eq!(distrusting.pay("/sold/x", &proof).await.status, 502);
    assert_eq!(distrusting.sandbox.stats().settle_calls, 0);
    assert_eq!(inner.origin.seen().len(), 0);

    let trusting = Setup {
        server: format!("ca_file = \"{cert}\""),
        ..Setup::rules(&rules(&servers, ""))
    }
    .start()
    .await;
    assert_eq!(trusting.get("/pool/x").await.status, 200);
    assert_eq!(trusting.pay("/sold/x", &proof).await.status, 200);

    let misnamed = rules(&servers, "tls_server_name = \"other.example\"");
    let misnamed = Setup {
        server: format!("ca_file = \"{cert}\""),
        ..Setup::rules(&misnamed)
    }
    .start()
    .await;
    assert_eq!(misnamed.get("/pool/x").await.status, 502);
}

/// Another wall with an h2c listener is the origin here: a real HTTP/2 server.
#[tokio::test(flavor = "multi_thread")]
async fn an_http_2_origin_gets_the_same_request() {
    let free = "[[rule]]\nname = \"all\"\npath = \"/{*rest}\"\nfree = true\n";
    let inner = Setup {
        listen: "h2c = true".to_owned(),
        ..Setup::rules(free)
    }
    .start()
    .await;
    let servers = [format!("http://{}", inner.address)];
    let wall = Setup::rules(&rules(&servers, "http2 = true")).start().await;
    assert_eq!(wall.get("/pool/x?q=%2F").await.status, 200);
    let seen = inner.origin.last();
    assert_eq!(seen.target, "/pool/x?q=%2F");
    assert_eq!(seen.header("host"), Some(wall.address.to_string().as_str()));
    let paid = wall
        .pay("/sold/x", &Signer::new().proof(&offer(1000)))
        .await;
    assert_eq!(
        (paid.status, paid.receipt()["success"].as_bool()),
        (200, Some(true))
    );
    let failed = wall
        .pay("/sold/fail", &Signer::new().proof(&offer(1000)))
        .await;
    assert_eq!(
        (failed.status, failed.header("payment-response")),
        (500, None)
    );
    assert_eq!(wall.sandbox.stats().settled, 1);
}
