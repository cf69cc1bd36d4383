//! Every row of `docs/failures.md`, run against the real binary: the documentation is the test.

use std::sync::Arc;

use farewall::sandbox::{Misbehaviour, Misdeed, Sandbox, SandboxOptions, Scope};
use futures_util::{StreamExt, stream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::support::front::{Call, Front, Spoil, http_answer};
use crate::support::{Setup, Signer, Trial, Wall, eventually, offer};

const DOCUMENT: &str = include_str!("../../docs/failures.md");

/// So many rows run at a time.
const AT_ONCE: usize = 6;

/// Only where a call takes too long is its time short: everything else may have to wait for the machine.
fn settings(row: &Row) -> String {
    let waits = row.misdeed.contains("hangs") || row.misdeed.contains("too slowly");
    let (verify_ms, settle_ms) = match (row.call, waits) {
        (Call::Verify, true) => (1_000, 20_000),
        (Call::Settle, true) => (20_000, 1_000),
        (Call::Verify | Call::Settle, false) => (20_000, 20_000),
    };
    format!(
        "verify_timeout_ms = {verify_ms}\nsettle_timeout_ms = {settle_ms}\n\
         verify_retries = 0\nbreaker_failures = 1000"
    )
}

/// One row of the table.
#[derive(Clone, Debug)]
struct Row {
    call: Call,
    misdeed: String,
    status: u16,
    error: Option<String>,
    retry_after: Option<String>,
    states: Vec<String>,
    moved: bool,
    second_settles: bool,
}

/// The rows of the section, in their order.
fn rows(section: &str, call: Call) -> Vec<Row> {
    let (_, text) = DOCUMENT.split_once(&format!("\n## {section}\n")).unwrap();
    let text = text.split("\n## ").next().unwrap();
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim().trim_matches('|').split('|');
        inner.map(|cell| cell.trim().to_owned()).collect()
    };
    let mut lines = text.lines().filter(|line| line.starts_with('|'));
    let head = cells(lines.next().unwrap());
    let want = [
        "the facilitator",
        "status",
        "error",
        "Retry-After",
        "ledger",
        "money",
    ];
    assert_eq!(head[..6], want, "the columns of {section}");
    let given = |cell: &String| (cell != "-").then(|| cell.clone());
    let row = |line: &str| {
        let cells = cells(line);
        assert_eq!(cells.len(), 7, "{line}");
        Row {
            call,
            misdeed: cells[0].clone(),
            status: cells[1].parse().unwrap(),
            error: given(&cells[2]),
            retry_after: given(&cells[3]),
            states: given(&cells[4]).into_iter().collect(),
            moved: one_of(&cells[5], ["stays", "moved"]),
            second_settles: one_of(&cells[6], ["as alone", "200, second settles"]),
        }
    };
    lines.skip(1).map(row).collect()
}

/// Whether it is the second of two words.
fn one_of(cell: &str, words: [&str; 2]) -> bool {
    assert!(words.contains(&cell), "{cell:?} is none of {words:?}");
    cell == words[1]
}

/// What a misdeed is in bytes, and what the sandbox behind does.
enum Misdeeds {
    Front(Spoil),
    Sandbox(Misdeed),
}

fn misdeed(row: &Row) -> Misdeeds {
    let instead = |status, headers: &str, body: &str| {
        let bytes = http_answer(status, headers, body);
        Misdeeds::Front(Spoil::Instead {
            bytes,
            worked: false,
        })
    };
    match row.misdeed.as_str() {
        "refuses connections" => Misdeeds::Front(Spoil::RefuseConnections),
        "fails the TLS handshake" => Misdeeds::Front(Spoil::FailTls),
        "hangs" => Misdeeds::Front(Spoil::Hang { worked: false }),
        "hangs after settling" => Misdeeds::Front(Spoil::Hang { worked: true }),
        "sends its headers too slowly" => Misdeeds::Front(Spoil::Dribble { head: true }),
        "sends its body too slowly" => Misdeeds::Front(Spoil::Dribble { head: false }),
        "answers 429 with Retry-After 7" => instead(429, "Retry-After: 7\r\n", "slow down"),
        "answers 429" => instead(429, "", "slow down"),
        "answers 500" => instead(500, "", "oops"),
        "answers 500 after settling" => Misdeeds::Front(Spoil::Instead {
            bytes: http_answer(500, "", "oops"),
            worked: true,
        }),
        "answers 503 with Retry-After 7" => instead(503, "Retry-After: 7\r\n", "later"),
        "answers 400 without a verdict" => instead(400, "", "{\"error\":\"bad\"}"),
        "answers 200 with junk" => instead(200, "", "<!doctype html><title>Welcome"),
        "answers 200 with an endless body" => Misdeeds::Front(Spoil::Endless),
        "closes without an answer" => Misdeeds::Front(Spoil::Close),
        "resets the connection in its answer" => Misdeeds::Front(Spoil::ResetAfter(60)),
        "loses its answer after settling" => Misdeeds::Sandbox(Misdeed::LoseAnswerAfterSettling),
        "says `isValid: false`" => Misdeeds::Sandbox(Misdeed::RejectVerify {
            reason: "insufficient_funds".to_owned(),
        }),
        "says `success: false`" => Misdeeds::Sandbox(Misdeed::RejectSettle {
            reason: "insufficient_funds".to_owned(),
        }),
        "says `success: true` without a transaction" => {
            Misdeeds::Sandbox(Misdeed::SuccessWithoutTransaction)
        }
        "says `settlement_pending` once" | "says `settlement_pending` for ever" => {
            Misdeeds::Sandbox(Misdeed::Pending)
        }
        other => panic!("nobody knows how to do what docs/failures.md says: {other:?}"),
    }
}

/// A sandbox that serves, and its URL.
async fn sandbox() -> (Sandbox, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let sandbox = Sandbox::new(SandboxOptions::default());
    let serving = sandbox.clone();
    tokio::spawn(async move { serving.serve(listener).await });
    (sandbox, url)
}

/// A certificate for `localhost`, as a file that can be trusted, and the server that has it.
fn tls(folder: &tempfile::TempDir) -> (TlsAcceptor, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = tokio_rustls::rustls::crypto::ring::default_provider();
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (
        TlsAcceptor::from(Arc::new(config)),
        file.display().to_string(),
    )
}

/// A wall whose first facilitator is spoilt; `second` says whether there is another.
struct Stage {
    wall: Wall,
    front: Front,
    first: Sandbox,
    second: Sandbox,
    _folder: tempfile::TempDir,
}

async fn stage(with_tls: bool, second: bool, settings: &str) -> Stage {
    let folder = tempfile::tempdir().unwrap();
    let (first, first_url) = sandbox().await;
    let (other, other_url) = sandbox().await;
    let mut setup = Setup {
        facilitator: settings.to_owned(),
        second_facilitator_url: second.then_some(other_url),
        on_own_address: true,
        ..Setup::default()
    };
    let mut acceptor = None;
    if with_tls {
        let (made, file) = tls(&folder);
        setup.server = format!("ca_file = \"{file}\"");
        acceptor = Some(made);
    }
    let front = Front::start(first_url, acceptor).await;
    setup.facilitator_url = Some(front.url());
    Stage {
        wall: setup.start().await,
        front,
        first,
        second: other,
        _folder: folder,
    }
}

async fn run(row: Row, with_second: bool) {
    let told = format!("{:?}: {}, second: {with_second}", row.call, row.misdeed);
    let with_tls = row.misdeed.contains("TLS");
    let Stage {
        wall,
        front,
        first,
        second,
        _folder,
    } = stage(with_tls, with_second, &settings(&row)).await;
    match misdeed(&row) {
        Misdeeds::Front(spoil) => front.spoil(row.call, spoil).await,
        Misdeeds::Sandbox(kind) => {
            let times = if row.misdeed.ends_with("once") {
                1
            } else {
                1000
            };
            let scope = Scope::Both;
            assert!(first.misbehave(Misbehaviour { kind, scope, times }));
        }
    }
    let answer = wall
        .pay("/v1/quote", &Signer::new().proof(&offer(1000)))
        .await;
    let saved = with_second && row.second_settles;
    let status = if saved { 200 } else { row.status };
    assert_eq!(answer.status, status, "{told}: {}", answer.body);
    let states = if saved {
        vec!["delivered".to_owned()]
    } else {
        row.states
    };
    eventually(&format!("{told}: the ledger holds {states:?}"), || {
        wall.states() == states
    });
    let by = (u64::from(row.moved && !saved), u64::from(saved));
    // A call that timed out may still be on its way to the sandbox.
    eventually(&format!("{told}: money moved {by:?}"), || {
        (first.stats().settled, second.stats().settled) == by
    });
    if !saved {
        assert_eq!(second.stats().settle_calls, 0, "{told}");
        assert_eq!(
            answer.header("retry-after"),
            row.retry_after.as_deref(),
            "{told}"
        );
        if let Some(error) = &row.error {
            assert_eq!(answer.error(), *error, "{told}");
        }
    }
    if row.status != 402 {
        assert_eq!(answer.header("payment-required"), None, "{told}");
    }
    let served = answer.body.contains("\"answer\":42");
    assert_eq!(served, status == 200, "{told}");
    let asked = usize::from(saved || row.call == Call::Settle);
    assert_eq!(wall.origin.hits("/v1/quote"), asked, "{told}");
    let records = wall.ledger();
    if saved {
        assert_eq!(records[0]["facilitator"], "second", "{told}");
    } else if row.call == Call::Settle && !with_second {
        assert_eq!(records[0]["facilitator"], "sandbox", "{told}");
    }
}

async fn run_all(rows: Vec<Row>, what: &'static str) {
    let (trial, mut survived) = (Trial::of(what), 0);
    assert!(rows.len() >= 10, "the table was not found");
    let runs = rows
        .into_iter()
        .flat_map(|row| [(row.clone(), false), (row, true)])
        .map(|(row, second)| tokio::spawn(run(row, second)));
    let mut runs = stream::iter(runs).buffer_unordered(AT_ONCE);
    while let Some(done) = runs.next().await {
        done.unwrap();
        survived += 1;
    }
    trial.held(survived);
}

// More threads than rows at once: whoever looks at a ledger holds one.
#[tokio::test(flavor = "multi_thread", worker_threads = 12)]
async fn verification_fails_as_the_documentation_says() {
    let rows = rows("Verify", Call::Verify);
    run_all(rows, "facilitator faults survived, verify").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 12)]
async fn settlement_fails_as_the_documentation_says() {
    let rows = rows("Settle", Call::Settle);
    run_all(rows, "facilitator faults survived, settle").await;
}

/// After each byte of the answer, with a second facilitator that would settle if it were asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_reset_at_any_byte_of_a_settle_answer_is_never_served_nor_settled_twice() {
    let trial = Trial::of("facilitator faults survived, resets at each byte");
    let stage = stage(false, true, "breaker_failures = 1000").await;
    let wall = Arc::new(stage.wall);
    let honest = wall
        .pay("/v1/quote", &Signer::new().proof(&offer(1000)))
        .await;
    assert_eq!(honest.status, 200);
    let length = stage.front.answer_bytes();
    assert!((200..700).contains(&length), "{length}");
    stage
        .front
        .spoil(Call::Settle, Spoil::ResetLaterAndLater)
        .await;
    let tries = length - 1;
    let pay = |_| {
        let wall = Arc::clone(&wall);
        tokio::spawn(async move {
            let proof = Signer::new().proof(&offer(1000));
            wall.pay("/v1/quote", &proof).await
        })
    };
    let mut answers = stream::iter((0..tries).map(pay)).buffer_unordered(8);
    while let Some(answer) = answers.next().await {
        let answer = answer.unwrap();
        let found = (answer.status, answer.error());
        assert_eq!(found, (503, "settlement_unknown".to_owned()));
    }
    assert_eq!(stage.second.stats().settle_calls, 0, "never a second one");
    assert_eq!(stage.first.stats().settled, tries as u64 + 1, "once each");
    assert_eq!(wall.origin.hits("/v1/quote"), tries + 1);
    let mut states = wall.states();
    assert_eq!(states.pop().as_deref(), Some("delivered"));
    assert_eq!(states, vec!["settling"; tries]);
    trial.held(tries);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_facilitator_is_left_alone_and_one_that_asks_for_it_too() {
    let settings = "verify_retries = 0\nbreaker_failures = 3\nbreaker_open_ms = 600000";
    let failing = stage(false, true, settings).await;
    let error = Spoil::Instead {
        bytes: http_answer(500, "", "oops"),
        worked: false,
    };
    failing.front.spoil(Call::Verify, error).await;
    for _ in 0..8 {
        let proof = Signer::new().proof(&offer(1000));
        assert_eq!(failing.wall.pay("/v1/quote", &proof).await.status, 200);
    }
    assert_eq!(failing.front.calls(Call::Verify), 3);
    assert_eq!(failing.second.stats().settled, 8);

    let alone = stage(false, false, settings).await;
    let later = Spoil::Instead {
        bytes: http_answer(503, "Retry-After: 60\r\n", "later"),
        worked: false,
    };
    alone.front.spoil(Call::Verify, later).await;
    for _ in 0..3 {
        let proof = Signer::new().proof(&offer(1000));
        let answer = alone.wall.pay("/v1/quote", &proof).await;
        assert_eq!(answer.status, 503);
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((40..=60).contains(&wait), "{wait}");
    }
    assert_eq!(
        alone.front.calls(Call::Verify),
        1,
        "asked once, then left alone"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_facilitator_that_mends_is_found_out_by_a_probe() {
    let settings = "verify_retries = 0\nbreaker_failures = 1\nbreaker_open_ms = 300";
    let stage = stage(false, false, settings).await;
    stage.front.spoil(Call::Verify, Spoil::Close).await;
    let pay = async || {
        let proof = Signer::new().proof(&offer(1000));
        stage.wall.pay("/v1/quote", &proof).await.status
    };
    assert_eq!(pay().await, 503);
    stage.front.spoil(Call::Verify, Spoil::Nothing).await;
    let mut status = pay().await;
    for _ in 0..100 {
        if status == 200 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        status = pay().await;
    }
    assert_eq!(status, 200);
    assert_eq!(pay().await, 200);
}
