//! `mode = "forward-auth"` of `[[listen]]`: who asks there, and from where.

use super::reader::Reader;
use super::settings::{AskingProxy, ForwardAuthSettings, ListenSettings};
use super::values;

const ASKED_BY_HELP: &str =
    "name the proxy that asks: \"nginx\", \"caddy\", \"traefik\" or \"envoy\"";
const TRUSTED_HELP: &str =
    "name the addresses of your own proxies, as [\"127.0.0.1\"] or [\"10.0.0.0/28\"]";

/// `None` when something is wrong; inside, `None` for a listener that forwards.
pub(super) fn forward_auth(reader: &Reader<'_>) -> Option<Option<ForwardAuthSettings>> {
    let modes = [("proxy", false), ("forward-auth", true)];
    let mode = reader.word("mode", &modes);
    reader.usual("mode", || "\"proxy\"".to_owned());
    let proxies = [
        AskingProxy::Nginx,
        AskingProxy::Caddy,
        AskingProxy::Traefik,
        AskingProxy::Envoy,
    ];
    let asked_by = reader.word("asked_by", &proxies.map(|proxy| (proxy.word(), proxy)));
    let texts = reader.texts("trusted");
    if reader.has("mode") && mode.is_none() {
        return None;
    }
    if mode != Some(true) {
        let because = "only a listener with mode = \"forward-auth\" is asked by other proxies";
        reader.idle(&["asked_by", "trusted"], because);
        return Some(None);
    }
    for (key, help) in [("asked_by", ASKED_BY_HELP), ("trusted", TRUSTED_HELP)] {
        if !reader.has(key) {
            reader.missing(key, help);
        }
    }
    let texts = texts?;
    if texts.is_empty() {
        let message = "`trusted` is empty: nobody would be answered";
        reader.wrong("trusted", "empty-list", message, TRUSTED_HELP);
    }
    let wanted = texts.len();
    let read = |(text, at)| reader.parse(text, at, "bad-range", TRUSTED_HELP, values::range);
    let trusted: Vec<_> = texts.into_iter().filter_map(read).collect();
    if trusted.iter().any(|range| range.prefix == 0) {
        let message = "everybody would be believed about the request that is asked about";
        reader.wrong("trusted", "trusts-everybody", message, TRUSTED_HELP);
        return None;
    }
    let all = !trusted.is_empty() && trusted.len() == wanted;
    all.then_some(Some(ForwardAuthSettings {
        asked_by: asked_by?,
        trusted,
    }))
}

/// Whether there is no listener that forwards, so that no response is ever seen.
pub(super) fn is_only_asked(listeners: &[ListenSettings]) -> bool {
    !listeners.is_empty() && listeners.iter().all(|l| l.forward_auth.is_some())
}
