//! `[log]`.

use tracing_subscriber::EnvFilter;

use super::keys;
use super::reader::Reader;
use super::server::section;
use super::settings::{LogFormat, LogSettings};
use super::values;

pub(super) fn log(top: &Reader<'_>) -> LogSettings {
    section(top, "log", keys::LOG, |reader| {
        let usual = LogSettings::default();
        reader.usual("filter", || format!("\"{}\"", usual.filter));
        let help =
            "write a level or levels by module, as \"info\" or \"warn,farewall::access=info\"";
        let filter = reader.parsed("filter", "bad-filter", help, |text| {
            EnvFilter::try_new(text).map(|_| text.to_owned())
        });
        let formats = [
            ("auto", LogFormat::Auto),
            ("text", LogFormat::Text),
            ("json", LogFormat::Json),
        ];
        if reader.has("otlp_endpoint") && !cfg!(feature = "otlp") {
            let message = "this farewall was built without OpenTelemetry";
            let help = "build it with `cargo build --release --features otlp`, or remove the key";
            reader.wrong("otlp_endpoint", "not-built-in", message, help);
        }
        let help = "write the collector's base URL, as \"http://127.0.0.1:4318\"";
        let otlp_endpoint = reader.parsed("otlp_endpoint", "bad-url", help, |text| {
            values::url(text).map(|_| text.trim_end_matches('/').to_owned())
        });
        LogSettings {
            otlp_endpoint,
            filter: filter.unwrap_or(usual.filter),
            format: reader
                .word_or("format", usual.format, &formats)
                .unwrap_or_default(),
        }
    })
}
