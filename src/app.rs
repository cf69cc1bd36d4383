//! Settings become a running wall.
