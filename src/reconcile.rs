//! Unknown settlements.
