//! The adapters that are loaded, as other servers list them.

use std::path::PathBuf;

use crate::state::State;

/// A loaded adapter.
#[derive(Debug, Clone)]
pub struct Registered {
    /// Its name.
    pub name: String,
    /// The version that requests by name get.
    pub active: String,
    /// Every retained version.
    pub versions: Vec<String>,
}

/// Every loaded adapter, by name.
pub fn registered(state: &State) -> Vec<Registered> {
    let mut entries = state.registry.list();
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    entries
        .into_iter()
        .map(|entry| Registered {
            active: entry.active().to_string(),
            versions: entry
                .versions
                .iter()
                .map(|status| status.summary.version.to_string())
                .collect(),
            name: entry.name,
        })
        .collect()
}

/// Where an adapter's files are: the folder it came with, or where a store in a folder has it.
pub fn folder(state: &State, name: &str) -> PathBuf {
    match state.pretrained.get(name) {
        Some(folder) => folder.clone(),
        None => state.configuration.local_directory().join(name),
    }
}
