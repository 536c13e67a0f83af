//! What every test starts with: a running server (`App`), its client with one method per route, adapters with seeded random
//! weights, and the files of a model. Assertions about one route do not belong here.

mod app;
pub(crate) mod client;
mod evaluation;
mod files;
mod model;
mod reply;

pub(crate) use app::{App, Options};
pub(crate) use client::Client;
pub(crate) use files::{AdapterDirectory, Random};
pub(crate) use model::{BaseFile, real_model};
pub(crate) use reply::{Reply, Stream};
