//! Several walls and one ledger, on a real PostgreSQL.

mod commands;
mod kills;
mod ledger;
mod tls;
mod upkeep;
mod walls;
