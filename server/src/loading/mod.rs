//! How an adapter gets from files into service, off the hot path: read, validate, prepare, probe, store, publish.
//!
//! Changes of one name are serialised; different names load side by side. Nothing is published before every check has passed, so a
//! bad adapter changes nothing for anybody. What an adapter *is* and which checks it must pass is for `adapters` to say.

mod background;
mod locks;
mod probe;
mod publish;
pub mod startup;
pub mod upload;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use actix_web::web::Data;
use adapters::{
    Adapter, AdapterFiles, AdapterName, Entry, RegistryError, Staged, Summary, resolve_under,
};
use engine::PreparedAdapter;
use serde::Serialize;
use utoipa::ToSchema;

use background::in_background;
pub use locks::NameLocks;
pub use publish::{activate, remove, remove_version, rollback};

use crate::error::ApiError;
use crate::state::{State, unix_seconds};

/// An adapter to be loaded.
#[derive(Debug)]
pub struct LoadRequest {
    /// The name it gets.
    pub name: String,
    /// Where its files are.
    pub source: Source,
    /// Whether the name must be free or may be taken.
    pub replace: Replace,
    /// Whether requests by name get this version from now on.
    pub activate: bool,
}

/// Where an adapter's files are.
#[derive(Debug)]
pub enum Source {
    /// In the request.
    Upload(Box<AdapterFiles>),
    /// In a directory under one of the adapter roots.
    Path(String),
}

/// What a load does to a name that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// It fails.
    Never,
    /// It adds a version.
    Allowed,
}

/// What a load found and did.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LoadReport {
    /// Tensors of the file that are part of the adapter.
    pub tensors_matched: usize,
    /// Tensors that are not; always empty, since an adapter is complete or refused.
    pub tensors_unmatched: Vec<String>,
    /// Modules of the base model that it changes.
    pub modules: usize,
    /// Mean Kullback-Leibler divergence of the adapter's next-token distribution from the base's on probe prompts, nats.
    pub effect_kl: f64,
    /// Milliseconds from reading to publishing.
    pub load_ms: f64,
}

/// A loaded name and how its newest version got there.
pub struct Loaded {
    /// The name with all its versions.
    pub entry: Entry,
    /// About the version just loaded.
    pub report: LoadReport,
    /// Whether the name is new.
    pub created: bool,
}

/// An adapter that passed every check which does not need the model to run.
struct Prepared {
    summary: Summary,
    weights: Arc<PreparedAdapter>,
    tensors_matched: usize,
    modules: usize,
}

/// Loads an adapter and publishes it under its name.
///
/// # Errors
/// Every reason an adapter can be refused for; nothing has changed then.
pub async fn load(state: &Data<State>, request: LoadRequest) -> Result<Loaded, ApiError> {
    let source = match &request.source {
        Source::Upload(_) => "upload",
        Source::Path(_) => "path",
    };
    let outcome = load_and_publish(state, request).await;
    match &outcome {
        Ok(loaded) => {
            let metrics = &state.metrics;
            metrics.adapters.loads.with_label_values(&[source]).inc();
            metrics
                .adapters
                .load_duration
                .observe(loaded.report.load_ms / 1000.0);
        }
        Err(error) => count_failure(state, error),
    }
    outcome
}

async fn load_and_publish(state: &Data<State>, request: LoadRequest) -> Result<Loaded, ApiError> {
    state.check_open()?;
    AdapterName::parse(&request.name, &state.reserved_names())?;
    let _one_at_a_time = state.name_locks.lock(&request.name).await;
    let known = state.registry.get(&request.name);
    if let (Some(entry), Replace::Never) = (&known, request.replace) {
        return Err(already_loaded(entry));
    }
    let _memory = state.name_locks.loading_slot().await;
    let started = Instant::now();
    let files = read(state, request.source).await?;
    // Written beside the store meanwhile; a bad adapter's files are deleted with `staged`.
    let (prepared, staged) = tokio::join!(
        prepare(state, Arc::clone(&files)),
        stage(state, &request.name, files)
    );
    let prepared = prepared?;
    let effect = probe::effect(&state.engine, &request.name, &prepared.weights).await?;
    let report = LoadReport {
        tensors_matched: prepared.tensors_matched,
        tensors_unmatched: Vec::new(),
        modules: prepared.modules,
        effect_kl: effect,
        load_ms: started.elapsed().as_secs_f64() * 1000.0,
    };
    let entry =
        publish::publish(state, &request.name, (prepared, staged?), request.activate).await?;
    tracing::info!(
        adapter = request.name,
        version = %entry.active,
        effect_kl = report.effect_kl,
        load_milliseconds = report.load_ms,
        "adapter loaded"
    );
    Ok(Loaded {
        entry,
        report,
        created: known.is_none(),
    })
}

async fn read(state: &Data<State>, source: Source) -> Result<Arc<AdapterFiles>, ApiError> {
    let path = match source {
        Source::Upload(files) => return Ok(Arc::new(*files)),
        Source::Path(path) => path,
    };
    let state = state.clone();
    in_background(move || {
        let directory: PathBuf = resolve_under(&state.configuration.adapter_roots(), &path)?;
        Ok(Arc::new(AdapterFiles::read(&directory, &state.limits())?))
    })
    .await
}

async fn prepare(state: &Data<State>, files: Arc<AdapterFiles>) -> Result<Prepared, ApiError> {
    let state = state.clone();
    in_background(move || prepare_files(&state, &files, unix_seconds())).await
}

async fn stage(
    state: &Data<State>,
    name: &str,
    files: Arc<AdapterFiles>,
) -> Result<Staged, ApiError> {
    let (state, name) = (state.clone(), name.to_owned());
    in_background(move || Ok(state.store.stage(&name, &files)?)).await
}

/// Validates and packs.
fn prepare_files(state: &State, files: &AdapterFiles, created: u64) -> Result<Prepared, ApiError> {
    let adapter = Adapter::parse(files, state.engine.base(), &state.limits())?;
    Ok(Prepared {
        summary: Summary::of(&adapter, created),
        weights: Arc::new(state.engine.prepare(&adapter)),
        tensors_matched: adapter.tensors_matched,
        modules: adapter.modules.len(),
    })
}

/// Runs work that blocks on a thread meant for it.
///
/// # Errors
/// The work's own, or `Internal` when it panicked.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(ApiError::internal)?
}

fn already_loaded(entry: &Entry) -> ApiError {
    RegistryError::AlreadyLoaded {
        name: entry.name.clone(),
        active: entry.active.clone(),
    }
    .into()
}

/// Counts a refused load.
fn count_failure(state: &State, error: &ApiError) {
    let code = error.body().error.code;
    state
        .metrics
        .adapters
        .load_failures
        .with_label_values(&[code])
        .inc();
    tracing::warn!(code, error = %error, "adapter refused");
}
