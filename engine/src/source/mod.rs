//! Where weights come from: a GGUF file or a Hugging Face directory, asked for by what a tensor is, not by its name.
//!
//! Fused matrices are handed out in parts, stored orders undone, norms shifted to the factor that is multiplied, so
//! that packing and dequantising see one form. What the sizes are is said by the configuration.

mod directory;
mod names;

use std::path::Path;

use crate::config::{Architecture, ModelConfig};
use crate::error::LoadError;
use crate::gguf::{RawTensor, unpermuted_rows};

pub use directory::ModelDirectory;
pub(crate) use names::{Part, TensorId};

use names::Names;

/// A file or folder that holds named tensors of one or two dimensions.
pub(crate) trait Container: Sync {
    /// The file or folder, for errors.
    fn path(&self) -> &Path;
    /// Every tensor's name.
    fn names(&self) -> Vec<&str>;
    /// The encoded rows of a tensor.
    fn raw(&self, name: &str) -> Result<RawTensor<'_>, LoadError>;

    /// An error about one tensor.
    fn tensor_error(&self, name: &str, reason: String) -> LoadError {
        LoadError::Tensor {
            path: self.path().to_path_buf(),
            tensor: name.to_owned(),
            reason,
        }
    }

    /// A tensor of one dimension and `length` elements, as f32.
    fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>, LoadError> {
        let raw = self.raw(name)?;
        if (raw.rows, raw.columns) != (1, length) {
            let found = format!("{} × {}", raw.rows, raw.columns);
            return Err(self.tensor_error(name, format!("is {found}, expected 1 × {length}")));
        }
        raw.dequantize()
            .map_err(|reason| self.tensor_error(name, reason))
    }
}

/// A stored matrix and, where its rows stand in another order, the stored row of each row.
pub(crate) type StoredMatrix<'a> = (RawTensor<'a>, Option<Vec<usize>>);

/// A model's tensors by what they are.
pub(crate) struct TensorReader<'a> {
    container: &'a dyn Container,
    config: &'a ModelConfig,
    names: Names,
    /// GGUF llama files keep the rows of queries and keys in another order than everybody else.
    permuted: bool,
    /// Added to every norm's weights: Gemma's checkpoints hold what is added to one.
    norm_offset: f32,
}

impl<'a> TensorReader<'a> {
    /// The tensors of a GGUF file.
    pub(crate) fn of_gguf(container: &'a dyn Container, config: &'a ModelConfig) -> Self {
        let architecture = config.decoder.architecture;
        Self {
            container,
            config,
            names: Names::gguf(architecture),
            permuted: architecture == Architecture::Llama,
            norm_offset: 0.0,
        }
    }

    /// The tensors of a Hugging Face directory, whose decoder's names begin with `prefix`.
    pub(crate) fn of_directory(
        container: &'a dyn Container,
        config: &'a ModelConfig,
        prefix: &str,
    ) -> Self {
        let architecture = config.decoder.architecture;
        Self {
            container,
            config,
            names: Names::hugging_face(architecture, prefix),
            permuted: false,
            norm_offset: match architecture {
                Architecture::Gemma3 => 1.0,
                _ => 0.0,
            },
        }
    }

    /// Checks that there is no tensor which the model would leave out, such as an expert's or an unexpected bias.
    pub(crate) fn refuse_unknown(&self) -> Result<(), LoadError> {
        let names = self.container.names();
        // Every layer has tensors: a number of layers that nothing stands for would cost time and memory below.
        let layers = self.config.layers;
        if layers > names.len() {
            let first = TensorId::Layer(names.len(), Part::AttentionNorm);
            let reason = format!(
                "is missing: the model says that it has {layers} layers and holds {} tensors",
                names.len()
            );
            return Err(self.error(first, reason));
        }
        let known = self.names.all(self.config);
        let unknown = names
            .into_iter()
            .filter(|name| !known.contains(*name) && !self.names.is_ignored(name, self.config));
        match unknown.min() {
            None => Ok(()),
            Some(name) => Err(LoadError::Unsupported {
                path: self.container.path().to_path_buf(),
                feature: format!(
                    "a {} model with a tensor `{name}`",
                    self.config.decoder.architecture.name()
                ),
            }),
        }
    }

    /// The stored form of a matrix.
    pub(crate) fn matrix(&self, tensor: TensorId) -> Result<StoredMatrix<'a>, LoadError> {
        let (rows, columns) = tensor.shape(self.config);
        let place = self.names.place(tensor, self.config);
        let raw = self.container.raw(&place.name)?;
        if (raw.rows, raw.columns) != (place.total_rows, columns) {
            return Err(self.container.tensor_error(
                &place.name,
                format!(
                    "is {} × {}, expected {} × {columns}",
                    raw.rows, raw.columns, place.total_rows
                ),
            ));
        }
        let order = self.order(tensor);
        Ok((
            raw.slice_rows(place.first_row..place.first_row + rows),
            order,
        ))
    }

    /// A norm's factors or a bias, as f32 and in Hugging Face's order.
    pub(crate) fn vector(&self, tensor: TensorId) -> Result<Vec<f32>, LoadError> {
        let (_, length) = tensor.shape(self.config);
        let place = self.names.place(tensor, self.config);
        let mut values = self.container.vector(&place.name, length)?;
        if tensor.is_norm() && self.norm_offset != 0.0 {
            values
                .iter_mut()
                .for_each(|value| *value += self.norm_offset);
        }
        match self.order(tensor) {
            Some(order) => Ok(order.into_iter().map(|row| values[row]).collect()),
            None => Ok(values),
        }
    }

    /// A matrix as f32, row-major and in Hugging Face's order.
    pub(crate) fn dense(&self, tensor: TensorId) -> Result<Vec<f32>, LoadError> {
        let (raw, order) = self.matrix(tensor)?;
        let values = raw.dequantize().map_err(|reason| {
            let place = self.names.place(tensor, self.config);
            self.container.tensor_error(&place.name, reason)
        })?;
        let Some(order) = order else {
            return Ok(values);
        };
        let rows = order.into_iter();
        Ok(rows
            .flat_map(|row| &values[row * raw.columns..(row + 1) * raw.columns])
            .copied()
            .collect())
    }

    /// An error about a tensor.
    pub(crate) fn error(&self, tensor: TensorId, reason: String) -> LoadError {
        let place = self.names.place(tensor, self.config);
        self.container.tensor_error(&place.name, reason)
    }

    fn order(&self, tensor: TensorId) -> Option<Vec<usize>> {
        let heads = match tensor {
            TensorId::Layer(_, Part::Query | Part::QueryBias) => self.config.heads,
            TensorId::Layer(_, Part::Key | Part::KeyBias) => self.config.kv_heads,
            _ => return None,
        };
        let head_dim = self.config.head_dim;
        self.permuted.then(|| unpermuted_rows(heads, head_dim))
    }
}
