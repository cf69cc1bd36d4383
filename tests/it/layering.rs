//! The rules of architecture that the compiler does not know, read from the source.
//!
//! The `pub mod` lines of `src/lib.rs` are the reading order and the import rule; every outside
//! package has homes; floats and the clock stay where they are harmless. Test code is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Where each outside package is used: a module and all below it. `*` is everywhere, and `main` is
/// `src/main.rs`. A new package needs a home here; a home that is not used any more goes.
const HOMES: &[(&str, &[&str])] = &[
    (
        "alloy-primitives",
        &[
            "chain",
            "x402",
            "config::accept",
            "route",
            "proof",
            "buyer",
            "sandbox",
            "cli::pay",
            "cli::demo",
            "chain_rpc",
            "reconcile",
        ],
    ),
    ("instant-acme", &["acme"]),
    ("rcgen", &["acme::order"]),
    ("x509-parser", &["tls"]),
    ("arc-swap", &["proxy", "tls", "reconcile", "admin", "app"]),
    (
        "async-trait",
        &["ledger", "facilitator", "proxy", "chain_rpc", "app"],
    ),
    ("axum", &["admin", "sandbox", "demo"]),
    (
        "base64",
        &[
            "x402::header",
            "x402::template",
            "facilitator::http",
            "kept",
        ],
    ),
    (
        "bytes",
        &["kept", "acme::http", "facilitator::http", "proxy", "buyer"],
    ),
    ("clap", &["cli"]),
    ("clap_complete", &["cli::completions"]),
    ("clap_mangen", &["cli::man"]),
    ("fail", &["failpoint"]),
    (
        "futures-util",
        &[
            "ledger::postgres",
            "facilitator::supported",
            "proof::verify",
            "sandbox",
            "demo",
            "reconcile",
            "admin::events",
            "proxy::forward_auth",
        ],
    ),
    ("deadpool-postgres", &["ledger::postgres"]),
    ("governor", &["throttle::meters"]),
    (
        "http",
        &[
            "config",
            "acme::http",
            "facilitator::http",
            "upstream",
            "proxy",
        ],
    ),
    ("http-body-util", &["facilitator::http"]),
    ("hyper-rustls", &["facilitator::http"]),
    ("httparse", &["proxy::quick"]),
    ("listenfd", &["app::sockets"]),
    ("matchit", &["route::paths"]),
    ("mimalloc", &["main"]),
    ("hyper", &["admin::connections"]),
    ("hyper-util", &["admin::connections", "facilitator::http"]),
    ("icu_normalizer", &["target::fold"]),
    ("moka", &["proof::cache", "kept", "throttle", "gate"]),
    ("once_cell", &["metrics"]),
    ("opentelemetry-proto", &["otlp"]),
    (
        "parking_lot",
        &[
            "ledger",
            "facilitator::guarded",
            "throttle",
            "acme::tokens",
            "gate",
            "app",
            "sandbox",
            "metrics",
            "proof::signers",
        ],
    ),
    ("pingora", &["upstream", "proxy", "app"]),
    ("prometheus", &["metrics"]),
    ("prost", &["otlp"]),
    (
        "rand",
        &[
            "ledger::postgres",
            "ledger::sqlite::presence",
            "proof::verify",
            "acme",
            "reconcile",
            "proxy::context",
            "proxy::trace",
            "buyer",
            "cli::demo",
        ],
    ),
    ("ratatui", &["cli::top"]),
    (
        "reqwest",
        &[
            "otlp",
            "facilitator::http",
            "acme::http",
            "buyer",
            "cli::pay",
            "cli::demo",
            "chain_rpc",
        ],
    ),
    ("rusqlite", &["ledger::sqlite"]),
    ("socket2", &["app::sockets"]),
    ("rustix", &["failpoint", "priority", "app"]),
    (
        "rustls-native-certs",
        &["ledger::postgres", "facilitator::http", "app"],
    ),
    (
        "secp256k1",
        &["x402::eip712", "buyer", "cli::pay", "cli::demo"],
    ),
    ("sd-notify", &["app::manager"]),
    ("serde", &["*"]),
    ("serde_json", &["*"]),
    (
        "sha2",
        &[
            "chain",
            "proof",
            "gate::fingerprint",
            "proxy",
            "tls",
            "admin",
        ],
    ),
    ("strsim", &["config::reader"]),
    ("thiserror", &["*"]),
    ("time", &["books::when", "facilitator::http"]),
    (
        "tokio",
        &[
            "stall",
            "otlp",
            "ledger",
            "facilitator",
            "proof::verify",
            "gate",
            "proxy::body",
            "proxy::challenges",
            "proxy::door",
            "proxy::quick",
            "proxy::held",
            "proxy::watched",
            "upstream",
            "reload",
            "admin",
            "reconcile",
            "retention",
            "tls",
            "acme",
            "app",
            "buyer",
            "sandbox",
            "demo",
            "cli",
            "chain_rpc",
        ],
    ),
    ("tokio-postgres", &["config", "ledger::postgres"]),
    (
        "tokio-rustls",
        &["ledger::postgres", "facilitator::http", "tls"],
    ),
    ("toml", &["config::document", "cli::init"]),
    ("tower-service", &["facilitator::http"]),
    (
        "tracing",
        &[
            "otlp",
            "ledger",
            "facilitator",
            "metrics",
            "tls",
            "acme",
            "gate",
            "upstream",
            "proxy",
            "reload",
            "admin",
            "reconcile",
            "retention",
            "app",
            "log",
        ],
    ),
    ("tracing-subscriber", &["log", "config::log"]),
    ("zeroize", &["cli::pay"]),
];

/// Files whose floats measure time, or are JSON numbers of somebody else that are only compared.
const FLOAT_HOMES: [&str; 4] = ["metrics", "x402::json", "x402::matching", "proof::opaque"];

/// One file of the product, without its comments and test code.
struct Source {
    /// As in `src/lib.rs`: `proxy::respond`.
    module: String,
    lines: Vec<(usize, String)>,
}

impl Source {
    fn top(&self) -> &str {
        self.module.split("::").next().unwrap()
    }

    /// Whether the file is that module or lies below it.
    fn is_in(&self, home: &str) -> bool {
        home == "*"
            || self
                .module
                .strip_prefix(home)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn module_of(path: &Path) -> String {
    let path = path.strip_prefix(root()).unwrap().with_extension("");
    let parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).collect();
    parts.join("::")
}

/// The lines that are compiled into the product, and the modules that only tests are made of.
///
/// The code is formatted, so a block ends at the brace that stands as deep as its first line.
fn product(text: &str) -> (Vec<(usize, String)>, Vec<String>) {
    let (mut kept, mut test_modules) = (Vec::new(), Vec::new());
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        if line.trim_start().starts_with("//") {
            continue;
        }
        if line.trim() != "#[cfg(test)]" {
            kept.push((at + 1, line.to_owned()));
            continue;
        }
        let item = loop {
            let (_, line) = lines.next().unwrap();
            let is_attribute = line.trim_start().starts_with("#[");
            if !is_attribute {
                break line;
            }
            // An attribute of several lines ends where a line closes it.
            if !line.trim_end().ends_with(']') {
                lines.find(|(_, line)| line.trim() == ")]").unwrap();
            }
        };
        if let Some(name) = item.trim().strip_suffix(';') {
            test_modules.extend(name.rsplit("mod ").next().map(str::to_owned));
            continue;
        }
        let depth = item.len() - item.trim_start().len();
        let end = format!("{}}}", " ".repeat(depth));
        assert!(item.ends_with('{'), "unexpected test item: {item}");
        lines.find(|(_, line)| *line == end).unwrap();
    }
    (kept, test_modules)
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    files(&root(), &mut paths);
    let mut sources = Vec::new();
    let mut tests_only = Vec::new();
    for path in paths {
        let module = module_of(&path);
        let (lines, test_modules) = product(&fs::read_to_string(&path).unwrap());
        let below = |name: &String| format!("{module}::{name}");
        tests_only.extend(test_modules.iter().map(below));
        sources.push(Source { module, lines });
    }
    sources.retain(|source| !tests_only.iter().any(|tests| source.is_in(tests)));
    assert!(sources.len() > 60, "the source was not found");
    sources
}

/// The modules in the order of `src/lib.rs`.
fn order() -> Vec<String> {
    let text = fs::read_to_string(root().join("lib.rs")).unwrap();
    let name = |line: &str| Some(line.strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned());
    text.lines().filter_map(name).collect()
}

/// The identifiers that follow `prefix` in a line.
fn after<'a>(line: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(prefix).filter_map(move |(at, _)| {
        let before = line[..at].chars().next_back();
        let starts = before.is_none_or(|c| !c.is_alphanumeric() && !"_:".contains(c));
        let rest = &line[at + prefix.len()..];
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        starts.then(|| &rest[..end.unwrap_or(rest.len())])
    })
}

#[track_caller]
fn none(what: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{what}:\n{}", violations.join("\n"));
}

#[test]
fn the_map_names_every_module_once() {
    let mut on_disk: Vec<_> = sources()
        .iter()
        .map(|source| source.top().to_owned())
        .filter(|top| !matches!(top.as_str(), "lib" | "main"))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let mut listed = order();
    listed.sort();
    on_disk.sort();
    assert_eq!(listed, on_disk);
}

#[test]
fn a_module_imports_only_modules_above_it() {
    let order = order();
    let rank = |name: &str| order.iter().position(|module| module == name);
    let mut violations = Vec::new();
    for source in sources() {
        let Some(own) = rank(source.top()) else {
            continue; // lib.rs and main.rs see all
        };
        for (at, line) in &source.lines {
            for name in after(line, "crate::") {
                match rank(name) {
                    Some(theirs) if theirs <= own => {}
                    Some(_) => violations.push(format!(
                        "{}:{at}: imports {name}, which is below it",
                        source.module
                    )),
                    None => violations.push(format!(
                        "{}:{at}: name one module after `crate::`: {line}",
                        source.module
                    )),
                }
            }
            // `super::` may not climb out of the module.
            let climbs = line.matches("super::super::").count();
            let depth = source.module.matches("::").count();
            if (line.contains("super::") && depth == 0) || climbs >= depth.max(1) {
                violations.push(format!(
                    "{}:{at}: climbs out of its module: {line}",
                    source.module
                ));
            }
        }
    }
    none(
        "modules import only what is above them in src/lib.rs",
        &violations,
    );
}

#[test]
fn every_outside_package_has_named_homes() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let manifest: toml::Table = fs::read_to_string(manifest).unwrap().parse().unwrap();
    let homes: BTreeMap<&str, &[&str]> = HOMES.iter().copied().collect();
    let packages = manifest["dependencies"].as_table().unwrap();
    let named: Vec<_> = packages.keys().map(String::as_str).collect();
    let listed: Vec<_> = homes.keys().copied().collect();
    assert_eq!(
        named.iter().collect::<BTreeSet<_>>(),
        listed.iter().collect::<BTreeSet<_>>(),
        "every package of Cargo.toml has its homes in HOMES, and nothing else has"
    );
    let sources = sources();
    let mut violations = Vec::new();
    for (package, homes) in homes {
        let prefix = format!("{}::", package.replace('-', "_"));
        let mut unused: BTreeSet<&str> = homes.iter().copied().collect();
        for source in &sources {
            // A module of our own of that name (`mod http;`) is not the package.
            let is_own = format!("mod {};", prefix.trim_end_matches("::"));
            if source
                .lines
                .iter()
                .any(|(_, line)| line.trim_start_matches("pub ") == is_own)
            {
                continue;
            }
            for (at, line) in &source.lines {
                if after(line, &prefix).next().is_none() {
                    continue;
                }
                unused.retain(|home| !source.is_in(home));
                if !homes.iter().any(|home| source.is_in(home)) {
                    violations.push(format!(
                        "{}:{at}: {package} has no home here: {}",
                        source.module,
                        line.trim()
                    ));
                }
            }
        }
        violations.extend(
            unused
                .iter()
                .map(|home| format!("{package} is not used in {home} any more")),
        );
    }
    none("outside packages stay in their homes", &violations);
}

#[test]
fn no_float_holds_money() {
    let mut violations = Vec::new();
    for source in sources() {
        if FLOAT_HOMES.iter().any(|home| source.is_in(home)) {
            continue;
        }
        for (at, line) in &source.lines {
            if line.contains("f32") || line.contains("f64") {
                violations.push(format!("{}:{at}: {}", source.module, line.trim()));
            }
        }
    }
    none(
        "floats measure seconds and compare foreign JSON, nothing else",
        &violations,
    );
}

#[test]
fn only_the_clock_reads_the_time_of_day() {
    let mut violations = Vec::new();
    for source in sources().iter().filter(|source| !source.is_in("clock")) {
        for (at, line) in &source.lines {
            if ["SystemTime::now", "UtcDateTime::now", "OffsetDateTime::now"]
                .iter()
                .any(|call| line.contains(call))
            {
                violations.push(format!("{}:{at}: {}", source.module, line.trim()));
            }
        }
    }
    none("`now` is an argument", &violations);
}

#[test]
fn the_reader_of_the_source_tells_product_from_test() {
    let text = "use crate::a;\n// use crate::b;\n#[cfg(test)]\nmod tests {\n    use crate::c;\n}\n#[cfg(test)]\npub(crate) mod fixture;\nuse crate::d::e;\n";
    let (lines, tests) = product(text);
    let seen: Vec<_> = lines
        .iter()
        .flat_map(|(_, line)| after(line, "crate::"))
        .collect();
    assert_eq!((seen, tests), (vec!["a", "d"], vec!["fixture".to_owned()]));
    assert_eq!(
        after("a::http::b, http::c", "http::").collect::<Vec<_>>(),
        ["c"]
    );
}
