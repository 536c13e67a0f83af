//! From logits to a token: what a request may ask for, the sampler of one sequence, and log-probabilities. Which rows
//! get logits, and when a sequence ends, is decided elsewhere.

mod exponential;
mod filter;
mod logprobs;
mod parameters;
mod sampler;

pub use logprobs::{LogSoftmax, argmax, log_sum_exp, logprob_of, top_logprobs};
pub use parameters::{Sampling, SamplingError};
pub use sampler::Sampler;
