//! GGUF files: metadata and tensors, checked before use. What the numbers mean is decided elsewhere.

mod alignment;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use sha2::{Digest, Sha256};

use crate::config::{ModelConfig, from_gguf};
use crate::error::LoadError;
use crate::kernels::MappedFile;
use crate::source::Container;

/// A GGUF file mapped into memory, with its parsed header.
pub struct GgufFile {
    path: PathBuf,
    bytes: MappedFile,
    content: Content,
}

/// The raw bytes of one two-dimensional tensor, row after row.
#[derive(Clone, Copy)]
pub struct RawTensor<'a> {
    /// How the rows are encoded.
    pub dtype: GgmlDType,
    /// Rows (outputs of a linear layer).
    pub rows: usize,
    /// Elements in a row (inputs of a linear layer).
    pub columns: usize,
    /// `rows` times the encoded size of a row.
    pub bytes: &'a [u8],
}

impl RawTensor<'_> {
    /// Some of the rows.
    #[must_use]
    pub fn slice_rows(self, rows: Range<usize>) -> Self {
        let width = self.bytes.len() / self.rows.max(1);
        Self {
            rows: rows.len(),
            bytes: &self.bytes[rows.start * width..rows.end * width],
            ..self
        }
    }

    /// All elements as f32, row-major; the error says what candle had against the bytes.
    pub fn dequantize(&self) -> Result<Vec<f32>, String> {
        QStorage::from_data(self.bytes.into(), &Device::Cpu, self.dtype)
            .and_then(|storage| QTensor::new(storage, (self.rows, self.columns)))
            .and_then(|tensor| tensor.dequantize(&Device::Cpu))
            .and_then(|tensor| tensor.flatten_all()?.to_vec1::<f32>())
            .map_err(|error| error.to_string())
    }
}

impl GgufFile {
    /// Maps and checks a file: the header parses and every tensor lies inside the file.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let bytes = MappedFile::open(path)?;
        let malformed = |reason: String| LoadError::Malformed {
            path: path.to_path_buf(),
            reason,
        };
        let content = content(&bytes).map_err(malformed)?;
        let file = Self {
            path: path.to_path_buf(),
            bytes,
            content,
        };
        for name in file.content.tensor_infos.keys() {
            file.tensor_range(name)?;
        }
        Ok(file)
    }

    /// SHA-256 of the whole file, lower-case hex.
    pub fn digest(&self) -> String {
        format!("{:x}", Sha256::digest(&self.bytes[..]))
    }

    /// All metadata.
    pub fn metadata(&self) -> &HashMap<String, Value> {
        &self.content.metadata
    }

    /// Whether a tensor of that name exists.
    pub fn has(&self, name: &str) -> bool {
        self.content.tensor_infos.contains_key(name)
    }

    /// The model's dimensions and the choices its architecture makes.
    pub fn config(&self) -> Result<ModelConfig, LoadError> {
        from_gguf(self)
    }

    fn tensor_range(&self, name: &str) -> Result<Range<usize>, LoadError> {
        let Some(info) = self.content.tensor_infos.get(name) else {
            return Err(self.tensor_error(name, "is missing".into()));
        };
        let mut sides = info.shape.dims().iter();
        let elements = sides.try_fold(1_usize, |elements, &side| elements.checked_mul(side));
        let block = info.ggml_dtype.block_size();
        let size = elements.and_then(|elements| {
            let whole = elements.is_multiple_of(block);
            (elements / block)
                .checked_mul(info.ggml_dtype.type_size())
                .map(|bytes| (bytes, whole))
        });
        let Some((bytes, whole)) = size else {
            let reason = format!(
                "has the shape {:?}, more bytes than can be counted",
                info.shape.dims()
            );
            return Err(self.tensor_error(name, reason));
        };
        let start = (self.content.tensor_data_offset)
            .checked_add(info.offset)
            .and_then(|start| usize::try_from(start).ok());
        let end = start.and_then(|start| start.checked_add(bytes));
        match (start, end) {
            (Some(start), Some(end)) if end <= self.bytes.len() && whole => Ok(start..end),
            _ => Err(self.tensor_error(
                name,
                format!(
                    "{bytes} bytes at offset {} reach past the end of the file ({} bytes): is it truncated?",
                    info.offset,
                    self.bytes.len()
                ),
            )),
        }
    }

    pub(crate) fn metadata_error(&self, key: &str, reason: &str) -> LoadError {
        LoadError::Metadata {
            path: self.path.clone(),
            key: key.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

impl Container for GgufFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Vec<&str> {
        let names = self.content.tensor_infos.keys();
        names.map(String::as_str).collect()
    }

    fn raw(&self, name: &str) -> Result<RawTensor<'_>, LoadError> {
        let range = self.tensor_range(name)?;
        let info = &self.content.tensor_infos[name];
        let dimensions = info.shape.dims();
        let (rows, columns) = match dimensions {
            [columns] => (1, *columns),
            [rows, columns] => (*rows, *columns),
            _ => {
                let found = dimensions.len();
                return Err(
                    self.tensor_error(name, format!("has {found} dimensions, expected 1 or 2"))
                );
            }
        };
        Ok(RawTensor {
            dtype: info.ggml_dtype,
            rows,
            columns,
            bytes: &self.bytes[range],
        })
    }
}

/// The header of a file that holds these bytes; the error says what is wrong with them.
pub(crate) fn content(bytes: &[u8]) -> Result<Content, String> {
    if !bytes.starts_with(b"GGUF") {
        return Err("it does not start with the bytes `GGUF`".to_owned());
    }
    if alignment::is_zero(bytes) {
        return Err("`general.alignment` is 0, expected a power of two such as 32".to_owned());
    }
    Content::read(&mut Cursor::new(bytes)).map_err(|error| error.to_string())
}

/// The name of a model file: its stem without a quantisation suffix such as `.Q4_1`. What files say of themselves in
/// `general.name` is often the name of a training run.
pub(crate) fn name_of(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    match stem.rsplit_once('.') {
        Some((name, suffix)) if suffix.starts_with(['Q', 'q', 'F', 'f', 'B', 'b', 'I', 'i']) => {
            name.to_owned()
        }
        _ => stem.into_owned(),
    }
}

/// Where the rows of a query or key matrix stand in a GGUF llama file.
///
/// The file keeps the two halves of each head's rotary pairs side by side (rows `2j` and `2j + 1`), Hugging Face keeps
/// them half a head apart (rows `j` and `head_dim / 2 + j`). Entry `i` is the file's row for Hugging Face's row `i`.
pub fn unpermuted_rows(heads: usize, head_dim: usize) -> Vec<usize> {
    let half = head_dim / 2;
    (0..heads)
        .flat_map(|head| {
            (0..head_dim).map(move |row| head * head_dim + 2 * (row % half) + row / half)
        })
        .collect()
}
