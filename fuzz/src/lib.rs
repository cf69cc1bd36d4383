//! What every fuzz target asserts. The same file is a module of `tests/fuzz_corpus.rs`.

pub mod properties;
