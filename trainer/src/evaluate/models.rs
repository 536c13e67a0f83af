//! The adapters that are measured, in memory from start to end.

use std::path::Path;
use std::sync::Arc;

use adapters::{Adapter, AdapterFiles};
use async_trait::async_trait;
use engine::{Engine, PreparedAdapter};
use evaluation::{EvaluationError, HeldModel, ModelSource, ModelVersion};
use tasks::Task;

use super::arguments::EvaluateArguments;
use crate::error::TrainerError;
use crate::evaluation_card::held_out;
use crate::opened::LIMITS;

/// Adapters that fit the base.
pub(super) struct Adapters {
    measured: Vec<Opened>,
    against: Option<Opened>,
}

/// An adapter that fits the base.
pub(super) struct Opened {
    pub(super) model: ModelVersion,
    /// Its accuracy on held-out training examples before and after training, if its manifest says.
    pub(super) held_out: Option<(f64, f64)>,
    task: Option<Task>,
    weights: Arc<PreparedAdapter>,
}

impl Adapters {
    /// Reads every adapter that is named; each is called what its directory is.
    pub(super) fn read(
        arguments: &EvaluateArguments,
        engine: &Engine,
    ) -> Result<Self, TrainerError> {
        let measured = arguments.adapters.iter();
        let measured = measured.map(|path| Opened::read(path, engine));
        let against = arguments.against.as_ref();
        Ok(Self {
            measured: measured.collect::<Result<_, _>>()?,
            against: against.map(|path| Opened::read(path, engine)).transpose()?,
        })
    }

    /// Whom to measure, and what they were trained for.
    pub(super) fn planned(&self, with_base: bool) -> Vec<(ModelVersion, Option<Task>)> {
        let base = (with_base || self.measured.is_empty()).then(|| (ModelVersion::base(), None));
        let adapters = self.measured.iter();
        let adapters = adapters.map(|opened| (opened.model.clone(), opened.task));
        base.into_iter().chain(adapters).collect()
    }

    /// What all are compared with.
    pub(super) fn against(&self) -> Option<ModelVersion> {
        self.against.as_ref().map(|opened| opened.model.clone())
    }

    /// The measured adapters, in the order of their directories.
    pub(super) fn measured(&self) -> &[Opened] {
        &self.measured
    }
}

impl Opened {
    fn read(path: &Path, engine: &Engine) -> Result<Self, TrainerError> {
        let files = AdapterFiles::read(path, &LIMITS)?;
        let adapter = Adapter::parse(&files, engine.base(), &LIMITS)?;
        let name = path.file_name().unwrap_or(path.as_os_str());
        let task = adapter.manifest.task.as_deref();
        Ok(Self {
            model: ModelVersion::adapter(name.to_string_lossy(), adapter.version.as_str()),
            held_out: held_out(&adapter.manifest),
            task: task.and_then(|task| task.parse().ok()),
            weights: Arc::new(engine.prepare(&adapter)),
        })
    }
}

#[async_trait]
impl ModelSource for Adapters {
    async fn hold(&self, model: &ModelVersion) -> Result<HeldModel, EvaluationError> {
        let mut all = self.measured.iter().chain(&self.against);
        let found = all.find(|opened| opened.model.version == model.version);
        let opened = found.ok_or_else(|| EvaluationError::Model {
            model: model.to_string(),
            reason: "it is not among the adapters".to_owned(),
        })?;
        Ok(HeldModel {
            weights: Arc::clone(&opened.weights),
            lease: Box::new(()),
        })
    }
}
