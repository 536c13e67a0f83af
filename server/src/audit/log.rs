//! The file of the audit log: appended to a line at a time, opened again when it is told to.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use fs_err::os::unix::fs::OpenOptionsExt as _;
use jiff::Timestamp;
use serde::Serialize;

/// One admin action that was tried.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// When it came, RFC 3339.
    pub time: Timestamp,
    /// What was tried.
    pub action: &'static str,
    /// The id of the request, as its answer has it; null for a signal.
    pub request_id: Option<String>,
    /// The id of the key, `anonymous` without one, `signal` for a signal.
    pub key: String,
    /// The address it came from.
    pub peer: Option<String>,
    /// The HTTP method.
    pub method: Option<String>,
    /// The route, with the names of its parts.
    pub route: Option<String>,
    /// The adapter, data set or evaluation; of a reload, the file.
    pub subject: Option<String>,
    /// The version before, as far as it came to be known.
    pub before: Option<String>,
    /// The version after.
    pub after: Option<String>,
    /// The status of the answer; null when nobody waited for it.
    pub status: Option<u16>,
    /// The code of the error.
    pub error: Option<String>,
}

/// Where the lines go.
#[derive(Debug)]
pub struct AuditLog(Option<Opened>);

#[derive(Debug)]
struct Opened {
    path: PathBuf,
    file: Mutex<Appended>,
}

#[derive(Debug)]
struct Appended {
    file: fs_err::File,
    /// A line was written in part; the next one begins on a line of its own.
    torn: bool,
}

impl Line {
    /// A line without anything known but the time and what was tried.
    pub fn now(action: &'static str) -> Self {
        Self {
            time: Timestamp::now(),
            action,
            request_id: None,
            key: String::new(),
            peer: None,
            method: None,
            route: None,
            subject: None,
            before: None,
            after: None,
            status: None,
            error: None,
        }
    }
}

impl AuditLog {
    /// Opens a file to append to, which is made if it is not there, for its owner alone; `None` writes nothing.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: Option<PathBuf>) -> io::Result<Self> {
        let opened = path.map(|path| {
            let file = Mutex::new(append_to(&path)?);
            Ok::<_, io::Error>(Opened { path, file })
        });
        Ok(Self(opened.transpose()?))
    }

    /// Whether lines are written at all.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Opens the file anew, after it was renamed.
    ///
    /// # Errors
    /// When it cannot be opened; lines go on into the one that was open.
    pub fn reopen(&self) -> io::Result<()> {
        if let Some(opened) = &self.0 {
            let anew = append_to(&opened.path)?;
            *opened.file.lock().unwrap_or_else(PoisonError::into_inner) = anew;
        }
        Ok(())
    }

    /// Appends a line; when it returns, the operating system has it.
    ///
    /// # Errors
    /// When the file cannot be written, as on a full disk.
    pub fn write(&self, line: &Line) -> io::Result<()> {
        let Some(opened) = &self.0 else {
            return Ok(());
        };
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let mut appended = opened.file.lock().unwrap_or_else(PoisonError::into_inner);
        if appended.torn {
            text.insert(0, b'\n');
        }
        // One call for one line, so that lines of several processes do not mix.
        let written = appended.file.write(&text)?;
        appended.torn = written < text.len();
        match appended.torn {
            true => Err(io::ErrorKind::WriteZero.into()),
            false => Ok(()),
        }
    }
}

fn append_to(path: &std::path::Path) -> io::Result<Appended> {
    let file = fs_err::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    Ok(Appended { file, torn: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &std::path::Path) -> Vec<serde_json::Value> {
        let text = fs_err::read_to_string(path).expect("a log");
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    #[test]
    fn lines_go_on_in_a_new_file_once_the_old_one_was_moved_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, rotated) = (folder.path().join("audit"), folder.path().join("audit.1"));
        let log = AuditLog::open(Some(path.clone())).expect("opened");
        log.write(&Line::now("adapter.create")).expect("written");
        fs_err::rename(&path, &rotated).expect("moved");
        log.write(&Line::now("adapter.delete")).expect("written");
        log.reopen().expect("opened anew");
        log.write(&Line::now("adapter.pin")).expect("written");
        let actions = |path| -> Vec<String> {
            let lines = lines(path).into_iter();
            lines.map(|line| line["action"].to_string()).collect()
        };
        assert_eq!(
            actions(&rotated),
            [r#""adapter.create""#, r#""adapter.delete""#]
        );
        assert_eq!(actions(&path), [r#""adapter.pin""#]);
    }

    #[test]
    fn a_log_that_is_off_takes_everything_and_writes_nothing() {
        let log = AuditLog::open(None).expect("nothing to open");
        assert!(!log.is_on());
        log.write(&Line::now("adapter.create")).expect("nothing");
        log.reopen().expect("nothing");
    }
}
