//! How an adapter gets from files into service, off the hot path: read, validate, prepare, probe, store, publish.
//!
//! Changes of one name are serialised; different names load side by side. Nothing is published before every check has passed, so a
//! bad adapter changes nothing for anybody. What an adapter *is* and which checks it must pass is for `adapters` to say.

mod background;
pub mod follow;
mod locks;
mod pointing;
mod probe;
mod promotion;
mod publish;
mod report;
pub mod residency;
pub mod startup;
pub mod upload;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use actix_web::web::Data;
use adapters::{
    Adapter, AdapterFiles, AdapterName, Entry, Incoming, MemoryError, Proof, RegistryError,
    StoreError, Summary, Version, resolve_under,
};
use engine::PreparedAdapter;
use serde::Serialize;
use tokio::sync::OwnedMutexGuard;
use utoipa::ToSchema;

use background::in_background;
pub use locks::NameLocks;
pub use promotion::{PromoteRequest, promote};
pub use publish::{Conditions, activate, adjust, pin, remove, remove_version, rollback};
pub use report::LoadReport;
pub(crate) use report::same_model;

use crate::audit::note;
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
    /// Came with the request, and are on the disk.
    Upload(Incoming),
    /// In a directory under one of the adapter roots.
    Path(String),
}

/// What a load does to a name that is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replace {
    /// It fails.
    Never,
    /// It adds a version.
    Allowed,
    /// It adds a version if this one, or the one that starts so, is active; it fails on a free name too.
    Active(String),
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

/// What a load would have done.
pub struct Examined {
    /// The name.
    pub name: String,
    /// The version of the files.
    pub version: Version,
    /// What would have happened to the name.
    pub would: Outcome,
    /// What was found.
    pub report: LoadReport,
}

/// What a load does to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The name is new.
    Create,
    /// The version is new.
    AddVersion,
    /// The version is there, and another is active.
    Activate,
    /// Everything is as it would be.
    Nothing,
}

/// An adapter that passed every check which does not need the model to run.
struct Prepared {
    summary: Summary,
    weights: Arc<PreparedAdapter>,
    tensors_matched: usize,
    modules: usize,
}

impl Replace {
    /// Refuses a name that is not what the request wants it to be.
    ///
    /// # Errors
    /// `AlreadyLoaded`, `NotLoaded`, `LostCompareAndSwap`.
    fn check(&self, name: &str, entry: Option<&Entry>) -> Result<(), RegistryError> {
        match (entry, self) {
            (Some(entry), Self::Never) => Err(RegistryError::AlreadyLoaded {
                name: entry.name.clone(),
                active: entry.active().clone(),
            }),
            (Some(entry), Self::Active(expected)) => entry.expect_active(expected),
            (None, Self::Active(_)) => Err(RegistryError::NotLoaded {
                name: name.to_owned(),
            }),
            (Some(_), Self::Allowed) | (None, Self::Allowed | Self::Never) => Ok(()),
        }
    }
}

impl Outcome {
    fn of(known: Option<&Entry>, version: &Version, activate: bool) -> Self {
        let Some(entry) = known else {
            return Self::Create;
        };
        if !entry.retains(version) {
            return Self::AddVersion;
        }
        match activate && entry.active() != version {
            true => Self::Activate,
            false => Self::Nothing,
        }
    }
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
    let (_one_at_a_time, known) = admit(state, &request).await?;
    let _memory = state.name_locks.loading_slot().await;
    let started = Instant::now();
    let (files, incoming) = read(state, request.source).await?;
    // Written beside the store meanwhile; a bad adapter's files are deleted with `incoming`.
    let (proven, incoming) = tokio::join!(
        prove(state, &request.name, Arc::clone(&files), unix_seconds()),
        stage(state, files, incoming)
    );
    let (mut prepared, mut proof) = proven?;
    proof.load_ms = milliseconds(started);
    prepared.summary.proof = Some(proof.clone());
    let how = (&request.replace, request.activate);
    let entry = publish::publish(state, &request.name, (prepared, incoming?), how).await?;
    proof.load_ms = milliseconds(started);
    let report = LoadReport::of(&proof);
    tracing::info!(
        adapter = request.name,
        version = %entry.active(),
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

/// Does everything that [`load`] does except storing and publishing.
///
/// # Errors
/// Those of [`load`].
pub async fn examine(state: &Data<State>, request: LoadRequest) -> Result<Examined, ApiError> {
    let (_one_at_a_time, known) = admit(state, &request).await?;
    let _memory = state.name_locks.loading_slot().await;
    let started = Instant::now();
    let (files, _incoming) = read(state, request.source).await?;
    let (prepared, mut proof) = prove(state, &request.name, files, unix_seconds()).await?;
    proof.load_ms = milliseconds(started);
    let version = prepared.summary.version;
    Ok(Examined {
        would: Outcome::of(known.as_ref(), &version, request.activate),
        report: LoadReport::of(&proof),
        name: request.name,
        version,
    })
}

fn milliseconds(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1000.0
}

/// The lock of a name that may be changed as asked, and what the name is.
async fn admit(
    state: &Data<State>,
    request: &LoadRequest,
) -> Result<(OwnedMutexGuard<()>, Option<Entry>), ApiError> {
    state.check_open()?;
    AdapterName::parse(&request.name, &state.reserved_names())?;
    let lock = state.name_locks.lock(&request.name).await;
    follow::refresh_shared(state, &request.name).await?;
    let known = state.registry.get(&request.name);
    note::about(
        &request.name,
        known.as_ref().map(|entry| entry.active().as_str()),
    );
    request.replace.check(&request.name, known.as_ref())?;
    Ok((lock, known))
}

/// Validates, packs and probes; says what was found.
async fn prove(
    state: &Data<State>,
    name: &str,
    files: Arc<AdapterFiles>,
    created: u64,
) -> Result<(Prepared, Proof), ApiError> {
    let started = Instant::now();
    let (owned, content) = (state.clone(), Arc::clone(&files));
    let mut prepared = in_background(move || prepare(&owned, &content, created)).await?;
    let (needed, budget) = (prepared.weights.bytes(), state.registry.memory().budget());
    if needed > budget {
        let name = name.to_owned();
        return Err(MemoryError::TooLarge {
            name,
            needed,
            budget,
        }
        .into());
    }
    let effect_kl = probe::effect(&state.engine, name, &prepared.weights).await?;
    let base = state.engine.base();
    let proof = Proof {
        base_model: state.served_name().to_owned(),
        base_digest: base.digest.clone(),
        tensors_matched: prepared.tensors_matched,
        modules: prepared.modules,
        effect_kl,
        load_ms: milliseconds(started),
        warnings: report::warnings(&files, &prepared.summary, state.served_name()),
    };
    prepared.summary.proof = Some(proof.clone());
    Ok((prepared, proof))
}

/// The files, and where they are on their way into the store if they have been written there.
async fn read(
    state: &Data<State>,
    source: Source,
) -> Result<(Arc<AdapterFiles>, Option<Incoming>), ApiError> {
    let state = state.clone();
    in_background(move || match source {
        Source::Upload(incoming) => {
            let files = incoming.files(&state.limits())?;
            Ok((Arc::new(files), Some(incoming)))
        }
        Source::Path(path) => {
            let directory: PathBuf = resolve_under(&state.configuration.adapter_roots(), &path)?;
            let files = AdapterFiles::read(&directory, &state.limits())?;
            Ok((Arc::new(files), None))
        }
    })
    .await
}

/// Writes and syncs files on their way into the store.
async fn stage(
    state: &Data<State>,
    files: Arc<AdapterFiles>,
    incoming: Option<Incoming>,
) -> Result<Incoming, ApiError> {
    let store = Arc::clone(&state.store);
    in_background(move || {
        let incoming = match incoming {
            Some(incoming) => incoming,
            None => {
                let incoming = store.incoming()?;
                incoming.write_files(&files).map_err(StoreError::from)?;
                incoming
            }
        };
        incoming.sync().map_err(StoreError::from)?;
        Ok(incoming)
    })
    .await
}

/// Validates and packs.
fn prepare(state: &State, files: &AdapterFiles, created: u64) -> Result<Prepared, ApiError> {
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
