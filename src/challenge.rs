//! A quote and a resource become the 402 answer.
