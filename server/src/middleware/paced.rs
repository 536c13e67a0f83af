//! Bodies that must go on coming: a client that sends a byte a second does not hold a place for hours.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::HttpMessage;
use actix_web::dev::{Payload, ServiceRequest};
use actix_web::error::PayloadError;
use actix_web::web::Bytes;
use futures_util::Stream;
use tokio::time::{Instant, Sleep, sleep};

use crate::error::ApiError;

/// Bytes that must come within the time, unless the body ends.
const LEAST_BYTES: usize = 1024;

/// A body that fails when less than 1 KiB of it comes within a time.
struct Paced {
    payload: Payload,
    window: Pin<Box<Sleep>>,
    time: Duration,
    came: usize,
}

/// Why a paced body ended before its end.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the body came too slowly")]
pub struct TooSlow {
    time: Duration,
}

impl From<TooSlow> for ApiError {
    fn from(slow: TooSlow) -> Self {
        Self::BodyTooSlow {
            bytes: LEAST_BYTES,
            seconds: slow.time.as_secs(),
        }
    }
}

impl TooSlow {
    /// Looks for it among an error's causes.
    pub fn among(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let own = error.downcast_ref::<io::Error>().and_then(|error| {
            let inner = error.get_ref()?;
            inner.downcast_ref::<Self>().copied()
        });
        own.or_else(|| Self::among(error.source()?))
    }
}

/// Lets a request's body fail when it stalls for that long.
pub(super) fn pace(request: &mut ServiceRequest, time: Duration) {
    let payload = request.take_payload();
    if matches!(payload, Payload::None) {
        return;
    }
    let paced = Paced {
        payload,
        window: Box::pin(sleep(time)),
        time,
        came: 0,
    };
    request.set_payload(Payload::from(
        Box::pin(paced) as Pin<Box<dyn Stream<Item = Result<Bytes, PayloadError>>>>
    ));
}

impl Stream for Paced {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = Pin::new(&mut self.payload).poll_next(context);
        match &polled {
            Poll::Ready(Some(Ok(bytes))) => {
                self.came += bytes.len();
                if self.came >= LEAST_BYTES {
                    self.came = 0;
                    let next = Instant::now() + self.time;
                    self.window.as_mut().reset(next);
                }
                polled
            }
            Poll::Ready(_) => polled,
            Poll::Pending => self.window.as_mut().poll(context).map(|()| {
                let slow = TooSlow { time: self.time };
                Some(Err(PayloadError::Io(io::Error::new(
                    io::ErrorKind::TimedOut,
                    slow,
                ))))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_found_behind_what_readers_make_of_it() {
        let slow = TooSlow {
            time: Duration::from_secs(30),
        };
        let error = PayloadError::Io(io::Error::new(io::ErrorKind::TimedOut, slow));
        assert!(TooSlow::among(&error).is_some());
        let error = actix_multipart::MultipartError::Payload(error);
        assert!(TooSlow::among(&error).is_some());
        assert!(TooSlow::among(&PayloadError::Overflow).is_none());
    }
}
