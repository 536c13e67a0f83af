//! The hub's side of a download: what a repository holds, and its files, each continued where an earlier attempt
//! stopped. What is fetched and when a model is whole is decided by the parent.

use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo};
use sha2::{Digest, Sha256};

use super::{HubError, HubModel, HubSettings};

/// How often a file is continued after its connection broke.
const CONTINUATIONS: usize = 4;

/// A connection to the hub for one model.
pub(super) struct Transfer<'a> {
    api: Api,
    model: &'a HubModel,
    settings: &'a HubSettings,
}

/// What a repository holds at one commit.
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<String>,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(model: &'a HubModel, settings: &'a HubSettings) -> Result<Self, HubError> {
        // The library's own retries append from the start of a file they did not write to; ours begin anew.
        let built = ApiBuilder::from_cache(Cache::new(settings.cache.clone()))
            .with_endpoint(settings.endpoint.clone())
            .with_token(settings.token.clone())
            .with_user_agent("quickchange", env!("CARGO_PKG_VERSION"))
            .with_progress(settings.progress)
            .with_retries(0)
            .build();
        let api = built.map_err(|error| HubError::Unreachable {
            model: model.to_string(),
            endpoint: settings.endpoint.clone(),
            reason: error.to_string(),
        })?;
        Ok(Self {
            api,
            model,
            settings,
        })
    }

    pub(super) fn listing(&self) -> Result<Listing, HubError> {
        let repository = self.api.repo(self.model.repo(&self.model.revision));
        let information = repository.info().map_err(|error| self.refusal(error))?;
        let files = (information.siblings.into_iter())
            .map(|sibling| sibling.rfilename)
            .collect();
        Ok(Listing {
            commit: information.sha,
            files,
        })
    }

    /// Fetches the files, pinned to one commit, and returns their folder.
    pub(super) fn download(&self, commit: &str, files: &[String]) -> Result<PathBuf, HubError> {
        let pinned: Repo = self.model.repo(commit);
        let repository = self.api.repo(pinned.clone());
        for file in files {
            self.file(&repository, file)?;
        }
        let cache = Cache::new(self.settings.cache.clone());
        Ok(cache.repo(pinned).pointer_path(commit))
    }

    fn file(&self, repository: &ApiRepo, file: &str) -> Result<(), HubError> {
        let mut attempt = 0;
        let path = loop {
            let error = match repository.get(file) {
                Ok(path) => break path,
                Err(error) => error,
            };
            attempt += 1;
            let broken = is_broken(&error);
            let mut again = broken;
            if is_overlong(&error) {
                again = self.discard_part(repository, file);
            }
            if !again || attempt > CONTINUATIONS {
                return Err(match broken {
                    true => HubError::Interrupted {
                        model: self.model.to_string(),
                        file: file.to_owned(),
                        reason: error.to_string(),
                    },
                    false => self.refusal(error),
                });
            }
            tracing::warn!(file, %error, "the download broke off and is continued");
        };
        match is_as_named(&path) {
            true => Ok(()),
            false => Err(HubError::Corrupt {
                model: self.model.to_string(),
                file: file.to_owned(),
            }),
        }
    }

    /// Removes what an earlier attempt left of a file; whether there was anything.
    fn discard_part(&self, repository: &ApiRepo, file: &str) -> bool {
        let Ok(metadata) = self.api.metadata(&repository.url(file)) else {
            return false;
        };
        let cache = Cache::new(self.settings.cache.clone());
        let blob = cache
            .repo(self.model.repo(metadata.commit_hash()))
            .blob_path(metadata.etag());
        fs_err::remove_file(blob.with_extension("part")).is_ok()
    }

    fn refusal(&self, error: ApiError) -> HubError {
        let model = self.model.to_string();
        let endpoint = self.settings.endpoint.clone();
        let reason = error.to_string();
        match error {
            ApiError::RequestError(request) => match *request {
                // The hub answers 401 for what does not exist, so that nobody learns what is private.
                ureq::Error::StatusCode(status @ (401 | 404)) => HubError::NotFound {
                    model,
                    endpoint,
                    status,
                },
                ureq::Error::StatusCode(403) => HubError::Forbidden { model, endpoint },
                ureq::Error::StatusCode(_) | ureq::Error::Json(_) => HubError::Unexpected {
                    model,
                    endpoint,
                    reason,
                },
                _ => HubError::Unreachable {
                    model,
                    endpoint,
                    reason,
                },
            },
            ApiError::IoError(_) | ApiError::LockAcquisition(_) => HubError::Cache {
                cache: self.settings.cache.clone(),
                reason,
            },
            _ => HubError::Unexpected {
                model,
                endpoint,
                reason,
            },
        }
    }
}

/// Whether the connection gave way, before the answer or in the middle of it.
fn is_broken(error: &ApiError) -> bool {
    match error {
        ApiError::IoError(_) => true,
        ApiError::RequestError(request) => {
            matches!(
                **request,
                ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed
            )
        }
        _ => false,
    }
}

/// Whether an earlier attempt left at least as many bytes as the file has.
fn is_overlong(error: &ApiError) -> bool {
    match error {
        ApiError::InvalidResume => true,
        ApiError::RequestError(request) => matches!(**request, ureq::Error::StatusCode(416)),
        _ => false,
    }
}

/// Whether a file has the checksum that names its blob, as large files' do; one that has not is removed.
fn is_as_named(path: &Path) -> bool {
    let Ok(blob) = fs_err::canonicalize(path) else {
        return false;
    };
    let name = blob.file_name().and_then(|name| name.to_str());
    let Some(expected) = name.filter(|name| name.len() == 64) else {
        return true;
    };
    let mut hasher = Sha256::new();
    let read = fs_err::File::open(&blob).and_then(|mut file| std::io::copy(&mut file, &mut hasher));
    let found = format!("{:x}", hasher.finalize());
    if read.is_ok() && found == expected {
        return true;
    }
    // What cannot be removed is found again, and refused again, at the next start.
    let _ = fs_err::remove_file(path).and_then(|()| fs_err::remove_file(&blob));
    false
}
