//! The files of an adapter directory as bytes: how they are read, and the version of their content.

use std::io::{ErrorKind, Read as _};
use std::path::Path;

use crate::{AdapterError, Limits, Version, canonical};

/// PEFT's configuration file.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// PEFT's weights file.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// This project's own addition.
pub const MANIFEST_FILE: &str = "manifest.json";

/// What PEFT and torch have called pickled weights.
const PICKLES: [&str; 3] = ["adapter_model.bin", "adapter_model.pt", "adapter_model.pth"];

/// Largest JSON file read, in bytes. PEFT's own are below 10 kB; a `rank_pattern` that names every
/// module of a large model stays below 1 MB.
const MAX_JSON_BYTES: u64 = 1 << 20;

/// The bytes of an adapter, not yet parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterFiles {
    /// `adapter_config.json`.
    pub config: Vec<u8>,
    /// `adapter_model.safetensors`.
    pub weights: Vec<u8>,
    /// `manifest.json`, when there is one.
    pub manifest: Option<Vec<u8>>,
}

impl AdapterFiles {
    /// Reads the directory `dir`. Each file's size is checked before its bytes are read, and no
    /// more bytes than the limit are read even when the file grows meanwhile.
    ///
    /// # Errors
    /// A missing, too large or irregular file, or weights that exist as a pickle only.
    pub fn read(dir: &Path, limits: &Limits) -> Result<Self, AdapterError> {
        let missing = |name: &str| AdapterError::MissingFile {
            path: dir.join(name),
        };
        let config =
            read_bounded(dir, CONFIG_FILE, MAX_JSON_BYTES)?.ok_or_else(|| missing(CONFIG_FILE))?;
        let weights = match read_bounded(dir, WEIGHTS_FILE, limits.max_bytes)? {
            Some(weights) => weights,
            None => return Err(pickle_in(dir).unwrap_or_else(|| missing(WEIGHTS_FILE))),
        };
        let manifest = read_bounded(dir, MANIFEST_FILE, MAX_JSON_BYTES)?;
        Ok(Self {
            config,
            weights,
            manifest,
        })
    }

    /// The version of this content: the SHA-256 over a fixed first line and, for each file in the
    /// order configuration, weights, manifest (left out when absent), its name and its canonical
    /// bytes, each preceded by its length as eight little-endian bytes. Weights are taken as they
    /// are. JSON files are parsed and written again without white space and with sorted keys,
    /// except that `rank_pattern` and `alpha_pattern` keep their order, because PEFT takes the
    /// first entry that matches.
    ///
    /// # Errors
    /// [`AdapterError::InvalidJson`] when a JSON file does not parse.
    pub fn version(&self) -> Result<Version, AdapterError> {
        canonical::version(self)
    }

    /// Sizes are checked again when files came over the network and not from [`AdapterFiles::read`].
    pub(crate) fn check_sizes(&self, limits: &Limits) -> Result<(), AdapterError> {
        within(CONFIG_FILE, self.config.len() as u64, MAX_JSON_BYTES)?;
        within(WEIGHTS_FILE, self.weights.len() as u64, limits.max_bytes)?;
        let manifest = self.manifest.as_deref().unwrap_or_default();
        within(MANIFEST_FILE, manifest.len() as u64, MAX_JSON_BYTES)
    }
}

fn within(file: &str, bytes: u64, limit: u64) -> Result<(), AdapterError> {
    if bytes <= limit {
        return Ok(());
    }
    Err(AdapterError::TooLarge {
        file: file.to_owned(),
        bytes,
        limit,
    })
}

/// The bytes of `dir/name`, `None` when it does not exist.
fn read_bounded(dir: &Path, name: &str, limit: u64) -> Result<Option<Vec<u8>>, AdapterError> {
    let path = dir.join(name);
    // Asked before opening: opening a named pipe would wait for its writer.
    let metadata = match fs_err::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if !metadata.is_file() {
        return Err(AdapterError::NotAFile { path });
    }
    within(name, metadata.len(), limit)?;
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    fs_err::File::open(&path)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)?;
    within(name, bytes.len() as u64, limit)?;
    Ok(Some(bytes))
}

fn pickle_in(dir: &Path) -> Option<AdapterError> {
    PICKLES
        .iter()
        .map(|name| dir.join(name))
        .find(|path| path.exists())
        .map(|path| AdapterError::PickledWeights { path })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, LIMITS};

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("temporary folder");
        let files = fixture::files();
        fs_err::write(folder.path().join(CONFIG_FILE), files.config).expect("writable");
        fs_err::write(folder.path().join(WEIGHTS_FILE), files.weights).expect("writable");
        folder
    }

    fn refuse(folder: &tempfile::TempDir, limits: &Limits) -> AdapterError {
        AdapterFiles::read(folder.path(), limits).expect_err("must be refused")
    }

    #[test]
    fn the_manifest_is_optional() {
        let folder = folder();
        let files = AdapterFiles::read(folder.path(), &LIMITS).expect("complete");
        assert_eq!(files.manifest, None);
        assert_eq!(files.weights, fixture::files().weights);
        fs_err::write(folder.path().join(MANIFEST_FILE), "{}").expect("writable");
        let files = AdapterFiles::read(folder.path(), &LIMITS).expect("complete");
        assert_eq!(files.manifest.as_deref(), Some(&b"{}"[..]));
    }

    #[test]
    fn pickles_and_missing_files_are_named() {
        let folder = folder();
        fs_err::remove_file(folder.path().join(WEIGHTS_FILE)).expect("exists");
        let error = refuse(&folder, &LIMITS);
        assert_eq!(error.code(), "missing_file");
        assert!(error.to_string().contains(WEIGHTS_FILE));
        fs_err::write(folder.path().join("adapter_model.bin"), b"\x80").expect("writable");
        let error = refuse(&folder, &LIMITS);
        assert_eq!(error.code(), "pickled_weights");
        assert!(error.to_string().contains("adapter_model.bin is a pickle"));
        fs_err::remove_file(folder.path().join(CONFIG_FILE)).expect("exists");
        assert!(refuse(&folder, &LIMITS).to_string().contains(CONFIG_FILE));
    }

    #[test]
    fn sizes_and_kinds_are_checked_before_reading() {
        let folder = folder();
        let limits = Limits {
            max_bytes: 10,
            ..LIMITS
        };
        let error = refuse(&folder, &limits).to_string();
        assert!(error.starts_with(WEIGHTS_FILE) && error.ends_with("the limit is 10"));
        let config = folder.path().join(CONFIG_FILE);
        fs_err::write(&config, vec![b' '; (1 << 20) + 1]).expect("writable");
        insta::assert_snapshot!(refuse(&folder, &LIMITS), @"adapter_config.json has 1048577 bytes, the limit is 1048576");
        fs_err::remove_file(&config).expect("exists");
        fs_err::create_dir(&config).expect("writable");
        assert_eq!(refuse(&folder, &LIMITS).code(), "not_a_file");
    }
}
