//! The wall from outside: the real binary on real sockets, one module a behaviour.

#![allow(clippy::arithmetic_side_effects, reason = "tests count small numbers")]
#![allow(clippy::wildcard_enum_match_arm, reason = "tests match one case")]

mod support;

mod challenge;
mod commands;
mod config_examples;
mod cors;
mod facilitator_faults;
mod failing_upstream;
mod floods;
mod framing;
mod headers;
mod layering;
mod lifecycle;
mod limits;
mod paid_request;
mod protocols;
mod replay;
mod settlement;
mod streaming;
mod variants;
