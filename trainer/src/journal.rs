//! The training log: one JSON object a line, flushed as it happens.
//!
//! It is written beside the output directory while training runs and moved into it at the end, because the directory
//! appears whole or not at all. It is not part of the adapter's content version.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Serialize;

use crate::beside::beside;
use crate::held_out::HeldOutScore;

/// Name of the log inside the output directory.
pub(crate) const FILE_NAME: &str = "metrics.jsonl";

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
        examples: usize,
        seconds: f64,
    },
    /// After an evaluation.
    HeldOut(HeldOutScore),
}

/// An open log.
pub(crate) struct Journal {
    file: fs::File,
    path: PathBuf,
}

impl Journal {
    /// Opens the log beside `out` and keeps its first `kept` bytes: none for a new training, what a checkpoint had seen
    /// for one that goes on.
    pub(crate) fn open(out: &Path, kept: u64) -> std::io::Result<Self> {
        let path = beside(out, FILE_NAME);
        if let Some(parent) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            fs::create_dir_all(parent)?;
        }
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)?;
        file.set_len(kept.min(file.metadata()?.len()))?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file, path })
    }

    pub(crate) fn write(&mut self, entry: &Entry) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.file.flush()
    }

    /// Bytes written so far.
    pub(crate) fn length(&mut self) -> std::io::Result<u64> {
        self.file.stream_position()
    }

    /// Puts the log into the finished directory, and leaves it where it is for a training that may go on.
    pub(crate) fn finish(self, out: &Path, goes_on: bool) -> std::io::Result<()> {
        drop(self.file);
        if goes_on {
            return fs::copy(self.path, out.join(FILE_NAME)).map(drop);
        }
        fs::rename(self.path, out.join(FILE_NAME))
    }
}
