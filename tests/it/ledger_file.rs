//! The ledger file between processes: under other names, and while another one writes to it.

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::Duration;

use farewall::sandbox::SandboxOptions;
use reqwest::Method;
use rusqlite::Connection;

use crate::support::wall::{BINARY, free_address};
use crate::support::{Setup, Signer, Wall, eventually, offer, send};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_wall_through_a_link_to_the_ledger_does_not_start() {
    let wall = Wall::start().await;
    let (elsewhere, ledger) = (tempfile::tempdir().unwrap(), wall.file("ledger.db"));
    let (link, folder) = (
        elsewhere.path().join("link.db"),
        elsewhere.path().join("folder"),
    );
    symlink(&ledger, &link).unwrap();
    symlink(ledger.parent().unwrap(), &folder).unwrap();
    let text = std::fs::read_to_string(&wall.config).unwrap();
    for other in [link, folder.join("ledger.db")] {
        let text = text
            .replace(&wall.address.to_string(), &free_address().to_string())
            .replace(
                "path = \"ledger.db\"",
                &format!("path = \"{}\"", other.display()),
            );
        let config = elsewhere.path().join("second.toml");
        std::fs::write(&config, text).unwrap();
        let log = elsewhere.path().join("log");
        let mut second = Command::new(BINARY)
            .args(["run", "--config", config.to_str().unwrap()])
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut code = None;
        let ends = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("it ends", || {
                code = second.try_wait().unwrap();
                code.is_some()
            });
        }));
        drop(second.kill());
        let told = std::fs::read_to_string(&log).unwrap();
        assert!(ends.is_ok(), "two walls on one ledger\n{told}");
        assert_eq!(code.unwrap().code(), Some(4), "{told}");
        assert!(told.contains("is in use by another wall"), "{told}");
    }
}

/// Another process in a write that lasts longer than a wall waits for its turn (5 s).
fn busy(wall: &Wall) -> Connection {
    let other = Connection::open(wall.file("ledger.db")).unwrap();
    other.busy_timeout(Duration::from_secs(5)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_another_process_keeps_busy_sells_nothing_and_charges_nothing() {
    let wall = Wall::start().await;
    let other = busy(&wall);
    let proof = Signer::new().proof(&offer(1000));
    let answer = wall.pay("/v1/quote", &proof).await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (503, "payment_unavailable")
    );
    assert!(answer.body.contains("nothing was charged"), "{answer:?}");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(wall.origin.hits("/v1/quote"), 0);
    assert_eq!(wall.sandbox.stats().settle_calls, 0);
    drop(other);
    assert_eq!(wall.pay("/v1/quote", &proof).await.status, 200);
    eventually("delivered", || wall.states() == ["delivered"]);
    assert_eq!(wall.sandbox.stats().settled, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_kept_busy_while_the_money_moves_delays_the_answer_and_loses_nothing() {
    let setup = Setup {
        sandbox: SandboxOptions {
            settle_delay: Duration::from_millis(500),
            ..SandboxOptions::default()
        },
        ..Setup::default()
    };
    let wall = setup.start().await;
    let proof = Signer::new().proof(&offer(1000));
    let paying = wall.request(Method::GET, "/v1/quote");
    let paying = tokio::spawn(send(paying.header("PAYMENT-SIGNATURE", &proof)));
    eventually("the money moves", || wall.sandbox.stats().settle_calls == 1);
    let other = busy(&wall);
    eventually("it was tried in vain", || {
        wall.log().contains("will record it again")
    });
    drop(other);
    let answer = paying.await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    eventually("delivered", || wall.states() == ["delivered"]);
    let stats = wall.sandbox.stats();
    assert_eq!((stats.settle_calls, stats.settled), (1, 1));
}
