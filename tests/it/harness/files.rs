//! Adapter directories with seeded random weights, and the ways to spoil them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ::adapters::{LoraConfig, LoraModule, Manifest, Precision, Projection, Version, write_adapter};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;
use tempfile::TempDir;

use super::BaseFile;

/// Rank 3 and alpha 6: neither the rank nor the scale, 2, hides a mistake.
const RANK: usize = 3;
const ALPHA: f64 = 6.0;

/// An adapter in PEFT's layout, in a folder of its own.
pub(crate) struct AdapterDirectory {
    folder: TempDir,
    pub(crate) version: Version,
}

/// What a random adapter is made of.
pub(crate) struct Random<'a> {
    pub(crate) base: &'a BaseFile,
    pub(crate) seed: u64,
    pub(crate) targets: &'a [Projection],
    pub(crate) manifest: Manifest,
}

impl<'a> Random<'a> {
    /// All seven projections, no manifest of note.
    pub(crate) fn new(base: &'a BaseFile, seed: u64) -> Self {
        Self {
            base,
            seed,
            targets: &Projection::ALL,
            manifest: Manifest::default(),
        }
    }

    pub(crate) fn write(self) -> AdapterDirectory {
        let folder = tempfile::tempdir().unwrap();
        let version = self.write_to(&folder.path().join("adapter"));
        AdapterDirectory { folder, version }
    }

    pub(crate) fn write_to(self, directory: &Path) -> Version {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let mut modules = Vec::new();
        for layer in 0..self.base.layers {
            for projection in Projection::ALL {
                if !self.targets.contains(&projection) {
                    continue;
                }
                let shape = self.base.shapes[projection as usize];
                modules.push(LoraModule {
                    layer,
                    projection,
                    rank: RANK,
                    scale: (ALPHA / RANK as f64) as f32,
                    a: uniform(
                        &mut random,
                        RANK * shape.inputs,
                        1.7 / (shape.inputs as f32).sqrt(),
                    ),
                    b: uniform(&mut random, shape.outputs * RANK, 0.4),
                });
            }
        }
        let config = LoraConfig::new(self.base.name, RANK, ALPHA, self.targets.to_vec(), 0.0);
        write_adapter(directory, &config, &modules, &self.manifest, Precision::F32).unwrap()
    }
}

fn uniform(random: &mut ChaCha8Rng, count: usize, bound: f32) -> Vec<f32> {
    (0..count)
        .map(|_| random.random_range(-bound..bound))
        .collect()
}

impl AdapterDirectory {
    /// All seven projections of the base, weights from `seed`.
    pub(crate) fn random(base: &BaseFile, seed: u64) -> Self {
        Random::new(base, seed).write()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("adapter")
    }

    /// Copies the files into a folder and returns its path.
    pub(crate) fn copy_to(&self, folder: &Path) -> String {
        fs_err::create_dir_all(folder).unwrap();
        for entry in fs_err::read_dir(self.path()).unwrap() {
            let entry = entry.unwrap();
            fs_err::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
        folder.display().to_string()
    }

    pub(crate) fn config(&self) -> Vec<u8> {
        fs_err::read(self.path().join("adapter_config.json")).unwrap()
    }

    pub(crate) fn weights(&self) -> Vec<u8> {
        fs_err::read(self.path().join("adapter_model.safetensors")).unwrap()
    }

    pub(crate) fn manifest(&self) -> Option<Vec<u8>> {
        fs_err::read(self.path().join("manifest.json")).ok()
    }

    /// The version's digest as text.
    pub(crate) fn version(&self) -> String {
        self.version.to_string()
    }

    /// Changes `adapter_config.json` in place.
    pub(crate) fn edit_config(self, edit: impl FnOnce(&mut Value)) -> Self {
        let mut config: Value = serde_json::from_slice(&self.config()).unwrap();
        edit(&mut config);
        fs_err::write(self.path().join("adapter_config.json"), config.to_string()).unwrap();
        self
    }

    /// Changes the bytes of `adapter_model.safetensors` in place.
    pub(crate) fn edit_bytes(self, edit: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut bytes = self.weights();
        edit(&mut bytes);
        fs_err::write(self.path().join("adapter_model.safetensors"), bytes).unwrap();
        self
    }

    /// Changes the tensors, each a shape and its f32 values, in place.
    pub(crate) fn edit_tensors(self, edit: impl FnOnce(&mut Tensors)) -> Self {
        let bytes = self.weights();
        let mut tensors: Tensors = SafeTensors::deserialize(&bytes)
            .unwrap()
            .tensors()
            .into_iter()
            .map(|(name, view)| (name, (view.shape().to_vec(), floats(view.data()))))
            .collect();
        edit(&mut tensors);
        let raw: BTreeMap<_, _> = tensors
            .iter()
            .map(|(name, (shape, values))| {
                let bytes: Vec<u8> = values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect();
                (name.clone(), (shape.clone(), bytes))
            })
            .collect();
        let views = raw.iter().map(|(name, (shape, bytes))| {
            (
                name.clone(),
                TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
            )
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        fs_err::write(self.path().join("adapter_model.safetensors"), bytes).unwrap();
        self
    }
}

/// Tensors by name: shape and row-major values.
pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap()))
        .collect()
}
