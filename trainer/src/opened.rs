//! An adapter directory together with the model file it was made for, as the commands that read adapters need them.

use std::path::{Path, PathBuf};

use adapters::{Adapter, AdapterFiles, BaseModel, Limits};
use clap::Args;
use engine::gguf::GgufFile;
use engine::kernels::float_product::{Matrix, MatrixMut, Product, multiply};
use engine::{DenseWeights, LoadError, ModelConfig};

use crate::error::TrainerError;
use crate::frozen::describe;
use crate::recipe::DEFAULT_MODEL;

/// Nobody but the owner of the machine reads adapters here, so only what cannot be meant is refused.
pub(crate) const LIMITS: Limits = Limits {
    max_rank: 4096,
    max_bytes: 16 << 30,
};

/// Which adapter over which model.
#[derive(Args, Clone, Debug)]
pub struct AdapterArguments {
    /// The adapter, a directory in PEFT's layout
    pub adapter: PathBuf,

    /// The base model it was made for, a GGUF file
    #[arg(long, env = "QUICKCHANGE_MODEL", default_value = DEFAULT_MODEL)]
    pub model: PathBuf,
}

/// Both, read and found to fit.
pub(crate) struct Opened {
    pub(crate) file: GgufFile,
    pub(crate) base: BaseModel,
    pub(crate) adapter: Adapter,
    model: PathBuf,
}

impl Opened {
    pub(crate) fn open(arguments: &AdapterArguments) -> Result<Self, TrainerError> {
        let unusable = |error: LoadError| unusable_model(&arguments.model, error);
        let file = GgufFile::open(&arguments.model).map_err(unusable)?;
        let config = file.config().map_err(unusable)?;
        let base = describe(&config, &file.digest());
        let adapter = read_adapter(&arguments.adapter, &base)?;
        Ok(Self {
            file,
            base,
            adapter,
            model: arguments.model.clone(),
        })
    }

    /// The model's weights in f32.
    pub(crate) fn weights(&self) -> Result<DenseWeights, TrainerError> {
        DenseWeights::from_gguf(&self.file).map_err(|error| unusable_model(&self.model, error))
    }

    /// The model's dimensions.
    pub(crate) fn config(&self) -> Result<ModelConfig, TrainerError> {
        self.file
            .config()
            .map_err(|error| unusable_model(&self.model, error))
    }
}

/// An adapter directory that fits `base`.
pub(crate) fn read_adapter(path: &Path, base: &BaseModel) -> Result<Adapter, TrainerError> {
    let files = AdapterFiles::read(path, &LIMITS)?;
    Ok(Adapter::parse(&files, base, &LIMITS)?)
}

/// `destination += scale · B · A` of a module, `[outputs, inputs]`.
pub(crate) fn add_delta(module: &adapters::LoraModule, destination: &mut [f32]) {
    let (inputs, outputs) = (module.a.len() / module.rank, module.b.len() / module.rank);
    multiply(
        MatrixMut::new(destination, outputs, inputs),
        Matrix::new(&module.b, outputs, module.rank),
        Matrix::new(&module.a, module.rank, inputs),
        Product::ADD.scaled(module.scale),
    );
}

/// A model file that cannot be used, by its path.
pub(crate) fn unusable_model(path: &Path, error: LoadError) -> TrainerError {
    TrainerError::Model {
        path: path.to_path_buf(),
        source: error.into(),
    }
}
