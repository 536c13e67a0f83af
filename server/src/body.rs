//! Reading request bodies: bounded, drained when too long so that the answer arrives, and with every JSON error naming its field.

use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::web::{Bytes, BytesMut, Data};
use actix_web::{FromRequest, HttpRequest};
use futures_util::future::LocalBoxFuture;
use futures_util::{Stream, StreamExt};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::middleware::TooSlow;
use crate::state::State;

/// Bytes read and thrown away past a limit, so that a client that is still sending can read the answer.
const DISCARD_BYTES: usize = 1 << 28;
/// Longest time spent on throwing bytes away.
const DISCARD_TIME: Duration = Duration::from_secs(15);

/// A JSON body, read and checked before the handler runs.
#[derive(Debug)]
pub struct Json<T>(pub T);

/// A type that can be read from a JSON object.
pub trait RequestBody: Sized {
    /// Reads the object; fields that are not known are ignored.
    ///
    /// # Errors
    /// `ApiError` naming the field that is missing, has the wrong type, or is known and not supported.
    fn from_object(object: Map<String, Value>) -> Result<Self, ApiError>;
}

impl<T: RequestBody + 'static> FromRequest for Json<T> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let limit = request
            .app_data::<Data<State>>()
            .map_or(0, |state| state.configuration.max_body_bytes);
        let payload = payload.take();
        Box::pin(async move {
            let bytes = read_bounded(payload, limit).await?;
            Ok(Self(T::from_object(parse_object(&bytes)?)?))
        })
    }
}

/// Reads a stream to its end into at most `limit` bytes.
///
/// # Errors
/// `BodyTooLarge` once the rest has been thrown away, `BodyTooSlow` when it stalls, `Malformed` when it breaks.
pub async fn read_bounded<S, E>(stream: S, limit: usize) -> Result<Bytes, ApiError>
where
    S: Stream<Item = Result<Bytes, E>>,
    E: std::error::Error + 'static,
{
    let mut stream = std::pin::pin!(stream);
    let mut body = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| unreadable("the body could not be read", &error))?;
        if body.len() + chunk.len() > limit {
            discard(stream).await;
            return Err(ApiError::BodyTooLarge { limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Why a body, or a form in it, could not be read to its end.
pub fn unreadable(what: &str, error: &(impl std::error::Error + 'static)) -> ApiError {
    match TooSlow::among(error) {
        Some(slow) => slow.into(),
        None => ApiError::Malformed {
            message: format!("{what}: {error}"),
            param: None,
        },
    }
}

/// Reads and forgets what is left of a stream, within bounds of size and time; how many bytes that was.
pub async fn discard<S, E>(mut stream: S) -> usize
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    let mut seen = 0;
    let forget = async {
        while let Some(Ok(chunk)) = stream.next().await {
            seen += chunk.len();
            if seen > DISCARD_BYTES {
                break;
            }
        }
    };
    // Out of time is the same as out of patience: the answer is sent either way.
    let _ = tokio::time::timeout(DISCARD_TIME, forget).await;
    seen
}

/// Parses a JSON object that may be left out: no body and `null` are an empty one.
///
/// # Errors
/// Those of [`parse_object`].
pub fn parse_optional_object(bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
    match bytes.trim_ascii() {
        b"" | b"null" => Ok(Map::new()),
        _ => parse_object(bytes),
    }
}

/// Parses a JSON object.
///
/// # Errors
/// `Malformed` with the path of the place that does not parse.
pub fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
    match parse(bytes)? {
        Value::Object(object) => Ok(object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(ApiError::Malformed {
                message: "the body must be a JSON object".to_owned(),
                param: None,
            })
        }
    }
}

/// Parses any JSON.
///
/// # Errors
/// `Malformed` with the path of the place that does not parse.
pub fn parse(bytes: &[u8]) -> Result<Value, ApiError> {
    if bytes.is_empty() {
        return Err(ApiError::Malformed {
            message: "the body is empty; send a JSON object".to_owned(),
            param: None,
        });
    }
    let mut source = serde_json::Deserializer::from_slice(bytes);
    let value: Value =
        serde_path_to_error::deserialize(&mut source).map_err(|error| ApiError::Malformed {
            message: format!("the body is not valid JSON: {}", error.inner()),
            param: field_of(error.path()),
        })?;
    source.end().map_err(|error| ApiError::Malformed {
        message: format!("the body is not valid JSON: {error}"),
        param: None,
    })?;
    Ok(with_integers(value))
}

/// Numbers without a fraction as integers: JSON has one kind of number, and some languages write all of theirs with a point.
fn with_integers(value: Value) -> Value {
    /// Beyond it not every integer is a double.
    const MOST: f64 = (1u64 << 53) as f64;
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= MOST => {
                Value::from(float as i64)
            }
            _ => Value::Number(number),
        },
        Value::Array(values) => values.into_iter().map(with_integers).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter();
            fields
                .map(|(name, value)| (name, with_integers(value)))
                .collect()
        }
        Value::Null | Value::Bool(_) | Value::String(_) => value,
    }
}

/// Reads a typed value out of a parsed object.
///
/// # Errors
/// `MissingField` or `InvalidValue`, naming the field.
pub fn read<T: DeserializeOwned>(value: &Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let message = error.inner().to_string();
        if let Some(field) = missing_field(&message) {
            let param = match field_of(error.path()) {
                Some(path) => format!("{path}.{field}"),
                None => field.to_owned(),
            };
            return ApiError::MissingField {
                message: format!("`{param}` is missing; it is required"),
                param,
            };
        }
        let param = field_of(error.path()).unwrap_or_else(|| "body".to_owned());
        ApiError::InvalidValue {
            message: format!("`{param}`: {message}"),
            param,
        }
    })
}

fn missing_field(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.split('`').next()
}

fn field_of(path: &serde_path_to_error::Path) -> Option<String> {
    let text = path.to_string();
    let text = text.trim_end_matches(".?").to_owned();
    (!matches!(text.as_str(), "." | "?" | "")).then_some(text)
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use insta::assert_snapshot;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Pair {
        #[serde(rename = "context")]
        _context: String,
    }

    #[derive(Debug, Deserialize)]
    struct Sample {
        #[serde(rename = "pairs")]
        _pairs: Vec<Pair>,
        #[serde(rename = "limit")]
        _limit: Option<i64>,
    }

    fn check(body: &[u8]) -> String {
        let error = match parse_object(body) {
            Ok(object) => read::<Sample>(&Value::Object(object)).expect_err("a refused body"),
            Err(error) => error,
        };
        format!("{:?}: {error}", error.param())
    }

    #[test]
    fn every_refusal_names_the_field() {
        assert_snapshot!(check(b"{}"), @r#"Some("pairs"): `pairs` is missing; it is required"#);
        assert_snapshot!(check(br#"{"pairs":[{"context":1}]}"#), @r#"Some("pairs[0].context"): `pairs[0].context`: invalid type: integer `1`, expected a string"#);
        assert_snapshot!(check(br#"{"pairs":[{}]}"#), @r#"Some("pairs[0].context"): `pairs[0].context` is missing; it is required"#);
        assert_snapshot!(check(br#"{"pairs":[],"limit":"ten"}"#), @r#"Some("limit"): `limit`: invalid type: string "ten", expected i64"#);
        assert_snapshot!(check(b"{\"pairs\":\"\xff\"}"), @r#"Some("pairs"): the body is not valid JSON: invalid unicode code point at line 1 column 11"#);
        assert_snapshot!(check(b"[1]"), @"None: the body must be a JSON object");
    }

    #[test]
    fn numbers_without_a_fraction_are_integers_however_they_are_written() {
        let parsed = parse_object(br#"{"limit": 3.0, "pairs": [1e2, 0.5, -0.0, 7, 1e300]}"#);
        let parsed = Value::Object(parsed.expect("an object"));
        assert_eq!(
            parsed.to_string(),
            r#"{"limit":3,"pairs":[100,0.5,0,7,1e+300]}"#
        );
    }

    #[test]
    fn a_body_that_may_be_left_out_may_be_null() {
        for body in ["", " ", "null", "{}"] {
            let parsed = parse_optional_object(body.as_bytes());
            assert_eq!(parsed.expect("nothing"), Map::new());
        }
        assert!(parse_optional_object(b"7").is_err());
    }

    #[tokio::test]
    async fn a_long_body_is_read_to_its_end_and_refused() {
        let mut left = 5;
        let chunks = stream::poll_fn(|_| {
            left -= 1;
            std::task::Poll::Ready(
                (left >= 0).then(|| Ok::<_, std::io::Error>(Bytes::from_static(b"abcd"))),
            )
        });
        let error = read_bounded(chunks, 10)
            .await
            .expect_err("20 bytes do not fit in 10");
        assert_eq!(
            left, -1,
            "the rest must be consumed, or the client never reads the answer"
        );
        assert!(matches!(error, ApiError::BodyTooLarge { limit: 10 }));
    }
}
