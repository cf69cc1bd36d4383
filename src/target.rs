//! The canonical request target and host.
