//! Which rule governs a request.

pub mod price;
