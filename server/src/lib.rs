//! The HTTP server: routes, errors, keys, the audit log, metrics, adapters in and out of service, evaluations as jobs, the OpenAPI document.
//!
//! What an adapter is belongs to `adapters`, what a task is and how it is scored to `tasks`, every number to `engine`. Nothing here
//! knows kernels or tensors, and nothing elsewhere knows HTTP.
//!
//! A request goes through [`routes`] (every route on one page) to one handler, which reads it, calls `inference`, `loading` or
//! `evaluation`, and answers. Every failure is an [`error::ApiError`].
#![forbid(unsafe_code)]

pub mod access;
pub mod application;
pub mod audit;
pub mod authorization;
pub mod body;
pub mod configuration;
pub mod datasets;
pub mod error;
pub mod evaluations;
pub mod hub;
pub mod inference;
pub mod loading;
pub mod logging;
pub mod metrics;
pub mod middleware;
pub mod openapi;
pub mod query;
pub mod reload;
pub mod routes;
pub mod sockets;
pub mod state;
pub mod tls;
