//! A training that can be killed at any moment: everything the next step depends on, in one file that is replaced whole.
//!
//! Belongs here: what is kept, and the file. Does not belong here: when it is written (`run`).
//!
//! The file is a safetensors file beside the output directory. Its tensors are the trained values, both moments and the
//! best values so far, per layer; its metadata holds [`Progress`] and the [`Identity`] of the training. The order of the
//! examples and the dropout masks are functions of the seed and the step, so the step is the state of the random numbers.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use fs_err as fs;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::beside::beside;
use crate::error::TrainerError;
use crate::held_out::HeldOutScore;
use crate::optimizer::Moments;

const FILE_NAME: &str = "checkpoint.safetensors";

/// How far a training is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Optimizer steps done.
    pub(crate) step: usize,
    /// Of each step.
    pub(crate) losses: Vec<f64>,
    /// Before training, then whenever it was due.
    pub(crate) held_out: Vec<HeldOutScore>,
    /// Evaluations since the smallest held-out loss.
    pub(crate) evaluations_since_best: usize,
    /// The step with the smallest held-out loss.
    pub(crate) best_step: Option<usize>,
    /// Rows computed.
    pub(crate) rows: usize,
    /// Tokens of the sequences, shared starts counted for each.
    pub(crate) tokens: usize,
    /// Spent on optimizer steps.
    pub(crate) seconds: f64,
    /// Length of the log.
    pub(crate) journal_bytes: u64,
}

/// What makes two trainings the same: a checkpoint of another one must not be continued. A flat JSON object.
pub(crate) type Identity = serde_json::Map<String, Value>;

/// Everything the next step depends on.
#[derive(Debug, PartialEq)]
pub(crate) struct Checkpoint {
    pub(crate) progress: Progress,
    /// By layer.
    pub(crate) values: Vec<Vec<f32>>,
    /// By layer.
    pub(crate) moments: Vec<Moments>,
    /// The values after [`Progress::best_step`].
    pub(crate) best: Option<Vec<Vec<f32>>>,
}

impl Checkpoint {
    /// Replaces the checkpoint beside `out`; the one before stays whole if this fails or the process is killed.
    pub(crate) fn write(&self, out: &Path, identity: &Identity) -> std::io::Result<()> {
        let layers = |name: &'static str, layers: &[Vec<f32>]| {
            let tensor = |(layer, values): (usize, &Vec<f32>)| {
                (format!("{name}.{layer}"), to_bytes(values), values.len())
            };
            layers.iter().enumerate().map(tensor).collect::<Vec<_>>()
        };
        let first: Vec<_> = self.moments.iter().map(|own| own.first.clone()).collect();
        let second: Vec<_> = self.moments.iter().map(|own| own.second.clone()).collect();
        let tensors = [
            layers("values", &self.values),
            layers("first", &first),
            layers("second", &second),
            layers("best", self.best.as_deref().unwrap_or_default()),
        ]
        .concat();
        let views = tensors
            .iter()
            .map(|(name, bytes, count)| {
                let view = TensorView::new(Dtype::F32, vec![*count], bytes)
                    .map_err(std::io::Error::other)?;
                Ok((name.as_str(), view))
            })
            .collect::<std::io::Result<Vec<_>>>()?;
        let metadata = HashMap::from([
            (
                "progress".to_owned(),
                serde_json::to_string(&self.progress)?,
            ),
            ("identity".to_owned(), serde_json::to_string(identity)?),
        ]);
        let bytes = serialize(views, Some(metadata)).map_err(std::io::Error::other)?;
        replace(&path(out), &bytes)
    }

    /// The checkpoint beside `out`, if there is one.
    ///
    /// # Errors
    /// [`TrainerError::Checkpoint`] for one that cannot be read, is damaged, or belongs to another training.
    pub(crate) fn read(out: &Path, identity: &Identity) -> Result<Option<Self>, TrainerError> {
        let path = path(out);
        let failed = |reason: String| TrainerError::Checkpoint {
            path: path.clone(),
            reason,
        };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error.to_string())),
        };
        let (progress, written) = metadata(&bytes).map_err(failed)?;
        if let Some(difference) = difference(&written, identity) {
            return Err(failed(difference));
        }
        let file = SafeTensors::deserialize(&bytes).map_err(|error| failed(error.to_string()))?;
        let layers = |name: &str| -> Vec<Vec<f32>> {
            (0..)
                .map_while(|layer| file.tensor(&format!("{name}.{layer}")).ok())
                .map(|tensor| from_bytes(tensor.data()))
                .collect()
        };
        let moments = layers("first").into_iter().zip(layers("second"));
        let best = layers("best");
        Ok(Some(Self {
            progress,
            values: layers("values"),
            moments: moments
                .map(|(first, second)| Moments { first, second })
                .collect(),
            best: (!best.is_empty()).then_some(best),
        }))
    }

    /// Deletes the checkpoint beside `out`.
    pub(crate) fn remove(out: &Path) -> std::io::Result<()> {
        match fs::remove_file(path(out)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Whether a training into `out` was interrupted.
pub(crate) fn exists(out: &Path) -> bool {
    path(out).exists()
}

fn path(out: &Path) -> PathBuf {
    beside(out, FILE_NAME)
}

fn metadata(bytes: &[u8]) -> Result<(Progress, Identity), String> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let entry = |name: &str| {
        let entries = metadata.metadata().as_ref();
        entries
            .and_then(|entries| entries.get(name))
            .ok_or_else(|| format!("it has no `{name}`"))
    };
    let progress = serde_json::from_str(entry("progress")?).map_err(|error| error.to_string())?;
    let identity = serde_json::from_str(entry("identity")?).map_err(|error| error.to_string())?;
    Ok((progress, identity))
}

/// What differs first between the training that wrote a checkpoint and this one.
fn difference(written: &Identity, now: &Identity) -> Option<String> {
    let differs = |(field, value): (&String, &Value)| {
        let before = written.get(field).unwrap_or(&Value::Null);
        (before != value).then(|| {
            format!("it belongs to a training with {field} {before}, this one has {value}; delete it, or repeat that training's arguments")
        })
    };
    now.iter().find_map(differs)
}

/// Writes aside, makes it durable, renames.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let aside = path.with_extension("partial");
    let mut file = fs::File::create(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(aside, path)
}

fn to_bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn from_bytes(bytes: &[u8]) -> Vec<f32> {
    let value = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    bytes.chunks_exact(4).map(value).collect()
}
