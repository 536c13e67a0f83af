//! What every test starts with: a running server (`App`, or `Process` where it is to be killed), its client with one method per route, adapters with seeded random
//! weights, and the files of a model. Assertions about one route do not belong here.

mod app;
pub(crate) mod client;
mod dialects;
mod evaluation;
mod files;
mod keys;
mod model;
mod process;
mod reply;
mod waiting;

pub(crate) use app::{App, Options};
pub(crate) use client::Client;
pub(crate) use files::{AdapterDirectory, Random};
pub(crate) use keys::{Keys, Made};
pub(crate) use model::{BaseFile, real_model};
pub(crate) use process::{Process, serve_as_told};
pub(crate) use reply::{Reply, Stream};
