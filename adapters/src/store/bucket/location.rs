//! From `s3://bucket/prefix` and the environment to a client of the bucket.

use std::time::Duration;

use object_store::RetryConfig;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::path::Path as Key;

use super::super::StoreError;

const SCHEME: &str = "s3://";
const EXPECTED: &str = "expected s3://bucket or s3://bucket/prefix";

/// A request that fails is tried again so often, and no longer than that: a server that waits is no use to its clients.
const RETRIES: usize = 5;
const RETRY_FOR: Duration = Duration::from_secs(60);

/// Where a store is.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) bucket: String,
    pub(super) prefix: Key,
    /// As it was given, without a slash at the end.
    pub(super) url: String,
}

/// # Errors
/// `Location`.
pub(super) fn parse(location: &str) -> Result<Place, StoreError> {
    let refuse = |reason: String| StoreError::Location {
        location: location.to_owned(),
        reason,
    };
    let url = location.trim_end_matches('/');
    let Some(path) = url.strip_prefix(SCHEME) else {
        return Err(refuse(EXPECTED.to_owned()));
    };
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    let is_allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    if bucket.is_empty() || !bucket.bytes().all(is_allowed) {
        return Err(refuse(format!(
            "{bucket:?} is no name of a bucket, which has a-z 0-9 . - _; {EXPECTED}"
        )));
    }
    Ok(Place {
        bucket: bucket.to_owned(),
        prefix: self::prefix(prefix, location)?,
        url: url.to_owned(),
    })
}

/// What the keys of the store at `location` begin with.
///
/// # Errors
/// `Location`.
pub(super) fn prefix(prefix: &str, location: &str) -> Result<Key, StoreError> {
    Key::parse(prefix).map_err(|error| StoreError::Location {
        location: location.to_owned(),
        reason: format!("the keys in it would be invalid: {error}"),
    })
}

/// A client of the bucket, set up by those of `variables` that are named `AWS_*` and mean something. Does not connect yet.
///
/// # Errors
/// `Location` when the variables cannot be followed.
pub(super) fn connect(
    place: &Place,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<AmazonS3, StoreError> {
    let mut builder = AmazonS3Builder::new();
    for (name, value) in variables.filter(|(name, _)| name.starts_with("AWS_")) {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let is_plain = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]
        .iter()
        .find_map(|key| builder.get_config_value(key))
        .is_some_and(|endpoint| endpoint.starts_with("http://"));
    if is_plain {
        builder = builder.with_allow_http(true);
    }
    builder
        .with_bucket_name(&place.bucket)
        // Pointers need it, whatever the environment says.
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(RetryConfig {
            max_retries: RETRIES,
            retry_timeout: RETRY_FOR,
            ..RetryConfig::default()
        })
        .build()
        .map_err(|error| StoreError::Location {
            location: place.url.clone(),
            reason: format!("the AWS_* environment variables do not fit: {error}"),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_bucket_and_prefix() {
        for (location, bucket, prefix) in [
            ("s3://models", "models", ""),
            ("s3://models/", "models", ""),
            ("s3://my.models-2/lora/prod/", "my.models-2", "lora/prod"),
        ] {
            let place = parse(location).expect(location);
            assert_eq!(
                (place.bucket.as_str(), place.prefix.as_ref()),
                (bucket, prefix)
            );
            assert_eq!(place.url, location.trim_end_matches('/'));
        }
    }

    #[test]
    fn says_what_is_no_place() {
        let reason = |location: &str| parse(location).expect_err(location).to_string();
        insta::assert_snapshot!(
            reason("/var/lib/store"),
            @r#"the store "/var/lib/store" cannot be used: expected s3://bucket or s3://bucket/prefix"#
        );
        insta::assert_snapshot!(
            reason("s3://key:secret@host/x"),
            @r#"the store "s3://key:secret@host/x" cannot be used: "key:secret@host" is no name of a bucket, which has a-z 0-9 . - _; expected s3://bucket or s3://bucket/prefix"#
        );
        for location in [
            "s3://",
            "s3:///x",
            "S3://models",
            "gs://models",
            "s3://models/a//b",
        ] {
            assert_eq!(
                parse(location).expect_err(location).code(),
                "store_location"
            );
        }
    }

    #[test]
    fn the_environment_sets_the_client_up() {
        let place = parse("s3://models/lora").expect("a location");
        let debugged = |variables: &[(&str, &str)]| {
            let variables = variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            connect(&place, variables).map(|client| format!("{client:?}"))
        };
        let client = debugged(&[
            ("AWS_ENDPOINT_URL", "http://localhost:9000"),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_BUCKET", "another"),
            ("AWS_CONDITIONAL_PUT", "disabled"),
            ("AWS_PAGER", "less"),
            ("HOME", "/root"),
        ])
        .expect("they fit");
        for part in [
            "http://localhost:9000/models",
            "eu-central-1",
            "conditional_put: ETagMatch",
            "allow_http: Parsed(true)",
        ] {
            assert!(client.contains(part), "{part} is not in {client}");
        }
        let client = debugged(&[("AWS_REGION", "eu-central-1")]).expect("they fit");
        assert!(client.contains("https://s3.eu-central-1.amazonaws.com/models"));
        let error = debugged(&[("AWS_ALLOW_HTTP", "perhaps")]).expect_err("no boolean");
        assert_eq!(error.code(), "store_location");
        assert!(error.to_string().contains("perhaps"), "{error}");
    }
}
