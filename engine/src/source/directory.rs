//! A Hugging Face model directory: `config.json` and `model*.safetensors`, in one file or in shards.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Container;
use crate::config::{ModelConfig, from_config_json};
use crate::error::LoadError;
use crate::gguf::RawTensor;
use crate::kernels::MappedFile;

const CONFIG: &str = "config.json";
const INDEX: &str = "model.safetensors.index.json";
const WEIGHTS: &str = "model.safetensors";

/// Bytes before the header of a safetensors file, which hold its length.
const LENGTH_FIELD: usize = 8;

/// What the decoder's tensor names begin with: in a text model, in one that also sees pictures as older and newer
/// versions of transformers write it, and in a bare decoder.
const PREFIXES: [&str; 4] = [
    "model.",
    "language_model.model.",
    "model.language_model.",
    "",
];

/// A model directory with its weights mapped into memory and their headers checked.
pub struct ModelDirectory {
    path: PathBuf,
    config_path: PathBuf,
    config_bytes: Vec<u8>,
    config: Value,
    /// In name order.
    files: Vec<MappedFile>,
    tensors: HashMap<String, Entry>,
    prefix: &'static str,
}

struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

impl ModelDirectory {
    /// Maps the weights and checks that every tensor lies inside its file.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let config_path = path.join(CONFIG);
        let config_bytes = fs_err::read(&config_path)?;
        let config = parse(&config_path, &config_bytes)?;
        let mut files = Vec::new();
        let mut tensors = HashMap::new();
        for name in weight_files(path)? {
            let path = path.join(name);
            let file = MappedFile::open(&path)?;
            let (data, metadata) =
                header(&file).map_err(|reason| LoadError::Malformed { path, reason })?;
            tensors.extend(metadata.tensors().into_iter().map(|(name, info)| {
                let entry = Entry {
                    file: files.len(),
                    dtype: info.dtype,
                    shape: info.shape.clone(),
                    bytes: data + info.data_offsets.0..data + info.data_offsets.1,
                };
                (name, entry)
            }));
            files.push(file);
        }
        let embedding =
            |prefix: &&str| tensors.contains_key(&format!("{prefix}embed_tokens.weight"));
        let prefix = PREFIXES.into_iter().find(embedding).unwrap_or("model.");
        Ok(Self {
            path: path.to_path_buf(),
            config_path,
            config_bytes,
            config,
            files,
            tensors,
            prefix,
        })
    }

    /// SHA-256 of `config.json` and the weight files in name order, lower-case hex.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(&self.config_bytes);
        for file in &self.files {
            hash.update(&file[..]);
        }
        format!("{:x}", hash.finalize())
    }

    /// The dimensions and choices of the model.
    pub fn config(&self) -> Result<ModelConfig, LoadError> {
        let bias = format!("{}layers.0.self_attn.q_proj.bias", self.prefix);
        let has_bias = self.tensors.contains_key(&bias);
        from_config_json(
            &self.config_path,
            &self.config,
            name_of(&self.path),
            has_bias,
        )
    }

    /// What the decoder's tensor names begin with.
    pub(crate) fn prefix(&self) -> &str {
        self.prefix
    }
}

impl Container for ModelDirectory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn raw(&self, name: &str) -> Result<RawTensor<'_>, LoadError> {
        let Some(entry) = self.tensors.get(name) else {
            return Err(self.tensor_error(name, "is missing".to_owned()));
        };
        let dtype = match entry.dtype {
            Dtype::F32 => GgmlDType::F32,
            Dtype::F16 => GgmlDType::F16,
            Dtype::BF16 => GgmlDType::BF16,
            other => {
                let reason = format!("is of type {other:?}, expected F32, F16 or BF16");
                return Err(self.tensor_error(name, reason));
            }
        };
        let (rows, columns) = match entry.shape[..] {
            [columns] => (1, columns),
            [rows, columns] => (rows, columns),
            _ => {
                let reason = format!("has {} dimensions, expected 1 or 2", entry.shape.len());
                return Err(self.tensor_error(name, reason));
            }
        };
        Ok(RawTensor {
            dtype,
            rows,
            columns,
            bytes: &self.files[entry.file][entry.bytes.clone()],
        })
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Value, LoadError> {
    serde_json::from_slice(bytes).map_err(|error| LoadError::Malformed {
        path: path.to_path_buf(),
        reason: error.to_string(),
    })
}

/// Where the data of a safetensors file begins, and what its header says of it, which ends where the file does; the error says what is
/// wrong.
fn header(file: &[u8]) -> Result<(usize, Metadata), String> {
    let length = file.first_chunk().map(|length| u64::from_le_bytes(*length));
    let length = length.and_then(|length| usize::try_from(length).ok());
    let text = length.and_then(|length| file.get(LENGTH_FIELD..)?.get(..length));
    let Some(text) = text else {
        return Err("it ends within its header: is it truncated?".to_owned());
    };
    let metadata: Metadata = serde_json::from_slice(text)
        .map_err(|error| format!("its header cannot be read: {error}"))?;
    let data = LENGTH_FIELD + text.len();
    let (present, claimed) = (file.len() - data, metadata.data_len());
    if present != claimed {
        return Err(format!(
            "{present} bytes of tensors are there and its header says {claimed}: is it truncated?"
        ));
    }
    Ok((data, metadata))
}

/// Names of the files with weights, in order: those of the index where there is one.
fn weight_files(path: &Path) -> Result<BTreeSet<String>, LoadError> {
    let index = path.join(INDEX);
    if !index.exists() {
        return Ok(BTreeSet::from([WEIGHTS.to_owned()]));
    }
    let parsed = parse(&index, &fs_err::read(&index)?)?;
    let files = parsed["weight_map"].as_object().map(|map| {
        let names = map.values().filter_map(Value::as_str);
        names.map(str::to_owned).collect::<BTreeSet<String>>()
    });
    let inside = |name: &String| {
        Path::new(name)
            .file_name()
            .is_some_and(|file| file == &name[..])
    };
    match files {
        Some(files) if !files.is_empty() && files.iter().all(inside) => Ok(files),
        _ => Err(LoadError::Metadata {
            path: index,
            key: "weight_map".to_owned(),
            reason: "must map tensors to files of the same folder".to_owned(),
        }),
    }
}

/// The directory's name, or `name` for the standard cache's `models--org--name/snapshots/commit`.
fn name_of(path: &Path) -> String {
    let text =
        |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    // A path such as `.` has no name of its own.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut above = absolute
        .ancestors()
        .skip(1)
        .map(|folder| text(folder.file_name()));
    let (snapshots, repository) = (above.next(), above.next());
    match (snapshots.as_deref(), repository) {
        (Some("snapshots"), Some(repository)) if repository.starts_with("models--") => {
            let name = repository.rsplit("--").next();
            name.unwrap_or(&repository).to_owned()
        }
        _ => text(absolute.file_name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_and_a_snapshot_in_the_cache_have_names() {
        let names = [
            "/models/tiny",
            "/cache/models--org--Some-Model-1B/snapshots/0123abcd",
            "/cache/snapshots/other",
        ];
        let names = names.map(|path| name_of(Path::new(path)));
        assert_eq!(names, ["tiny", "Some-Model-1B", "other"]);
    }

    #[test]
    fn a_header_ends_where_its_file_does() {
        let file = |text: &str, data: usize| {
            let length = (text.len() as u64).to_le_bytes();
            [&length[..], text.as_bytes(), &vec![0; data]].concat()
        };
        let one = r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let (data, metadata) = header(&file(one, 8)).expect("a whole file");
        assert_eq!((data, metadata.data_len()), (8 + one.len(), 8));
        let refuse = |bytes: &[u8]| header(bytes).expect_err("a refusal");
        insta::assert_snapshot!(refuse(&file(one, 7)), @"7 bytes of tensors are there and its header says 8: is it truncated?");
        insta::assert_snapshot!(refuse(&file(one, 9)), @"9 bytes of tensors are there and its header says 8: is it truncated?");
        insta::assert_snapshot!(refuse(&file(one, 0)[..20]), @"it ends within its header: is it truncated?");
        insta::assert_snapshot!(refuse(b"PK"), @"it ends within its header: is it truncated?");
        insta::assert_snapshot!(refuse(&[0xff; 16]), @"it ends within its header: is it truncated?");
        assert!(refuse(&file("[]", 0)).contains("its header cannot be read"));
        // With their header, these end where no number points.
        let side = (1_u64 << 61) - 1;
        let tensors = (0..8).map(|index| {
            let (start, end) = (index * side, (index + 1) * side);
            format!(r#""{index}":{{"dtype":"U8","shape":[{side}],"data_offsets":[{start},{end}]}}"#)
        });
        let huge = format!("{{{}}}", tensors.collect::<Vec<_>>().join(","));
        assert!(refuse(&file(&huge, 3)).contains("its header says 18446744073709551608"));
    }
}
