//! `[network.NAME]`: a chain that may be asked what became of a payment.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::chain::{ChainError, Network, assets};

use super::diagnostic::Diagnostic;
use super::document::{Files, Table};
use super::keys;
use super::named;
use super::reader::{Reader, closest};
use super::settings::{AcceptSettings, NetworkSettings};
use super::values;

const NAME_HELP: &str = "write [network.base], or CAIP-2 in quotes as [network.\"eip155:8453\"]";
const URL_HELP: &str = "write the URL of an Ethereum JSON-RPC endpoint; keep keys in it outside, \
                        as \"${RPC_URL}\" or \"file:/path\"";

/// All networks, by what their names mean. One network under two names is an error.
pub(super) fn networks(
    files: &Files,
    tables: &[Table],
    accepts: &BTreeMap<Arc<str>, AcceptSettings>,
) -> BTreeMap<Network, NetworkSettings> {
    let judge = |name: &str, at| {
        let wrong = match network(name) {
            Ok(found) if found.evm_chain_id().is_some() => return,
            Ok(_) => Diagnostic::error("bad-network", format!("\"{name}\" is no EVM network"))
                .help("remove it: only EVM networks are asked over JSON-RPC"),
            Err(error) => Diagnostic::error("unknown-network", error.to_string()).help(
                closest(name, assets::network_names()).map_or_else(
                    || NAME_HELP.to_owned(),
                    |meant| format!("did you mean \"{meant}\"?"),
                ),
            ),
        };
        files.complain(at, wrong);
    };
    let mut seen: Vec<Network> = Vec::new();
    let read = |reader: &Reader<'_>, name: &Arc<str>| {
        let network = network(name).ok()?;
        network.evm_chain_id()?;
        if seen.contains(&network) {
            let message = format!("{} is the same network as one above", reader.title);
            let twice = Diagnostic::error("duplicate-name", message);
            files.complain(reader.table.at, twice.help("remove one of them"));
        }
        seen.push(network.clone());
        if !accepts.values().any(|accept| accept.network == network) {
            let message = format!(
                "{} has no effect: no [accept.NAME] is paid there",
                reader.title
            );
            let idle = Diagnostic::warning("no-effect", message);
            files.complain(reader.table.at, idle.help("remove it"));
        }
        settings(reader, network)
    };
    named::read_named(files, tables, "network", keys::NETWORK, judge, read)
        .good
        .into_values()
        .map(|settings| (settings.network.clone(), settings))
        .collect()
}

fn network(name: &str) -> Result<Network, ChainError> {
    assets::network_by_name(name).map_or_else(|| Network::parse_caip2(name), Ok)
}

fn settings(reader: &Reader<'_>, network: Network) -> Option<NetworkSettings> {
    let rpc_url = reader.required("rpc_url", URL_HELP).and_then(|(text, at)| {
        // A key may be written out in it.
        reader.files.mask(at);
        reader.parse(text, at, "bad-url", URL_HELP, values::rpc_url)
    });
    let rpc_timeout = reader.timeout("rpc_timeout_ms", 10_000);
    let confirmations = reader.number("confirmations", 2, 0..=100);
    Some(NetworkSettings {
        network,
        rpc_url: rpc_url?,
        rpc_timeout,
        confirmations,
    })
}
