//! From a request's fields to engine requests, and from the engine's events to answers: what completions and chat share.
//!
//! Routes (who may call, which JSON comes back) are in `routes`; arithmetic is in `engine`.

pub mod classification;
pub mod generation;
pub mod logprobs;
pub mod parameters;
pub mod patience;
pub mod prompts;
pub mod stream;
pub mod target;
pub mod unsupported;
pub mod usage;
