//! The one integration binary. Each file asks one part of the public HTTP surface, through `harness`, of a server that runs in
//! this process on a free port, with a tiny model of random weights or, where a test says so, the real one.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod adapters;
mod auth;
mod bad_adapters;
mod bad_requests;
mod batch;
mod chat;
mod classify;
mod completions;
mod conditional_changes;
mod evaluation_jobs;
mod evaluations;
mod harness;
mod hub;
mod limits;
mod metrics;
mod models;
mod openapi;
mod operations;
mod prefix_cache;
mod real_model;
mod score;
mod streaming;
mod swap;
mod tidy;
mod tokenizer;
mod vllm_dialect;
