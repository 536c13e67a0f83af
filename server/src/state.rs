//! What every handler can reach: one value, built once, shared by all workers.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use adapters::{Limits, Registry, Store};
use engine::{Engine, PreparedAdapter};
use tasks::Catalog;

use crate::configuration::Configuration;
use crate::error::ApiError;
use crate::evaluation::Evaluations;
use crate::loading::NameLocks;
use crate::metrics::Metrics;

/// The parts of a running server.
pub struct State {
    /// Settings the process was started with.
    pub configuration: Configuration,
    /// Name of the base model in requests.
    served_name: String,
    /// The base model, behind its queue.
    pub engine: Engine,
    /// Names of adapters and the versions they point at.
    pub registry: Arc<Registry<PreparedAdapter>>,
    /// Adapters on disk.
    pub store: Store,
    /// Tasks' data and prompts.
    pub catalog: Catalog,
    /// What /metrics shows.
    pub metrics: Metrics,
    /// Evaluation jobs, finished ones included.
    pub evaluations: Evaluations,
    /// One lock per adapter name, held by whoever changes what the name means.
    pub name_locks: NameLocks,
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
    /// The base model, behind its queue.
    pub engine: Engine,
    /// Adapters on disk.
    pub store: Store,
    /// Tasks' data and prompts.
    pub catalog: Catalog,
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
        Ok(Self {
            served_name: served_name.unwrap_or_else(own_name),
            configuration: parts.configuration,
            engine: parts.engine,
            registry: Arc::new(Registry::new()),
            store: parts.store,
            catalog: parts.catalog,
            metrics: Metrics::new()?,
            evaluations: parts.evaluations,
            name_locks: NameLocks::default(),
            pretrained: HashMap::new(),
            started: unix_seconds(),
            draining: AtomicBool::new(false),
        })
    }

    /// Name of the base model in requests.
    pub fn served_name(&self) -> &str {
        &self.served_name
    }

    /// Names an adapter may not have.
    pub fn reserved_names(&self) -> [&str; 3] {
        // `evaluations` is a folder of the store beside the adapters'.
        [self.served_name(), "base", "evaluations"]
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
    /// `Draining` when the server has stopped taking new work.
    pub fn check_open(&self) -> Result<(), ApiError> {
        if self.is_draining() {
            return Err(ApiError::Draining);
        }
        Ok(())
    }
}

/// Seconds since 1970.
pub fn unix_seconds() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default()
}
