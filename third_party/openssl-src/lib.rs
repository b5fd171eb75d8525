//! `openssl-sys` 0.9 requires `openssl-src` 300.x, whose last release carries OpenSSL 3.6.3; the security
//! release after it exists in the 400.x line only. This shim gives `openssl-sys` that line under the number
//! it asks for. Delete it, and `[patch]` in the root manifest, when `openssl-sys` allows 400.x.
pub use current::*;
