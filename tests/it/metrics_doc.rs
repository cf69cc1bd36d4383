//! The metrics reference is what the code says, and what we ship for Prometheus and Grafana names
//! nothing else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use farewall::metrics;
use serde_json::Value;

use crate::support::wall::free_address;
use crate::support::{Setup, Signer, offer, send};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap()
}

#[test]
fn the_metrics_reference_is_what_the_code_says() {
    let reference = metrics::reference();
    if std::env::var_os("FAREWALL_WRITE_DOCS").is_some() {
        std::fs::write(file("docs/metrics.md"), &reference).unwrap();
    }
    assert!(
        text("docs/metrics.md") == reference,
        "docs/metrics.md is old: FAREWALL_WRITE_DOCS=1 cargo test --test it metrics_doc"
    );
}

/// The words of an expression that look like metrics of ours.
fn named(expression: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = expression.split(|c| !is_part(c));
    let ours = |word: &&str| word.starts_with("farewall_") || word.starts_with("process_");
    words.filter(ours).map(str::to_owned).collect()
}

#[track_caller]
fn exist(whence: &str, names: &BTreeSet<String>) {
    let known: BTreeSet<String> = metrics::all().iter().flat_map(|m| m.series()).collect();
    // A histogram's help may name it without a part.
    let bare: BTreeSet<String> = metrics::all().iter().map(|m| m.name.to_owned()).collect();
    for name in names {
        let is_known = known.contains(name) || (whence.ends_with("text") && bare.contains(name));
        assert!(is_known, "{whence} names {name}, which does not exist");
    }
}

#[test]
fn every_metric_in_the_alerts_exists() {
    let alerts = text("conf/alerts.yml");
    let names = named(&alerts);
    assert!(names.len() > 10, "{names:?}");
    exist("conf/alerts.yml text", &names);
}

#[test]
fn every_metric_on_the_dashboard_exists_and_most_are_on_it() {
    let dashboard: Value = serde_json::from_str(&text("conf/grafana.json")).unwrap();
    let mut names = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            let found = named(expression);
            assert!(!found.is_empty(), "{expression}");
            names.extend(found);
        }
    }
    exist("conf/grafana.json", &names);
    assert!(names.len() > 20, "{names:?}");
}

#[test]
fn promtool_finds_nothing_wrong_with_the_alerts() {
    let promtool = |args: &[&str]| Command::new("promtool").args(args).output();
    let rules = file("conf/alerts.yml");
    let tests = file("tests/prometheus/alerts_test.yml");
    for args in [
        ["check", "rules", rules.to_str().unwrap()],
        ["test", "rules", tests.to_str().unwrap()],
    ] {
        match promtool(&args) {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stdout);
                let complaint = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{args:?}\n{said}\n{complaint}");
            }
            Err(error) => {
                let skip = format!("SKIPPED: no promtool ({error}); apt-get install prometheus");
                assert!(std::env::var_os("CI").is_none(), "{skip}");
                eprintln!("{skip}");
            }
        }
    }
}

/// The metrics, once they are as expected: what is recorded behind a response comes a moment later.
async fn eventually_shown(url: &str, is_there: impl Fn(&str) -> bool) -> String {
    let end = Instant::now() + Duration::from_secs(15);
    loop {
        let answer = send(crate::support::client().get(url)).await;
        let shown = answer.body;
        if is_there(&shown) {
            return shown;
        }
        assert!(Instant::now() < end, "never came true:\n{shown}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a wall that has sold something shows.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_wall_shows_what_it_sold_and_where_the_time_went() {
    let admin = free_address();
    let wall = Setup {
        admin: Some(admin),
        ..Setup::default()
    }
    .start()
    .await;
    let client = crate::support::client();
    assert_eq!(wall.get("/v1/quote").await.status, 402);
    let proof = Signer::new().proof(&offer(1000));
    let paid = client
        .get(wall.url("/v1/quote"))
        .header("payment-signature", proof);
    assert_eq!(send(paid).await.status, 200);
    assert_eq!(wall.get("/admin/x").await.status, 403);
    let url = format!("http://{admin}/metrics");
    let is_there = |shown: &str| {
        shown.contains("farewall_requests_total{outcome=\"paid\",rule=\"quote\"} 1")
            && shown.contains("farewall_ledger_commit_duration_seconds_count{write=\"advance\"} 3")
    };
    let shown = eventually_shown(&url, is_there).await;
    for line in [
        "farewall_requests_total{outcome=\"payment_required\",rule=\"quote\"} 1",
        "farewall_requests_total{outcome=\"denied\",rule=\"admin\"} 1",
        "farewall_responses_total{class=\"4xx\"} 2",
        "accept=\"base-sepolia-usdc\",asset=\"0x036CbD53842c5426634e7929541eC2318f3dCF7e\",network=\"eip155:84532\",rule=\"quote\"} 1000",
        "farewall_phase_duration_seconds_count{phase=\"challenge\"} 1",
        "farewall_phase_duration_seconds_count{phase=\"verify\"} 1",
        "farewall_phase_duration_seconds_count{phase=\"claim\"} 1",
        "farewall_phase_duration_seconds_count{phase=\"upstream\"} 1",
        "farewall_phase_duration_seconds_count{phase=\"settle\"} 1",
        "farewall_facilitator_calls_total{call=\"settle\",facilitator=\"sandbox\",result=\"answered\"} 1",
        "farewall_facilitator_healthy{facilitator=\"sandbox\"} 1",
        "farewall_facilitator_breaker_state{facilitator=\"sandbox\"} 0",
        "farewall_ledger_commit_duration_seconds_count{write=\"claim\"} 1",
        "farewall_ledger_claims{state=\"owed\"} 0",
        "farewall_verdict_cache_total{result=\"miss\"} 1",
        "farewall_connections_max 20000",
        "decimals=\"6\",network=\"eip155:84532\",symbol=\"USDC\"} 1",
    ] {
        assert!(shown.contains(line), "{line} is missing in\n{shown}");
    }
    let settled = shown
        .lines()
        .find_map(|l| l.strip_prefix("farewall_last_settlement_timestamp_seconds "));
    assert!(settled.unwrap().parse::<u64>().unwrap() > 1_700_000_000);
    // Whatever is shown is described.
    let known: BTreeSet<String> = metrics::all().iter().flat_map(|m| m.series()).collect();
    for line in shown.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        assert!(known.contains(name), "{name} is not described");
    }
}
