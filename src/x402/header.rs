//! Header names and encoding.
