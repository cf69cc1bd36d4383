//! The sandbox facilitator.
