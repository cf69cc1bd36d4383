//! The configuration: from TOML text to checked [`settings`], with every complaint at once.

pub mod settings;
