//! The built-in table: networks by name, and the tokens that default clients pay with.
//!
//! Every token here is a stablecoin of one US dollar, so `"$0.10"` can be paid with any of them.
//! Rule: fact sheet, sections 4.1 (EVM), 4.2 (Solana), 4.3 and 1.6 (names of version 1).

use crate::chain::Network;

/// How a known token moves under the scheme `exact`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transfer {
    /// `transferWithAuthorization`.
    Eip3009,
    /// Permit2; the token supports EIP-2612 when its EIP-712 domain is given.
    Permit2,
    /// Only a facilitator can judge.
    Opaque,
}

/// One token that clients know without being told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KnownAsset {
    /// CAIP-2.
    pub network: &'static str,
    /// Symbol, for people and for prices such as `"0.001 USDC"`.
    pub symbol: &'static str,
    /// Contract in EIP-55 form, or mint.
    pub address: &'static str,
    /// Digits after the point.
    pub decimals: u8,
    /// EIP-712 domain name and version, where the token has a published one.
    pub eip712: Option<(&'static str, &'static str)>,
    /// How it moves unless the operator says otherwise.
    pub transfer: Transfer,
    /// First of its network: what a dollar price means there.
    pub is_default: bool,
}

const fn evm(
    network: &'static str,
    symbol: &'static str,
    address: &'static str,
    eip712: (&'static str, &'static str),
) -> KnownAsset {
    KnownAsset {
        network,
        symbol,
        address,
        decimals: 6,
        eip712: Some(eip712),
        transfer: Transfer::Eip3009,
        is_default: true,
    }
}

const fn permit2(decimals: u8, asset: KnownAsset) -> KnownAsset {
    KnownAsset {
        decimals,
        transfer: Transfer::Permit2,
        ..asset
    }
}

const fn further(asset: KnownAsset) -> KnownAsset {
    KnownAsset {
        is_default: false,
        ..asset
    }
}

const fn mint(network: &'static str, symbol: &'static str, address: &'static str) -> KnownAsset {
    KnownAsset {
        network,
        symbol,
        address,
        decimals: 6,
        eip712: None,
        transfer: Transfer::Opaque,
        is_default: true,
    }
}

const USD_COIN: (&str, &str) = ("USD Coin", "2");
const USDC: (&str, &str) = ("USDC", "2");
const USDT0: (&str, &str) = ("USDT0", "1");
const MEZO_USD: (&str, &str) = ("Mezo USD", "1");
const STABLE_COIN: (&str, &str) = ("Stable Coin", "1");
const BRIDGED: (&str, &str) = ("Bridged USDC", "2");

const SOLANA: &str = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp";
const SOLANA_DEVNET: &str = "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1";
const SOLANA_TESTNET: &str = "solana:4uhcVJyU9pJkvQyS88uRDiswHXSCkY3z";

#[rustfmt::skip]
static ASSETS: &[KnownAsset] = &[
    evm("eip155:8453", "USDC", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", USD_COIN),
    evm("eip155:84532", "USDC", "0x036CbD53842c5426634e7929541eC2318f3dCF7e", USDC),
    evm("eip155:1", "USDC", "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", USD_COIN),
    evm("eip155:43114", "USDC", "0xB97EF9Ef8734C71904D8002F8b6Bc66Dd9c48a6E", USD_COIN),
    evm("eip155:137", "USDC", "0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359", USD_COIN),
    evm("eip155:42161", "USDC", "0xaf88d065e77c8cC2239327C5EDb3A432268e5831", USD_COIN),
    evm("eip155:421614", "USDC", "0x75faf114eafb1BDbe2F0316DF893fd58CE46AA4d", USD_COIN),
    evm("eip155:143", "USDC", "0x754704Bc059F8C67012fEd69BC8A327a5aafb603", USDC),
    permit2(18, evm("eip155:4326", "MegaUSD", "0xFAfDdbb3FC7688494971a79cc65DCa3EF82079E7", ("MegaUSD", "1"))),
    evm("eip155:988", "USDT0", "0x779Ded0c9e1022225f8E0630b35a9b54bE713736", USDT0),
    evm("eip155:2201", "USDT0", "0x78Cf24370174180738C5B8E352B6D14c83a6c9A9", USDT0),
    permit2(18, evm("eip155:31612", "mUSD", "0xdD468A1DDc392dcdbEf6db6e34E89AA338F9F186", MEZO_USD)),
    permit2(18, evm("eip155:31611", "mUSD", "0x118917a40FAF1CD7a13dB0Ef56C86De7973Ac503", MEZO_USD)),
    permit2(6, evm("eip155:723487", "SBC", "0x33ad9e4BD16B69B5BFdED37D8B5D9fF9aba014Fb", STABLE_COIN)),
    permit2(6, evm("eip155:72344", "SBC", "0x33ad9e4BD16B69B5BFdED37D8B5D9fF9aba014Fb", STABLE_COIN)),
    evm("eip155:36900", "USDC.e", "0x9cb8142aEBBcdc60AF7c97Af897A67A8f3CA71C2", ("USDC.e", "2")),
    evm("eip155:190415", "USDC.e", "0x401eCb1D350407f13ba348573E5630B83638E30D", BRIDGED),
    evm("eip155:181228", "USDC.e", "0x401eCb1D350407f13ba348573E5630B83638E30D", BRIDGED),
    evm("eip155:50", "USDC", "0xfA2958CB79b0491CC627c1557F441eF849Ca8eb1", USDC),
    evm("eip155:51", "USDC", "0xb5AB69F7bBada22B28e79C8FFAECe55eF1c771D4", USDC),
    KnownAsset {
        network: "eip155:38833",
        symbol: "USDC",
        address: "0xA5b8BF902b2844dA17d4506cc827F7F1681735E7",
        decimals: 6,
        eip712: None,
        transfer: Transfer::Permit2,
        is_default: true,
    },
    evm("eip155:14", "USDT0", "0xe7cd86e13AC4309349F30B3435a9d337750fC82D", ("USD\u{20ae}0", "1")),
    evm("eip155:42220", "USDC", "0xcebA9300f2b948710d2653dD7B07f33A8B32118C", USDC),
    further(evm("eip155:42220", "USDT", "0x48065fbBE25f71C9282ddf5e1cD6D6A887483D5e", ("Tether USD", "1"))),
    further(evm("eip155:42220", "USAT", "0xD2ab3C9A02DBBAB236BfEC45D1d755DF4267F771", ("Tether America USD", "1"))),
    evm("eip155:11142220", "USDC", "0x01C5C0122039549AD1493B8220cABEdD739BC44E", USDC),
    evm("eip155:1329", "USDC", "0xe15fC38F6D8c56aF07bbCBe3BAf5708A2Bf42392", USDC),
    evm("eip155:1328", "USDC", "0x4fCF1784B31630811181f670Aea7A7bEF803eaED", USDC),
    evm("eip155:43113", "USDC", "0x5425890298aed601595a70AB815c96711a31Bc65", USD_COIN),
    evm("eip155:80002", "USDC", "0x41E94Eb019C0762f9Bfcf9Fb1E58725BfB0e7582", USDC),
    mint(SOLANA, "USDC", "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"),
    further(mint(SOLANA, "USDT", "Es9vMFrzaCERmJfrF4H2FYD4KCoNkY11McCe8BenwNYB")),
    further(mint(SOLANA, "USDG", "2u1tszSeqZ3qBWF3uNGPFc8TzMk2tdiwknnRMWGWjGWH")),
    further(mint(SOLANA, "PYUSD", "2b1kV6DkPAnxd5ixfnxCpjxmKwqjjaYmCZfHsFu24GXo")),
    further(mint(SOLANA, "CASH", "CASHx9KJUStyftLFWGvEVf59SGeG9sh5FfcnZMVPCASH")),
    mint(SOLANA_DEVNET, "USDC", "4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU"),
    further(mint(SOLANA_DEVNET, "USDG", "4F6PM96JJxngmHnZLBh9n58RH4aTVNWvDs2nuwrT5BP7")),
    further(mint(SOLANA_DEVNET, "PYUSD", "CXk2AMBfi3TwaEL2468s6zP8xq9NxTXjp9gjMgzeUynM")),
    mint(SOLANA_TESTNET, "USDC", "4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU"),
    further(mint(SOLANA_TESTNET, "USDG", "4F6PM96JJxngmHnZLBh9n58RH4aTVNWvDs2nuwrT5BP7")),
    further(mint(SOLANA_TESTNET, "PYUSD", "CXk2AMBfi3TwaEL2468s6zP8xq9NxTXjp9gjMgzeUynM")),
];

/// What a network's money is worth, and whether clients of version 1 know the network.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// Real money.
    Main,
    /// Play money.
    Test,
    /// Real money; its first name parses in legacy clients (section 1.6).
    MainV1,
    /// Play money; its first name parses in legacy clients.
    TestV1,
}

/// CAIP-2, label for people, names (the first is that of version 1, where there is one), kind.
type NetworkRow = (&'static str, &'static str, &'static [&'static str], Kind);

#[rustfmt::skip]
static NETWORKS: &[NetworkRow] = &[
    ("eip155:8453", "Base", &["base", "base-mainnet"], Kind::MainV1),
    ("eip155:84532", "Base Sepolia", &["base-sepolia"], Kind::TestV1),
    ("eip155:1", "Ethereum", &["ethereum", "ethereum-mainnet"], Kind::Main),
    ("eip155:11155111", "Ethereum Sepolia", &["sepolia", "ethereum-sepolia"], Kind::Test),
    ("eip155:2741", "Abstract", &["abstract"], Kind::MainV1),
    ("eip155:11124", "Abstract testnet", &["abstract-testnet"], Kind::TestV1),
    ("eip155:43114", "Avalanche C", &["avalanche"], Kind::MainV1),
    ("eip155:43113", "Avalanche Fuji", &["avalanche-fuji"], Kind::TestV1),
    ("eip155:4689", "IoTeX", &["iotex"], Kind::MainV1),
    ("eip155:1329", "Sei", &["sei"], Kind::MainV1),
    ("eip155:1328", "Sei testnet", &["sei-testnet"], Kind::TestV1),
    ("eip155:137", "Polygon", &["polygon"], Kind::MainV1),
    ("eip155:80002", "Polygon Amoy", &["polygon-amoy"], Kind::TestV1),
    ("eip155:3338", "peaq", &["peaq"], Kind::MainV1),
    ("eip155:1514", "Story", &["story"], Kind::MainV1),
    ("eip155:41923", "EDU Chain", &["educhain"], Kind::MainV1),
    ("eip155:324705682", "SKALE Base Sepolia", &["skale-base-sepolia"], Kind::TestV1),
    ("eip155:42161", "Arbitrum One", &["arbitrum", "arbitrum-one"], Kind::Main),
    ("eip155:421614", "Arbitrum Sepolia", &["arbitrum-sepolia"], Kind::Test),
    ("eip155:143", "Monad", &["monad"], Kind::Main),
    ("eip155:4326", "MegaETH", &["megaeth"], Kind::Main),
    ("eip155:988", "Stable", &["stable"], Kind::Main),
    ("eip155:2201", "Stable testnet", &["stable-testnet"], Kind::Test),
    ("eip155:31612", "Mezo", &["mezo"], Kind::Main),
    ("eip155:31611", "Mezo testnet", &["mezo-testnet"], Kind::Test),
    ("eip155:723487", "Radius", &["radius"], Kind::Main),
    ("eip155:72344", "Radius testnet", &["radius-testnet"], Kind::Test),
    ("eip155:36900", "ADI", &["adi"], Kind::Main),
    ("eip155:190415", "HPP", &["hpp"], Kind::Main),
    ("eip155:181228", "HPP Sepolia", &["hpp-sepolia"], Kind::Test),
    ("eip155:50", "XDC", &["xdc"], Kind::Main),
    ("eip155:51", "XDC Apothem", &["xdc-apothem"], Kind::Test),
    ("eip155:38833", "Igra", &["igra"], Kind::Main),
    ("eip155:14", "Flare", &["flare"], Kind::Main),
    ("eip155:42220", "Celo", &["celo"], Kind::Main),
    ("eip155:11142220", "Celo Sepolia", &["celo-sepolia"], Kind::Test),
    (SOLANA, "Solana", &["solana", "solana-mainnet"], Kind::MainV1),
    (SOLANA_DEVNET, "Solana devnet", &["solana-devnet"], Kind::TestV1),
    (SOLANA_TESTNET, "Solana testnet", &["solana-testnet"], Kind::Test),
    ("eip155:31337", "local chain (anvil, hardhat)", &["anvil", "hardhat"], Kind::Test),
    ("eip155:1337", "local chain", &["localhost"], Kind::Test),
];

/// All built-in tokens; the default of a network comes before its others.
#[must_use]
pub fn known_assets() -> &'static [KnownAsset] {
    ASSETS
}

/// A built-in token by symbol or address.
///
/// Symbols and EVM addresses are compared without regard to case; mints to the letter, because
/// base58 is case-sensitive.
#[must_use]
pub fn find(network: &Network, symbol_or_address: &str) -> Option<&'static KnownAsset> {
    let is_evm = network.evm_chain_id().is_some();
    on(network).find(|asset| {
        asset.symbol.eq_ignore_ascii_case(symbol_or_address)
            || asset.address == symbol_or_address
            || (is_evm && asset.address.eq_ignore_ascii_case(symbol_or_address))
    })
}

/// What a dollar price means on this network.
#[must_use]
pub fn default_for(network: &Network) -> Option<&'static KnownAsset> {
    on(network).find(|asset| asset.is_default)
}

fn on(network: &Network) -> impl Iterator<Item = &'static KnownAsset> {
    ASSETS
        .iter()
        .filter(|asset| asset.network == network.as_str())
}

fn row(network: &Network) -> Option<&'static NetworkRow> {
    NETWORKS
        .iter()
        .find(|(caip2, ..)| *caip2 == network.as_str())
}

/// A network by one of its names, such as `base-sepolia`; lower case.
#[must_use]
pub fn network_by_name(name: &str) -> Option<Network> {
    NETWORKS
        .iter()
        .find(|(_, _, names, _)| names.contains(&name))
        .and_then(|(caip2, ..)| Network::parse_caip2(caip2).ok())
}

/// Every name that [`network_by_name`] knows, for suggestions.
pub fn network_names() -> impl Iterator<Item = &'static str> {
    NETWORKS
        .iter()
        .flat_map(|(_, _, names, _)| names.iter().copied())
}

/// The name in version 1, for the networks that legacy clients can parse.
///
/// `None` for all others: one entry that fails to parse makes such a client drop the whole list.
#[must_use]
pub fn v1_name(network: &Network) -> Option<&'static str> {
    let (_, _, names, kind) = row(network)?;
    match kind {
        Kind::MainV1 | Kind::TestV1 => names.first().copied(),
        Kind::Main | Kind::Test => None,
    }
}

/// What people call the network; its CAIP-2 text when it is not in the table.
#[must_use]
pub fn network_label(network: &Network) -> &str {
    row(network).map_or(network.as_str(), |(_, label, ..)| label)
}

/// Whether the network's money is play money. A network that is not in the table counts as real.
#[must_use]
pub fn is_testnet(network: &Network) -> bool {
    row(network).is_some_and(|(.., kind)| matches!(kind, Kind::Test | Kind::TestV1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::chain::parse_evm_address;

    fn network(text: &str) -> Network {
        Network::parse_caip2(text).unwrap()
    }

    #[test]
    fn every_evm_address_of_the_table_is_in_checksum_form() {
        for asset in known_assets() {
            if network(asset.network).evm_chain_id().is_some() {
                let address = parse_evm_address(asset.address).unwrap();
                assert_eq!(
                    address.to_checksum(None),
                    asset.address,
                    "{}",
                    asset.network
                );
            } else {
                assert!(
                    (32..=44).contains(&asset.address.len()),
                    "{}",
                    asset.address
                );
                assert_eq!(asset.transfer, Transfer::Opaque);
            }
        }
    }

    #[test]
    fn all_tokens_have_six_decimals_but_three() {
        let other: Vec<_> = known_assets()
            .iter()
            .filter(|asset| asset.decimals != 6)
            .map(|asset| (asset.network, asset.decimals))
            .collect();
        let want = [
            ("eip155:4326", 18),
            ("eip155:31612", 18),
            ("eip155:31611", 18),
        ];
        assert_eq!(other, want);
    }

    #[test]
    fn every_network_with_a_token_has_a_row_and_exactly_one_default() {
        for asset in known_assets() {
            let network = network(asset.network);
            assert!(row(&network).is_some(), "{network}");
            assert_eq!(
                on(&network).filter(|a| a.is_default).count(),
                1,
                "{network}"
            );
            assert_eq!(find(&network, asset.address), Some(asset));
            assert_eq!(find(&network, asset.symbol), Some(asset));
        }
    }

    #[test]
    fn names_and_identifiers_are_unique_and_valid() {
        let names: Vec<_> = network_names().collect();
        let unique: BTreeSet<_> = names.iter().collect();
        assert_eq!(names.len(), unique.len());
        for (caip2, _, names, _) in NETWORKS {
            assert_eq!(NETWORKS.iter().filter(|row| row.0 == *caip2).count(), 1);
            for name in *names {
                assert_eq!(network_by_name(name), Some(network(caip2)));
            }
        }
    }

    #[test]
    fn a_token_is_found_by_symbol_and_by_address_in_any_case_but_a_mint_only_to_the_letter() {
        let base = network("eip155:8453");
        let usdc = default_for(&base).unwrap();
        assert_eq!(usdc.eip712, Some(("USD Coin", "2")));
        assert_eq!(find(&base, &usdc.address.to_lowercase()), Some(usdc));
        assert_eq!(find(&base, "usdc"), Some(usdc));
        assert_eq!(find(&base, "USDT"), None);
        assert_eq!(find(&network("eip155:42220"), "USDT").unwrap().decimals, 6);
        let solana = network(SOLANA);
        let mint = default_for(&solana).unwrap().address;
        assert!(find(&solana, mint).is_some());
        assert_eq!(find(&solana, &mint.to_lowercase()), None);
    }

    #[test]
    fn only_what_legacy_clients_parse_has_a_name_of_version_1() {
        let named: BTreeSet<_> = NETWORKS
            .iter()
            .filter_map(|(caip2, ..)| v1_name(&network(caip2)))
            .collect();
        let want = "abstract, abstract-testnet, base, base-sepolia, avalanche, avalanche-fuji, \
                    iotex, solana, solana-devnet, sei, sei-testnet, polygon, polygon-amoy, peaq, \
                    story, educhain, skale-base-sepolia";
        assert_eq!(named, want.split(", ").collect());
        assert_eq!(v1_name(&network("eip155:1")), None);
    }

    #[test]
    fn an_unknown_network_counts_as_real_money() {
        assert!(is_testnet(&network("eip155:84532")));
        assert!(is_testnet(&network("eip155:31337")));
        assert!(!is_testnet(&network("eip155:8453")));
        assert!(!is_testnet(&network("eip155:123456789")));
        assert_eq!(
            network_label(&network("eip155:123456789")),
            "eip155:123456789"
        );
        assert_eq!(network_label(&network("eip155:84532")), "Base Sepolia");
    }
}
