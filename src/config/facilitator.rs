//! `[facilitator.NAME]`: who verifies and settles.

use std::path::Path;
use std::sync::Arc;

use super::diagnostic::Diagnostic;
use super::document::Value;
use super::mask;
use super::reader::Reader;
use super::settings::{EndpointHeaders, FacilitatorSettings};
use super::values;

const URL_HELP: &str = "write the base URL, as \"https://x402.org/facilitator\"; \
                        credentials go into `headers`";

pub(super) fn facilitator(
    reader: &Reader<'_>,
    name: &Arc<str>,
    state_folder: &Path,
) -> Option<FacilitatorSettings> {
    let url = reader.required("url", URL_HELP).and_then(|(text, at)| {
        let read = |text: &str| values::url(text).map(|_| text.trim_end_matches('/').to_owned());
        reader.parse(text, at, "bad-url", URL_HELP, read)
    });
    let common = headers(reader, "headers");
    let with = |key| merged(&common, headers(reader, key));
    let headers = EndpointHeaders {
        verify: with("verify_headers"),
        settle: with("settle_headers"),
        supported: with("supported_headers"),
    };
    let supported_cache = reader
        .path("supported_cache")
        .unwrap_or_else(|| state_folder.join(format!("supported-{name}.json")));
    let settings = FacilitatorSettings {
        name: Arc::clone(name),
        url: url.unwrap_or_default(),
        sandbox: reader.boolean("sandbox", false),
        connect_timeout: reader.timeout("connect_timeout_ms", 3_000),
        verify_timeout: reader.timeout("verify_timeout_ms", 10_000),
        settle_timeout: reader.timeout("settle_timeout_ms", 60_000),
        calls_max: reader.size("calls_max", 256, 1..=65_536),
        answer_bytes_max: reader.size("answer_bytes_max", 64 << 10, 1024..=16 << 20),
        headers,
        supported_cache,
        verify_retries: reader.count("verify_retries", 1, 0..=10),
        breaker_failures: reader.count("breaker_failures", 10, 1..=1_000_000),
        breaker_open: reader.timeout("breaker_open_ms", 5_000),
    };
    Some(settings)
}

/// Headers for all endpoints, with those of one endpoint over them.
fn merged(common: &[(String, String)], own: Vec<(String, String)>) -> Vec<(String, String)> {
    let is_own = |name: &str| own.iter().any(|(other, _)| other == name);
    let kept = common.iter().filter(|(name, _)| !is_own(name)).cloned();
    kept.chain(own.iter().cloned()).collect()
}

/// A table of headers; names in lower case, each once.
pub(super) fn headers(reader: &Reader<'_>, key: &str) -> Vec<(String, String)> {
    let help = format!("write {key} = {{ Authorization = \"Bearer ${{API_KEY}}\" }}");
    let mut headers: Vec<(String, String)> = Vec::new();
    let Some(table) = reader.table(key, &help) else {
        return headers;
    };
    for entry in &table.entries {
        let complain = |code, message: String, help: &str| {
            let wrong = Diagnostic::error(code, message).help(help);
            reader.files.complain(entry.at, wrong);
        };
        let name = match values::header_name(&entry.key) {
            Ok(name) => name,
            Err(error) => {
                complain(
                    "bad-header",
                    error.to_string(),
                    "choose another header, or remove it",
                );
                continue;
            }
        };
        let Value::Text(text) = &entry.node.value else {
            if !matches!(entry.node.value, Value::Broken) {
                let kind = entry.node.value.kind();
                let message = format!("a header must be a string, this is {kind}");
                complain("wrong-type", message, &help);
            }
            continue;
        };
        if !text.is_secret && mask::is_secret_name(&name) {
            reader.files.mask(entry.node.at);
            let message = format!("header `{name}` has its secret written out in this file");
            let open = Diagnostic::warning("literal-secret", message);
            let help = "write \"${NAME}\" and set the variable, or \"file:/path\"";
            reader.files.complain(entry.at, open.help(help));
        }
        if headers.iter().any(|(other, _)| *other == name) {
            complain(
                "duplicate-header",
                format!("header `{name}` is set twice"),
                "remove one",
            );
        }
        match values::header_value(&name, &text.value) {
            Ok(value) => headers.push((name, value)),
            Err(error) => {
                complain(
                    "bad-header",
                    error.to_string(),
                    "use printable ASCII without line breaks",
                );
            }
        }
    }
    headers
}
