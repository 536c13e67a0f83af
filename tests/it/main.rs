//! The one integration binary. Each file asks one part of the public HTTP surface, through `harness`, of a server that runs in
//! this process on a free port, or in one of its own that is killed, with a tiny model of random weights or, where a test says so,
//! the real one.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod adapters;
mod async_openai_client;
mod audit;
mod auth;
mod bad_adapters;
mod bad_requests;
mod batch;
mod blends;
mod canary;
mod chat;
mod classify;
mod clock;
mod compare;
mod completions;
mod conditional_changes;
mod crash_loop;
mod datasets;
mod deadlines;
mod disconnects;
mod evaluation_jobs;
mod evaluations;
mod faults;
mod gateway;
mod harness;
mod history;
mod hub;
mod image_context;
mod keys;
mod limits;
mod llama_cpp_dialect;
mod memory;
mod metric_names;
mod metrics;
mod models;
mod open_inference_dialect;
mod openapi;
mod operations;
mod predictions;
mod prefix_cache;
mod rate_limits;
mod real_model;
mod receipts;
mod report_in_browser;
mod score;
mod sglang_dialect;
mod signals;
mod slow_clients;
mod storage_faults;
mod streaming;
mod swap;
mod tenants;
mod tgi_dialect;
mod tidy;
mod tls;
mod tokenizer;
mod trainer_parity;
mod vllm_dialect;
