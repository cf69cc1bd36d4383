//! Disks that fail: full, and read-only.
