//! Training as a user sees it, on a tiny random model, and against published reference values on the real one.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod commands;
mod parity;
mod profile;
mod resume;
mod shared_context;
mod training;
mod workplace;
