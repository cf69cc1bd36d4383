//! `farewall ledger` on a server: what is unknown, owed and marked there.

use serde_json::json;

use crate::reconcile::{chain, command, ids, lose_answers, mined, payment};
use crate::support::{Cluster, Setup, eventually, send};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unknown_is_listed_reconciled_owed_and_marked_on_a_server_too() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    cluster.database("ledger");
    let chain = chain().await;
    let network = format!("[network.base-sepolia]\nrpc_url = \"{}\"\n", chain.url());
    let setup = Setup {
        rules: Some(format!("{}\n{network}", crate::support::wall::RULES)),
        facilitator: "settle_timeout_ms = 1000".to_owned(),
        ..cluster.setup("ledger", "lease_s = 2")
    };
    let mut wall = setup.start().await;
    lose_answers(&wall, 99);
    let payment = payment(2000, 300);
    let ask = |wall: &crate::support::Wall| {
        wall.request(reqwest::Method::POST, "/v1/echo")
            .header("PAYMENT-SIGNATURE", &payment.proof)
            .body("work")
    };
    assert_eq!(send(ask(&wall)).await.status, 503);
    assert_eq!(ids(&wall, "unknown"), [1]);
    assert_eq!(ids(&wall, "owed"), [1], "it may come to be");

    let reconcile = ["ledger", "reconcile", "--format", "json"];
    let (code, rows) = command(&wall, &reconcile);
    assert_eq!((code, &rows[0]["state"]), (Some(1), &json!("settling")));
    let mark = ["ledger", "mark", "1", "--forgiven", "--note", "a test"];
    let (code, _) = command(&wall, &mark);
    assert_eq!(code, Some(1), "nobody knows yet what there is to forgive");

    wall.kill();
    let transaction = mined(&chain, &payment, None, 2000);
    eventually("the lease has run out", || {
        command(&wall, &reconcile).0 == Some(0)
    });
    assert_eq!(wall.states(), ["settled"]);
    assert_eq!(wall.ledger()[0]["transaction"], transaction.as_str());
    assert!(ids(&wall, "unknown").is_empty());
    assert_eq!(ids(&wall, "owed"), [1]);
    assert_eq!(command(&wall, &reconcile), (Some(0), json!([])));

    assert_eq!(command(&wall, &mark).0, Some(0));
    assert!(ids(&wall, "owed").is_empty());
    assert_eq!(wall.states(), ["settled"], "marking moves nothing");
    let note = cluster.sql("ledger", "SELECT kind, text FROM farewall.note");
    assert_eq!(note, "forgiven|a test");
    wall.restart();
    let closed = send(ask(&wall)).await;
    assert_eq!(
        (closed.status, closed.reason().as_str()),
        (402, "payment_already_used")
    );
    assert_eq!(wall.origin.hits("/v1/echo"), 1);
    assert_eq!(wall.sandbox.stats().settled, 1);
}
