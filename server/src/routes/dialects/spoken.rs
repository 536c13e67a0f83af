//! Refusals in another server's words: extractors that fail with a dialect's own error, and what such errors share.

use std::marker::PhantomData;

use actix_web::body::BoxBody;
use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::{FromRequest, HttpRequest, HttpResponse, ResponseError};
use futures_util::TryFutureExt;
use futures_util::future::{MapErr, MapOk};
use serde::Serialize;

use crate::error::ApiError;
use crate::inference::stream::json;

/// What `T` extracts; a refusal is an `E`.
#[derive(Debug)]
pub struct Spoken<E, T>(pub T, PhantomData<fn() -> E>);

impl<E, T> FromRequest for Spoken<E, T>
where
    E: From<ApiError> + Into<actix_web::Error> + 'static,
    T: FromRequest<Error = ApiError>,
{
    type Error = E;
    type Future = MapErr<MapOk<T::Future, fn(T) -> Self>, fn(ApiError) -> E>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let spoken: fn(T) -> Self = |extracted| Self(extracted, PhantomData);
        let refused: fn(ApiError) -> E = E::from;
        T::from_request(request, payload)
            .map_ok(spoken)
            .map_err(refused)
    }
}

/// The answer to an error with a dialect's status and body; the headers that belong to the error stay.
pub fn refusal(error: &ApiError, status: StatusCode, body: &impl Serialize) -> HttpResponse {
    let mut response = error.error_response().set_body(BoxBody::new(json(body)));
    *response.status_mut() = status;
    response
}

/// An error's message with fields by the names that a dialect has for them: pairs of ours and theirs.
pub fn message(error: &ApiError, names: &[(&str, &str)]) -> String {
    names
        .iter()
        .fold(error.to_string(), |message, (ours, theirs)| {
            message.replace(&format!("`{ours}`"), &format!("`{theirs}`"))
        })
}

#[cfg(test)]
mod tests {
    use actix_web::http::header;
    use engine::SubmitError;
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_get_their_names_and_nothing_else_changes() {
        let error = ApiError::invalid("max_tokens", "`max_tokens` is -1; max_tokens must be 0");
        assert_eq!(
            message(&error, &[("max_tokens", "n_predict")]),
            "`n_predict` is -1; max_tokens must be 0"
        );
    }

    #[test]
    fn a_full_queue_says_when_to_come_back_in_any_dialect() {
        let error = ApiError::from(SubmitError::QueueFull {
            waiting: 1,
            limit: 1,
            retry_after: std::time::Duration::from_secs(3),
        });
        let response = refusal(&error, StatusCode::IM_A_TEAPOT, &json!({}));
        assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
        let retry = response.headers().get(header::RETRY_AFTER);
        assert_eq!(retry.and_then(|value| value.to_str().ok()), Some("3"));
    }
}
