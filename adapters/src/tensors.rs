//! From a safetensors file to the matrices that a configuration calls for, and their names.

use std::collections::BTreeMap;

use half::{bf16, f16};
use safetensors::tensor::{Metadata, TensorView};
use safetensors::{Dtype, SafeTensors};

use crate::module::ModuleKind;
use crate::{AdapterError, BaseModel, LoraModule, Projection};

/// Largest safetensors header accepted, in bytes. 80 layers of seven targets need 200 kB.
const MAX_HEADER: u64 = 16 << 20;

/// What PEFT puts in front of every module path.
const PREFIX: &str = "base_model.model.";

/// One module that the configuration calls for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) layer: usize,
    /// Index into [`ModuleKind::all`].
    pub(crate) kind: usize,
    pub(crate) rank: usize,
    pub(crate) scale: f32,
}

/// What a configuration calls for in a weights file.
pub(crate) struct Calls<'a> {
    /// Sorted by layer and kind.
    pub(crate) wanted: &'a [Wanted],
    pub(crate) base: &'a BaseModel,
    /// The base that the adapter says it was made for, empty when it does not.
    pub(crate) made_for: &'a str,
}

/// A tensor as the header of its file describes it.
struct Described<'a> {
    name: &'a str,
    shape: Vec<usize>,
    dtype: Dtype,
}

/// The header of a weights file.
pub(crate) struct Header {
    metadata: Metadata,
    /// Bytes of the whole file.
    pub(crate) file_bytes: u64,
}

/// Which of a module's two matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Half {
    A,
    B,
}

/// A layer, an index into [`ModuleKind::all`], and which matrix.
type Slot = (usize, usize, Half);

/// Reads every wanted module out of a safetensors file and refuses anything else in it.
///
/// # Errors
/// A damaged file; those of [`fit`]; a value that is not finite.
pub(crate) fn read(weights: &[u8], calls: &Calls<'_>) -> Result<Vec<LoraModule>, AdapterError> {
    let file = open(weights)?;
    let described = file.iter().map(|(name, tensor)| Described {
        name,
        shape: tensor.shape().to_vec(),
        dtype: tensor.dtype(),
    });
    let names = fit(described.collect(), calls)?;
    let base = calls.base;
    let kinds = ModuleKind::all(base);
    let mut modules = Vec::new();
    for module in calls.wanted {
        let kind = &kinds[module.kind];
        let matrix = |half| {
            let name = &names[&(module.layer, module.kind, half)];
            let tensor = file.tensor(name).map_err(corrupt)?;
            values(name, &tensor)
        };
        let a = matrix(Half::A)?;
        let mut b = matrix(Half::B)?;
        for &projection in kind.projections {
            let rest = b.split_off(base.shape(projection).outputs * module.rank);
            modules.push(LoraModule {
                layer: module.layer,
                projection,
                rank: module.rank,
                scale: module.scale,
                a: a.clone(),
                b: std::mem::replace(&mut b, rest),
            });
        }
    }
    Ok(modules)
}

/// The name PEFT gives a matrix of a projection that is a module of its own.
pub(crate) fn peft_key(layer: usize, projection: Projection, half: Half) -> String {
    key(&projection.module_path(layer), half)
}

fn key(path: &str, half: Half) -> String {
    format!("{PREFIX}{path}.lora_{half:?}.weight")
}

/// The inverse of [`key`] for modules of these kinds. Also reads names without the prefix, and with PEFT's name of the
/// adapter (`default`) in them, as a plain `state_dict` has.
fn parse_key(name: &str, kinds: &[ModuleKind]) -> Option<Slot> {
    let path = name.strip_prefix(PREFIX).unwrap_or(name);
    let mut segments = path.strip_prefix("model.layers.")?.split('.');
    let number = segments.next()?;
    let layer: usize = number.parse().ok()?;
    let parent = segments.next()?;
    let module = segments.next()?;
    let kind = kinds.iter().position(|kind| kind.name == module)?;
    let half = match segments.next()? {
        "lora_A" => Half::A,
        "lora_B" => Half::B,
        _ => return None,
    };
    let ending: Vec<&str> = segments.collect();
    let is_key = layer.to_string() == number
        && parent == kinds[kind].parent
        && matches!(ending[..], ["weight"] | ["default", "weight"]);
    is_key.then_some((layer, kind, half))
}

impl Header {
    /// Reads the header at the beginning of a file, `None` when more bytes of it are needed.
    ///
    /// # Errors
    /// `CorruptWeights` when it is none.
    pub(crate) fn read(beginning: &[u8]) -> Result<Option<Self>, AdapterError> {
        let Some(length) = beginning.first_chunk::<8>() else {
            return Ok(None);
        };
        let length = u64::from_le_bytes(*length);
        if length > MAX_HEADER {
            return Err(AdapterError::CorruptWeights {
                reason: format!("its header claims {length} bytes, {MAX_HEADER} are allowed"),
            });
        }
        let end = 8 + usize::try_from(length).expect("bounded above");
        let Some(text) = beginning.get(8..end) else {
            return Ok(None);
        };
        let metadata: Metadata =
            serde_json::from_slice(text).map_err(|error| AdapterError::CorruptWeights {
                reason: format!("its header cannot be read: {error}"),
            })?;
        let file_bytes = (metadata.data_len() as u64)
            .checked_add(end as u64)
            .ok_or_else(|| AdapterError::CorruptWeights {
                reason: "its header claims more bytes than can be counted".to_owned(),
            })?;
        Ok(Some(Self {
            metadata,
            file_bytes,
        }))
    }

    /// Whether these are the tensors that a configuration calls for.
    ///
    /// # Errors
    /// Those of [`fit`].
    pub(crate) fn check(&self, calls: &Calls<'_>) -> Result<(), AdapterError> {
        let tensors = self.metadata.tensors();
        let described = tensors.iter().map(|(name, info)| Described {
            name,
            shape: info.shape.clone(),
            dtype: info.dtype,
        });
        fit(described.collect(), calls).map(drop)
    }
}

fn open(weights: &[u8]) -> Result<SafeTensors<'_>, AdapterError> {
    let present = weights.len() as u64;
    let Some(header) = Header::read(weights)? else {
        return Err(AdapterError::CorruptWeights {
            reason: format!("it ends after {present} bytes, within its header"),
        });
    };
    // The library adds up what the header claims without looking for an overflow, so it comes after this.
    if header.file_bytes != present {
        return Err(AdapterError::CorruptWeights {
            reason: format!(
                "it has {present} bytes and its header says {}",
                header.file_bytes
            ),
        });
    }
    SafeTensors::deserialize(weights).map_err(corrupt)
}

fn corrupt(error: safetensors::SafeTensorError) -> AdapterError {
    AdapterError::CorruptWeights {
        reason: error.to_string(),
    }
}

/// The names in the file of all wanted matrices, once it is certain that there is nothing else and that all of them have the
/// shapes and types they should have.
///
/// # Errors
/// In this order: unmatched or duplicate tensors, missing tensors, another base, a wrong shape, a wrong type.
fn fit(
    mut described: Vec<Described<'_>>,
    calls: &Calls<'_>,
) -> Result<BTreeMap<Slot, String>, AdapterError> {
    described.sort_unstable_by_key(|tensor| tensor.name);
    let names: Vec<&str> = described.iter().map(|tensor| tensor.name).collect();
    let found = names_by_slot(&names, calls.wanted, ModuleKind::all(calls.base))?;
    check_shapes(&described, &found, calls)?;
    for tensor in &described {
        if !matches!(tensor.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(unsupported(tensor.name, tensor.dtype));
        }
    }
    Ok(found)
}

/// Tells an adapter of another base, most of whose matrices do not fit, from one with a matrix of a wrong shape.
fn check_shapes(
    described: &[Described<'_>],
    found: &BTreeMap<Slot, String>,
    calls: &Calls<'_>,
) -> Result<(), AdapterError> {
    let kinds = ModuleKind::all(calls.base);
    let mut wrong = None;
    let mut of_other_sizes = 0;
    for module in calls.wanted {
        let kind = &kinds[module.kind];
        let (inputs, outputs) = (kind.inputs(calls.base), kind.outputs(calls.base));
        for half in [Half::A, Half::B] {
            let (expected, side) = match half {
                Half::A => ([module.rank, inputs], 1),
                Half::B => ([outputs, module.rank], 0),
            };
            let name = found[&(module.layer, module.kind, half)].as_str();
            let at = described.binary_search_by_key(&name, |tensor| tensor.name);
            let got = described[at.expect("a name of the file")].shape.as_slice();
            if got == expected {
                continue;
            }
            if got.len() == 2 && got[side] != expected[side] {
                of_other_sizes += 1;
            }
            wrong.get_or_insert_with(|| AdapterError::WrongShape {
                tensor: name.to_owned(),
                expected: expected.to_vec(),
                got: got.to_vec(),
            });
        }
    }
    match wrong {
        Some(first) if of_other_sizes > calls.wanted.len() => Err(AdapterError::WrongBase {
            made_for: calls.made_for.to_owned(),
            served: calls.base.name.clone(),
            reason: format!(
                "{of_other_sizes} of {} matrices have other sizes; {first}",
                2 * calls.wanted.len()
            ),
        }),
        Some(first) => Err(first),
        None => Ok(()),
    }
}

/// The names of all wanted matrices, once it is certain that there is nothing else.
fn names_by_slot(
    names: &[&str],
    wanted: &[Wanted],
    kinds: &[ModuleKind],
) -> Result<BTreeMap<Slot, String>, AdapterError> {
    let wanted: Vec<Slot> = wanted
        .iter()
        .flat_map(|module| [Half::A, Half::B].map(|half| (module.layer, module.kind, half)))
        .collect();
    let mut found: BTreeMap<Slot, String> = BTreeMap::new();
    let mut unmatched = Vec::new();
    for &name in names {
        match parse_key(name, kinds).filter(|slot| wanted.binary_search(slot).is_ok()) {
            None => unmatched.push(name.to_owned()),
            Some(slot) => {
                if let Some(first) = found.insert(slot, name.to_owned()) {
                    return Err(AdapterError::DuplicateTensor {
                        first,
                        second: name.to_owned(),
                    });
                }
            }
        }
    }
    if !unmatched.is_empty() {
        return Err(AdapterError::UnmatchedTensors { tensors: unmatched });
    }
    let missing: Vec<String> = wanted
        .iter()
        .filter(|slot| !found.contains_key(slot))
        .map(|&(layer, kind, half)| key(&kinds[kind].path(layer), half))
        .collect();
    if !missing.is_empty() {
        return Err(AdapterError::MissingTensors { tensors: missing });
    }
    Ok(found)
}

/// The values of a tensor as f32, row-major.
fn values(name: &str, tensor: &TensorView<'_>) -> Result<Vec<f32>, AdapterError> {
    let bytes = tensor.data();
    let values: Vec<f32> = match tensor.dtype() {
        Dtype::F32 => each(bytes, f32::from_le_bytes),
        Dtype::F16 => each(bytes, |pair| f16::from_le_bytes(pair).to_f32()),
        Dtype::BF16 => each(bytes, |pair| bf16::from_le_bytes(pair).to_f32()),
        other => return Err(unsupported(name, other)),
    };
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(index) => Err(AdapterError::NotFinite {
            tensor: name.to_owned(),
            index,
            value: values[index],
        }),
    }
}

fn unsupported(name: &str, dtype: Dtype) -> AdapterError {
    AdapterError::UnsupportedDtype {
        tensor: name.to_owned(),
        dtype: format!("{dtype:?}"),
    }
}

fn each<const SIZE: usize>(bytes: &[u8], convert: impl Fn([u8; SIZE]) -> f32) -> Vec<f32> {
    let (chunks, _) = bytes.as_chunks::<SIZE>();
    chunks.iter().map(|chunk| convert(*chunk)).collect()
}

#[cfg(test)]
#[path = "tensors_tests.rs"]
mod tests;
