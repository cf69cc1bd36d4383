//! `[log]`.

use tracing_subscriber::EnvFilter;

use super::keys;
use super::reader::Reader;
use super::server::section;
use super::settings::{LogFormat, LogSettings};

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
        LogSettings {
            filter: filter.unwrap_or(usual.filter),
            format: reader
                .word_or("format", usual.format, &formats)
                .unwrap_or_default(),
        }
    })
}
