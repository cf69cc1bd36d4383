//! A buyer.
