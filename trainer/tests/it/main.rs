//! Training as a user sees it, on a tiny random model, and against published reference values on the real one.

mod parity;
mod shared_context;
mod training;
