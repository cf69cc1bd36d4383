//! Several walls and one ledger, on a real PostgreSQL.

mod kills;
mod ledger;
mod upkeep;
mod walls;
