//! The training log: one JSON object a line, flushed as it happens.
//!
//! It is written beside the output directory while training runs and moved into it at the end, because the directory
//! appears whole or not at all. It is not part of the adapter's content version.

use std::io::Write;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Serialize;

use crate::evaluation::HeldOutScore;

/// Name of the log inside the output directory.
pub(crate) const FILE_NAME: &str = "training_log.jsonl";

/// One line.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Entry {
    /// After an optimizer step.
    Step {
        /// From 1.
        step: usize,
        /// Passes over the training examples so far, fractional.
        epoch: f64,
        /// Mean negative log-probability per completion token.
        loss: f64,
        /// Before clipping.
        gradient_norm: f64,
        learning_rate: f64,
        /// Rows computed.
        rows: usize,
        /// Tokens of the sequences, shared starts counted for each.
        tokens: usize,
        seconds: f64,
    },
    /// After an epoch.
    HeldOut {
        epoch: usize,
        #[serde(flatten)]
        score: HeldOutScore,
    },
}

/// An open log.
pub(crate) struct Journal {
    file: fs::File,
    path: PathBuf,
}

impl Journal {
    /// Starts a new log beside `out`.
    pub(crate) fn create(out: &Path) -> std::io::Result<Self> {
        let mut name = out.file_name().unwrap_or_default().to_os_string();
        name.push(".training_log.jsonl");
        let path = out.with_file_name(name);
        if let Some(parent) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            fs::create_dir_all(parent)?;
        }
        Ok(Self {
            file: fs::File::create(&path)?,
            path,
        })
    }

    pub(crate) fn write(&mut self, entry: &Entry) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.file.flush()
    }

    /// Moves the log into the finished directory.
    pub(crate) fn finish(self, out: &Path) -> std::io::Result<()> {
        drop(self.file);
        fs::rename(self.path, out.join(FILE_NAME))
    }
}
