//! From a safetensors file to the matrices that a configuration calls for, and their names.

use std::collections::BTreeMap;

use half::{bf16, f16};
use safetensors::tensor::TensorView;
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
/// In this order: a damaged file, unmatched or duplicate tensors, missing tensors; then, tensor by
/// tensor, a wrong shape, a wrong type, a value that is not finite.
pub(crate) fn read(
    weights: &[u8],
    wanted: &[Wanted],
    base: &BaseModel,
) -> Result<Vec<LoraModule>, AdapterError> {
    let file = open(weights)?;
    let kinds = ModuleKind::all(base);
    let names = names_by_slot(&file, wanted, kinds)?;
    let mut modules = Vec::new();
    for module in wanted {
        let kind = &kinds[module.kind];
        let matrix = |half, expected: [usize; 2]| {
            let name = &names[&(module.layer, module.kind, half)];
            let tensor = file.tensor(name).map_err(corrupt)?;
            values(name, &tensor, &expected)
        };
        let a = matrix(Half::A, [module.rank, kind.inputs(base)])?;
        let mut b = matrix(Half::B, [kind.outputs(base), module.rank])?;
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

fn open(weights: &[u8]) -> Result<SafeTensors<'_>, AdapterError> {
    if let Some(length) = weights.first_chunk::<8>() {
        let header = u64::from_le_bytes(*length);
        let present = weights.len() as u64 - 8;
        if header > MAX_HEADER.min(present) {
            return Err(AdapterError::CorruptWeights {
                reason: format!(
                    "its header claims {header} bytes, {present} follow and {MAX_HEADER} are allowed"
                ),
            });
        }
    }
    SafeTensors::deserialize(weights).map_err(corrupt)
}

fn corrupt(error: safetensors::SafeTensorError) -> AdapterError {
    AdapterError::CorruptWeights {
        reason: error.to_string(),
    }
}

/// The names in the file of all wanted matrices, once it is certain that there is nothing else.
fn names_by_slot(
    file: &SafeTensors<'_>,
    wanted: &[Wanted],
    kinds: &[ModuleKind],
) -> Result<BTreeMap<Slot, String>, AdapterError> {
    let wanted: Vec<Slot> = wanted
        .iter()
        .flat_map(|module| [Half::A, Half::B].map(|half| (module.layer, module.kind, half)))
        .collect();
    let mut names: Vec<&str> = file.names();
    names.sort_unstable();
    let mut found: BTreeMap<Slot, String> = BTreeMap::new();
    let mut unmatched = Vec::new();
    for name in names {
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
fn values(
    name: &str,
    tensor: &TensorView<'_>,
    expected: &[usize],
) -> Result<Vec<f32>, AdapterError> {
    if tensor.shape() != expected {
        return Err(AdapterError::WrongShape {
            tensor: name.to_owned(),
            expected: expected.to_vec(),
            got: tensor.shape().to_vec(),
        });
    }
    let bytes = tensor.data();
    let values: Vec<f32> = match tensor.dtype() {
        Dtype::F32 => each(bytes, f32::from_le_bytes),
        Dtype::F16 => each(bytes, |pair| f16::from_le_bytes(pair).to_f32()),
        Dtype::BF16 => each(bytes, |pair| bf16::from_le_bytes(pair).to_f32()),
        other => {
            return Err(AdapterError::UnsupportedDtype {
                tensor: name.to_owned(),
                dtype: format!("{other:?}"),
            });
        }
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

fn each<const SIZE: usize>(bytes: &[u8], convert: impl Fn([u8; SIZE]) -> f32) -> Vec<f32> {
    let (chunks, _) = bytes.as_chunks::<SIZE>();
    chunks.iter().map(|chunk| convert(*chunk)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use proptest::prelude::*;

    #[test]
    fn keys_are_read_in_every_spelling() {
        let base = fixture::base();
        let kinds = ModuleKind::all(&base);
        let slot = Some((1, Projection::Up.index(), Half::B));
        assert_eq!(
            peft_key(1, Projection::Up, Half::B),
            "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"
        );
        for name in [
            "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight",
            "model.layers.1.mlp.up_proj.lora_B.weight",
            "base_model.model.model.layers.1.mlp.up_proj.lora_B.default.weight",
        ] {
            assert_eq!(parse_key(name, kinds), slot, "{name}");
        }
        for name in [
            "model.layers.01.mlp.up_proj.lora_B.weight",
            "model.layers.+1.mlp.up_proj.lora_B.weight",
            "model.layers.1.self_attn.up_proj.lora_B.weight",
            "model.layers.1.mlp.up_proj.lora_B.bias",
            "model.layers.1.mlp.up_proj.lora_B.weight.weight",
            "model.layers.1.mlp.up_proj.lora_B.other.weight",
            "model.layers.1.mlp.up_proj.lora_magnitude_vector",
            "model.layers.99999999999999999999.mlp.up_proj.lora_B.weight",
            "model.layers.1.mlp.up_proj.weight",
        ] {
            assert_eq!(parse_key(name, kinds), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(read(&bytes, &[], &fixture::base()).is_err() || bytes.len() >= 8);
        }

        #[test]
        fn any_header_is_read_or_refused(header in r#"\{("[a-z]":\{"dtype":"(F32|F16|I64)","shape":\[[0-9]{0,20}(,[0-9])?\],"data_offsets":\[[0-9]{1,3},[0-9]{1,20}\]\},?){0,2}\}"#) {
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend(header.as_bytes());
            bytes.extend([7; 16]);
            let _ = read(&bytes, &[], &fixture::base());
        }

        #[test]
        fn a_damaged_byte_never_panics(position in any::<proptest::sample::Index>(), value in any::<u8>()) {
            let mut files = fixture::files();
            let index = position.index(files.weights.len());
            files.weights[index] = value;
            let _ = crate::Adapter::parse(&files, &fixture::base(), &fixture::LIMITS);
        }

        #[test]
        fn any_key_is_read_or_refused(name in "\\PC{0,60}") {
            prop_assert_eq!(parse_key(&name, ModuleKind::all(&fixture::base())), None);
        }
    }
}
