//! Starting and stopping: from a configuration to a bound server, and from SIGTERM to the last answer.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::middleware::from_fn;
use actix_web::web::Data;
use actix_web::{App, HttpServer};
use adapters::{AdapterStore, BucketStore, DirectoryStore};
use anyhow::{Context, Result, bail};
use engine::{Engine, EngineConfig, LoadOptions, Model};
use tasks::Catalog;

use crate::access::Access;
use crate::audit::audit;
use crate::configuration::{Configuration, StoreLocation};
use crate::datasets::DatasetFolder;
use crate::evaluations::Evaluations;
use crate::hub::{self, HubSettings};
use crate::loading::{follow, startup::register_all};
use crate::middleware::observe;
use crate::reload::ReloadHandle;
use crate::routes::configure;
use crate::sockets;
use crate::state::{Parts, State};
use crate::tls;

/// How often a draining server looks whether it is idle.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// A server that has its model, its adapters and its port.
pub struct Application {
    server: Server,
    port: u16,
    state: Data<State>,
}

/// Stops a running [`Application`] from outside.
#[derive(Clone)]
pub struct StopHandle {
    server: ServerHandle,
    state: Data<State>,
}

impl Application {
    /// Loads the model, registers the adapters and binds the port; requests are answered from [`Application::run_until_stopped`] on.
    ///
    /// # Errors
    /// When the model, the store or the data cannot be read, the address is taken, a file of keys or a certificate cannot be used, or the address is public without a key. A bad adapter is
    /// no error: it is logged and counted.
    pub async fn build(mut configuration: Configuration) -> Result<Self> {
        let access = Access::open(&mut configuration)?;
        // Bound first: a taken port is known before the model is loaded.
        let listener = sockets::listen(&configuration)?;
        let port = listener.local_addr()?.port();
        let parts = tokio::task::spawn_blocking(move || load(configuration, access)).await??;
        let state = Data::from(Arc::new(State::new(parts)?));
        register_all(&state)
            .await
            .context("cannot read the store")?;
        follow::start(&state);
        Evaluations::start(&state);
        let server = serve(listener, &state)?;
        Ok(Self {
            server,
            port,
            state,
        })
    }

    /// The port that is listened on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A handle that stops the server.
    pub fn handle(&self) -> StopHandle {
        StopHandle {
            server: self.server.handle(),
            state: self.state.clone(),
        }
    }

    /// A handle that makes the server read its keys and its certificate again.
    pub fn reload_handle(&self) -> ReloadHandle {
        ReloadHandle::new(&self.state)
    }

    /// Answers requests until the handle stops the server.
    ///
    /// # Errors
    /// When accepting connections fails, or the engine has ended by itself.
    pub async fn run_until_stopped(self) -> Result<()> {
        tracing::info!(
            port = self.port,
            host = %self.state.configuration.host,
            model = self.state.served_name(),
            store = self.state.store.location(),
            adapters = self.state.registry.list().len(),
            "serving"
        );
        let ended = self.state.engine.ended();
        let mut server = self.server;
        let handle = server.handle();
        tokio::select! {
            stopped = &mut server => return Ok(stopped?),
            () = ended => {}
        }
        // Those who wait have been answered by the engine's end; a supervisor starts another process.
        tracing::error!("the engine's thread has ended; going down");
        let (_, stopped) = tokio::join!(handle.stop(true), server);
        stopped?;
        bail!("the engine's thread ended by itself")
    }
}

impl StopHandle {
    /// Refuses new work with 503, lets what is in flight finish within `--drain-seconds`, then stops.
    pub async fn stop(&self) {
        self.drain().await;
        self.server.stop(true).await;
    }

    /// Refuses new work with 503 and waits until what is in flight has finished, at most `--drain-seconds`.
    pub async fn drain(&self) {
        self.state.drain();
        tracing::info!("draining");
        let limit = Duration::from_secs(self.state.configuration.drain_seconds);
        let idle = async {
            while self.is_busy() {
                tokio::time::sleep(DRAIN_POLL).await;
            }
        };
        if tokio::time::timeout(limit, idle).await.is_err() {
            tracing::warn!(
                limit_seconds = limit.as_secs(),
                "stopping with requests unfinished"
            );
        }
    }

    fn is_busy(&self) -> bool {
        let statistics = self.state.engine.statistics();
        statistics.running + statistics.waiting > 0
    }
}

/// How long a connection may be idle: longer than any client keeps one, so that it is the client that closes it. One that is closed
/// while a request is on its way looks like a server that failed.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// Seconds that a server told to stop waits for its connections once what was in flight is done: idle ones do not end by themselves.
const IDLE_SECONDS: u64 = 5;

/// Everything that reads files and takes a while.
fn load(mut configuration: Configuration, mut access: Access) -> Result<Parts> {
    let path = match hub::named(&configuration.model) {
        None => configuration.model.clone(),
        Some(model) => {
            let path = hub::fetch(&model, &HubSettings::from_environment())?;
            configuration.served_name.get_or_insert(model.repository);
            path
        }
    };
    let mut options = LoadOptions {
        resolution: configuration.activation_bits,
        kernels: configuration.kernels,
        device: configuration.device,
        ..LoadOptions::default()
    };
    if configuration.threads > 0 {
        options.threads = configuration.threads;
    }
    let model = Model::load(&path, &options)
        .with_context(|| format!("cannot load --model {}", configuration.model.display()))?;
    let engine_configuration = EngineConfig {
        max_queue: configuration.max_queue,
        max_queue_tokens: configuration.max_queue_tokens,
        fault_hook: configuration.fault_hook.clone(),
        max_running: configuration.max_running,
        kv_tokens: configuration.kv_tokens,
        prefix_cache: configuration.prefix_cache,
        draft_tokens: configuration.draft_tokens,
        ..EngineConfig::default()
    };
    let engine = Engine::start(model, engine_configuration).context("cannot start the engine")?;
    let store = open_store(&configuration)
        .with_context(|| format!("cannot open --store {}", configuration.store))?;
    access.open_usual_audit(&configuration)?;
    let catalog = Catalog::open(configuration.data.as_deref()).context("cannot read --data")?;
    let dataset_folder = DatasetFolder::open(configuration.local_directory(), &catalog)
        .context("cannot read the data sets of the store")?;
    let evaluations = Evaluations::open(
        configuration.local_directory(),
        configuration.retain_predictions,
    )
    .context("cannot read evaluations")?;
    Ok(Parts {
        configuration,
        access,
        engine,
        store,
        catalog,
        dataset_folder,
        evaluations,
    })
}

fn open_store(configuration: &Configuration) -> Result<Arc<dyn AdapterStore>> {
    Ok(match &configuration.store {
        StoreLocation::Directory(path) => Arc::new(DirectoryStore::open(path)?),
        StoreLocation::Bucket(location) => Arc::new(BucketStore::open(
            location,
            configuration.local_directory(),
        )?),
    })
}

fn serve(listener: TcpListener, state: &Data<State>) -> Result<Server> {
    let workers = state.configuration.http_workers;
    let shutdown = state.configuration.drain_seconds.min(IDLE_SECONDS);
    let certificate = state.access.certificate.clone();
    let state = state.clone();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .wrap(from_fn(audit))
            .wrap(from_fn(observe))
            .configure(configure)
    })
    .workers(workers)
    .keep_alive(KEEP_ALIVE)
    // A client that closes its side gives up; its request must not go on being computed.
    .h1_allow_half_closed(false)
    // A token goes out when it is there, not when the client has acknowledged the one before.
    .tcp_nodelay(true)
    .max_connections(sockets::most_connections() / workers)
    .shutdown_timeout(shutdown)
    .disable_signals();
    let server = match certificate {
        Some(certificate) => {
            server.listen_rustls_0_23(listener, tls::server_config(&certificate)?)?
        }
        None => server.listen(listener)?,
    };
    Ok(server.run())
}
