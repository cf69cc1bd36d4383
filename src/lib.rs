//! Farewall: a payment wall in front of the API you already have.
//!
//! This list is the map. Data flows down it: **a module imports only modules above it** (a test
//! holds us to that), so it is the reading order and the architecture too. Read [`gate`] first.

pub mod money;
pub mod clock;
pub mod code;
pub mod causes;
pub mod failpoint;
pub mod stall;
pub mod priority;
pub mod chain;
pub mod settlement;
pub mod metrics;
pub mod x402;
pub mod config;
pub mod log;
pub mod otlp;
pub mod ledger;
pub mod books;
pub mod facilitator;
pub mod chain_rpc;
pub mod target;
pub mod route;
pub mod challenge;
pub mod proof;
pub mod kept;
pub mod throttle;
pub mod tls;
pub mod acme;
pub mod gate;
pub mod upstream;
pub mod proxy;
pub mod reload;
pub mod reconcile;
pub mod retention;
pub mod admin;
pub mod app;
pub mod buyer;
pub mod sandbox;
pub mod demo;
pub mod cli;
