//! Writing an adapter directory that PEFT itself loads.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use half::f16;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::files::{CONFIG_FILE, MANIFEST_FILE, WEIGHTS_FILE};
use crate::tensors::{Half, peft_key};
use crate::{
    AdapterError, AdapterFiles, LoraConfig, LoraModule, Manifest, Projection, Version, field_lines,
};

/// How an adapter's values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Every bit of the trained values.
    F32,
    /// Half the size; PEFT and the engine read it as it is. Values beyond ±65504 are refused.
    F16,
}

/// Writes `adapter_config.json`, `adapter_model.safetensors` and `manifest.json` into `dir` and
/// returns the version of what was written.
///
/// The files are written and flushed in a folder beside `dir` first. A new `dir` appears by one
/// rename. In a `dir` that is there already, other files stay; the old configuration goes first and
/// the new one comes last, so that a directory interrupted in between is refused as incomplete and
/// never read as a mixture.
///
/// # Errors
/// [`AdapterError::InvalidModule`] when `modules` are not exactly what `config` describes (every
/// target of layers 0 to the last one given, with the configured ranks and scales and values that
/// are finite in `precision`), and file system errors.
pub fn write_adapter(
    dir: &Path,
    config: &LoraConfig,
    modules: &[LoraModule],
    manifest: &Manifest,
    precision: Precision,
) -> Result<Version, AdapterError> {
    let files = to_files(config, modules, manifest, precision)?;
    let version = files.version()?;
    install(dir, &files)?;
    Ok(version)
}

/// Replaces the `manifest.json` of an adapter directory by one rename.
///
/// # Errors
/// The file system's.
pub fn write_manifest(dir: &Path, manifest: &Manifest) -> Result<(), AdapterError> {
    let aside = folder_beside(dir)?;
    let path = aside.path().join(MANIFEST_FILE);
    let mut file = fs_err::File::create(&path)?;
    file.write_all(&manifest_bytes(manifest))?;
    file.sync_all()?;
    fs_err::rename(path, dir.join(MANIFEST_FILE))?;
    flush_folder(dir)
}

fn manifest_bytes(manifest: &Manifest) -> Vec<u8> {
    field_lines::to_bytes(manifest).expect("a manifest holds only strings, numbers and JSON values")
}

/// The bytes that [`write_adapter`] writes.
pub(crate) fn to_files(
    config: &LoraConfig,
    modules: &[LoraModule],
    manifest: &Manifest,
    precision: Precision,
) -> Result<AdapterFiles, AdapterError> {
    check_complete(config, modules)?;
    for module in modules {
        check(config, module, precision)
            .map_err(|reason| invalid(module.layer, module.projection, reason))?;
    }
    let mut config = config.to_file();
    config.push(b'\n');
    Ok(AdapterFiles {
        config,
        weights: weights(modules, precision)?,
        manifest: Some(manifest_bytes(manifest)),
    })
}

fn invalid(layer: usize, projection: Projection, reason: String) -> AdapterError {
    AdapterError::InvalidModule {
        module: projection.module_path(layer),
        reason,
    }
}

/// Every target of every layer once, and nothing else.
fn check_complete(config: &LoraConfig, modules: &[LoraModule]) -> Result<(), AdapterError> {
    let mut counts: BTreeMap<(usize, Projection), usize> = BTreeMap::new();
    for module in modules {
        *counts.entry((module.layer, module.projection)).or_default() += 1;
    }
    let layers = modules.iter().map(|module| module.layer + 1).max();
    for layer in 0..layers.unwrap_or(1) {
        for projection in Projection::ALL {
            let wanted = usize::from(config.is_target(&projection.module_path(layer)));
            let got = counts
                .get(&(layer, projection))
                .copied()
                .unwrap_or_default();
            if got != wanted {
                let reason = format!("it is given {got} times, the configuration wants {wanted}");
                return Err(invalid(layer, projection, reason));
            }
        }
    }
    if modules.is_empty() {
        return Err(invalid(
            0,
            Projection::Query,
            "no modules are given".to_owned(),
        ));
    }
    Ok(())
}

fn check(config: &LoraConfig, module: &LoraModule, precision: Precision) -> Result<(), String> {
    let largest = precision.largest();
    let path = module.projection.module_path(module.layer);
    let (rank, scale) = (config.rank_for(&path), config.scale_for(&path));
    if module.rank != rank || rank == 0 {
        return Err(format!("its rank is {}, configured is {rank}", module.rank));
    }
    if module.scale != scale || !scale.is_finite() {
        return Err(format!(
            "its scale is {}, configured is {scale}",
            module.scale
        ));
    }
    for (name, matrix) in [("A", &module.a), ("B", &module.b)] {
        if matrix.is_empty() || matrix.len() % rank != 0 {
            return Err(format!(
                "{name} has {} values, which is no multiple of rank {rank}",
                matrix.len()
            ));
        }
        let unfit = |value: &f32| value.is_nan() || value.abs() > largest;
        if let Some(index) = matrix.iter().position(unfit) {
            return Err(format!("{name} holds {} at index {index}", matrix[index]));
        }
    }
    Ok(())
}

fn weights(modules: &[LoraModule], precision: Precision) -> Result<Vec<u8>, AdapterError> {
    let tensors: Vec<(String, [usize; 2], Vec<u8>)> = modules
        .iter()
        .flat_map(|module| {
            let key = |half| peft_key(module.layer, module.projection, half);
            let (inputs, outputs) = (module.a.len() / module.rank, module.b.len() / module.rank);
            [
                (
                    key(Half::A),
                    [module.rank, inputs],
                    precision.encode(&module.a),
                ),
                (
                    key(Half::B),
                    [outputs, module.rank],
                    precision.encode(&module.b),
                ),
            ]
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(precision.dtype(), shape.to_vec(), bytes)
            .expect("the shape was computed from the number of values");
        (name.as_str(), view)
    });
    // transformers and PEFT refuse a file that does not say it was made for torch.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(metadata)).map_err(|error| AdapterError::CorruptWeights {
        reason: error.to_string(),
    })
}

impl Precision {
    fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
        }
    }

    fn largest(self) -> f32 {
        match self {
            Self::F32 => f32::MAX,
            Self::F16 => f16::MAX.to_f32(),
        }
    }

    fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::F16 => values
                .iter()
                .flat_map(|&v| f16::from_f32(v).to_le_bytes())
                .collect(),
        }
    }
}

fn install(dir: &Path, files: &AdapterFiles) -> Result<(), AdapterError> {
    let parent = match dir.parent() {
        Some(parent) if parent != Path::new("") => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    fs_err::create_dir_all(&parent)?;
    let aside = folder_beside(&parent)?;
    let manifest = files.manifest.as_deref().unwrap_or_default();
    let contents = [
        (WEIGHTS_FILE, files.weights.as_slice()),
        (MANIFEST_FILE, manifest),
        (CONFIG_FILE, files.config.as_slice()),
    ];
    for (name, content) in contents {
        let mut file = fs_err::File::create(aside.path().join(name))?;
        file.write_all(content)?;
        file.sync_all()?;
    }
    if dir.exists() {
        let old = dir.join(CONFIG_FILE);
        if old.exists() {
            fs_err::remove_file(old)?;
        }
        for (name, _) in contents {
            fs_err::rename(aside.path().join(name), dir.join(name))?;
        }
        flush_folder(dir)
    } else {
        flush_folder(aside.path())?;
        fs_err::rename(aside.path(), dir)?;
        flush_folder(&parent)
    }
}

/// A new empty folder in `parent`, with the permissions any folder gets, gone when dropped unless
/// it was renamed.
fn folder_beside(parent: &Path) -> Result<tempfile::TempDir, AdapterError> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".adapter-");
    #[cfg(unix)]
    let open = {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::Permissions::from_mode(0o777)
    };
    #[cfg(unix)]
    builder.permissions(open);
    Ok(builder.tempdir_in(parent)?)
}

/// Makes renames in a folder survive a loss of power, where the system can do that.
fn flush_folder(folder: &Path) -> Result<(), AdapterError> {
    if cfg!(unix) {
        fs_err::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
