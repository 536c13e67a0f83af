//! What every handler can reach: one value, built once, shared by all workers.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use adapters::{AdapterStore, Limits, RESERVED_NAMES, Registry};
use engine::{Engine, PreparedAdapter};
use tasks::Catalog;

use crate::access::Access;
use crate::configuration::Configuration;
use crate::datasets::DatasetFolder;
use crate::error::ApiError;
use crate::evaluations::Evaluations;
use crate::inference::receipt::Fingerprint;
use crate::inference::scales::DefaultScales;
use crate::loading::NameLocks;
use crate::loading::startup::pretrained_directories;
use crate::metrics::Metrics;

/// The parts of a running server.
pub struct State {
    /// Settings the process was started with.
    pub configuration: Configuration,
    /// Keys, certificate and audit log.
    pub access: Access,
    /// Name of the base model in requests.
    served_name: String,
    /// The base model, behind its queue.
    pub engine: Engine,
    /// Names of adapters and the versions they point at.
    pub registry: Registry<PreparedAdapter>,
    /// Blends of adapters that requests asked for, by what they are made of.
    pub blends: Registry<PreparedAdapter>,
    /// Adapters where they outlive the process.
    pub store: Arc<dyn AdapterStore>,
    /// Tasks' data and prompts.
    pub catalog: Catalog,
    /// Users' data sets on disk.
    pub dataset_folder: DatasetFolder,
    /// What /metrics shows.
    pub metrics: Metrics,
    /// Evaluation jobs, finished ones included.
    pub evaluations: Evaluations,
    /// One lock per adapter name, held by whoever changes what the name means.
    pub name_locks: NameLocks,
    /// One lock per data set that is being added or removed.
    pub dataset_locks: NameLocks,
    /// One lock per version that is being brought back into memory.
    pub residency_locks: NameLocks,
    /// What the receipts of all answers have in common.
    pub fingerprint: Fingerprint,
    /// What requests through llama.cpp's interface run on when they choose no adapter.
    pub default_scales: DefaultScales,
    /// Folders of the adapters that came with `--pretrained`, by name; their files are not in the store.
    pub pretrained: HashMap<String, PathBuf>,
    /// When the process started, seconds since 1970.
    pub started: u64,
    draining: AtomicBool,
}

/// What [`State::new`] needs that takes work to make.
pub struct Parts {
    /// Settings the process was started with.
    pub configuration: Configuration,
    /// Keys, certificate and audit log.
    pub access: Access,
    /// The base model, behind its queue.
    pub engine: Engine,
    /// Adapters where they outlive the process.
    pub store: Arc<dyn AdapterStore>,
    /// Tasks' data and prompts.
    pub catalog: Catalog,
    /// Users' data sets on disk.
    pub dataset_folder: DatasetFolder,
    /// Evaluation jobs of earlier runs.
    pub evaluations: Evaluations,
}

impl State {
    /// A state without adapters.
    ///
    /// # Errors
    /// When a metric cannot be registered.
    pub fn new(parts: Parts) -> Result<Self, prometheus::Error> {
        let own_name = || parts.engine.base().name.to_lowercase();
        let served_name = parts.configuration.served_name.clone();
        let registry = Registry::new(parts.configuration.adapter_memory());
        let pretrained = pretrained_directories(parts.configuration.pretrained.as_deref());
        let metrics = Metrics::new()?;
        metrics.access.set_keys(parts.access.keyring.ids());
        Ok(Self {
            access: parts.access,
            fingerprint: Fingerprint::of(&parts.engine, parts.configuration.activation_bits),
            served_name: served_name.unwrap_or_else(own_name),
            configuration: parts.configuration,
            engine: parts.engine,
            blends: registry.beside(),
            registry,
            store: parts.store,
            catalog: parts.catalog,
            dataset_folder: parts.dataset_folder,
            dataset_locks: NameLocks::default(),
            metrics,
            evaluations: parts.evaluations,
            name_locks: NameLocks::default(),
            residency_locks: NameLocks::default(),
            pretrained,
            default_scales: DefaultScales::default(),
            started: unix_seconds(),
            draining: AtomicBool::new(false),
        })
    }

    /// Name of the base model in requests.
    pub fn served_name(&self) -> &str {
        &self.served_name
    }

    /// Names an adapter may not have.
    pub fn reserved_names(&self) -> [&str; 4] {
        // The last two stand in the store beside the adapters' folders.
        [
            self.served_name(),
            "base",
            RESERVED_NAMES[0],
            RESERVED_NAMES[1],
        ]
    }

    /// What an adapter's files may be at most.
    pub fn limits(&self) -> Limits {
        Limits {
            max_rank: self.configuration.max_rank,
            max_bytes: self.configuration.max_adapter_bytes,
        }
    }

    /// Refuses new work from now on; what is in flight goes on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.engine.drain();
    }

    /// Whether the server has stopped taking new work.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// # Errors
    /// `Draining` when the server has stopped taking new work, `EngineGone` when nobody is left to do it.
    pub fn check_open(&self) -> Result<(), ApiError> {
        if self.engine.has_ended() {
            return Err(ApiError::EngineGone);
        }
        match self.is_draining() {
            true => Err(ApiError::Draining),
            false => Ok(()),
        }
    }
}

/// Seconds since 1970.
pub fn unix_seconds() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default()
}
