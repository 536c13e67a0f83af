//! What the base model was measured to be. It stays the same while a server runs, so the same examples are put to it once,
//! whichever evaluation asks first.

use std::collections::HashMap;

use super::cell::{Digest, Measurement, Measuring, PreparedCell};
use crate::error::ApiError;

/// Measurements that are remembered at most, some two kilobytes each; a full memory is emptied.
const MOST: usize = 1024;

/// Measurements of the base by what was put to it.
#[derive(Default)]
pub(super) struct Baselines {
    known: HashMap<Digest, Measurement>,
}

impl Baselines {
    /// The base's measurement in a cell; examples that need not be answered again count as done.
    ///
    /// # Errors
    /// Those of measuring.
    pub(super) async fn of(
        &mut self,
        measuring: &Measuring<'_>,
        cell: &PreparedCell,
    ) -> Result<Measurement, ApiError> {
        let digest = cell.digest(measuring.request.seed)?;
        if let Some(known) = self.known.get(&digest) {
            measuring.examples_done(known.result.n);
            return Ok(known.clone());
        }
        let measured = measuring.measure(cell, None).await?;
        if self.known.len() == MOST {
            self.known.clear();
        }
        self.known.insert(digest, measured.clone());
        Ok(measured)
    }
}
