//! Every integration test, in one binary: one module per area.
#![allow(missing_docs, reason = "tests describe themselves by name")]
#![allow(clippy::unwrap_used, reason = "a test that unwraps is a test that fails loudly")]
