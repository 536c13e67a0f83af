//! Reading `multipart/form-data` uploads of adapters, every part within its limit and an upload that is too large read to its end,
//! so that the client gets to see the answer.

use actix_multipart::{Field, Multipart};
use actix_web::web::Bytes;
use adapters::AdapterFiles;
use futures_util::TryStreamExt;

use crate::body::{discard, read_bounded};
use crate::error::ApiError;

/// Largest configuration, manifest or name.
const SMALL_PART: usize = 1024 * 1024;

/// An uploaded adapter.
#[derive(Debug)]
pub struct Upload {
    /// The `name` part.
    pub name: Option<String>,
    /// The files.
    pub files: AdapterFiles,
}

/// The parts read so far.
#[derive(Default)]
struct Parts {
    name: Option<Bytes>,
    config: Option<Bytes>,
    weights: Option<Bytes>,
    manifest: Option<Bytes>,
}

/// Reads the parts `name`, `config`, `weights` and `manifest`; other parts are skipped.
///
/// # Errors
/// `BodyTooLarge`, `MissingField` for a part that must be there, `Malformed` for what is no multipart form.
pub async fn read_upload(mut form: Multipart, max_bytes: u64) -> Result<Upload, ApiError> {
    let limit = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let mut parts = Parts::default();
    let mut too_large = None;
    while let Some(field) = form.try_next().await.map_err(malformed)? {
        // After the first part over its limit the rest is read only to be able to answer.
        match (&too_large, read_part(&mut parts, field, limit).await) {
            (_, Ok(())) => {}
            (None, Err(error @ ApiError::BodyTooLarge { .. })) => too_large = Some(error),
            (Some(_), Err(ApiError::BodyTooLarge { .. })) => {}
            (_, Err(error)) => return Err(too_large.unwrap_or(error)),
        }
    }
    match too_large {
        Some(error) => Err(error),
        None => parts.finish(),
    }
}

async fn read_part(parts: &mut Parts, field: Field, limit: usize) -> Result<(), ApiError> {
    let name = field.name().unwrap_or_default().to_owned();
    let (place, limit) = match name.as_str() {
        "name" => (&mut parts.name, SMALL_PART),
        "config" => (&mut parts.config, SMALL_PART),
        "manifest" => (&mut parts.manifest, SMALL_PART),
        "weights" => (&mut parts.weights, limit),
        _ => {
            discard(field).await;
            return Ok(());
        }
    };
    if place.is_some() {
        return Err(ApiError::invalid(
            name.as_str(),
            format!("the part `{name}` is there twice"),
        ));
    }
    *place = Some(read_bounded(field, limit).await?);
    Ok(())
}

impl Parts {
    fn finish(self) -> Result<Upload, ApiError> {
        let needed = |part: Option<Bytes>, name: &str, content: &str| {
            part.map(Vec::from).ok_or_else(|| ApiError::MissingField {
                param: name.to_owned(),
                message: format!("the part `{name}` is missing; send {content}"),
            })
        };
        let name = self
            .name
            .map(|name| {
                String::from_utf8(name.into())
                    .map_err(|_| ApiError::invalid("name", "the part `name` is not valid UTF-8"))
            })
            .transpose()?;
        Ok(Upload {
            name: name.map(|name| name.trim().to_owned()),
            files: AdapterFiles {
                config: needed(self.config, "config", "adapter_config.json")?,
                weights: needed(self.weights, "weights", "adapter_model.safetensors")?,
                manifest: self.manifest.map(Vec::from),
            },
        })
    }
}

fn malformed(error: actix_multipart::MultipartError) -> ApiError {
    ApiError::Malformed {
        message: format!("the multipart form cannot be read: {error}"),
        param: None,
    }
}
