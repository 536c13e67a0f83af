//! Bringing back the weights of a version that is not in memory, for whoever needs it first.
//!
//! Whoever asks waits; everybody else's tokens go on, because the work happens in the background.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::web::Data;
use adapters::{Adapter, AdapterFiles, Hold, Lease, MemoryError, StoreError, Version, blend};
use engine::PreparedAdapter;
use evaluation::patience::PAUSE;

use super::background::in_background;
use crate::error::ApiError;
use crate::state::State;

/// How long a request waits for memory that others use.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where weights come from when they are not in memory.
#[derive(Debug, Clone)]
pub enum Origin {
    /// The files of the version that is held.
    Stored,
    /// Other versions, by name, and their weights in a blend.
    Blend(Vec<(String, Version, f64)>),
}

/// A lease on what is held; its weights are loaded when they are not in memory.
///
/// # Errors
/// The store's when the files are gone or damaged, `Memory` when there is no room.
pub async fn lease(
    state: &Data<State>,
    hold: Hold<PreparedAdapter>,
    origin: Origin,
) -> Result<Lease<PreparedAdapter>, ApiError> {
    let metrics = &state.metrics.residency;
    let hold = match hold.lease() {
        Ok(lease) => {
            metrics.hits.inc();
            return Ok(lease);
        }
        Err(hold) => hold,
    };
    metrics.misses.inc();
    let started = Instant::now();
    // One load of a version serves all who wait for it.
    let version = hold.summary().version.clone();
    let _one_at_a_time = state.residency_locks.lock(version.as_str()).await;
    let hold = match hold.lease() {
        Ok(lease) => return Ok(lease),
        Err(hold) => hold,
    };
    // Kept until there is a place, so that not all who wait have weights in their hands.
    let _slot = state.residency_locks.loading_slot().await;
    let weights = load(state, hold.name(), version, origin).await?;
    let lease = place(state, hold, &weights).await?;
    metrics
        .load_duration
        .observe(started.elapsed().as_secs_f64());
    Ok(lease)
}

async fn place(
    state: &State,
    hold: Hold<PreparedAdapter>,
    weights: &Arc<PreparedAdapter>,
) -> Result<Lease<PreparedAdapter>, ApiError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match state.registry.place(hold.clone(), weights) {
            Ok(lease) => return Ok(lease),
            Err(MemoryError::Full { .. }) if Instant::now() < until => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn load(
    state: &Data<State>,
    name: &str,
    version: Version,
    origin: Origin,
) -> Result<Arc<PreparedAdapter>, ApiError> {
    let (state, name) = (state.clone(), name.to_owned());
    in_background(move || {
        let adapter = match origin {
            Origin::Stored => parse(&state, &name, &version)?,
            Origin::Blend(parts) => {
                let parse = |(name, version, weight): &(String, Version, f64)| {
                    Ok((parse(&state, name, version)?, *weight))
                };
                let parts: Vec<_> = parts.iter().map(parse).collect::<Result<_, ApiError>>()?;
                blend(&parts)
            }
        };
        Ok(Arc::new(state.engine.prepare(&adapter)))
    })
    .await
}

fn parse(state: &State, name: &str, version: &Version) -> Result<Adapter, ApiError> {
    let files = read(state, name, version)?;
    Ok(Adapter::parse(
        &files,
        state.engine.base(),
        &state.limits(),
    )?)
}

/// The files of a version, out of the store or from where it came with `--pretrained`.
fn read(state: &State, name: &str, version: &Version) -> Result<AdapterFiles, ApiError> {
    match state.store.read(name, version) {
        Ok(files) => Ok(files),
        Err(error @ StoreError::NotStored { .. }) => {
            let Some(directory) = state.pretrained.get(name) else {
                return Err(error.into());
            };
            let files = AdapterFiles::read(directory, &state.limits())?;
            match files.version()? == *version {
                true => Ok(files),
                false => Err(error.into()),
            }
        }
        Err(error @ StoreError::Damaged { .. }) => {
            tracing::error!(adapter = name, %version, %error, "a stored version is damaged and was put in quarantine");
            if let Err(error) = state.store.quarantine(name, version) {
                tracing::error!(adapter = name, %version, %error, "it could not be put in quarantine");
            }
            Err(error.into())
        }
        Err(error) => Err(error.into()),
    }
}
