//! The model files that tests serve.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use engine::gguf::GgufFile;
use engine::testing::TinyModel;

/// A model file with what a test must know of it to make adapters for it.
#[derive(Clone)]
pub(crate) struct BaseFile {
    pub(crate) path: PathBuf,
    pub(crate) name: &'static str,
    pub(crate) digest: String,
    pub(crate) layers: usize,
    pub(crate) shapes: [adapters::ProjectionShape; 7],
}

impl BaseFile {
    fn open(path: PathBuf, name: &'static str) -> Self {
        let file = GgufFile::open(&path).unwrap();
        let config = file.config().unwrap();
        Self {
            name,
            digest: file.digest().to_owned(),
            layers: config.layers,
            shapes: config.projection_shapes(),
            path,
        }
    }

    /// The tiny model, written once per test process.
    pub(crate) fn tiny() -> Self {
        static TINY: OnceLock<BaseFile> = OnceLock::new();
        TINY.get_or_init(|| {
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
            let aside = folder.join(format!("tiny-{}.gguf", std::process::id()));
            let model = TinyModel {
                seed: 5,
                context_length: 4096,
                ..TinyModel::default()
            };
            model.write_to(&aside).unwrap();
            let path = folder.join("tiny.gguf");
            fs_err::rename(&aside, &path).unwrap();
            Self::open(path, "tiny")
        })
        .clone()
    }
}

/// The default base model, or `None`, said on standard error under the test's name, when `make model` has not fetched it.
pub(crate) fn real_model(test: &str) -> Option<BaseFile> {
    let path = engine::testing::base_model(test)?;
    Some(BaseFile::open(path, "smollm2-135m-instruct"))
}
