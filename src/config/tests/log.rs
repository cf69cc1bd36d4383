//! `[log]`.

use super::*;

#[cfg(not(feature = "otlp"))]
#[test]
fn a_collector_is_refused_where_opentelemetry_is_not_built_in() {
    let text = "[log]\notlp_endpoint = \"http://127.0.0.1:4318\"\n";
    let want = ("not-built-in", 2, 17, "\"http://127.0.0.1:4318\"");
    check_more(text, want);
}

#[cfg(feature = "otlp")]
#[test]
fn the_endpoint_of_otlp_is_a_base_url() {
    let read = |text: &str| {
        let text = format!("{BASE}[log]\notlp_endpoint = \"{text}\"\n");
        parse(&text, "site.toml", &no_env).map(|loaded| loaded.settings.log.otlp_endpoint)
    };
    let endpoint = Some("http://127.0.0.1:4318".to_owned());
    assert_eq!(read("http://127.0.0.1:4318/").unwrap(), endpoint);
    for bad in ["127.0.0.1:4318", "grpc://a", "http://u:p@a", "http://a/?b"] {
        assert!(read(bad).is_err(), "{bad}");
    }
}
