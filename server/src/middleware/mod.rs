//! What happens around every request: its id, its metrics, its line in the log. Nothing about any one route.

mod paced;
mod panics;

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage};
use futures_util::FutureExt;
use tracing::Instrument;

pub use self::paced::TooSlow;
use self::panics::Guarded;
use crate::inference::receipt::{RECEIPT, Receipt};
use crate::inference::target::ServedAdapter;
use crate::state::State;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LONGEST_ID: usize = 128;

/// When a request arrived, left on it for its deadline.
#[derive(Debug, Clone, Copy)]
pub struct Arrived(pub Instant);

/// The id of a request, left on it for whoever needs one.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// Gives every answer an `x-request-id`, counts it, and keeps what goes wrong with it away from all others.
///
/// # Errors
/// Those of the route, as answers.
pub async fn observe(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let started = Instant::now();
    let id = request_id(&request);
    let text = id.to_str().unwrap_or_default().to_owned();
    let span = tracing::info_span!("request", request_id = text);
    request.extensions_mut().insert(RequestId(text));
    request.extensions_mut().insert(Arrived(started));
    let method = request.method().to_string();
    let state = request.app_data::<Data<State>>().cloned();
    if let Some(state) = &state {
        let time = Duration::from_secs(state.configuration.stall_seconds);
        paced::pace(&mut request, time);
    }
    let _in_flight = state.as_ref().map(InFlight::enter);
    let called = AssertUnwindSafe(next.call(request).instrument(span.clone()));
    // What the handler shares with others is behind locks that outlive a panic, or counted by guards.
    let Ok(response) = called.catch_unwind().await else {
        return Err(panics::failed(state.as_ref(), &method, id));
    };
    let (answering, inside) = (state.clone(), span.clone());
    let mut response = response?
        .map_into_boxed_body()
        .map_body(|_, body| BoxBody::new(Guarded::new(body, answering, inside)));
    if let Some(state) = &state {
        record(state, &response, &method, started);
    }
    tracing::debug!(
        parent: &span,
        method,
        path = response.request().path(),
        status = response.status().as_u16(),
        duration_seconds = started.elapsed().as_secs_f64(),
        "answered"
    );
    response.headers_mut().insert(REQUEST_ID, id);
    if let Some(receipt) = state.as_ref().and_then(|state| receipt(state, &response)) {
        response.headers_mut().insert(RECEIPT, receipt);
    }
    Ok(response)
}

/// Counts a request for as long as it lives, however it ends.
struct InFlight(Data<State>);

impl InFlight {
    fn enter(state: &Data<State>) -> Self {
        state.metrics.http.requests_in_flight.inc();
        Self(state.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.metrics.http.requests_in_flight.dec();
    }
}

/// The receipt of an answer that came from a model.
fn receipt<B>(state: &State, response: &ServiceResponse<B>) -> Option<HeaderValue> {
    if !response.status().is_success() {
        return None;
    }
    let extensions = response.request().extensions();
    let served = extensions.get::<ServedAdapter>()?;
    Receipt::of(state, served)?.header()
}

/// Counts an answer.
fn record<B>(state: &State, response: &ServiceResponse<B>, method: &str, started: Instant) {
    let request = response.request();
    let route = request
        .match_pattern()
        .unwrap_or_else(|| "unknown".to_owned());
    let served = request.extensions().get::<ServedAdapter>().cloned();
    let adapter = served.as_ref().map_or_else(
        || "none".to_owned(),
        |served| state.metrics.labels.label(&served.name),
    );
    let metrics = &state.metrics;
    if let Some(version) = served.and_then(|served| served.version) {
        metrics
            .versions
            .answered(&adapter, &version, response.status().as_u16());
    }
    metrics
        .http
        .requests
        .with_label_values(&[
            route.as_str(),
            known_method(method),
            response.status().as_str(),
            adapter.as_str(),
        ])
        .inc();
    metrics
        .http
        .request_duration
        .with_label_values(&[&route])
        .observe(started.elapsed().as_secs_f64());
}

/// Methods are the client's choice, so they are bounded as labels.
fn known_method(method: &str) -> &str {
    match method {
        "GET" | "POST" | "PUT" | "DELETE" | "HEAD" | "OPTIONS" | "PATCH" => method,
        _ => "other",
    }
}

/// The client's own id when it is short and printable, a fresh one otherwise.
fn request_id(request: &ServiceRequest) -> HeaderValue {
    request
        .headers()
        .get(&REQUEST_ID)
        .filter(|value| is_sane(value.as_bytes()))
        .cloned()
        .unwrap_or_else(|| {
            HeaderValue::from_str(&uuid::Uuid::new_v4().to_string())
                .expect("a UUID is printable ASCII")
        })
}

fn is_sane(id: &[u8]) -> bool {
    (1..=LONGEST_ID).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_printable_ids_are_kept() {
        assert!(is_sane(b"trace-1:2_3"));
        assert!(!is_sane(b""));
        assert!(!is_sane(b"two words"));
        assert!(!is_sane(&[b'a'; 129]));
        assert!(!is_sane("é".as_bytes()));
    }
}
