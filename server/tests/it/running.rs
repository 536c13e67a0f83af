//! The command as a server in a process of its own, with a tiny model, its whole output kept.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use engine::testing::TinyModel;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::command;

/// Longer than anything takes that a test waits for.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running server.
pub(crate) struct Running {
    pub(crate) folder: TempDir,
    pub(crate) port: u16,
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Running {
    /// Starts one with debug logs; `prepare` gets the folder that all files lie in and the command.
    pub(crate) fn start(prepare: impl FnOnce(&Path, &mut Command)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let model = folder.path().join("tiny.gguf");
        TinyModel::default().write_to(&model).expect("a model");
        let mut command = command();
        command
            .args(["--host", "127.0.0.1", "--port", "0", "--threads", "1"])
            .args(["--log-level", "debug", "--drain-seconds", "0"])
            .arg("--model")
            .arg(&model)
            .arg("--store")
            .arg(folder.path().join("store"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        prepare(folder.path(), &mut command);
        let mut child = command.spawn().expect("the command starts");
        let (sender, lines) = channel();
        collect(child.stdout.take().expect("piped"), sender.clone());
        collect(child.stderr.take().expect("piped"), sender);
        let mut running = Self {
            folder,
            port: 0,
            child,
            lines,
            said: Vec::new(),
        };
        let serving = running.wait_for(" port=");
        let port = serving.split_once(" port=").map(|(_, rest)| rest);
        let digits = port
            .unwrap_or_default()
            .split(|c: char| !c.is_ascii_digit());
        let port = digits.into_iter().next().and_then(|port| port.parse().ok());
        running.port = port.expect("a port");
        running
    }

    /// The line that holds some words, once it has been said.
    pub(crate) fn wait_for(&mut self, words: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                panic!("{words:?} was not said: {}", self.said.join("\n"));
            };
            self.said.push(line.clone());
            if line.contains(words) {
                return line;
            }
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = Pid::from_child(&self.child);
        kill_process(id, signal).expect("it runs");
    }

    /// Ends it and returns all that it said.
    pub(crate) fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        self.child.wait().expect("it ends");
        let rest: Vec<String> = self.lines.iter().collect();
        self.said.extend(rest);
        std::mem::take(&mut self.said).join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(output: impl Read + Send + 'static, lines: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
}
