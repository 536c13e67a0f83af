//! Errors of who may do what, and how much of it.

use std::time::Duration;

use actix_web::http::StatusCode;
use jiff::Timestamp;

use super::{AUTHENTICATION, Answer, INVALID, OVERLOADED};
use crate::access::{Scope, Scopes};

/// Why whoever asks is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// No key, or one that is not known.
    #[error("a valid key is needed: send `Authorization: Bearer <key>`")]
    Unauthenticated,
    /// A key whose time is over.
    #[error("this key expired at {at}; a valid key is needed")]
    Expired {
        /// When.
        at: Timestamp,
    },
    /// A valid key that may not do this.
    #[error("this key has the scope {held}; the route needs the scope `{needed}`")]
    Forbidden {
        /// What the key is for.
        held: Scopes,
        /// What the route asks for.
        needed: Scope,
    },
    /// As many requests of the key are under way as may be.
    #[error(
        "this key may have {limit} requests under way at a time (max_concurrent) and has; wait until one of them has ended"
    )]
    TooManyAtOnce {
        /// The limit.
        limit: u32,
    },
    /// As many requests came in a minute as may.
    #[error("this key may send {limit} requests a minute (requests_per_minute) and has; send the next in {} s", seconds(*.wait))]
    TooManyRequests {
        /// The limit.
        limit: u32,
        /// How long until the next fits.
        wait: Duration,
    },
    /// The request's tokens do not fit in this minute.
    #[error(
        "this key may use {limit} tokens a minute (tokens_per_minute), and the {needed} of this request, of its prompts and of what may be generated, are more than is left now; send it in {} s, or with less",
        seconds(*.wait)
    )]
    TooManyTokens {
        /// The limit.
        limit: u32,
        /// What the request may cost.
        needed: u32,
        /// How long until it fits.
        wait: Duration,
    },
    /// The request's tokens do not fit in any minute.
    #[error(
        "this request may use {needed} tokens, of its prompts and of what may be generated, and this key may use {limit} a minute (tokens_per_minute), so it will never fit; send a shorter prompt, fewer prompts or choices, or a smaller `max_tokens`"
    )]
    NeverFits {
        /// The limit.
        limit: u32,
        /// What the request may cost.
        needed: u32,
    },
}

impl AccessError {
    /// Whether the answer says how to send a key.
    pub(super) fn wants_key(&self) -> bool {
        matches!(self, Self::Unauthenticated | Self::Expired { .. })
    }

    /// When to ask again, where that helps.
    pub(super) fn retry_after(&self) -> Option<u64> {
        match self {
            Self::TooManyAtOnce { .. } => Some(1),
            Self::TooManyRequests { wait, .. } | Self::TooManyTokens { wait, .. } => {
                Some(seconds(*wait))
            }
            Self::Unauthenticated
            | Self::Expired { .. }
            | Self::Forbidden { .. }
            | Self::NeverFits { .. } => None,
        }
    }
}

/// Whole seconds after which the time is over, at least one.
fn seconds(wait: Duration) -> u64 {
    let begun = u64::from(wait.subsec_nanos() > 0);
    (wait.as_secs() + begun).max(1)
}

pub(super) fn access_answer(error: &AccessError) -> Answer {
    match error {
        AccessError::Unauthenticated | AccessError::Expired { .. } => {
            Answer(StatusCode::UNAUTHORIZED, AUTHENTICATION, "invalid_api_key")
        }
        AccessError::Forbidden { .. } => {
            Answer(StatusCode::FORBIDDEN, AUTHENTICATION, "insufficient_scope")
        }
        AccessError::TooManyAtOnce { .. }
        | AccessError::TooManyRequests { .. }
        | AccessError::TooManyTokens { .. } => {
            Answer(StatusCode::TOO_MANY_REQUESTS, OVERLOADED, "rate_limited")
        }
        AccessError::NeverFits { .. } => {
            Answer(StatusCode::PAYLOAD_TOO_LARGE, INVALID, "exceeds_rate_limit")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_rounded_up_to_whole_seconds_so_that_it_is_long_enough() {
        let rounded = [0, 1, 1000, 1001, 59_999].map(|ms| seconds(Duration::from_millis(ms)));
        assert_eq!(rounded, [1, 1, 1, 2, 60]);
    }
}
