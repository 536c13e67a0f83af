//! A server in a process of its own, so that it can be killed: this test binary, started again to run one test, which serves.

use std::io::{BufRead, BufReader, Read, sink, stdin};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use actix_web::rt::System;
use server::application::Application;
use tempfile::TempDir;

use super::app::{store_in, weights_under};
use super::{BaseFile, Client, Options};

/// The folder of the server, in the environment of the process that is to be one.
const FOLDER: &str = "QUICKCHANGE_TEST_SERVES_IN";
/// What stands before the port where the process says it.
const PORT: &str = "serving on port ";

/// A server that ends by SIGKILL only, and can be started again on what it has left.
pub(crate) struct Process {
    pub(crate) client: Client,
    pub(crate) base: BaseFile,
    folder: TempDir,
    test: &'static str,
    child: Child,
    /// What the shell does before the process is one, in a mount namespace of its own; nothing when empty.
    before: String,
    /// Held so that the process can always write to it.
    _output: BufReader<ChildStdout>,
}

/// The body of the test that a [`Process`] runs: serves until it is killed or the process of the tests is gone. When it runs
/// as one of the tests it returns at once.
pub(crate) fn serve_as_told() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    std::thread::spawn(|| {
        // The other end is closed when the process that holds it is gone, however it went.
        let _ = std::io::copy(&mut stdin(), &mut sink());
        std::process::exit(1)
    });
    System::new().block_on(async {
        let configuration = Options::default().configuration(&folder);
        let application = Application::build(configuration).await.unwrap();
        println!("{PORT}{}", application.port());
        application.run_until_stopped().await.unwrap();
    });
}

impl Process {
    /// The tiny model, no adapters. `test` is the path of the test that calls [`serve_as_told`].
    pub(crate) fn start(test: &'static str) -> Self {
        Self::start_after(test, |_| String::new())
    }

    /// The same after commands for the shell, which get to know where the store will be; those that begin with a mount run in a mount
    /// namespace of their own.
    pub(crate) fn start_after(test: &'static str, before: impl Fn(&Path) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let base = BaseFile::tiny();
        fs_err::create_dir_all(store_in(folder.path())).unwrap();
        let before = before(&store_in(folder.path()));
        let (child, output, client) = spawn(test, folder.path(), &before);
        Self {
            client,
            base,
            folder,
            test,
            child,
            before,
            _output: output,
        }
    }

    /// Whether this process may mount file systems for one that it starts.
    pub(crate) fn can_mount() -> bool {
        let tried = Command::new("unshare")
            .args(["--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
            .stderr(Stdio::null())
            .status();
        tried.is_ok_and(|status| status.success())
    }

    /// The store as the process sees it.
    pub(crate) fn store(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.child.id()));
        let store = store_in(self.folder.path());
        root.join(store.strip_prefix("/").unwrap())
    }

    /// Runs a command among the process's mounts.
    pub(crate) fn run_inside(&self, command: &[&str]) {
        let pid = self.child.id().to_string();
        let status = Command::new("nsenter")
            .args(["--mount", "--target", &pid, "--"])
            .args(command)
            .status();
        assert!(status.unwrap().success(), "{command:?}");
    }

    /// Where the store is, for the process and for commands beside it.
    pub(crate) fn store_path(&self) -> String {
        store_in(self.folder.path()).to_str().unwrap().to_owned()
    }

    /// SIGKILL; returns when the process is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts another process, of a server that was killed, on the same folders; returns when it has opened the store and
    /// listens.
    pub(crate) fn start_again(&mut self) {
        (self.child, self._output, self.client) =
            spawn(self.test, self.folder.path(), &self.before);
    }

    /// Weights files in the store.
    pub(crate) fn stored_weights(&self) -> usize {
        weights_under(store_in(self.folder.path()))
    }

    /// What lies where changes are prepared, among the process's mounts.
    pub(crate) fn staged_inside(&self) -> Vec<PathBuf> {
        fs_err::read_dir(self.store().join(".staging"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect()
    }

    /// What lies where changes are prepared.
    pub(crate) fn staged(&self) -> Vec<PathBuf> {
        fs_err::read_dir(store_in(self.folder.path()).join(".staging"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(test: &str, folder: &Path, before: &str) -> (Child, BufReader<ChildStdout>, Client) {
    let own = std::env::current_exe().unwrap();
    let script = format!("{before}\nexec \"$@\"");
    let mut command = match before {
        "" => Command::new(&own),
        // What is mounted is seen by the process and its children only.
        mounts if mounts.starts_with("mount ") => {
            let mut command = Command::new("unshare");
            command
                .args(["--mount", "sh", "-euc", &script, "sh"])
                .arg(&own);
            command
        }
        _ => {
            let mut command = Command::new("sh");
            command.args(["-euc", &script, "sh"]).arg(&own);
            command
        }
    };
    let mut child = command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let port = output
        .by_ref()
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.split_once(PORT)?.1.parse().ok());
    let Some(port) = port else {
        let status = child.wait().unwrap();
        panic!("the server did not open its store ({status}); standard error has its words");
    };
    (child, output, Client::new(port))
}
