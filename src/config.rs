//! The configuration: from TOML text to checked [`settings`], with every complaint at once.

pub mod settings;

use std::fmt;
use std::path::{Path, PathBuf};

/// A configuration that was read, and what is odd about it.
#[derive(Debug)]
pub struct Loaded {
    /// The checked values.
    pub settings: settings::Settings,
    /// What is odd but not wrong.
    pub warnings: Vec<Report>,
}

/// What is wrong with a configuration.
#[derive(Debug)]
pub struct Report(PathBuf);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read {}", self.0.display())
    }
}

/// Reads a configuration.
///
/// # Errors
///
/// A [`Report`].
pub fn load(path: &Path) -> Result<Loaded, Report> {
    Err(Report(path.to_owned()))
}
