//! pingora glue.
