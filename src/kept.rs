//! Kept responses.
