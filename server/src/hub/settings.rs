//! Where the hub and its cache are, as Hugging Face's own programs find them. Nothing is read from either here.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// Where models are fetched from and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubSettings {
    /// The folder of repositories.
    pub cache: PathBuf,
    /// The hub's address, without a slash at the end.
    pub endpoint: String,
    /// What shows the hub who asks.
    pub token: Option<String>,
    /// Whether only the cache may be used.
    pub offline: bool,
    /// Whether progress is drawn on standard error.
    pub progress: bool,
}

impl HubSettings {
    /// What the environment says: `HF_HUB_CACHE` or `HF_HOME` or `XDG_CACHE_HOME`, `HF_ENDPOINT`, `HF_TOKEN` or
    /// `HF_TOKEN_PATH` or the token that `hf auth login` left, `HF_HUB_OFFLINE`.
    pub fn from_environment() -> Self {
        let home = std::env::home_dir().unwrap_or_default();
        Self {
            progress: std::io::stderr().is_terminal(),
            ..Self::from_variables(|name| std::env::var(name).ok(), &home)
        }
    }

    /// The same from any source of variables; empty ones are as good as absent.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>, home: &Path) -> Self {
        let value = |name: &str| variable(name).filter(|value| !value.is_empty());
        let folder = |name: &str| value(name).map(PathBuf::from);
        let caches = folder("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache"));
        let hugging_face = folder("HF_HOME").unwrap_or_else(|| caches.join("huggingface"));
        let token_path = folder("HF_TOKEN_PATH").unwrap_or_else(|| hugging_face.join("token"));
        let kept = || fs_err::read_to_string(token_path).ok();
        let endpoint = value("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let offline = value("HF_HUB_OFFLINE").unwrap_or_default().to_lowercase();
        Self {
            cache: folder("HF_HUB_CACHE").unwrap_or_else(|| hugging_face.join("hub")),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: (value("HF_TOKEN").or_else(kept))
                .map(|token| token.trim().to_owned())
                .filter(|token| !token.is_empty()),
            offline: ["1", "true", "yes", "on"].contains(&offline.as_str()),
            progress: false,
        }
    }
}
