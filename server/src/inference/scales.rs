//! Scales of adapters for requests that choose none, set for the whole server. Only llama.cpp's interface has such a thing;
//! everywhere else the choice is the request's.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Adapters by name, each with the factor that its weights get; those that are off are not there.
#[derive(Debug, Default)]
pub struct DefaultScales {
    // By name, so that an adapter that comes or goes changes nothing for the others.
    scales: Mutex<BTreeMap<String, f64>>,
}

impl DefaultScales {
    /// The scales as they are now.
    pub fn get(&self) -> BTreeMap<String, f64> {
        self.scales
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Replaces all of them.
    pub fn set(&self, scales: BTreeMap<String, f64>) {
        *self.scales.lock().unwrap_or_else(PoisonError::into_inner) = scales;
    }
}
