//! `If-Match` and `ETag` of adapters: an adapter's entity tag is its active version, in quotes.

use actix_web::HttpRequest;
use actix_web::http::header::{self, ETag, EntityTag, Header as _, IfMatch};
use adapters::Entry;

use crate::error::ApiError;

/// The version that must be active for the request to be carried out, if it names one.
///
/// # Errors
/// `InvalidValue` for anything but one entity tag.
pub(super) fn expected_version(request: &HttpRequest) -> Result<Option<String>, ApiError> {
    if !request.headers().contains_key(header::IF_MATCH) {
        return Ok(None);
    }
    let invalid = || {
        ApiError::invalid(
            "If-Match",
            "If-Match takes one entity tag: the version that is active now, in double quotes, as GET shows it under ETag",
        )
    };
    match IfMatch::parse(request).map_err(|_| invalid())? {
        IfMatch::Items(tags) => match tags.as_slice() {
            [only] if !only.weak => Ok(Some(only.tag().to_owned())),
            _ => Err(invalid()),
        },
        IfMatch::Any => Err(invalid()),
    }
}

/// The expectation of a request that can state it in its body too.
///
/// # Errors
/// Those of [`expected_version`], and `InvalidValue` when body and header differ.
pub(super) fn one_expectation(
    request: &HttpRequest,
    body: Option<String>,
) -> Result<Option<String>, ApiError> {
    match (expected_version(request)?, body) {
        (Some(header), Some(body)) if header != body => Err(ApiError::invalid(
            "expected",
            format!("`expected` is {body:?} and If-Match says {header:?}; leave one out"),
        )),
        (Some(expected), _) | (None, Some(expected)) => Ok(Some(expected)),
        (None, None) => Ok(None),
    }
}

/// The entity tag of an adapter as it is.
pub(super) fn entity_tag(entry: &Entry) -> ETag {
    ETag(EntityTag::new_strong(entry.active().to_string()))
}
