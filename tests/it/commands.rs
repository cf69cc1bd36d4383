//! Each command of the real binary: what it prints, and how it exits.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::wall::{BINARY, farewall, free_address};
use crate::support::{Setup, Signer, Wall, eventually, offer, send};

const PAY_TO: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const KEY: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d\n";

/// Two rules under one way of being paid; the tests of `explain` and `diff` change it.
const SITE: &str = r#"
[server]
public_origin = "https://api.example.com"
[facilitator.main]
url = "https://facilitator.example"
[accept.main]
network = "base-sepolia"
pay_to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
[upstream.api]
url = "http://127.0.0.1:9000"
[upstream.other]
url = "http://127.0.0.1:9001"
[[rule]]
name = "weather"
methods = ["GET"]
path = "/v1/weather/{city}"
upstream = "api"
price = "$0.001"
[[rule]]
name = "reports"
methods = ["POST"]
path = "/v1/{*rest}"
upstream = "other"
price = "$0.02"
settle = "before"
[[rule]]
name = "admin"
path = "/v1/admin"
deny = true
"#;

/// A folder with files in it, for commands that read them.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs it, expects this exit code, and returns its standard output.
#[track_caller]
fn run(args: &[&str], code: i32) -> String {
    let output = farewall(args);
    assert_code(args, &output, code);
    text(&output.stdout)
}

#[track_caller]
fn assert_code(args: &[&str], output: &Output, code: i32) {
    assert_eq!(
        output.status.code(),
        Some(code),
        "{args:?}\n{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

#[track_caller]
fn run_json(args: &[&str], code: i32) -> Value {
    serde_json::from_str(&run(args, code)).unwrap()
}

#[track_caller]
fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}

#[test]
fn every_command_has_examples_and_refuses_unknown_flags() {
    let commands = [
        "run",
        "demo",
        "check",
        "explain",
        "diff",
        "pay",
        "sandbox",
        "ledger",
        "init",
        "completions",
        "man",
    ];
    for command in commands {
        contains(&run(&[command, "--help"], 0), &["Example", "farewall "]);
        run(&[command, "--no-such-flag"], 2);
    }
    for command in ["list", "show", "owed", "export"] {
        contains(&run(&["ledger", command, "--help"], 0), &["Example"]);
        run(&["ledger", command, "--no-such-flag"], 2);
    }
    contains(&run(&["--help"], 0), &["Exit codes:", "farewall demo"]);
    run(&[], 2);
}

#[test]
fn check_says_all_that_is_wrong_at_once() {
    let folder = Folder::new();
    let good = folder.file("good.toml", SITE);
    contains(&run(&["check", "--config", path(&good)], 0), &["no errors"]);
    let bad = SITE
        .replace("price = \"$0.001\"", "prcie = \"$0.001\"")
        .replace("price = \"$0.02\"", "price = \"$0.0000001\"");
    let bad = folder.file("bad.toml", &bad);
    let shown = run(&["check", "--config", path(&bad)], 3);
    contains(
        &shown,
        &[
            "did you mean `price`?",
            "prcie = \"$0.001\"",
            "^",
            "bad.toml:",
            "decimal places",
        ],
    );
    let json = run_json(&["check", "--config", path(&bad), "--json"], 3);
    assert_eq!(json["ok"], false);
    let found = json["diagnostics"].as_array().unwrap();
    assert!(found.len() >= 2, "{json:#}");
    let json = run_json(&["check", "--config", path(&good), "--json"], 0);
    assert_eq!((&json["ok"], &json["errors"]), (&true.into(), &0.into()));
    run(&["check", "--config", "/no/such/file.toml"], 3);
}

#[test]
fn what_check_refuses_does_not_run() {
    let folder = Folder::new();
    let bad = folder.file("bad.toml", &SITE.replace("$0.001", "one dollar"));
    run(&["run", "--config", path(&bad)], 3);
    let twice = SITE
        .replace("/v1/{*rest}", "/v1/weather/{town}")
        .replace("POST", "GET");
    let twice = folder.file("twice.toml", &twice);
    let shown = run(&["check", "--config", path(&twice)], 3);
    contains(&shown, &["matches the same requests", "weather"]);
    run(&["run", "--config", path(&twice)], 3);
}

#[test]
fn explain_names_the_rule_the_near_misses_and_the_atomic_price() {
    let folder = Folder::new();
    let site = folder.file("site.toml", SITE);
    let explain = |args: &[&str], code| {
        let all = [&["explain"], args, &["--config", path(&site)]].concat();
        run(&all, code)
    };
    contains(
        &explain(&["GET", "/v1/weather/%70aris?units=c"], 0),
        &[
            "canonical  api.example.com /v1/weather/paris?units=c",
            "\"weather\"",
            "1000 atomic units",
            "0.001 USDC on Base Sepolia",
            PAY_TO,
            "after a good response",
            "\"reports\"",
        ],
    );
    contains(
        &explain(&["POST", "https://api.example.com/v1/x"], 0),
        &[
            "\"reports\"",
            "20000 atomic units",
            "before the request is forwarded",
        ],
    );
    contains(&explain(&["GET", "/v1/admin"], 1), &["403", "\"admin\""]);
    contains(&explain(&["GET", "/elsewhere"], 1), &["404: no rule"]);
    contains(&explain(&["GET", "/v1/%2e%2e/x"], 1), &["400:"]);
    explain(&["GET", "not a url"], 2);

    let json = explain(&["GET", "/v1/weather/oslo", "--json"], 0);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["outcome"], "priced");
    assert_eq!(json["canonical"]["path"], "/v1/weather/oslo");
    assert_eq!(json["rule"]["name"], "weather");
    assert_eq!(json["price"]["ways"][0]["amount"], "1000");
    assert_eq!(json["price"]["settle"], "after");
    assert_eq!(json["upstream"], "api");
    let near = json["near_misses"].as_array().unwrap();
    assert!(
        near.iter().any(|n| n["rule"]["name"] == "reports"),
        "{json:#}"
    );
}

#[track_caller]
fn check_diff(from: &str, to: &str, kind: &str, parts: &[&str]) {
    let folder = Folder::new();
    let old = folder.file("old.toml", SITE);
    let new = SITE.replacen(from, to, 1);
    assert_ne!(new, SITE, "{from}");
    let new = folder.file("new.toml", &new);
    let shown = run(&["diff", path(&old), path(&new)], 1);
    contains(&shown, &[kind]);
    contains(&shown, parts);
    let json = run_json(&["diff", path(&old), path(&new), "--json"], 1);
    let changes = json["changes"].as_array().unwrap();
    assert!(changes.iter().any(|c| c["kind"] == kind), "{json:#}");
}

#[test]
fn diff_says_what_a_change_means_for_prices() {
    check_diff(
        "$0.001",
        "$0.002",
        "dearer",
        &["\"weather\"", "1000", "2000"],
    );
    check_diff(
        "$0.02",
        "$0.01",
        "cheaper",
        &["\"reports\"", "20000", "10000"],
    );
    check_diff(
        "price = \"$0.001\"",
        "free = true",
        "free",
        &["\"weather\""],
    );
    check_diff(
        "price = \"$0.001\"",
        "deny = true",
        "denied",
        &["\"weather\""],
    );
    check_diff(
        PAY_TO,
        "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
        "repointed",
        &[PAY_TO],
    );
    check_diff(
        "upstream = \"other\"",
        "upstream = \"api\"",
        "repointed",
        &["\"reports\""],
    );
}

#[test]
fn diff_of_equals_is_empty_and_of_a_bad_file_an_error() {
    let folder = Folder::new();
    let site = folder.file("site.toml", SITE);
    let commented = folder.file("commented.toml", &format!("# a comment\n{SITE}"));
    assert_eq!(run(&["diff", path(&site), path(&commented)], 0), "");
    let bad = folder.file("bad.toml", "rule = 1");
    run(&["diff", path(&site), path(&bad)], 3);
}

#[test]
fn what_init_writes_passes_check() {
    let folder = Folder::new();
    let output = folder.0.path().join("new/farewall.toml");
    let flags = [
        "--upstream",
        "http://127.0.0.1:9000",
        "--pay-to",
        PAY_TO,
        "--price",
        "$0.05",
        "--path",
        "/paid/{*rest}",
    ];
    let init = |more: &[&str], code| {
        let all = [&["init"], more, &flags[..]].concat();
        run(&all, code)
    };
    init(&["--output", path(&output)], 0);
    contains(
        &run(&["check", "--config", path(&output)], 0),
        &["no errors, no warnings"],
    );
    let explained = run(&["explain", "GET", "/paid/x", "--config", path(&output)], 0);
    contains(&explained, &["50000 atomic units"]);
    init(&["--output", path(&output)], 4);
    init(&["--output", path(&output), "--force"], 0);
    contains(&init(&["--output", "-"], 0), &["price = \"$0.05\""]);
    run(
        &[
            "init",
            "--output",
            path(&output),
            "--force",
            "--pay-to",
            PAY_TO,
        ],
        2,
    );
    run(
        &[
            "init",
            "--output",
            "-",
            "--upstream",
            "nowhere",
            "--pay-to",
            PAY_TO,
        ],
        3,
    );
}

/// A file that holds a key, readable by nobody else.
fn key_file(folder: &Folder) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let key = folder.file("key.hex", KEY);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    key
}

#[tokio::test(flavor = "multi_thread")]
async fn pay_writes_the_body_to_stdout_and_the_receipt_to_stderr() {
    let wall = Wall::start().await;
    let (folder, url) = (Folder::new(), wall.url("/v1/quote"));
    let key = key_file(&folder);
    let args = [
        "pay",
        &url,
        "--key-file",
        path(&key),
        "--max-price",
        "$0.001",
    ];
    let output = farewall(&args);
    assert_code(&args, &output, 0);
    assert_eq!(text(&output.stdout), "{\"answer\":42,\"nth\":1}");
    contains(
        &text(&output.stderr),
        &["paid 0.001 USDC on Base Sepolia", "\"transaction\":\"0x"],
    );
    assert_eq!(wall.sandbox.stats().settled, 1);
    eventually("delivered", || wall.states() == ["delivered"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pay_never_signs_above_the_limit_nor_on_a_dry_run() {
    let wall = Wall::start().await;
    let (folder, url) = (Folder::new(), wall.url("/v1/quote"));
    let key = key_file(&folder);
    run(
        &[
            "pay",
            &url,
            "--key-file",
            path(&key),
            "--max-price",
            "$0.000999",
        ],
        1,
    );
    let shown = run_json(&["pay", &url, "--max-price", "$0.10", "--dry-run"], 0);
    assert_eq!(shown["accepts"][0]["amount"], "1000");
    run(&["pay", &url, "--max-price", "$0.0001", "--dry-run"], 1);
    run(&["pay", &url, "--max-price", "$0.10"], 2);
    run(
        &[
            "pay",
            &url,
            "--key-file",
            "/no/such/key",
            "--max-price",
            "$0.10",
        ],
        4,
    );
    let nobody = format!("http://{}/", free_address());
    run(
        &[
            "pay",
            &nobody,
            "--key-file",
            path(&key),
            "--max-price",
            "$0.10",
        ],
        4,
    );
    assert_eq!(
        (wall.sandbox.stats().verify_calls, wall.ledger().len()),
        (0, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pay_passes_on_method_header_and_body_and_the_status_of_a_failure() {
    let wall = Wall::start().await;
    let folder = Folder::new();
    let key = key_file(&folder);
    let body = folder.file("body.json", "{\"n\":1}");
    let buy = |more: &[&str], code| {
        let all = [
            &["pay"],
            more,
            &["--key-file", path(&key), "--max-price", "$0.10"],
        ]
        .concat();
        run(&all, code)
    };
    let data = format!("@{}", path(&body));
    let header = "Content-Type: application/json";
    let echoed = buy(&[&wall.url("/v1/echo"), "-d", &data, "-H", header], 0);
    assert_eq!(echoed, "{\"n\":1}");
    let seen = wall.origin.last();
    assert_eq!(
        (seen.method.as_str(), seen.header("content-type")),
        ("POST", Some("application/json"))
    );
    assert_eq!(buy(&[&wall.url("/health")], 0), "{\"answer\":42,\"nth\":2}");
    buy(&[&wall.url("/nowhere")], 1);
    assert_eq!(wall.sandbox.stats().settled, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_is_listed_shown_and_exported() {
    let wall = Wall::start().await;
    let signer = Signer::new();
    assert_eq!(
        wall.pay("/v1/quote", &signer.proof(&offer(1000)))
            .await
            .status,
        200
    );
    assert_eq!(
        wall.pay("/v1/fail", &Signer::new().proof(&offer(2000)))
            .await
            .status,
        500
    );
    eventually("delivered", || {
        wall.states().contains(&"delivered".to_owned())
    });
    let config = path(&wall.config).to_owned();
    let ledger =
        |args: &[&str], code| run(&[&["ledger"], args, &["--config", &config]].concat(), code);

    let table = ledger(&["list"], 0);
    contains(&table, &["delivered", "0.001 USDC", "quote", "STATE"]);
    let only = ledger(&["list", "--state", "delivered", "--format", "json"], 0);
    let only: Value = serde_json::from_str(&only).unwrap();
    assert_eq!(only.as_array().unwrap().len(), 1);
    assert_eq!(only[0]["payer"], signer.address.to_checksum(None));
    assert_eq!(
        (&only[0]["amount"], &only[0]["symbol"]),
        (&"0.001".into(), &"USDC".into())
    );
    assert!(only[0].get("settle_request").is_none());

    let id = only[0]["id"].to_string();
    contains(
        &ledger(&["show", &id], 0),
        &["transaction", "0x73616e64626f78"],
    );
    let payment = only[0]["payment"].as_str().unwrap();
    contains(&ledger(&["show", &payment[..8]], 0), &[payment]);
    ledger(&["show", "999999"], 1);
    ledger(&["show", "no-claim"], 1);

    let csv = ledger(&["export"], 0);
    let mut lines = csv.lines();
    contains(
        lines.next().unwrap(),
        &["id,state,claimed_at", "amount_atomic"],
    );
    assert_eq!(lines.count(), wall.ledger().len());
    for (filter, value, rows) in [
        ("--rule", "quote", 1),
        ("--rule", "nothing", 0),
        (
            "--payer",
            &signer.address.to_checksum(None).to_lowercase(),
            1,
        ),
        ("--since", "1h", wall.ledger().len()),
        ("--until", "1h", 0),
    ] {
        let csv = ledger(&["export", filter, value], 0);
        assert_eq!(csv.lines().count(), rows + 1, "{filter} {value}");
    }
    contains(&ledger(&["owed"], 0), &["Owed:", "Unknown:"]);
    let owed = ledger(&["owed", "--format", "json"], 0);
    assert_eq!(
        serde_json::from_str::<Value>(&owed).unwrap(),
        Value::Array(Vec::new())
    );
    ledger(&["list", "--state", "stolen"], 2);
    run(&["ledger", "list", "--ledger", "/no/such/ledger.db"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paid_but_not_delivered_is_owed() {
    let setup = Setup {
        limits: "kept_response_bytes_max = 0".to_owned(),
        ..Setup::default()
    };
    let wall = setup.start().await;
    // Paid before, and the origin fails: the money moved, the answer is owed.
    let request = wall
        .request(reqwest::Method::GET, "/before/fail")
        .header("PAYMENT-SIGNATURE", Signer::new().proof(&offer(3000)));
    let answer = send(request).await;
    assert_eq!(
        (answer.status, answer.receipt()["success"].as_bool()),
        (500, Some(true))
    );
    let config = path(&wall.config).to_owned();
    let owed = || {
        run_json(
            &["ledger", "owed", "--format", "json", "--config", &config],
            0,
        )
    };
    eventually("owed", || owed().as_array().unwrap().len() == 1);
    assert_eq!(owed()[0]["state"], "settled");
}

#[test]
fn the_demo_goes_well() {
    let shown = run(&["demo", "--once", "--port", "0"], 0);
    contains(
        &shown,
        &[
            "-> 402",
            "PAYMENT-REQUIRED, decoded",
            "PAYMENT-RESPONSE, decoded",
            "Idempotency-Replayed: true",
            "delivered",
            "released",
            "Every step went as it should.",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_is_a_facilitator_that_runs_alone() {
    let mut child = Command::new(BINARY)
        .args(["sandbox", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    let url = line
        .split_whitespace()
        .find(|word| word.starts_with("http://"));
    let url = url
        .unwrap_or_else(|| panic!("{line}"))
        .trim_end_matches(':')
        .to_owned();
    let supported = crate::support::client()
        .get(format!("{url}/supported"))
        .send()
        .await;
    let supported: Value = supported.unwrap().json().await.unwrap();
    let pid = child.id().to_string();
    let asked = Command::new("kill").args(["-INT", &pid]).status().unwrap();
    let status = child.wait().unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    let kinds = supported["kinds"].as_array().unwrap();
    assert!(
        kinds.iter().any(|k| k["network"] == "eip155:84532"),
        "{supported:#}"
    );
    assert!(asked.success() && status.success(), "{status}");
}
