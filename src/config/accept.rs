//! `[accept.NAME]`: one way of being paid. Mistakes here lose money, so they are errors, not warnings.

use std::sync::Arc;

use alloy_primitives::Address;
use serde_json::{Map, Value as Json};

use crate::chain::assets::{self, KnownAsset, Transfer};
use crate::chain::{Asset, Network, PayTo, parse_evm_address};
use crate::money::Decimals;

use super::diagnostic::Diagnostic;
use super::document::{Node, Table, Value};
use super::named::Catalogue;
use super::reader::{Reader, closest};
use super::settings::{AcceptMethod, AcceptSettings, FacilitatorSettings};

const NETWORK_HELP: &str = "write a name such as \"base\", or CAIP-2 such as \"eip155:8453\"";

pub(super) fn accept(
    reader: &Reader<'_>,
    name: &Arc<str>,
    facilitators: &Catalogue<FacilitatorSettings>,
) -> Option<AcceptSettings> {
    let network = network(reader);
    let scheme = scheme(reader);
    let through = facilitators.several(reader, "facilitators", "facilitator");
    let extra = extra(reader);
    let max_timeout = reader.seconds("max_timeout_s", 300, 10..=86_400);
    if let (Some(network), Some(through)) = (&network, &through) {
        refuse_sandbox_on_mainnet(reader, network, through, facilitators);
    }
    let (network, scheme) = (network?, scheme?);
    let token = token(reader, &network);
    let pay_to = pay_to(reader, &network);
    let token = token?;
    let method = if network.evm_chain_id().is_some() && &*scheme == "exact" {
        evm_method(reader, &token)
    } else {
        let because = "only the facilitator judges payments of this scheme and network";
        reader.idle(
            &["transfer_method", "eip712_name", "eip712_version"],
            because,
        );
        Some(AcceptMethod::Opaque)
    };
    let pay_to = pay_to?;
    if pay_to.as_str() == token.asset.as_str() {
        let message = "`pay_to` is the token's own contract: the money would be lost";
        reader.wrong(
            "pay_to",
            "bad-recipient",
            message,
            "write your own account's address",
        );
    }
    Some(AcceptSettings {
        name: Arc::clone(name),
        scheme,
        network,
        is_dollar: reader.boolean("is_dollar", token.known.is_some()),
        asset: token.asset,
        symbol: token.symbol,
        decimals: token.decimals,
        pay_to,
        method: method?,
        max_timeout,
        extra,
        facilitators: through?,
    })
}

fn network(reader: &Reader<'_>) -> Option<Network> {
    let (text, at) = reader.required("network", NETWORK_HELP)?;
    let meant = closest(&text.value, assets::network_names()).filter(|_| !text.is_secret);
    let help = meant.map_or(NETWORK_HELP.to_owned(), |name| {
        format!("did you mean \"{name}\"?")
    });
    reader.parse(text, at, "unknown-network", &help, |text| {
        assets::network_by_name(text).map_or_else(|| Network::parse_caip2(text), Ok)
    })
}

fn scheme(reader: &Reader<'_>) -> Option<Arc<str>> {
    const USUAL: &str = "exact";
    reader.usual("scheme", || format!("\"{USUAL}\""));
    if !reader.has("scheme") {
        return Some(USUAL.into());
    }
    let help = "write \"exact\", or another scheme that the facilitator supports";
    reader.parsed("scheme", "bad-value", help, |text| {
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if (1..=32).contains(&text.len()) && text.bytes().all(is_plain) {
            Ok(text.into())
        } else {
            Err(format!("{text:?} is not a scheme"))
        }
    })
}

/// Play-money signatures would be taken for real money, or real money asked of a toy.
fn refuse_sandbox_on_mainnet(
    reader: &Reader<'_>,
    network: &Network,
    through: &[Arc<str>],
    facilitators: &Catalogue<FacilitatorSettings>,
) {
    if assets::is_testnet(network) {
        return;
    }
    let is_sandbox = |name: &&Arc<str>| facilitators.good.get(*name).is_some_and(|f| f.sandbox);
    if let Some(name) = through.iter().find(is_sandbox) {
        let key = if reader.has("facilitators") {
            "facilitators"
        } else {
            "network"
        };
        let label = assets::network_label(network);
        let message = format!("{label} has real money, and facilitator \"{name}\" is a sandbox");
        let help = "use a test network such as \"base-sepolia\", or a facilitator that settles";
        reader.wrong(key, "mainnet-through-sandbox", &message, help);
    }
}

struct Token {
    asset: Asset,
    symbol: Arc<str>,
    decimals: Decimals,
    known: Option<&'static KnownAsset>,
}

fn token(reader: &Reader<'_>, network: &Network) -> Option<Token> {
    if !reader.has("asset") {
        let Some(known) = assets::default_for(network) else {
            let label = assets::network_label(network);
            reader.missing(
                "asset",
                &format!("no token of {label} is built in; write its address"),
            );
            return None;
        };
        return known_token(reader, known);
    }
    let (text, at) = reader.text("asset")?;
    if let Some(known) = assets::find(network, &text.value) {
        return known_token(reader, known);
    }
    let symbols: Vec<_> = assets::known_assets()
        .iter()
        .filter(|asset| asset.network == network.as_str())
        .map(|asset| asset.symbol)
        .collect();
    let help = match symbols.as_slice() {
        [] => "write the address of the token".to_owned(),
        _ => format!(
            "write the token's address, or a built-in symbol: {}",
            symbols.join(", ")
        ),
    };
    let asset = reader.parse(text, at, "unknown-asset", &help, |text| {
        if network.evm_chain_id().is_some() {
            parse_evm_address(text)
                .map(Asset::evm)
                .map_err(|error| error.to_string())
        } else if is_account(text) {
            Ok(Asset::verbatim(text))
        } else {
            Err(format!("{text:?} is not a token of this network"))
        }
    });
    unknown_token(reader, asset?)
}

/// A token of the table. Keys that contradict the table are errors: the table is what buyers use.
fn known_token(reader: &Reader<'_>, known: &'static KnownAsset) -> Option<Token> {
    let decimals = u64::from(known.decimals);
    if reader
        .integer("decimals", 0..=36)
        .is_some_and(|given| given != decimals)
    {
        let message = format!("{} has {decimals} decimals", known.symbol);
        let help = "remove `decimals`: the token is built in";
        reader.wrong("decimals", "contradiction", &message, help);
    }
    if let Some((text, _)) = reader.text("symbol")
        && text.value != known.symbol
    {
        let message = format!("the symbol of this token is {}", known.symbol);
        reader.wrong(
            "symbol",
            "contradiction",
            &message,
            "remove `symbol`: the token is built in",
        );
    }
    let is_evm = known.transfer != Transfer::Opaque;
    let asset = match parse_evm_address(known.address) {
        Ok(address) if is_evm => Asset::evm(address),
        Ok(_) | Err(_) => Asset::verbatim(known.address),
    };
    Some(Token {
        asset,
        symbol: known.symbol.into(),
        decimals: Decimals::new(decimals).ok()?,
        known: Some(known),
    })
}

fn unknown_token(reader: &Reader<'_>, asset: Asset) -> Option<Token> {
    let symbol_help = "the token is not built in: write its symbol, as symbol = \"EURC\"";
    let symbol = reader
        .required("symbol", symbol_help)
        .and_then(|(text, at)| {
            reader.parse(
                text,
                at,
                "bad-value",
                "write 1 to 16 letters or digits",
                |text| {
                    let is_plain = |b: u8| b.is_ascii_graphic() && b != b'"';
                    if (1..=16).contains(&text.len())
                        && text.bytes().all(is_plain)
                        && text != "atomic"
                    {
                        Ok(Arc::from(text))
                    } else {
                        Err(format!("{text:?} is not a symbol"))
                    }
                },
            )
        });
    if !reader.has("decimals") {
        let help = "the token is not built in: write its decimals, as its contract says";
        reader.missing("decimals", help);
    }
    let decimals = reader.integer("decimals", 0..=36);
    Some(Token {
        asset,
        symbol: symbol?,
        decimals: Decimals::new(decimals?).ok()?,
        known: None,
    })
}

fn pay_to(reader: &Reader<'_>, network: &Network) -> Option<PayTo> {
    let help = "write the address of your own account on this network";
    let (text, at) = reader.required("pay_to", help)?;
    let is_evm = network.evm_chain_id().is_some();
    let is_solana = network.as_str().starts_with("solana:");
    reader.parse(text, at, "bad-recipient", help, |text| {
        if !is_evm {
            let is_good = is_account(text) && (!is_solana || is_solana_account(text));
            let account = is_good.then(|| PayTo::verbatim(text));
            return account.ok_or_else(|| format!("{text:?} is not an account of this network"));
        }
        match parse_evm_address(text) {
            Ok(Address::ZERO) => Err("the zero address is nobody: the money would be lost".into()),
            Ok(address) => Ok(PayTo::evm(address)),
            Err(error) => Err(error.to_string()),
        }
    })
}

fn is_account(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Base58 of 32 bytes, by length and alphabet.
fn is_solana_account(text: &str) -> bool {
    let is_base58 = |b: u8| b.is_ascii_alphanumeric() && !b"0OIl".contains(&b);
    (32..=44).contains(&text.len()) && text.bytes().all(is_base58)
}

/// How the token moves, and its EIP-712 domain. Rule: fact sheet, sections 3.3 and 3.5.
fn evm_method(reader: &Reader<'_>, token: &Token) -> Option<AcceptMethod> {
    let usual = token
        .known
        .map_or(Transfer::Eip3009, |known| known.transfer);
    let words = [
        ("eip3009", Transfer::Eip3009),
        ("permit2", Transfer::Permit2),
    ];
    let transfer = match reader.has("transfer_method") {
        true => reader.word("transfer_method", &words)?,
        false => usual,
    };
    let published = token.known.and_then(|known| known.eip712);
    let name = domain_text(reader, "eip712_name", published.map(|(name, _)| name));
    let version = domain_text(
        reader,
        "eip712_version",
        published.map(|(_, version)| version),
    );
    match transfer {
        Transfer::Permit2 => {
            match (&name, &version) {
                (Some(_), None) => reader.missing("eip712_version", "it goes with `eip712_name`"),
                (None, Some(_)) => reader.missing("eip712_name", "it goes with `eip712_version`"),
                (Some(_), Some(_)) | (None, None) => {}
            }
            Some(AcceptMethod::Permit2 {
                eip2612: name.zip(version),
            })
        }
        Transfer::Eip3009 | Transfer::Opaque => {
            let help = "buyers sign with the token's own EIP-712 domain: take it from its \
                        name() and version(), or write transfer_method = \"permit2\"";
            for (key, value) in [("eip712_name", &name), ("eip712_version", &version)] {
                if value.is_none() && !reader.has(key) {
                    reader.missing(key, help);
                }
            }
            let (name, version) = name.zip(version)?;
            Some(AcceptMethod::Eip3009 { name, version })
        }
    }
}

fn domain_text(reader: &Reader<'_>, key: &str, published: Option<&str>) -> Option<String> {
    if !reader.has(key) {
        return published.map(str::to_owned);
    }
    let (text, at) = reader.text(key)?;
    if published.is_some_and(|published| published != text.value) {
        let message = format!("`{key}` differs from the built-in table");
        let differs = Diagnostic::warning("overrides-table", message);
        let help = "with a wrong EIP-712 domain every buyer's signature is refused";
        reader.files.complain(at, differs.help(help));
    }
    Some(text.value.clone())
}

/// The names in `extra` that the wall derives from other keys.
const DERIVED: [&str; 3] = ["name", "version", "assetTransferMethod"];

fn extra(reader: &Reader<'_>) -> Map<String, Json> {
    let Some(table) = reader.table("extra", "write extra = { key = \"value\" }") else {
        return Map::new();
    };
    for entry in table
        .entries
        .iter()
        .filter(|e| DERIVED.contains(&e.key.as_str()))
    {
        let message = format!("`{}` in `extra` is derived from other keys", entry.key);
        let wrong = Diagnostic::error("contradiction", message);
        let help = "write `eip712_name`, `eip712_version` or `transfer_method` instead";
        if is_derived_here(reader) {
            reader.files.complain(entry.at, wrong.help(help));
        }
    }
    json_object(reader, table)
}

/// For other schemes and networks the operator may pin any member.
fn is_derived_here(reader: &Reader<'_>) -> bool {
    let text = |key| reader.table.get(key).map(|entry| &entry.node.value);
    let is_exact = !matches!(text("scheme"), Some(Value::Text(scheme)) if scheme.value != "exact");
    let is_solana = matches!(
        text("network"),
        Some(Value::Text(network)) if network.value.starts_with("solana")
    );
    is_exact && !is_solana
}

fn json_object(reader: &Reader<'_>, table: &Table) -> Map<String, Json> {
    let members = table.entries.iter();
    members
        .map(|entry| (entry.key.clone(), json(reader, &entry.node)))
        .collect()
}

fn json(reader: &Reader<'_>, node: &Node) -> Json {
    let number = match &node.value {
        Value::Text(text) => return Json::String(text.value.clone()),
        Value::Boolean(value) => return Json::Bool(*value),
        Value::List(nodes) => return nodes.iter().map(|node| json(reader, node)).collect(),
        Value::Table(table) => return Json::Object(json_object(reader, table)),
        Value::Broken => return Json::Null,
        Value::Integer(number) => number.map(Json::from),
        Value::Float(text) => serde_json::from_str(text).ok(),
        Value::Datetime => None,
    };
    number.unwrap_or_else(|| {
        let message = format!("{} here has no form in JSON", node.value.kind());
        let wrong = Diagnostic::error("bad-value", message);
        reader
            .files
            .complain(node.at, wrong.help("write it as a string"));
        Json::Null
    })
}
