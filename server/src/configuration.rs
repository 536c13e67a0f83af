//! Every setting of the server, as command-line flags and `QUICKCHANGE_<FLAG>` environment variables.
//!
//! Parsing only: what follows from a setting (where to bind, which files to read) is decided in `application`.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use adapters::AUDIT_FILE;
use clap::builder::FalseyValueParser;
use clap::{ArgAction, Parser};
use engine::{ComputeDevice, FaultHook, KernelChoice, Resolution};

use crate::logging::LogFormat;

use crate::access::Secret;

/// More guesses at a time than this are hardly ever all right.
const MOST_DRAFT_TOKENS: usize = 8;

/// Settings of one server process.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "server",
    version,
    about = "Serves one language model with many hot-swappable LoRA adapters"
)]
pub struct Configuration {
    /// Address to listen on; anything but loopback needs a key or --allow-anonymous
    #[arg(long, env = "QUICKCHANGE_HOST", default_value = "127.0.0.1")]
    pub host: IpAddr,

    /// Port to listen on; 0 takes a free one
    #[arg(long, env = "QUICKCHANGE_PORT", default_value_t = 8080)]
    pub port: u16,

    /// The base model: a GGUF file, a Hugging Face directory with safetensors, or a repository of the hub, as
    /// org/name, org/name@revision or org/name:file.gguf, kept in the cache that HF_HOME or HF_HUB_CACHE names; HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE count too
    #[arg(
        long,
        env = "QUICKCHANGE_MODEL",
        default_value = ".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf"
    )]
    pub model: PathBuf,

    /// Name of the base model in requests and in /v1/models [default: the model file's name in lower case; org/name for one of the hub]
    #[arg(long, env = "QUICKCHANGE_SERVED_NAME")]
    pub served_name: Option<String>,

    /// Folder of adapters registered at start under their folder names; also a root for `path` and `lora_path`
    #[arg(long, env = "QUICKCHANGE_PRETRAINED")]
    pub pretrained: Option<PathBuf>,

    /// Where adapters survive a restart: a folder of this server alone, or s3://bucket/prefix, which several servers may share (AWS_* variables say how to get there)
    #[arg(long, env = "QUICKCHANGE_STORE", default_value = ".quickchange")]
    pub store: StoreLocation,

    /// With --store s3://…: a folder of this server alone, for uploads on their way and for evaluations
    #[arg(long, env = "QUICKCHANGE_LOCAL", default_value = ".quickchange")]
    pub local: PathBuf,

    /// Bytes that adapters may take in memory; the longest unused leaves when it is full, and comes back when it is needed. 0 is without limit
    #[arg(long, env = "QUICKCHANGE_ADAPTER_MEMORY_BYTES", default_value_t = 0)]
    pub adapter_memory_bytes: usize,

    /// Newest versions of a name that are kept; older ones are deleted unless they are active, the one before, a canary or in use. 0 keeps all
    #[arg(long, env = "QUICKCHANGE_RETAIN_VERSIONS", default_value_t = 0)]
    pub retain_versions: usize,

    /// Largest data set that can be added, in bytes
    #[arg(long, env = "QUICKCHANGE_MAX_DATASET_BYTES", default_value_t = 64 << 20)]
    pub max_dataset_bytes: usize,

    /// Newest finished evaluations that keep their predictions; the figures of all are kept
    #[arg(long, env = "QUICKCHANGE_RETAIN_PREDICTIONS", default_value_t = 100)]
    pub retain_predictions: usize,

    /// Folder of data sets that take the place of the built-in ones of the same name
    #[arg(long, env = "QUICKCHANGE_DATA")]
    pub data: Option<PathBuf>,

    /// Threads of the engine; 0 takes one per core
    #[arg(long, env = "QUICKCHANGE_THREADS", default_value_t = 0)]
    pub threads: usize,

    /// Bits an activation keeps where it meets quantised weights: 16 follows the full-precision model, 8 is fastest, mixed keeps 16 beside outliers; on a GPU 8 multiplies in bytes and the others dequantise
    #[arg(long, env = "QUICKCHANGE_ACTIVATION_BITS", default_value = "mixed", value_parser = resolution)]
    pub activation_bits: Resolution,

    /// Where to compute: cpu; cuda or cuda:N in a build with --features cuda; candle-cpu for comparisons
    #[arg(long, env = "QUICKCHANGE_DEVICE", default_value = "cpu", value_parser = device)]
    pub device: ComputeDevice,

    /// Kernel set: portable, avx2 or avx512vnni [default: the fastest this CPU can run]
    #[arg(long, env = "QUICKCHANGE_KERNELS")]
    pub kernels: Option<KernelChoice>,

    /// Threads that serve HTTP
    #[arg(long, env = "QUICKCHANGE_HTTP_WORKERS", default_value_t = 1, value_parser = at_least_one)]
    pub http_workers: usize,

    /// Requests that may wait for the engine before new ones are answered 429
    #[arg(long, env = "QUICKCHANGE_MAX_QUEUE", default_value_t = 256, value_parser = at_least_one)]
    pub max_queue: usize,

    /// Tokens, prompts' and answers', that users' requests may be expected to need in all before new ones are answered 429
    #[arg(long, env = "QUICKCHANGE_MAX_QUEUE_TOKENS", default_value_t = 262_144, value_parser = at_least_one)]
    pub max_queue_tokens: usize,

    /// Seconds that a request may take from its arrival to the end of its answer; the header x-request-timeout can say less
    #[arg(long, env = "QUICKCHANGE_MAX_REQUEST_SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub max_request_seconds: u64,

    /// Sequences the engine works on at the same time
    #[arg(long, env = "QUICKCHANGE_MAX_RUNNING", default_value_t = 64, value_parser = at_least_one)]
    pub max_running: usize,

    /// Tokens whose keys and values fit in the cache, over all sequences
    #[arg(long, env = "QUICKCHANGE_KV_TOKENS", default_value_t = 16_384, value_parser = at_least_one)]
    pub kv_tokens: usize,

    /// Whether prompts take over what earlier requests of the same adapter version computed: on or off
    #[arg(long, env = "QUICKCHANGE_PREFIX_CACHE", default_value = "on", value_parser = on_or_off, action = ArgAction::Set)]
    pub prefix_cache: bool,

    /// Most tokens of an answer guessed at a time from what stands before them; 0 guesses none. Texts stay the same
    #[arg(long, env = "QUICKCHANGE_DRAFT_TOKENS", default_value_t = 8, value_parser = draft_tokens)]
    pub draft_tokens: usize,

    /// Largest LoRA rank that is accepted
    #[arg(long, env = "QUICKCHANGE_MAX_RANK", default_value_t = 64, value_parser = at_least_one)]
    pub max_rank: usize,

    /// Largest adapter weights file that is accepted, in bytes
    #[arg(long, env = "QUICKCHANGE_MAX_ADAPTER_BYTES", default_value_t = 64 * 1024 * 1024)]
    pub max_adapter_bytes: u64,

    /// Largest JSON request body that is accepted, in bytes
    #[arg(long, env = "QUICKCHANGE_MAX_BODY_BYTES", default_value_t = 8 * 1024 * 1024)]
    pub max_body_bytes: usize,

    /// File of keys with their scopes and limits, which `server keys` writes; read again on SIGHUP
    #[arg(long, env = "QUICKCHANGE_KEYS")]
    pub keys: Option<PathBuf>,

    /// Key for inference routes; separate several with commas
    #[arg(
        long,
        env = "QUICKCHANGE_API_KEY",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub api_key: Vec<Secret>,

    /// Key for every route, adapters and evaluations included; separate several with commas
    #[arg(
        long,
        env = "QUICKCHANGE_ADMIN_KEY",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub admin_key: Vec<Secret>,

    /// Listen beyond loopback although no key is configured
    #[arg(long, env = "QUICKCHANGE_ALLOW_ANONYMOUS", value_parser = FalseyValueParser::new())]
    pub allow_anonymous: bool,

    /// Certificate chain in PEM; with --tls-key the server speaks TLS only. Both are read again on SIGHUP
    #[arg(long, env = "QUICKCHANGE_TLS_CERTIFICATE")]
    pub tls_certificate: Option<PathBuf>,

    /// Private key of the certificate, in PEM
    #[arg(long, env = "QUICKCHANGE_TLS_KEY")]
    pub tls_key: Option<PathBuf>,

    /// File that a JSON line is appended to for every admin action, opened anew on SIGHUP; off writes none [default: audit.jsonl in the folder of this server alone]
    #[arg(long, env = "QUICKCHANGE_AUDIT_LOG")]
    pub audit_log: Option<PathBuf>,

    /// Seconds within which a body must go on coming, and a client take what it is sent, before its connection is given up
    #[arg(long, env = "QUICKCHANGE_STALL_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub stall_seconds: u64,

    /// Seconds that requests in flight get to finish after SIGTERM
    #[arg(long, env = "QUICKCHANGE_DRAIN_SECONDS", default_value_t = 30)]
    pub drain_seconds: u64,

    /// Log filter, for example `info` or `server=debug,engine=info`
    #[arg(long, env = "QUICKCHANGE_LOG_LEVEL", default_value = "info")]
    pub log_level: String,

    /// How the log is written: text for people, json for programs
    #[arg(long, env = "QUICKCHANGE_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Makes the engine fail, in tests
    #[arg(skip)]
    pub fault_hook: Option<FaultHook>,
}

impl Configuration {
    /// The settings a process gets when no flag is given: the environment, then the defaults.
    pub fn defaults() -> Self {
        Self::parse_from(["server"])
    }

    /// Where the audit log is, `None` when it is off.
    pub fn audit_file(&self) -> Option<PathBuf> {
        match &self.audit_log {
            None => Some(self.local_directory().join(AUDIT_FILE)),
            Some(off) if off == Path::new("off") => None,
            Some(path) => Some(path.clone()),
        }
    }

    /// Folders under which `path` and `lora_path` are resolved, in order.
    pub fn adapter_roots(&self) -> Vec<PathBuf> {
        let store = match &self.store {
            StoreLocation::Directory(path) => Some(path),
            StoreLocation::Bucket(_) => None,
        };
        self.pretrained.iter().chain(store).cloned().collect()
    }

    /// The folder of this server alone.
    pub fn local_directory(&self) -> &Path {
        match &self.store {
            StoreLocation::Directory(path) => path,
            StoreLocation::Bucket(_) => &self.local,
        }
    }

    /// Bytes that adapters may take in memory.
    pub fn adapter_memory(&self) -> usize {
        match self.adapter_memory_bytes {
            0 => usize::MAX,
            bytes => bytes,
        }
    }
}

/// Where adapters outlive the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreLocation {
    /// A folder.
    Directory(PathBuf),
    /// A bucket of an object store, as `s3://bucket/prefix`.
    Bucket(String),
}

impl FromStr for StoreLocation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once("://") {
            None => Ok(Self::Directory(PathBuf::from(text))),
            Some(("s3", _)) => Ok(Self::Bucket(text.to_owned())),
            Some((scheme, _)) => Err(format!(
                "{scheme}:// is not supported; give a folder or s3://bucket/prefix"
            )),
        }
    }
}

impl fmt::Display for StoreLocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(formatter),
            Self::Bucket(location) => location.fmt(formatter),
        }
    }
}

fn resolution(text: &str) -> Result<Resolution, String> {
    match text {
        "8" => Ok(Resolution::Coarse),
        "mixed" => Ok(Resolution::Mixed),
        "16" => Ok(Resolution::Fine),
        _ => Err("must be 8, 16 or mixed".to_owned()),
    }
}

fn device(text: &str) -> Result<ComputeDevice, String> {
    ComputeDevice::from_name(text)
        .ok_or_else(|| "must be cpu, cuda, cuda:N or candle-cpu".to_owned())
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("must be on or off".to_owned()),
    }
}

fn draft_tokens(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(tokens) if tokens <= MOST_DRAFT_TOKENS => Ok(tokens),
        _ => Err(format!("must be between 0 and {MOST_DRAFT_TOKENS}")),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(value) => Ok(value),
        Err(error) => Err(format!("{error}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Configuration::command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_environment_variable() {
        for argument in Configuration::command().get_arguments() {
            let Some(long) = argument.get_long() else {
                continue;
            };
            if matches!(long, "help" | "version") {
                continue;
            }
            let expected = format!("QUICKCHANGE_{}", long.replace('-', "_").to_uppercase());
            let found = argument
                .get_env()
                .map(|name| name.to_string_lossy().into_owned());
            assert_eq!(found.as_deref(), Some(expected.as_str()), "flag --{long}");
        }
    }

    #[test]
    fn the_prefix_cache_and_guesses_can_be_switched_off() {
        let usual = Configuration::try_parse_from(["server"]).expect("defaults");
        assert_eq!((usual.prefix_cache, usual.draft_tokens), (true, 8));
        let flags = ["server", "--prefix-cache", "off", "--draft-tokens", "0"];
        let off = Configuration::try_parse_from(flags).expect("valid flags");
        assert_eq!((off.prefix_cache, off.draft_tokens), (false, 0));
        let error = Configuration::try_parse_from(["server", "--draft-tokens", "9"])
            .expect_err("nine are too many");
        assert!(error.to_string().contains("between 0 and 8"), "{error}");
    }

    #[test]
    fn a_zero_where_one_is_needed_is_refused() {
        let error = Configuration::try_parse_from(["server", "--max-queue", "0"])
            .expect_err("a queue of no places serves nobody");
        assert!(error.to_string().contains("must be at least 1"), "{error}");
    }
}
