//! Permit2.
