//! The stages of a proof.
