//! Networks and default assets.
