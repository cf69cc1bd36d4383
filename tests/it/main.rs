//! The wall from outside: the real binary on real sockets, one module a behaviour.

#![allow(
    unreachable_pub,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that panics has failed, which is what it is for"
)]

mod support;

mod acme;
mod admin;
mod certificates;
mod challenge;
mod commands;
mod config_examples;
mod cors;
mod docs_run;
mod errors_doc;
mod facilitator_faults;
mod failing_upstream;
mod floods;
mod forward_auth;
mod framing;
mod headers;
mod layering;
mod ledger_file;
mod lifecycle;
mod log;
mod limits;
mod metrics_doc;
mod opaque;
#[cfg(feature = "otlp")]
mod otlp;
mod packaging;
mod paid_request;
mod postgres;
mod protocols;
mod quick;
mod reconcile;
mod reload;
mod replay;
mod retention;
mod secrets;
mod security_doc;
mod service_manager;
mod settlement;
mod streaming;
mod unread;
mod upgrade;
mod upstreams;
mod variants;
