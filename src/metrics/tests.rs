use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::chain::{Asset, Network};

#[track_caller]
fn shown(lines: &[&str]) {
    let text = render(|| ());
    for line in lines {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}

#[test]
fn what_is_counted_is_shown_with_its_labels() {
    started(UnixSeconds(1_700_000_000));
    let meter = RuleMeter::new(&Arc::from("quote"));
    request(&meter, "paid", 200, Duration::from_millis(3));
    request(
        &RuleMeter::new(&"quote".into()),
        "paid",
        200,
        Duration::ZERO,
    );
    request(RuleMeter::none(), "", 0, Duration::ZERO);
    settlement("local", "settled");
    unknown_settlements(2, 61);
    pruned(3);
    ledger_commits(7);
    certificate("taken");
    let key = RevenueKey {
        rule: "quote".into(),
        accept: "base-usdc".into(),
        network: Network::parse_caip2("eip155:8453").unwrap(),
        asset: Asset::verbatim("0xA"),
    };
    settled(key, AtomicAmount::new(1000), UnixSeconds(1_700_000_001));
    proof_refused("insufficient_funds");
    proof_refused("made up by a facilitator");
    let taken = Phases::default();
    taken.add(Phase::Claim, Duration::from_micros(1500));
    phases(&taken);
    shown(&[
        "farewall_requests_total{outcome=\"paid\",rule=\"quote\"} 2",
        "farewall_requests_total{outcome=\"other\",rule=\"-\"} 1",
        "farewall_responses_total{class=\"2xx\"} 2",
        "farewall_responses_total{class=\"none\"} 1",
        "farewall_request_duration_seconds_count{outcome=\"paid\"} 2",
        "farewall_settlements_total{facilitator=\"local\",outcome=\"settled\"} 1",
        "farewall_unknown_settlements 2",
        "farewall_ledger_pruned_total 3",
        "farewall_ledger_commits 7",
        "farewall_tls_certificates_total{outcome=\"taken\"} 1",
        "farewall_unknown_settlement_age_seconds 61",
        "farewall_revenue_atomic_total{accept=\"base-usdc\",asset=\"0xA\",network=\"eip155:8453\",rule=\"quote\"} 1000",
        "farewall_last_settlement_timestamp_seconds 1700000001",
        "farewall_proofs_refused_total{reason=\"insufficient_funds\"} 1",
        "farewall_proofs_refused_total{reason=\"other\"} 1",
        "farewall_phase_duration_seconds_count{phase=\"claim\"} 1",
        "farewall_phase_duration_seconds_bucket{phase=\"claim\",le=\"0.001\"} 0",
        "farewall_phase_duration_seconds_bucket{phase=\"claim\",le=\"0.0025\"} 1",
        concat!(
            "farewall_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"} 1"
        ),
        "process_start_time_seconds 1700000000",
    ]);
}

#[test]
fn what_the_configuration_does_not_name_any_more_is_not_shown() {
    let shown = |names: &[&str]| {
        render(|| {
            for name in names {
                facilitator(name, false, 2);
                accept(name, "eip155:1", "0xA", "A", "6");
            }
        })
    };
    for (named, gone) in [("first", "second"), ("second", "first")] {
        let text = shown(&[named]);
        for there in [
            format!("farewall_facilitator_healthy{{facilitator=\"{named}\"}} 0"),
            format!("farewall_facilitator_breaker_state{{facilitator=\"{named}\"}} 2"),
            format!("farewall_accept_info{{accept=\"{named}\""),
        ] {
            assert!(text.contains(&there), "{there} is missing in\n{text}");
            let absent = there.replace(named, gone);
            assert!(!text.contains(&absent), "{absent} is still in\n{text}");
        }
    }
}

#[test]
fn what_is_held_is_counted_until_it_is_dropped() {
    let held = (connection(), connection());
    assert_eq!(CONNECTIONS.get(), 2);
    drop(held);
    assert_eq!(CONNECTIONS.get(), 0);
}

#[test]
fn every_metric_has_a_unit_a_help_and_a_name_of_its_own() {
    let mut names = BTreeSet::new();
    for metric in all() {
        assert!(names.insert(metric.name), "{} twice", metric.name);
        assert!(!metric.unit.is_empty(), "{}", metric.name);
        assert!(
            metric.help.ends_with('.'),
            "{}: {}",
            metric.name,
            metric.help
        );
        let counts = metric.name.ends_with("_total");
        assert_eq!(counts, metric.kind == "counter", "{}", metric.name);
    }
}

#[test]
fn every_reason_of_our_own_has_a_series() {
    let source = include_str!("../proof.rs");
    let begin = source.find("pub fn reason(").unwrap();
    for code in source[begin..].split('"').skip(1).step_by(2) {
        let is_code = code.contains('_') && !code.contains(['{', ' ', '/']);
        if is_code {
            assert!(
                REASONS.contains(&code),
                "{code} would be counted as `other`"
            );
        }
    }
}
