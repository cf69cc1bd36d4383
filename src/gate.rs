//! All decisions for one request.
