//! No text makes the loader panic.

use super::*;

/// Lines that make sense to the reader, so that it is led astray further than by noise.
const LINES: &[&str] = &[
    "[server]",
    "[[listen]]",
    "[limits]",
    "[cors]",
    "[ledger]",
    "[facilitator.f]",
    "[accept.a]",
    "[upstream.u]",
    "[upstream.u.health]",
    "[[rule]]",
    "[rule]",
    "include = [\"*.toml\", 1]",
    "unmatched = \"free\"",
    "public_origin = \"https://a\"",
    "url = \"http://[::1]:1\"",
    "servers = [\"https://a\", \"\", 1, \"http://a:0\"]",
    "network = \"base\"",
    "network = \"solana\"",
    "pay_to = \"0x70997970C51812dc3A010C7d01b50e0d17dc79C8\"",
    "asset = \"USDC\"",
    "asset = \"é\"",
    "decimals = 36",
    "symbol = \"X\"",
    "is_dollar = true",
    "name = \"a\"",
    "path = \"/a\"",
    "price = \"$1\"",
    "price = \"1 X\"",
    "price = \"1 atomic\"",
    "price = inf",
    "free = true",
    "deny = true",
    "accept = [\"a\", \"b\"]",
    "facilitators = [\"f\"]",
    "extra = { a = nan, b = [1] }",
    "headers = { A = \"${X}\", B = 1, authorization = \"é\" }",
    "x.y.z = 1",
    "host = \"*.a\"",
    "address = \"0.0.0.0:1\"",
    "tls_cert = \"c\"",
    "= 1",
    "\"",
    "'''",
    "[",
    "a = 1979-05-27",
];

proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(text in "(?s).{0,200}") {
        let _ = parse(&text, "site.toml", &no_env).map_err(|report| report.to_string());
    }

    #[test]
    fn no_mixture_of_lines_makes_the_loader_panic(
        lines in proptest::collection::vec(proptest::sample::select(LINES), 0..40),
        noise in "[\\[\\]{}=.\"'#é\n\r\t a-z0-9$_-]{0,40}",
    ) {
        let text = format!("{}\n{noise}\n", lines.join("\n"));
        let env = |_: &str| Some("x\u{1b}".to_owned());
        match parse(&text, "site.toml", &env) {
            Ok(loaded) => {
                let found: Vec<_> = lint(&loaded.settings).into_iter().map(|d| loaded.locate(d)).collect();
                prop_assert!(found.iter().all(|d| d.place.is_some()), "{found:?}");
            }
            Err(report) => {
                prop_assert!(report.diagnostics.iter().any(Diagnostic::is_error), "{text}");
                let shows_escape = report.to_string().contains(char::from(27));
                prop_assert!(!shows_escape);
            }
        }
    }

    #[test]
    fn every_price_of_six_digits_becomes_its_units(units in 1_u128..=u64::MAX.into()) {
        let decimals = crate::money::Decimals::new(6).unwrap();
        let price = AtomicAmount::new(units).in_tokens(decimals);
        let text = format!("{BASE}[[rule]]\nname = \"a\"\npath = \"/a\"\nprice = \"${price}\"\n");
        let settings = parse(&text, "site.toml", &no_env).unwrap().settings;
        let RuleAccess::Priced(priced) = &settings.rules[0].access else {
            return Err(TestCaseError::fail("no price"));
        };
        prop_assert_eq!(priced.accepts[0].1, AtomicAmount::new(units));
    }
}

#[test]
fn tables_nested_as_deep_as_the_parser_allows_do_not_exhaust_the_stack() {
    let level = format!("{{\n{}a = ", "a.".repeat(99));
    let text = format!("a = {}1{}\n", level.repeat(78), "\n}".repeat(78));
    assert!(parse(&text, "site.toml", &no_env).is_err());
}
