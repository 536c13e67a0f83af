//! What HTTP/2 needs beside HTTP/1: a bound on the requests of one connection, and an end to the work of a request that its client has
//! reset or whose connection is gone.

use std::any::Any;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Extensions, Payload, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::http::Version;
use actix_web::middleware::Next;
use actix_web::web::Bytes;
use actix_web::{Error, HttpMessage, ResponseError};
use futures_util::Stream;

use crate::error::{AccessError, ApiError};

/// Requests of one connection under way at a time.
const MOST_STREAMS: u32 = 128;
/// How often is looked whether a client is still there: the library tells a handler of it only where a body is read or written.
const LOOK: Duration = Duration::from_millis(100);

/// The requests under way on one connection.
#[derive(Clone, Default)]
struct Connection(Arc<AtomicU32>);

/// One of them.
struct Place(Connection);

/// A request's body, which the handler reads and which says whether the client is there.
struct Body {
    payload: Payload,
    ended: bool,
}

/// The handler's end of it.
struct Reading(Rc<RefCell<Body>>);

/// An answer's body that keeps the place of its request.
struct Held {
    body: BoxBody,
    _place: Option<Place>,
}

/// Prepares a connection that was accepted.
pub fn connected(_: &dyn Any, extensions: &mut Extensions) {
    extensions.insert(Connection::default());
}

/// Bounds and cancels the requests of HTTP/2; those of HTTP/1 come one after another and are cancelled by the library.
///
/// # Errors
/// Those of the route; an error that nobody reads when the client is gone.
pub async fn guard_streams(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if request.version() != Version::HTTP_2 {
        return Ok(next.call(request).await?.map_into_boxed_body());
    }
    let connection = request.request().conn_data::<Connection>().cloned();
    let place = match connection.map(Connection::enter) {
        Some(None) => {
            let limit = MOST_STREAMS;
            let refused = ApiError::from(AccessError::TooManyStreams { limit });
            return Ok(request.into_response(refused.error_response()));
        }
        Some(place) => place,
        None => None,
    };
    let body = Rc::new(RefCell::new(Body {
        payload: request.take_payload(),
        ended: false,
    }));
    let reading = Box::pin(Reading(Rc::clone(&body)));
    request.set_payload(Payload::Stream { payload: reading });
    tokio::select! {
        biased;
        answer = next.call(request) => Ok(answer?.map_body(|_, body| {
            let body = body.boxed();
            BoxBody::new(Held { body, _place: place })
        })),
        () = gone(&body) => Err(actix_web::error::ErrorBadRequest("the client is gone")),
    }
}

/// Waits until the client has reset the request or closed the connection.
async fn gone(body: &Rc<RefCell<Body>>) {
    loop {
        tokio::time::sleep(LOOK).await;
        // What the handler has not read yet is left to it.
        let is_ours = body.borrow().ended || Rc::strong_count(body) == 1;
        let mut nobody = Context::from_waker(Waker::noop());
        if is_ours && let Poll::Ready(Some(Err(_))) = body.borrow_mut().poll(&mut nobody) {
            return;
        }
    }
}

impl Connection {
    fn enter(self) -> Option<Place> {
        let next = |streams| (streams < MOST_STREAMS).then(|| streams + 1);
        let entered = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
        entered.is_ok().then(|| Place(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Body {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, PayloadError>>> {
        let polled = Pin::new(&mut self.payload).poll_next(context);
        self.ended |= matches!(polled, Poll::Ready(None));
        polled
    }
}

impl Stream for Reading {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.borrow_mut().poll(context)
    }
}

impl MessageBody for Held {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}
