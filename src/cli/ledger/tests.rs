use std::path::PathBuf;

use clap::{Args as _, FromArgMatches};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::books::export;
use crate::chain::{Asset, Network, PayTo, Payer, PaymentKey};
use crate::ledger::sqlite::SqliteLedger;
use crate::ledger::{ClaimAnswer, ClaimId, Fingerprint, Ledger, Move, NewClaim};
use crate::money::{AtomicAmount, Decimals};

const NOW: UnixSeconds = UnixSeconds(1_793_491_200);
const PAYER: &str = "0x857b06519E91e3A54538791bDbb0E22373e36b66";

pub(super) fn new_claim(n: u8) -> NewClaim {
    let mut payment = [0x12; 32];
    payment[3] = n;
    NewClaim {
        payment: PaymentKey(payment),
        fingerprint: Fingerprint([9; 32]),
        rule: "weather".into(),
        accept: "base-usdc".into(),
        scheme: "exact".into(),
        network: Network::parse_caip2("eip155:84532").unwrap(),
        asset: Asset::verbatim("0x036CbD53842c5426634e7929541eC2318f3dCF7e"),
        amount: AtomicAmount::new(10_000),
        payer: Payer::verbatim(PAYER),
        pay_to: PayTo::verbatim("0x209693Bc6afc0C5328bA36FaF03C514EF312287C"),
        nonce: "eip3009:0x01".into(),
        valid_before: NOW.plus(300),
        request: "GET api.example.com/v1/weather".into(),
        settle_request: "{\"signature\":\"0xsecret\"}".into(),
    }
}

/// Claim 1 released, 2 settling, 3 settled, 4 delivered; an hour apart, the last at `NOW`.
fn filled() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("farewall.db");
    let ledger = SqliteLedger::open(&path).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let settling = || Move::Settling {
            facilitator: "sandbox".into(),
        };
        let settled = || Move::Settled {
            facilitator: None,
            transaction: "0xabc".into(),
            receipt: "{\"success\":true,\"transaction\":\"0xabc\"}".into(),
            payer: None,
            body: None,
        };
        let released = Move::Released {
            reason: "upstream_failed".into(),
        };
        let lives = [
            vec![released],
            vec![settling()],
            vec![settling(), settled()],
            vec![settling(), settled(), Move::Delivered],
        ];
        for (n, (hours, life)) in (1_u8..).zip([3, 2, 1, 0].into_iter().zip(lives)) {
            let now = NOW.minus(3_600_u64.saturating_mul(hours));
            let rule = if n == 1 {
                "=cmd|' /C calc'!A0"
            } else {
                "weather"
            }
            .into();
            let claim = NewClaim {
                rule,
                ..new_claim(n)
            };
            let ClaimAnswer::Claimed(claim) = ledger.claim(claim, now).await.unwrap() else {
                panic!("each payment is new");
            };
            assert_eq!(claim.id(), ClaimId(n.into()));
            for step in life {
                ledger.advance(claim.id(), step, now).await.unwrap();
            }
        }
    });
    (directory, path)
}

fn parse(args: &[&str]) -> Result<Args, clap::Error> {
    let command = Args::augment_args(clap::Command::new("ledger"));
    let matches = command.try_get_matches_from([&["ledger"], args].concat())?;
    Args::from_arg_matches(&matches)
}

/// What the command prints about [`filled`], or why it fails.
fn output(args: &[&str]) -> Result<String, Failure> {
    let (_directory, path) = filled();
    let args = parse(&[args, &["--ledger", path.to_str().unwrap()]].concat()).unwrap();
    let mut out = Vec::new();
    answer(args.command, NOW, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn ids(args: &[&str]) -> Vec<i64> {
    let json = output(&[args, &["--format", "json"]].concat()).unwrap();
    let array: Vec<Value> = serde_json::from_str(&json).unwrap();
    array
        .iter()
        .map(|record| record["id"].as_i64().unwrap())
        .collect()
}

#[test]
fn filters_choose_the_claims() {
    assert_eq!(ids(&["list"]), [4, 3, 2, 1]);
    assert_eq!(ids(&["list", "--limit", "1"]), [4]);
    assert_eq!(ids(&["list", "--since", "1h"]), [4, 3]);
    assert_eq!(ids(&["list", "--since", "2026-11-01"]), [4]);
    assert_eq!(ids(&["list", "--until", "2026-10-31T22:00:00Z"]), [1]);
    assert_eq!(ids(&["list", "--state", "settled,delivered"]), [4, 3]);
    assert_eq!(
        ids(&["list", "--state", "settled", "--state", "released"]),
        [3, 1]
    );
    assert_eq!(ids(&["list", "--rule", "weather"]), [4, 3, 2]);
    assert!(ids(&["list", "--payer", "nobody"]).is_empty());
    assert_eq!(
        ids(&["list", "--payer", &PAYER.to_lowercase()]),
        [4, 3, 2, 1]
    );
    assert_eq!(ids(&["export", "--limit", "2"]), [4, 3]);
}

#[test]
fn owed_is_what_was_paid_and_not_delivered_then_what_is_unknown() {
    assert_eq!(ids(&["owed"]), [3, 2]);
    assert_eq!(ids(&["owed", "--since", "1h"]), [3]);
    let table = output(&["owed"]).unwrap();
    let (owed, unknown) = table.split_once("Unknown:").unwrap();
    assert!(
        owed.contains("\n3   ") && !owed.contains("\n2   "),
        "{table}"
    );
    assert!(
        unknown.contains("\n2   ") && !unknown.contains("\n3   "),
        "{table}"
    );
}

#[test]
fn unknown_is_what_the_wall_keeps_asking_about_and_what_ran_out() {
    assert_eq!(ids(&["unknown"]), [2]);
    let table = output(&["unknown"]).unwrap();
    let (unknown, expired) = table.split_once("Expired:").unwrap();
    assert!(unknown.contains("\n2   "), "{table}");
    assert!(expired.contains("No claims."), "{table}");
}

/// Runs several commands on one copy of [`filled`]; what the last prints.
fn outputs(commands: &[&[&str]]) -> Result<String, Failure> {
    let (_directory, path) = filled();
    let mut out = Vec::new();
    for command in commands {
        let args = parse(&[command, &["--ledger", path.to_str().unwrap()][..]].concat()).unwrap();
        out.clear();
        answer(args.command, NOW, &mut out)?;
    }
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn a_marked_debt_is_not_owed_any_more_and_shows_its_note() {
    let mark: &[&str] = &["mark", "3", "--refunded", "--note", "in 0xabc"];
    assert_eq!(outputs(&[mark]).unwrap(), "Claim 3 is marked refunded.\n");
    let owed = outputs(&[mark, &["owed", "--format", "csv"]]).unwrap();
    assert!(
        !owed.contains("\r\n3,") && owed.contains("\r\n2,"),
        "{owed}"
    );
    let all = outputs(&[mark, &["owed", "--all", "--format", "csv"]]).unwrap();
    assert!(all.contains("\r\n3,settled,"), "{all}");
    let again: &[&str] = &["mark", "3", "--forgiven", "--note", "twice"];
    let show = outputs(&[mark, again, &["show", "3", "--format", "json"]]).unwrap();
    let show: Value = serde_json::from_str(&show).unwrap();
    let at = "2026-11-01T00:00:00Z";
    assert_eq!(
        show[0]["notes"],
        json!([
            { "at": at, "kind": "refunded", "text": "in 0xabc" },
            { "at": at, "kind": "forgiven", "text": "twice" },
        ])
    );
    assert_eq!(show[0]["state"], "settled");
}

#[test]
fn what_is_no_debt_cannot_be_marked() {
    for id in ["1", "2", "4", "99"] {
        let failure = outputs(&[&["mark", id, "--forgiven", "--note", "x"]]).unwrap_err();
        let code = format!("{:?}", failure.exit_code());
        assert_eq!(code, format!("{:?}", ExitCode::from(1)), "{failure}");
    }
    let missing = [
        "mark",
        "1",
        "--forgiven",
        "--note",
        "x",
        "--ledger",
        "/none/f.db",
    ];
    let failure = answer(parse(&missing).unwrap().command, NOW, &mut Vec::new()).unwrap_err();
    assert!(failure.to_string().contains("no such file"), "{failure}");
}

#[test]
fn the_table_is_aligned_and_ends_with_sums() {
    let table = output(&["list", "--state", "delivered,settled"]).unwrap();
    let amount = "0.01 USDC";
    let want = format!(
        "ID  CLAIMED               STATE      RULE     {:<width$}  {:<42}  REQUEST\n\
         4   2026-11-01T00:00:00Z  delivered  weather  {amount}  {PAYER}  GET api.example.com/v1/weather\n\
         3   2026-10-31T23:00:00Z  settled    weather  {amount}  {PAYER}  GET api.example.com/v1/weather\n\
         \n\
         settled    1  {amount}  eip155:84532\n\
         delivered  1  {amount}  eip155:84532\n",
        "AMOUNT",
        "PAYER",
        width = amount.len(),
    );
    assert_eq!(table, want);
    assert_eq!(output(&["list", "--rule", "none"]).unwrap(), "No claims.\n");
    assert!(
        output(&["list", "--limit", "1"])
            .unwrap()
            .contains("Shown are the newest 1;")
    );
}

#[test]
fn csv_has_a_header_and_plain_cells() {
    let csv = output(&["export"]).unwrap();
    let lines: Vec<&str> = csv.split_terminator("\r\n").collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[0], export::NAMES.join(","));
    assert!(lines[1].starts_with("4,delivered,2026-11-01T00:00:00Z,2026-11-01T00:00:00Z,weather,"));
    assert!(
        lines[4].contains(",\"'=cmd|' /C calc'!A0\","),
        "{}",
        lines[4]
    );
    assert!(!csv.contains("0xsecret"));
}

#[test]
fn the_header_names_the_columns_in_their_order() {
    let (_directory, path) = filled();
    let record = SqliteLedger::open_read_only(&path)
        .unwrap()
        .get(ClaimId(3))
        .unwrap()
        .unwrap();
    let columns = export::columns(&record, &Tokens::default());
    assert_eq!(columns.map(|(name, _)| name), export::NAMES);
}

#[test]
fn a_known_token_is_shown_in_whole_units() {
    let claim = new_claim(1);
    let key = (claim.network.clone(), claim.asset.clone());
    let tokens = Tokens([(key, ("USDC".into(), Decimals::new(6).unwrap()))].into());
    assert_eq!(
        tokens.text(&claim.network, &claim.asset, claim.amount),
        "0.01 USDC"
    );
    let other = Asset::verbatim("other");
    assert_eq!(
        tokens.text(&claim.network, &other, claim.amount),
        "10000 atomic other"
    );
}

#[test]
fn show_tells_everything_but_the_signature() {
    let text = output(&["show", "3"]).unwrap();
    for want in [
        "settled",
        "0xabc",
        "\"success\": true",
        "10000",
        "GET api.example.com/v1/weather",
    ] {
        assert!(text.contains(want), "{want}: {text}");
    }
    assert!(!text.contains("0xsecret"), "{text}");
    assert!(
        output(&["show", "3", "--settle-request"])
            .unwrap()
            .contains("0xsecret")
    );
    let array: Value =
        serde_json::from_str(&output(&["show", "3", "--format", "json"]).unwrap()).unwrap();
    assert_eq!(
        array[0]["receipt"],
        json!({"success": true, "transaction": "0xabc"})
    );
    assert_eq!(array[0]["amount_atomic"], "10000");
}

#[test]
fn show_finds_a_payment_by_the_beginning_of_its_key() {
    assert_eq!(ids(&["show", "12121203"]), [3]);
    assert_eq!(ids(&["show", "0x1212120312"]), [3]);
    assert_eq!(ids(&["show", &new_claim(4).payment.to_string()]), [4]);
}

#[track_caller]
fn check_failure(args: &[&str], code: u8, want: &str) {
    let failure = output(args).unwrap_err();
    assert_eq!(
        format!("{:?}", failure.exit_code()),
        format!("{:?}", ExitCode::from(code))
    );
    assert!(failure.to_string().contains(want), "{failure}");
}

#[test]
fn what_is_not_there_is_a_no() {
    check_failure(&["show", "99"], 1, "no claim has the number");
    check_failure(&["show", "ffffffff"], 1, "no claim has the number");
    check_failure(&["show", "1212"], 1, "no claim has the number");
    check_failure(&["show", "abc"], 1, "not a claim's number");
    check_failure(&["show", "weather"], 1, "not a claim's number");
}

#[test]
fn a_beginning_that_several_payments_share_is_a_no() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("farewall.db");
    let ledger = SqliteLedger::open(&path).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for last in [1, 2] {
        let mut claim = new_claim(1);
        claim.payment.0[31] = last;
        runtime.block_on(ledger.claim(claim, NOW)).unwrap();
    }
    let args = ["show", "12121201", "--ledger", path.to_str().unwrap()];
    let failure = answer(parse(&args).unwrap().command, NOW, &mut Vec::new()).unwrap_err();
    assert!(matches!(failure, Failure::Ambiguous(_)), "{failure}");
}

#[test]
fn a_missing_ledger_is_an_outside_failure_and_a_missing_configuration_its_own() {
    let args = parse(&["list", "--ledger", "/nonexistent/farewall.db"]).unwrap();
    let failure = answer(args.command, NOW, &mut Vec::new()).unwrap_err();
    assert!(matches!(failure, Failure::Ledger(_)), "{failure}");
    let args = parse(&["list", "--config", "/nonexistent/farewall.toml"]).unwrap();
    let failure = answer(args.command, NOW, &mut Vec::new()).unwrap_err();
    assert!(matches!(failure, Failure::Config(_)), "{failure}");
}

#[test]
fn a_wrong_command_line_is_refused_before_anything_is_opened() {
    for args in [
        &["list", "--state", "paid"][..],
        &["list", "--since", "yesterday"],
        &["list", "--ledger", "a", "--config", "b"],
        &["show"],
        &["mark", "1", "--note", "x"],
        &["mark", "1", "--refunded"],
        &["mark", "1", "--refunded", "--note", " "],
        &["mark", "1", "--refunded", "--forgiven", "--note", "x"],
        &["reconcile", "--ledger", "a"],
        &[],
    ] {
        assert!(parse(args).is_err(), "{args:?}");
    }
}

#[test]
fn text_of_strangers_cannot_command_the_terminal() {
    assert_eq!(
        table::printable("a\u{1b}[2Jb\u{202e}c é"),
        "a\\u{1b}[2Jb\\u{202e}c é"
    );
}

#[test]
fn the_arguments_are_consistent() {
    Args::augment_args(clap::Command::new("ledger")).debug_assert();
}
