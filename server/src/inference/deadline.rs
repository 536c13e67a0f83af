//! How long an answer is worth something: what a client says in a header, within what the server grants.

use std::time::{Duration, Instant};

use actix_web::http::header::HeaderName;
use actix_web::{HttpMessage, HttpRequest};

use crate::error::ApiError;
use crate::middleware::Arrived;
use crate::state::State;

/// Seconds, as a decimal number, that a request may take from its arrival to the end of its answer.
pub const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout");

/// When the answer to a request is worth nothing any more: as long after its arrival as its `x-request-timeout` says, and as the
/// server grants at most.
///
/// # Errors
/// `InvalidValue` for a header that is no positive number of seconds.
pub fn of_request(state: &State, request: &HttpRequest) -> Result<Instant, ApiError> {
    let arrived = request.extensions().get::<Arrived>().copied();
    let arrived = arrived.map_or_else(Instant::now, |Arrived(arrived)| arrived);
    let most = Duration::from_secs(state.configuration.max_request_seconds);
    let wanted = match request.headers().get(&REQUEST_TIMEOUT) {
        None => most,
        Some(value) => seconds(value.to_str().unwrap_or_default())?,
    };
    Ok(arrived + wanted.min(most))
}

fn seconds(text: &str) -> Result<Duration, ApiError> {
    let number = text.trim().parse::<f64>().ok();
    let positive = number.filter(|seconds| *seconds > 0.0 && seconds.is_finite());
    let time = positive.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.ok_or_else(|| {
        ApiError::invalid(
            REQUEST_TIMEOUT.as_str(),
            format!("`{REQUEST_TIMEOUT}` is {text:?}; it must be a positive number of seconds, for example 2.5"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_positive_number_of_seconds() {
        assert_eq!(seconds("2.5").ok(), Some(Duration::from_millis(2500)));
        assert_eq!(seconds(" 30 ").ok(), Some(Duration::from_secs(30)));
        for wrong in ["", "0", "-1", "NaN", "inf", "1e300", "5s", "1,5"] {
            let error = seconds(wrong).expect_err("no time");
            assert!(error.to_string().contains("x-request-timeout"), "{error}");
        }
    }
}
