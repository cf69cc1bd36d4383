//! `[network.NAME]`: which names, which URLs, and that the URL is never shown.

use super::*;
use crate::chain::Network;

fn network(text: &str) -> String {
    format!("{BASE}{text}\n")
}

#[test]
fn a_network_has_a_name_or_a_number() {
    for name in ["base-sepolia", "\"eip155:84532\""] {
        let text = network(&format!("[network.{name}]\nrpc_url = \"https://r/k?a=b\""));
        let settings = settings_of(&text);
        let sepolia = Network::parse_caip2("eip155:84532").unwrap();
        let found = &settings.networks[&sepolia];
        assert_eq!(found.rpc_url, "https://r/k?a=b");
        assert_eq!(found.rpc_timeout, Duration::from_secs(10));
        assert_eq!(found.confirmations, 2);
    }
}

#[test]
fn what_cannot_be_asked_is_an_error() {
    let url = "rpc_url = \"http://r\"";
    check_more(
        &format!("[network.base-sepola]\n{url}\n"),
        ("unknown-network", 1, 10, "base-sepola"),
    );
    check_more(
        &format!("[network.solana]\n{url}\n"),
        ("bad-network", 1, 10, "solana"),
    );
    let twice = format!("[network.base-sepolia]\n{url}\n[network.\"eip155:84532\"]\n{url}\n");
    assert_eq!(diagnostics(&network(&twice))[0].code, "duplicate-name");
    let idle = format!("[network.base]\n{url}\n");
    assert_eq!(diagnostics(&network(&idle))[0].code, "no-effect");
    let missing = "[network.base-sepolia]\nconfirmations = 3\n";
    assert_eq!(diagnostics(&network(missing))[0].code, "missing-key");
    let many = format!("[network.base-sepolia]\n{url}\nconfirmations = 101\n");
    assert_eq!(diagnostics(&network(&many))[0].code, "out-of-range");
}

#[test]
fn a_url_is_not_shown() {
    let text = network("[network.base-sepolia]\nrpc_url = \"ftp://r/planted-key\"");
    let report = parse(&text, "site.toml", &no_env).unwrap_err();
    assert_eq!(report.diagnostics[0].code, "bad-url");
    assert!(!report.to_string().contains("planted"), "{report}");
    let text = network("[network.base-sepolia]\nrpc_url = \"https://r/planted-key\"");
    let settings = settings_of(&text);
    assert!(!format!("{settings:?}").contains("planted"));
}
