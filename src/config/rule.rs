//! `[[rule]]`: what a request costs. A price becomes the exact amount in every accepted token here.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::money::{AtomicAmount, MoneyError, PriceText};
use crate::settlement::SettleWhen;

use super::diagnostic::Diagnostic;
use super::document::{Files, Span, Table, Value};
use super::keys;
use super::named::{self, Catalogue};
use super::reader::Reader;
use super::settings::{
    AcceptSettings, LimitBy, Limits, PricedRule, RateLimit, RuleAccess, RuleSettings,
    UpstreamSettings,
};
use super::values;

/// What rules refer to.
pub(super) struct Context<'a> {
    pub(super) accepts: &'a Catalogue<AcceptSettings>,
    pub(super) upstreams: &'a Catalogue<UpstreamSettings>,
    pub(super) limits: &'a Limits,
    /// Whether the whole wall is in shadow.
    pub(super) shadow: bool,
    /// Whether every listener is asked by another proxy.
    pub(super) is_only_asked: bool,
}

const PATH_HELP: &str = "write a path such as \"/v1/weather/{city}\" or \"/v1/{*rest}\", \
                         without query, spaces and backslashes";

/// The keys that only a price gives a meaning.
const PRICED_KEYS: [&str; 7] = [
    "accept",
    "description",
    "mime_type",
    "settle",
    "kept_response_bytes_max",
    "forward_conditional",
    "shadow",
];

/// All rules of all files, in their order.
pub(super) fn rules(files: &Files, tables: &[Table], context: &Context<'_>) -> Vec<RuleSettings> {
    let mut rules = Vec::new();
    let mut names: BTreeMap<String, Span> = BTreeMap::new();
    for entry in tables.iter().filter_map(|table| table.get("rule")) {
        let wrong = |at| {
            let diagnostic = Diagnostic::error("wrong-type", "`rule` must be a list of tables");
            files.complain(at, diagnostic.help("write [[rule]], with two brackets"));
        };
        let Value::List(nodes) = &entry.node.value else {
            wrong(entry.node.at);
            continue;
        };
        for node in nodes {
            if let Value::Table(table) = &node.value {
                rules.extend(rule(files, table, context, &mut names));
            } else {
                wrong(node.at);
            }
        }
    }
    rules
}

fn rule(
    files: &Files,
    table: &Table,
    context: &Context<'_>,
    names: &mut BTreeMap<String, Span>,
) -> Option<RuleSettings> {
    let title = match table.get("name").map(|entry| &entry.node.value) {
        Some(Value::Text(name)) => format!("[[rule]] \"{}\"", name.raw),
        _ => "[[rule]]".to_owned(),
    };
    let reader = Reader::new(files, table, keys::RULE, title);
    let name = name(&reader, names);
    let path = reader
        .required("path", PATH_HELP)
        .and_then(|(text, at)| reader.parse(text, at, "bad-path", PATH_HELP, values::path_pattern));
    let host_help = "write \"api.example.com\" or \"*.example.com\", without a port";
    let host = reader.parsed("host", "bad-host", host_help, values::host_pattern);
    let methods = methods(&reader);
    let access = access(&reader, context);
    let upstream = match &access {
        Some(RuleAccess::Deny) => {
            let because = "the rule denies the request";
            reader.idle(&["upstream", "request_body_bytes_max"], because);
            None
        }
        Some(RuleAccess::Free | RuleAccess::Priced(_)) | None => {
            Some(context.upstreams.one(&reader, "upstream", "upstream")?)
        }
    };
    let rate_limit = rate_limit(&reader, access.as_ref());
    let body = reader.integer("request_body_bytes_max", 0..=1 << 40);
    Some(RuleSettings {
        name: name?,
        at: files.location(reader.at("path")),
        methods,
        host,
        path: path?,
        upstream,
        request_body_bytes_max: body.unwrap_or(context.limits.request_body_bytes_max),
        access: access?,
        rate_limit,
    })
}

/// So many requests in so much time, of one client, of one payer, or of all.
fn rate_limit(reader: &Reader<'_>, access: Option<&RuleAccess>) -> Option<RateLimit> {
    let help = "write rate_limit = { requests = 100, per_s = 60, by = \"client\" }";
    let table = reader.table("rate_limit", help)?;
    if let Some(RuleAccess::Deny) = access {
        reader.idle(&["rate_limit"], "the rule denies the request");
    }
    let title = format!("rate_limit of {}", reader.title);
    let limit = Reader::new(reader.files, table, keys::RATE_LIMIT, title);
    if !limit.has("requests") {
        limit.missing("requests", help);
    }
    let requests = limit.integer("requests", 1..=1_000_000_000)?;
    let per = limit.seconds("per_s", 60, 1..=3600);
    let by = limit.word_or(
        "by",
        LimitBy::default(),
        &[
            ("client", LimitBy::Client),
            ("payer", LimitBy::Payer),
            ("rule", LimitBy::Rule),
        ],
    )?;
    if let (LimitBy::Payer, Some(RuleAccess::Free)) = (by, access) {
        let message = "nobody pays for a free rule";
        limit.wrong("by", "contradiction", message, "write by = \"client\"");
    }
    Some(RateLimit {
        requests: u32::try_from(requests).ok().and_then(NonZeroU32::new)?,
        per,
        by,
    })
}

fn name(reader: &Reader<'_>, names: &mut BTreeMap<String, Span>) -> Option<Arc<str>> {
    let help = "names label metrics, ledger and logs; write name = \"weather\"";
    let (text, at) = reader.required("name", help)?;
    let name = reader.parse(text, at, "bad-name", named::NAME_HELP, |text| {
        let good = named::is_name(text).then(|| Arc::<str>::from(text));
        good.ok_or_else(|| format!("{text:?} is not a name"))
    })?;
    if let Some(before) = names.get(&*name) {
        let taken = named::duplicate(reader.files, "rule", &text.raw, *before);
        reader.files.complain(at, taken);
    } else {
        names.insert(name.as_ref().to_owned(), at);
    }
    Some(name)
}

/// Upper case, each once; empty means any.
fn methods(reader: &Reader<'_>) -> Vec<String> {
    let help = "write methods in upper case, as [\"GET\", \"POST\"]; leave the key out for any";
    let texts = reader.texts("methods");
    if texts.as_ref().is_some_and(Vec::is_empty) {
        reader.wrong("methods", "empty-list", "`methods` names no method", help);
    }
    let mut methods: Vec<String> = Vec::new();
    for (text, at) in texts.unwrap_or_default() {
        if let Some(method) = reader.parse(text, at, "bad-method", help, values::method)
            && !methods.contains(&method)
        {
            methods.push(method);
        }
    }
    methods
}

/// Exactly one of `price`, `free = true`, `deny = true`.
fn access(reader: &Reader<'_>, context: &Context<'_>) -> Option<RuleAccess> {
    let help = "write one of price = \"$0.001\", free = true, deny = true";
    let given: Vec<_> = ["price", "free", "deny"]
        .into_iter()
        .filter(|key| reader.has(key))
        .collect();
    match given.as_slice() {
        ["price"] => priced(reader, context).map(RuleAccess::Priced),
        [key @ ("free" | "deny")] => {
            reader.idle(&PRICED_KEYS, "the rule has no price");
            if reader.flag(key) == Some(false) {
                let message = format!("`{key} = false` leaves open what the rule does");
                reader.wrong(key, "bad-value", &message, help);
            }
            Some(if *key == "free" {
                RuleAccess::Free
            } else {
                RuleAccess::Deny
            })
        }
        [] => {
            reader.missing("price", help);
            None
        }
        [.., last] => {
            let message = format!(
                "{} has more than one of `price`, `free`, `deny`",
                reader.title
            );
            reader.wrong(last, "contradiction", &message, help);
            None
        }
    }
}

fn priced(reader: &Reader<'_>, context: &Context<'_>) -> Option<PricedRule> {
    let limits = context.limits;
    reader.asks("kept_response_bytes_max", || {
        "up to `kept_responses_bytes_max` of `[limits]`".to_owned()
    });
    let kept = reader.integer(
        "kept_response_bytes_max",
        0..=limits.kept_responses_bytes_max,
    );
    let settle = reader.word_or(
        "settle",
        SettleWhen::default(),
        &[
            ("after", SettleWhen::AfterResponse),
            ("before", SettleWhen::BeforeForward),
        ],
    );
    let description = reader
        .text("description")
        .map(|(text, _)| text.value.clone());
    let type_help = "write a media type such as \"application/json\"";
    let mime_type = reader.parsed("mime_type", "bad-value", type_help, values::media_type);
    let forward_conditional = reader.boolean("forward_conditional", false);
    let shadow = reader.flag("shadow").unwrap_or(false) || context.shadow;
    reader.usual("shadow", || "that of [server]".to_owned());
    if context.is_only_asked && settle == Some(SettleWhen::AfterResponse) && !shadow {
        let message = "every listener is forward-auth, which never sees a response, \
                       and this rule settles after it";
        let help = "write settle = \"before\", or add a [[listen]] that forwards";
        reader.wrong("settle", "settles-after-delivery", message, help);
    }
    let price = price(reader);
    let accepts = amounts(reader, price.as_ref(), context.accepts);
    Some(PricedRule {
        price: price?,
        accepts: accepts?,
        description: description.unwrap_or_default(),
        mime_type: mime_type.unwrap_or_default(),
        settle: settle?,
        kept_response_bytes_max: kept.unwrap_or(limits.kept_response_bytes_max),
        forward_conditional,
        shadow,
    })
}

fn price(reader: &Reader<'_>) -> Option<PriceText> {
    let help = "write \"$0.001\", \"0.001 USDC\" or \"1000 atomic\", in quotes";
    if let Value::Integer(_) | Value::Float(_) = reader.entry("price")?.node.value {
        reader.wrong(
            "price",
            "wrong-type",
            "a number is no price: it has no currency",
            help,
        );
        return None;
    }
    let (text, at) = reader.text("price")?;
    reader.parse(text, at, "bad-price", help, PriceText::parse)
}

/// The accepted ways of paying, each with its amount; the names are looked up even without a price.
fn amounts(
    reader: &Reader<'_>,
    price: Option<&PriceText>,
    all: &Catalogue<AcceptSettings>,
) -> Option<Vec<(Arc<str>, AtomicAmount)>> {
    let listed = match reader.has("accept") {
        true => Some(all.listed(reader, "accept", "accept")?),
        false => None,
    };
    let price = price?;
    if all.names.is_empty() {
        let help = "write [accept.NAME] with network and pay_to";
        reader.wrong(
            "price",
            "missing-table",
            "a price needs a way of being paid",
            help,
        );
        return None;
    }
    let is_listed = listed.is_some();
    let names = listed.unwrap_or_else(|| all.names.clone());
    if matches!(price, PriceText::Atomic(_)) && names.len() != 1 {
        let message = "an atomic price means another value in each token";
        let help = format!("write accept = [\"NAME\"] with one of {}", names.join(", "));
        reader.wrong("price", "ambiguous-price", message, &help);
        return None;
    }
    let is_whole = names.iter().all(|name| all.good.contains_key(name));
    let accepts = names.iter().filter_map(|name| all.good.get(name));
    let mut amounts = Vec::new();
    for accept in accepts {
        if is_expressible(price, accept) {
            amounts.extend(amount(reader, price, accept).map(|a| (Arc::clone(&accept.name), a)));
        } else if is_listed {
            inexpressible(reader, price, accept);
        }
    }
    let none_fits = amounts.is_empty() && !is_listed && is_whole;
    if none_fits
        && !all
            .good
            .values()
            .any(|accept| is_expressible(price, accept))
    {
        let symbols: Vec<_> = all.good.values().map(|accept| &*accept.symbol).collect();
        let message = format!("no [accept.NAME] can be paid {}", in_words(price));
        let help = format!("the configured tokens are {}", symbols.join(", "));
        reader.wrong("price", "price-unpayable", &message, &help);
    }
    (!amounts.is_empty()).then_some(amounts)
}

fn is_expressible(price: &PriceText, accept: &AcceptSettings) -> bool {
    match price {
        PriceText::Dollars(_) => accept.is_dollar,
        PriceText::Tokens(_, symbol) => **symbol == *accept.symbol,
        PriceText::Atomic(_) => true,
    }
}

fn in_words(price: &PriceText) -> String {
    match price {
        PriceText::Dollars(_) => "in dollars".to_owned(),
        PriceText::Tokens(_, symbol) => format!("in {symbol}"),
        PriceText::Atomic(_) => "in atomic units".to_owned(),
    }
}

fn inexpressible(reader: &Reader<'_>, price: &PriceText, accept: &AcceptSettings) {
    let AcceptSettings { name, symbol, .. } = accept;
    let message = format!(
        "{symbol} of [accept.{name}] cannot be paid {}",
        in_words(price)
    );
    let help = match price {
        PriceText::Dollars(_) => format!(
            "write the price as \"0.001 {symbol}\" in a rule of its own, or is_dollar = true in \
             [accept.{name}] if one {symbol} is one dollar"
        ),
        PriceText::Tokens(..) | PriceText::Atomic(_) => {
            format!("take \"{name}\" out of `accept`, or write a price in dollars")
        }
    };
    reader.wrong("accept", "price-unpayable", &message, &help);
}

fn amount(reader: &Reader<'_>, price: &PriceText, accept: &AcceptSettings) -> Option<AtomicAmount> {
    let amount = match price {
        PriceText::Dollars(text) | PriceText::Tokens(text, _) => text.to_atomic(accept.decimals),
        PriceText::Atomic(amount) => Ok(*amount),
    };
    let AcceptSettings { name, symbol, .. } = accept;
    let (text, at) = reader.text("price")?;
    let written = &text.raw;
    let (code, message, help) = match amount {
        Ok(amount) if amount.units() > 0 => return Some(amount),
        Ok(_) => (
            "price-zero",
            format!("the price \"{written}\" {}", MoneyError::Zero),
            "write free = true instead of the price".to_owned(),
        ),
        Err(MoneyError::TooPrecise { given, allowed }) => (
            "price-too-precise",
            format!(
                "the price \"{written}\" has {given} decimal places, {symbol} of [accept.{name}] has {allowed}"
            ),
            format!("write at most {allowed} digits after the point"),
        ),
        Err(error) => (
            "bad-price",
            text.complaint(&format!("the price \"{written}\" {error}")),
            "write a smaller price".to_owned(),
        ),
    };
    reader
        .files
        .complain(at, Diagnostic::error(code, message).help(help));
    None
}
