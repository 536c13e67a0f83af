//! Typed access to the fields of a JSON object, with errors that name the file and the field.

use std::path::Path;

use serde_json::{Map, Value};

use super::MOST;
use crate::error::LoadError;

/// One object of a JSON file. A field that is `null` counts as missing.
pub(super) struct Fields<'a> {
    path: &'a Path,
    /// Where the object stands in the file, for example `rope_parameters.`; empty for the whole file.
    place: String,
    object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(path: &'a Path, value: &'a Value) -> Result<Self, LoadError> {
        let place = String::new();
        match value.as_object() {
            Some(object) => Ok(Self {
                path,
                place,
                object,
            }),
            None => Err(LoadError::Metadata {
                path: path.to_path_buf(),
                key: "{}".to_owned(),
                reason: "the file must hold a JSON object".to_owned(),
            }),
        }
    }

    pub(super) fn error(&self, key: &str, reason: &str) -> LoadError {
        LoadError::Metadata {
            path: self.path.to_path_buf(),
            key: format!("{}{key}", self.place),
            reason: reason.to_owned(),
        }
    }

    pub(super) fn refusal(&self, feature: String) -> LoadError {
        LoadError::Unsupported {
            path: self.path.to_path_buf(),
            feature,
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// A field that is an object.
    pub(super) fn object(&self, key: &str) -> Result<Option<Fields<'a>>, LoadError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.as_object() {
            Some(object) => Ok(Some(Fields {
                path: self.path,
                place: format!("{}{key}.", self.place),
                object,
            })),
            None => Err(self.error(key, "must be an object")),
        }
    }

    /// A whole number from 1 to 1,048,576.
    pub(super) fn positive(&self, key: &str) -> Result<usize, LoadError> {
        self.optional_positive(key)?
            .ok_or_else(|| self.error(key, "is missing"))
    }

    pub(super) fn optional_positive(&self, key: &str) -> Result<Option<usize>, LoadError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.as_u64().map(usize::try_from) {
            Some(Ok(value)) if (1..=MOST).contains(&value) => Ok(Some(value)),
            _ => Err(self.error(key, "must be a whole number from 1 to 1,048,576")),
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, LoadError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let number = value.as_f64().filter(|number| number.is_finite());
        let wrong = || self.error(key, "must be a number");
        number.map(Some).ok_or_else(wrong)
    }

    pub(super) fn required_number(&self, key: &str) -> Result<f64, LoadError> {
        self.number(key)?
            .ok_or_else(|| self.error(key, "is missing"))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, LoadError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let wrong = || self.error(key, "must be a string");
        value.as_str().map(Some).ok_or_else(wrong)
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, LoadError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let wrong = || self.error(key, "must be true or false");
        value.as_bool().map(Some).ok_or_else(wrong)
    }

    /// A list of exactly `count` numbers.
    pub(super) fn numbers(&self, key: &str, count: usize) -> Result<Vec<f32>, LoadError> {
        let values = self.get(key).and_then(Value::as_array);
        let values = values.map(|values| values.iter().filter_map(Value::as_f64));
        let values: Vec<f32> = values.into_iter().flatten().map(|x| x as f32).collect();
        if values.len() != count || values.iter().any(|value| !value.is_normal()) {
            return Err(self.error(
                key,
                &format!("must be a list of {count} numbers, none zero"),
            ));
        }
        Ok(values)
    }
}
