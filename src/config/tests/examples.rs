//! Defaults, and the files in `conf/`.

use super::*;

#[test]
fn what_is_not_written_has_its_documented_default() {
    let settings = settings_of(&format!(
        "{BASE}[[rule]]\nname = \"a\"\npath = \"/a\"\nprice = \"$0.001\"\n"
    ));
    assert_eq!(settings.listeners.len(), 1);
    assert_eq!(settings.listeners[0].address.to_string(), "127.0.0.1:8402");
    assert_eq!(settings.server.admin.unwrap().to_string(), "127.0.0.1:8086");
    assert_eq!(settings.server.admin_token_file, None);
    assert_eq!(settings.log, LogSettings::default());
    assert_eq!(settings.server.shutdown_grace, Duration::from_secs(30));
    assert_eq!(settings.unmatched, Unmatched::Deny);
    assert!(
        matches!(&settings.ledger, LedgerSettings::File(path) if path.to_str() == Some("farewall.db"))
    );
    assert_eq!(settings.cors.allow_origins, ["*"]);
    assert_eq!(settings.limits.request_body_bytes_max, 10 << 20);
    assert_eq!(settings.limits.kept_response_bytes_max, 256 << 10);
    let facilitator = &settings.facilitators["f"];
    assert_eq!(facilitator.settle_timeout, Duration::from_secs(60));
    assert_eq!(
        facilitator.supported_cache.to_str(),
        Some("supported-f.json")
    );
    let accept = &settings.accepts["usdc"];
    assert_eq!(
        (&*accept.symbol, accept.decimals.get(), accept.is_dollar),
        ("USDC", 6, true)
    );
    assert_eq!(accept.max_timeout, Duration::from_secs(300));
    assert_eq!(&*accept.facilitators[0], "f");
    let rule = &settings.rules[0];
    assert_eq!((rule.at.line, rule.at.column), (12, 8));
    assert_eq!(rule.upstream.as_deref(), Some("api"));
    let RuleAccess::Priced(priced) = &rule.access else {
        panic!("no price");
    };
    assert_eq!(priced.settle, SettleWhen::AfterResponse);
    assert_eq!(rule.request_body_bytes_max, 10 << 20);
    assert!(!priced.forward_conditional);
}

#[test]
fn a_free_rule_may_have_its_own_body_limit() {
    let rule = "[[rule]]\nname = \"a\"\npath = \"/a\"\nfree = true\nrequest_body_bytes_max = 7\n";
    let settings = settings_of(&format!("{BASE}{rule}"));
    assert_eq!(settings.rules[0].request_body_bytes_max, 7);
}

#[test]
fn unmatched_requests_are_free_only_if_that_is_written() {
    let free = settings_of(&format!("unmatched = \"free\"\n{BASE}"));
    assert_eq!(free.unmatched, Unmatched::Free("api".into()));
    let two = format!("{BASE}[upstream.b]\nurl = \"http://b\"\n");
    let named = settings_of(&format!(
        "unmatched = \"free\"\nunmatched_upstream = \"b\"\n{two}"
    ));
    assert_eq!(named.unmatched, Unmatched::Free("b".into()));
    check(
        &format!("unmatched = \"allow\"\n{BASE}"),
        ("bad-value", 1, 13, "\"allow\""),
    );
}

const EXAMPLES: [(&str, &str); 3] = [
    (
        "conf/farewall.toml",
        include_str!("../../../conf/farewall.toml"),
    ),
    ("conf/full.toml", include_str!("../../../conf/full.toml")),
    ("conf/demo.toml", include_str!("../../../conf/demo.toml")),
];

#[test]
fn every_example_loads_without_a_warning() {
    for (name, text) in EXAMPLES {
        let loaded = parse(text, name, &no_env).unwrap_or_else(|report| panic!("{report}"));
        assert_eq!(loaded.warnings, [], "{name}");
        assert_eq!(lint(&loaded.settings), [], "{name}");
    }
}

#[test]
fn the_full_example_mentions_every_key_in_its_section() {
    let mut seen: Vec<(String, String)> = Vec::new();
    let mut header = String::new();
    for line in EXAMPLES[1].1.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if line.starts_with('[') {
            header = line
                .replace("x402", "NAME")
                .replace("base-sepolia", "NAME")
                .replace(".api", ".NAME");
            let key = line.trim_matches(['[', ']']);
            match key.split('.').collect::<Vec<_>>().as_slice() {
                [top, ..] if key.ends_with(".health") => {
                    seen.push((format!("[{top}.NAME]"), "health".to_owned()));
                }
                [top, "tls"] => seen.push((format!("[[{top}]]"), "tls".to_owned())),
                [top, ..] => seen.push((String::new(), (*top).to_owned())),
                [] => {}
            }
        } else if let Some((key, _)) = line.split_once(" = ") {
            seen.push((header.clone(), key.to_owned()));
        }
    }
    for section in keys::SECTIONS {
        for key in section.keys {
            let wanted = (section.header.to_owned(), (*key).to_owned());
            assert!(
                seen.contains(&wanted),
                "{wanted:?} is not in conf/full.toml"
            );
        }
    }
}

#[test]
fn the_full_example_shows_the_defaults() {
    let full = settings_of(EXAMPLES[1].1);
    let plain = settings_of(BASE);
    assert_eq!(format!("{:?}", full.limits), format!("{:?}", plain.limits));
    assert_eq!(format!("{:?}", full.cors), format!("{:?}", plain.cors));
    assert_eq!(full.server.admin, plain.server.admin);
    assert_eq!(full.server.shutdown_grace, plain.server.shutdown_grace);
    let (x402, f) = (&full.facilitators["x402"], &plain.facilitators["f"]);
    assert_eq!(x402.connect_timeout, f.connect_timeout);
    assert_eq!(x402.verify_timeout, f.verify_timeout);
    assert_eq!(x402.settle_timeout, f.settle_timeout);
    assert_eq!(
        (x402.calls_max, x402.answer_bytes_max),
        (f.calls_max, f.answer_bytes_max)
    );
    let network = full.networks.values().next().unwrap();
    assert_eq!(
        (network.rpc_timeout, network.confirmations),
        (Duration::from_secs(10), 2)
    );
    let (full, plain) = (&full.upstreams["api"], &plain.upstreams["api"]);
    assert_eq!(full.connect_timeout, plain.connect_timeout);
    assert_eq!(full.read_timeout, plain.read_timeout);
    assert_eq!(full.write_timeout, plain.write_timeout);
    assert_eq!(full.total_timeout, plain.total_timeout);
    assert_eq!(full.idle_timeout, plain.idle_timeout);
}

#[test]
fn ten_thousand_rules_load_in_a_moment() {
    let rules: String = (0..10_000).map(|i| free_rule(&format!("r{i}"))).collect();
    let settings = settings_of(&format!("{BASE}{rules}"));
    assert_eq!(settings.rules.len(), 10_000);
    assert_eq!(settings.rules[9_999].at.line, 9 + 9_999 * 4 + 3);
}
