//! Reading `multipart/form-data` uploads of adapters: weights go to the disk as they come, their header is checked before the rest
//! of them is read, and an upload that is refused is read to its end, so that the client gets to see the answer.

use std::io::Write as _;
use std::sync::Arc;

use actix_multipart::{Field, Multipart};
use actix_web::web::{Bytes, Data};
use adapters::{Arrival, CONFIG_FILE, Incoming, MANIFEST_FILE, StoreError, WEIGHTS_FILE};
use futures_util::TryStreamExt;

use super::blocking;
use crate::body::{discard, read_bounded, unreadable};
use crate::error::ApiError;
use crate::state::State;

/// Largest configuration, manifest or name.
const SMALL_PART: usize = 1024 * 1024;
/// Bytes that are written to the disk at a time.
const PIECE: usize = 256 * 1024;

/// An uploaded adapter, on the disk.
#[derive(Debug)]
pub struct Upload {
    /// The `name` part.
    pub name: Option<String>,
    /// The files.
    pub incoming: Incoming,
}

/// The parts read so far.
#[derive(Default)]
struct Parts {
    name: Option<Bytes>,
    config: Option<Bytes>,
    manifest: Option<Bytes>,
    /// Weights that are on the disk.
    weights: Option<Arrival>,
}

/// Reads the parts `name`, `config`, `weights` and `manifest`; other parts are skipped.
///
/// # Errors
/// `BodyTooLarge`, `MissingField` for a part that must be there, `Malformed` for what is no multipart form, `Adapter` for weights
/// that can be seen not to fit before they are all there.
pub async fn read_upload(state: &Data<State>, mut form: Multipart) -> Result<Upload, ApiError> {
    let store = Arc::clone(&state.store);
    let incoming = Arc::new(blocking(move || Ok(store.incoming()?)).await?);
    let mut parts = Parts::default();
    let mut refusal = None;
    while let Some(field) = form.try_next().await.map_err(malformed)? {
        // After the first part that is refused the rest is read only to be able to answer.
        if refusal.is_some() {
            discard(field).await;
            continue;
        }
        match read_part(state, &incoming, &mut parts, field).await {
            Ok(()) => {}
            Err(error @ (ApiError::Malformed { .. } | ApiError::BodyTooSlow { .. })) => {
                return Err(error);
            }
            Err(error) => refusal = Some(error),
        }
    }
    if let Some(error) = refusal {
        return Err(error);
    }
    let name = parts.name()?;
    parts.finish(&incoming).await?;
    let incoming = Arc::into_inner(incoming).expect("every piece has been written");
    Ok(Upload { name, incoming })
}

async fn read_part(
    state: &Data<State>,
    incoming: &Arc<Incoming>,
    parts: &mut Parts,
    field: Field,
) -> Result<(), ApiError> {
    let name = field.name().unwrap_or_default().to_owned();
    let place = match name.as_str() {
        "name" => &mut parts.name,
        "config" => &mut parts.config,
        "manifest" => &mut parts.manifest,
        "weights" => {
            if parts.weights.is_some() {
                discard(field).await;
                return Err(twice(&name));
            }
            let config = parts.config.as_deref();
            parts.weights = Some(receive(state, incoming, field, config).await?);
            return Ok(());
        }
        _ => {
            discard(field).await;
            return Ok(());
        }
    };
    if place.is_some() {
        discard(field).await;
        return Err(twice(&name));
    }
    *place = Some(read_bounded(field, SMALL_PART).await?);
    Ok(())
}

/// Writes weights to the disk piece by piece, checking and hashing them on the way.
async fn receive(
    state: &Data<State>,
    incoming: &Arc<Incoming>,
    mut field: Field,
    config: Option<&[u8]>,
) -> Result<Arrival, ApiError> {
    let limits = state.limits();
    let mut arrival = Arrival::new(config, &limits);
    let owned = Arc::clone(incoming);
    let mut file =
        blocking(move || Ok(owned.create(WEIGHTS_FILE).map_err(StoreError::from)?)).await?;
    let mut seen = 0u64;
    let mut piece = Vec::with_capacity(PIECE);
    loop {
        let chunk = field.try_next().await.map_err(malformed)?;
        let last = chunk.is_none();
        if let Some(chunk) = chunk {
            seen += chunk.len() as u64;
            if seen > limits.max_bytes {
                discard(field).await;
                return Err(too_large(limits.max_bytes));
            }
            piece.extend_from_slice(&chunk);
        }
        if piece.len() < PIECE && !last {
            continue;
        }
        let full = std::mem::replace(&mut piece, Vec::with_capacity(PIECE));
        let owned = state.clone();
        let step = blocking(move || {
            arrival.push(&full, owned.engine.base())?;
            file.write_all(&full).map_err(StoreError::from)?;
            Ok((arrival, file))
        });
        match step.await {
            Ok(moved) => (arrival, file) = moved,
            Err(error) => {
                // Size is the first thing to be wrong with an upload, whatever else is.
                let rest = match last {
                    true => 0,
                    false => discard(field).await as u64,
                };
                return Err(match seen + rest > limits.max_bytes {
                    true => too_large(limits.max_bytes),
                    false => error,
                });
            }
        }
        if last {
            return Ok(arrival);
        }
    }
}

impl Parts {
    fn name(&mut self) -> Result<Option<String>, ApiError> {
        let name = self
            .name
            .take()
            .map(|name| {
                String::from_utf8(name.into())
                    .map_err(|_| ApiError::invalid("name", "the part `name` is not valid UTF-8"))
            })
            .transpose()?;
        Ok(name.map(|name| name.trim().to_owned()))
    }

    /// Writes what is not on the disk yet.
    async fn finish(self, incoming: &Arc<Incoming>) -> Result<(), ApiError> {
        let config = self.config.ok_or_else(|| missing("config", CONFIG_FILE))?;
        let arrival = self
            .weights
            .ok_or_else(|| missing("weights", WEIGHTS_FILE))?;
        let (incoming, manifest) = (Arc::clone(incoming), self.manifest);
        blocking(move || {
            // Known now when the configuration came first; what is read back from the disk is held against it.
            if let Some(version) = arrival.finish(manifest.as_deref())? {
                incoming.expect(version);
            }
            incoming
                .write(CONFIG_FILE, &config)
                .map_err(StoreError::from)?;
            if let Some(manifest) = manifest {
                incoming
                    .write(MANIFEST_FILE, &manifest)
                    .map_err(StoreError::from)?;
            }
            Ok(())
        })
        .await
    }
}

fn too_large(limit: u64) -> ApiError {
    ApiError::BodyTooLarge {
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
    }
}

fn missing(part: &str, content: &str) -> ApiError {
    ApiError::MissingField {
        param: part.to_owned(),
        message: format!("the part `{part}` is missing; send {content}"),
    }
}

fn twice(part: &str) -> ApiError {
    ApiError::invalid(part, format!("the part `{part}` is there twice"))
}

fn malformed(error: actix_multipart::MultipartError) -> ApiError {
    unreadable("the multipart form cannot be read", &error)
}
