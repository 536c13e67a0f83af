//! From a request's fields to engine requests, and from the engine's events to answers: what completions and chat share.
//!
//! Routes (who may call, which JSON comes back) are in `routes`; arithmetic is in `engine`.

mod blend;
pub mod comparison;
pub mod deadline;
pub mod generation;
pub mod logprobs;
pub mod named;
pub mod parameters;
pub mod prompts;
pub mod receipt;
pub mod scales;
pub mod signals;
pub mod stream;
pub mod target;
pub mod unsupported;
pub mod usage;
