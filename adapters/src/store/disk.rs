//! The few things a store does to a disk, each of which a process can be killed before.
//!
//! In tests a thread can be told to die before its n-th one: from then on nothing reaches the disk, and what is reopened is
//! what a killed process would have left.

use std::io::{ErrorKind, Write as _};
use std::path::Path;

use tempfile::TempDir;

#[cfg(test)]
thread_local! {
    static STEPS_LEFT: std::cell::Cell<Option<usize>> = const { std::cell::Cell::new(None) };
}

/// Lets this thread do so many more things to the disk, or as many as it likes.
#[cfg(test)]
pub(super) fn die_after(steps: Option<usize>) {
    STEPS_LEFT.set(steps);
}

/// Fails where a test wants the process to have died.
pub(super) fn crash_point() -> std::io::Result<()> {
    #[cfg(test)]
    match STEPS_LEFT.get() {
        None => {}
        Some(0) => return Err(std::io::Error::other("the process is dead")),
        Some(left) => STEPS_LEFT.set(Some(left - 1)),
    }
    Ok(())
}

pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    crash_point()?;
    let mut file = fs_err::File::create(path)?;
    // The first half alone is what a process leaves that dies in the middle.
    let (half, rest) = bytes.split_at(bytes.len() / 2);
    file.write_all(half)?;
    crash_point()?;
    file.write_all(rest)?;
    file.sync_all()
}

pub(super) fn create_directories(path: &Path) -> std::io::Result<()> {
    crash_point()?;
    fs_err::create_dir_all(path)
}

pub(super) fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    crash_point()?;
    fs_err::rename(from, to)
}

/// Makes renames in a directory durable; other systems than Unix cannot open a directory for it.
pub(super) fn sync_directory(path: &Path) -> std::io::Result<()> {
    crash_point()?;
    if cfg!(unix) {
        fs_err::File::open(path)?.sync_all()?;
    }
    Ok(())
}

pub(super) fn exists(path: &Path) -> std::io::Result<bool> {
    match fs_err::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Deletes a directory, which a dead process cannot.
pub(super) fn discard(directory: Option<TempDir>) {
    if let Some(directory) = directory {
        match crash_point() {
            Ok(()) => drop(directory),
            Err(_) => drop(directory.keep()),
        }
    }
}
