//! A panic costs the request that caused it: its answer is a 500, or its stream ends, and everything else goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::error::InternalError;
use actix_web::http::header::HeaderValue;
use actix_web::web::{Bytes, Data};
use actix_web::{Error, ResponseError};
use tracing::Span;

use super::{REQUEST_ID, known_method};
use crate::error::ApiError;
use crate::state::State;

/// Counts the panic of a handler, and what is answered: the request itself is gone with the handler, so its route is not known.
pub(super) fn failed(state: Option<&Data<State>>, method: &str, id: HeaderValue) -> Error {
    let mut response = ApiError::Panicked.error_response();
    if let Some(state) = state {
        let status = response.status();
        let labels = ["unknown", known_method(method), status.as_str(), "none"];
        state.metrics.http.panics.inc();
        state.metrics.http.requests.with_label_values(&labels).inc();
    }
    response.headers_mut().insert(REQUEST_ID, id);
    InternalError::from_response(ApiError::Panicked, response).into()
}

/// A body that ends with an error where it would panic.
pub(super) struct Guarded<B> {
    body: B,
    state: Option<Data<State>>,
    /// The request's, for whatever is logged while its answer is written.
    span: Span,
}

/// The end of a body that panicked.
#[derive(Debug, thiserror::Error)]
#[error("writing the answer failed; the server's log says more")]
struct BodyPanicked;

impl<B: MessageBody> Guarded<B> {
    pub(super) fn new(body: B, state: Option<Data<State>>, span: Span) -> Self {
        Self { body, state, span }
    }
}

impl<B: MessageBody + Unpin> MessageBody for Guarded<B> {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let span = self.span.clone();
        let _inside = span.enter();
        let body = Pin::new(&mut self.body);
        // What panicked is never polled again: the connection ends with the error.
        let polled = catch_unwind(AssertUnwindSafe(|| body.poll_next(context)));
        match polled {
            Ok(polled) => polled.map_err(Into::into),
            Err(_) => {
                if let Some(state) = &self.state {
                    state.metrics.http.panics.inc();
                }
                Poll::Ready(Some(Err(BodyPanicked.into())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, call_service, init_service, try_call_service};
    use actix_web::web::get;
    use actix_web::{App, HttpResponse};
    use futures_util::{StreamExt, stream};

    use crate::middleware::observe;

    async fn panics() -> HttpResponse {
        panic!("a panic of this test")
    }

    async fn panics_while_it_writes() -> HttpResponse {
        let chunks = stream::iter(0..3).map(|chunk| match chunk {
            0 => Ok::<_, actix_web::Error>("begun".into()),
            _ => panic!("a panic of this test"),
        });
        HttpResponse::Ok().streaming(chunks)
    }

    #[actix_web::test]
    async fn a_handler_that_panics_is_a_500_with_the_id_and_the_next_request_is_served() {
        let app = App::new()
            .wrap(from_fn(observe))
            .route("/panics", get().to(panics))
            .route("/fine", get().to(HttpResponse::Ok));
        let app = init_service(app).await;
        for _ in 0..2 {
            let request = TestRequest::get()
                .uri("/panics")
                .insert_header(("x-request-id", "mine"));
            let error = try_call_service(&app, request.to_request())
                .await
                .map(|_| ())
                .expect_err("an error that is answered");
            let response = error.error_response();
            assert_eq!(response.status(), 500);
            assert_eq!(response.headers().get("x-request-id").unwrap(), "mine");
            let fine = TestRequest::get().uri("/fine").to_request();
            assert_eq!(call_service(&app, fine).await.status(), 200);
        }
    }

    #[actix_web::test]
    async fn a_stream_that_panics_ends_with_an_error() {
        let app = App::new()
            .wrap(from_fn(observe))
            .route("/stream", get().to(panics_while_it_writes));
        let app = init_service(app).await;
        let request = TestRequest::get().uri("/stream").to_request();
        let response = call_service(&app, request).await;
        assert_eq!(response.status(), 200);
        let body = actix_web::body::to_bytes(response.into_body()).await;
        let error = body.expect_err("an end that is no end").to_string();
        assert!(error.contains("log"), "{error}");
    }
}
