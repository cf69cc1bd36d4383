//! The wall dies where it goes over to the next facilitator: before that is on record, and before the
//! call. Afterwards the payment is settled once, by the one on record.

#[path = "../../src/chain_rpc/fake.rs"]
#[allow(dead_code, reason = "others use the rest")]
mod fake;

use farewall::sandbox::{Misbehaviour, Misdeed, Sandbox, SandboxOptions, Scope};

use self::fake::FakeChain;
use crate::support::wall::RULES;
use crate::support::{Setup, Signer, buyer, eventually, offer};

const HEAD: u64 = 5000;

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_that_dies_before_it_asks_the_next_facilitator_asks_it_after_its_start() {
    for (step, on_record) in [("moving", "sandbox"), ("moved", "second")] {
        let chain = FakeChain::start(84_532, buyer::now(), HEAD).await;
        let second = Sandbox::new(SandboxOptions::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = second.clone();
        tokio::spawn(async move { serving.serve(listener).await });
        let network = format!("[network.base-sepolia]\nrpc_url = \"{}\"\n", chain.url());
        let setup = Setup {
            rules: Some(format!("{RULES}\n{network}")),
            second_facilitator_url: Some(url),
            kill_at: Some(step.to_owned()),
            ..Setup::default()
        };
        let mut wall = setup.start().await;
        wall.sandbox.misbehave(Misbehaviour {
            kind: Misdeed::Status { status: 500 },
            scope: Scope::Settle,
            times: 999,
        });
        let proof = Signer::new().proof(&offer(1000));
        assert_eq!(wall.pay("/v1/quote", &proof).await.status, 503);
        chain.with(|script| script.head += 60);
        let status = wall.wait();
        assert!(!status.success(), "it killed itself: {status}");
        assert_eq!(wall.ledger()[0]["facilitator"], on_record, "{step}");
        assert_eq!(wall.states(), ["settling"]);
        assert_eq!(second.stats().settle_calls, 0);
        wall.restart();
        eventually("settled", || wall.states() == ["settled"]);
        assert_eq!(wall.ledger()[0]["facilitator"], "second", "{step}");
        assert_eq!(
            (wall.sandbox.stats().settled, second.stats().settled),
            (0, 1)
        );
        let collected = wall.pay("/v1/quote", &proof).await;
        assert_eq!(collected.status, 200, "{}", collected.body);
        assert_eq!(second.stats().settled, 1);
    }
}
