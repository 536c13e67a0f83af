//! A server in this process, on a free port, with folders of its own.

use std::path::{Path, PathBuf};

use engine::FaultHook;
use serde_json::Value;
use server::access::Secret;
use server::application::{Application, StopHandle};
use server::configuration::{Configuration, StoreLocation};
use server::reload::ReloadHandle;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::{BaseFile, Client, Random};

/// How a test's server differs from the usual one.
pub(crate) struct Options {
    pub(crate) base: BaseFile,
    pub(crate) threads: usize,
    pub(crate) max_queue: usize,
    pub(crate) max_running: usize,
    pub(crate) prefix_cache: bool,
    pub(crate) draft_tokens: usize,
    pub(crate) adapter_memory_bytes: usize,
    pub(crate) retain_versions: usize,
    pub(crate) retain_predictions: usize,
    pub(crate) max_dataset_bytes: usize,
    pub(crate) store: Option<StoreLocation>,
    pub(crate) admin_key: Vec<String>,
    pub(crate) api_key: Vec<String>,
    pub(crate) max_queue_tokens: usize,
    pub(crate) max_request_seconds: u64,
    pub(crate) stall_seconds: u64,
    pub(crate) drain_seconds: u64,
    pub(crate) fault_hook: Option<FaultHook>,
    pub(crate) keys: Option<PathBuf>,
    pub(crate) certificate: Option<[PathBuf; 2]>,
    pub(crate) audit_log: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            base: BaseFile::tiny(),
            threads: 1,
            max_queue: 256,
            max_running: 64,
            prefix_cache: true,
            draft_tokens: 8,
            adapter_memory_bytes: 0,
            retain_versions: 0,
            retain_predictions: 100,
            max_dataset_bytes: 1 << 20,
            store: None,
            admin_key: Vec::new(),
            api_key: Vec::new(),
            max_queue_tokens: 1 << 20,
            max_request_seconds: 600,
            stall_seconds: 30,
            drain_seconds: 0,
            fault_hook: None,
            keys: None,
            certificate: None,
            audit_log: None,
        }
    }
}

impl Options {
    /// The settings of a server whose folders lie in `folder`.
    pub(super) fn configuration(self, folder: &Path) -> Configuration {
        let pretrained = folder.join("pretrained");
        fs_err::create_dir_all(&pretrained).unwrap();
        Configuration {
            port: 0,
            model: self.base.path,
            served_name: Some(self.base.name.to_owned()),
            pretrained: Some(pretrained),
            store: (self.store).unwrap_or_else(|| StoreLocation::Directory(store_in(folder))),
            local: folder.join("local"),
            adapter_memory_bytes: self.adapter_memory_bytes,
            retain_versions: self.retain_versions,
            retain_predictions: self.retain_predictions,
            max_dataset_bytes: self.max_dataset_bytes,
            data: None,
            threads: self.threads,
            max_queue: self.max_queue,
            max_running: self.max_running,
            prefix_cache: self.prefix_cache,
            draft_tokens: self.draft_tokens,
            max_queue_tokens: self.max_queue_tokens,
            max_request_seconds: self.max_request_seconds,
            stall_seconds: self.stall_seconds,
            drain_seconds: self.drain_seconds,
            fault_hook: self.fault_hook,
            admin_key: secrets(&self.admin_key),
            api_key: secrets(&self.api_key),
            keys: self.keys,
            tls_certificate: self.certificate.as_ref().map(|files| files[0].clone()),
            tls_key: self.certificate.map(|[_, key]| key),
            audit_log: self.audit_log,
            ..Configuration::defaults()
        }
    }
}

fn secrets(keys: &[String]) -> Vec<Secret> {
    keys.iter().map(|key| Secret::from(key.as_str())).collect()
}

/// Where a server whose folders lie in `folder` keeps what outlives it.
pub(super) fn store_in(folder: &Path) -> PathBuf {
    folder.join("store")
}

/// Weights files under a folder.
pub(super) fn weights_under(folder: PathBuf) -> usize {
    let mut folders = vec![folder];
    let mut found = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "safetensors")
            {
                found += 1;
            }
        }
    }
    found
}

/// A running server; it ends with the test.
pub(crate) struct App {
    pub(crate) client: Client,
    pub(crate) base: BaseFile,
    folder: TempDir,
    configuration: Configuration,
    stop: StopHandle,
    /// How the server ended, once it has.
    ended: JoinHandle<anyhow::Result<()>>,
    reload: ReloadHandle,
    /// The server's own, so that ending it ends whatever the server does in the background; taken when the server goes.
    runtime: Option<Runtime>,
}

impl App {
    /// The tiny model, no adapters.
    pub(crate) async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// The tiny model and adapters with the given names; the weights of the i-th come from seed i.
    pub(crate) async fn with_adapters(names: &[&str]) -> Self {
        let app = Self::start().await;
        for (seed, name) in names.iter().enumerate() {
            let files = super::AdapterDirectory::random(&app.base, seed as u64);
            app.client.upload(name, &files).await.expect(201);
        }
        app
    }

    pub(crate) async fn start_with(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let base = options.base.clone();
        let configuration = options.configuration(folder.path());
        Self::run(base, folder, configuration).await
    }

    /// Ends the server and starts another on the same folders. Nothing in the background gets to finish.
    pub(crate) async fn restart(mut self) -> Self {
        self.stop.stop().await;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        Self::run(self.base.clone(), folder, self.configuration.clone()).await
    }

    /// Lets the server finish what it has and refuse the rest.
    pub(crate) async fn drain(&self) {
        self.stop.drain().await;
    }

    /// What SIGHUP does to a server.
    pub(crate) async fn reload(&self) {
        self.reload.reload().await;
    }

    /// The lines of the audit log.
    pub(crate) fn audited(&self) -> Vec<Value> {
        let path = self.configuration.audit_file().unwrap();
        let text = fs_err::read_to_string(path).unwrap();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    async fn run(base: BaseFile, folder: TempDir, configuration: Configuration) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let building = runtime.spawn(Application::build(configuration.clone()));
        let application = building.await.unwrap().unwrap();
        let client = Client::new(application.port());
        let (stop, reload) = (application.handle(), application.reload_handle());
        let ended = runtime.spawn(application.run_until_stopped());
        Self {
            client,
            base,
            folder,
            configuration,
            stop,
            ended,
            reload,
            runtime: Some(runtime),
        }
    }

    /// Waits for the end of a server that nobody has told to stop.
    pub(crate) async fn ended_by_itself(&mut self) -> anyhow::Result<()> {
        (&mut self.ended).await.unwrap()
    }

    /// The folder that `path` and `lora_path` are resolved under.
    pub(crate) fn adapters_root(&self) -> PathBuf {
        self.folder.path().join("pretrained")
    }

    /// The folder of the store.
    pub(crate) fn store_root(&self) -> PathBuf {
        store_in(self.folder.path())
    }

    /// A folder outside every root of the server.
    pub(crate) fn outside(&self) -> PathBuf {
        self.folder.path().join("outside")
    }

    /// Weights files of adapters that the server keeps for a restart.
    pub(crate) fn stored_weights(&self) -> usize {
        weights_under(store_in(self.folder.path()))
    }

    /// Puts a random adapter under the adapters root without telling the server.
    pub(crate) fn place(&self, name: &str, seed: u64) -> String {
        Random::new(&self.base, seed)
            .write_to(&self.adapters_root().join(name))
            .to_string()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let (stop, runtime) = (self.stop.clone(), self.runtime.take());
        // Apart, because a runtime must not be waited for inside of another.
        std::thread::spawn(move || {
            if let Some(runtime) = runtime {
                runtime.block_on(stop.stop());
                runtime.shutdown_background();
            }
        });
    }
}
