//! How much a key may be used: requests at a time, requests and tokens a minute. A request is counted when it asks for a model and
//! pays for its tokens before any of them is computed.
//!
//! Tokens are those of the prompts and the most that may be generated: what a request may cost is known when it comes, what it will
//! cost is not, and a limit that were charged afterwards could be overrun by as many requests as come at once. Nothing is given back
//! for an answer that ends early.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use actix_web::web::Data;
use actix_web::{HttpMessage, HttpRequest};
use governor::clock::Clock;
use governor::{DefaultDirectRateLimiter, NotUntil, Quota, RateLimiter};

use super::key_file::KeyLimits;
use super::keyring::Key;
use crate::error::{AccessError, ApiError};
use crate::state::State;

/// Which limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Requests under way at a time.
    Concurrency,
    /// Requests a minute.
    Requests,
    /// Tokens a minute.
    Tokens,
}

/// What a key has used of its limits.
#[derive(Default, Clone)]
pub(super) struct Quotas {
    under_way: Arc<AtomicU32>,
    requests: Option<Arc<DefaultDirectRateLimiter>>,
    tokens: Option<Arc<DefaultDirectRateLimiter>>,
}

/// A request that was let in under its key's limits, for as long as anything of it lives.
#[derive(Clone, Default)]
pub struct Admission(Option<Arc<Permit>>);

/// One place among the key's requests under way.
struct Permit {
    key: Arc<Key>,
    state: Data<State>,
}

/// The permit of a request, for the next part of the same request; it does not keep the place.
struct OfRequest(Weak<Permit>);

impl Limit {
    /// Its name in metrics, as in the file of keys.
    pub fn name(self) -> &'static str {
        match self {
            Self::Concurrency => "max_concurrent",
            Self::Requests => "requests_per_minute",
            Self::Tokens => "tokens_per_minute",
        }
    }
}

impl Quotas {
    pub(super) fn new(limits: &KeyLimits) -> Self {
        Self {
            under_way: Arc::default(),
            requests: limits.requests_per_minute.map(per_minute),
            tokens: limits.tokens_per_minute.map(per_minute),
        }
    }

    /// The same use under other limits.
    pub(super) fn under(&self, before: &KeyLimits, now: &KeyLimits) -> Self {
        let mut quotas = Self::new(now);
        quotas.under_way = Arc::clone(&self.under_way);
        if before.requests_per_minute == now.requests_per_minute {
            quotas.requests.clone_from(&self.requests);
        }
        if before.tokens_per_minute == now.tokens_per_minute {
            quotas.tokens.clone_from(&self.tokens);
        }
        quotas
    }
}

fn per_minute(most: NonZeroU32) -> Arc<DefaultDirectRateLimiter> {
    Arc::new(RateLimiter::direct(Quota::per_minute(most)))
}

impl fmt::Debug for Quotas {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let under_way = self.under_way.load(Ordering::SeqCst);
        formatter
            .debug_struct("Quotas")
            .field("under_way", &under_way)
            .finish_non_exhaustive()
    }
}

impl Admission {
    /// Lets a request in, once however many models it asks for.
    ///
    /// # Errors
    /// `TooManyAtOnce`, `TooManyRequests`.
    pub fn of(state: &Data<State>, request: &HttpRequest) -> Result<Self, ApiError> {
        let mut extensions = request.extensions_mut();
        if let Some(permit) = extensions
            .get::<OfRequest>()
            .and_then(|own| own.0.upgrade())
        {
            return Ok(Self(Some(permit)));
        }
        let Some(key) = extensions.get::<Arc<Key>>().cloned() else {
            return Ok(Self(None));
        };
        let permit = Arc::new(Permit::enter(state, key)?);
        extensions.insert(OfRequest(Arc::downgrade(&permit)));
        Ok(Self(Some(permit)))
    }

    /// Pays for all tokens that a request may cost.
    ///
    /// # Errors
    /// `TooManyTokens`, and `NeverFits` for more than the key has in a minute.
    pub fn pay(&self, tokens: usize) -> Result<(), ApiError> {
        match &self.0 {
            Some(permit) => permit.pay(tokens),
            None => Ok(()),
        }
    }
}

impl Permit {
    fn enter(state: &Data<State>, key: Arc<Key>) -> Result<Self, ApiError> {
        let most = key.limits.max_concurrent.map_or(u32::MAX, NonZeroU32::get);
        let next = |under_way| (under_way < most).then(|| under_way + 1);
        let place = key
            .quotas
            .under_way
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
        if place.is_err() {
            let limit = most;
            return Err(refuse(
                state,
                &key,
                Limit::Concurrency,
                AccessError::TooManyAtOnce { limit },
            ));
        }
        // From here on the place is given back however this ends.
        let permit = Self {
            key,
            state: state.clone(),
        };
        permit.count()?;
        state.metrics.access.admitted(&permit.key.id);
        Ok(permit)
    }

    fn count(&self) -> Result<(), ApiError> {
        let Some(requests) = &self.key.quotas.requests else {
            return Ok(());
        };
        requests.check().map_err(|later| {
            let error = AccessError::TooManyRequests {
                limit: later.quota().burst_size().get(),
                wait: wait(requests, &later),
            };
            refuse(&self.state, &self.key, Limit::Requests, error)
        })
    }

    fn pay(&self, tokens: usize) -> Result<(), ApiError> {
        let (Some(quota), Some(limit)) = (
            &self.key.quotas.tokens,
            self.key.limits.tokens_per_minute.map(NonZeroU32::get),
        ) else {
            return Ok(());
        };
        let needed = u32::try_from(tokens).unwrap_or(u32::MAX);
        let Some(number) = NonZeroU32::new(needed) else {
            return Ok(());
        };
        let error = match quota.check_n(number) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(later)) => AccessError::TooManyTokens {
                limit,
                needed,
                wait: wait(quota, &later),
            },
            Err(_) => AccessError::NeverFits { limit, needed },
        };
        Err(refuse(&self.state, &self.key, Limit::Tokens, error))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.key.quotas.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How long until it would have been let in.
fn wait(limiter: &DefaultDirectRateLimiter, later: &NotUntil<Instant>) -> Duration {
    later.wait_time_from(limiter.clock().now())
}

fn refuse(state: &State, key: &Key, limit: Limit, error: AccessError) -> ApiError {
    state.metrics.access.limited(&key.id, limit.name());
    error.into()
}
