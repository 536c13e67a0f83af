//! `manifest.json`: what PEFT's own files do not say about an adapter, such as its task.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AdapterError, DomainProfile};

/// The only schema this version reads and writes.
const SCHEMA: u32 = 1;

/// How an adapter was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Fine-tuned on plain examples.
    Ft,
    /// Fine-tuned with demonstrations in front of every example.
    Fticl,
    /// Made elsewhere, in a way this project does not know.
    #[default]
    External,
}

impl Method {
    /// The text used in files and over HTTP.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Ft => "ft",
            Method::Fticl => "fticl",
            Method::External => "external",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// The content of `manifest.json`. The default describes an adapter that came without one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// Version of this layout, 1.
    pub schema: u32,
    /// The task it was trained on, by id.
    pub task: Option<String>,
    /// How it was made.
    pub method: Method,
    /// Name of the base model, empty when unknown.
    pub base_model: String,
    /// SHA-256 of the base model's file; an adapter that names one serves over that base only.
    pub base_digest: Option<String>,
    /// The labels it answers with, for a classification task.
    pub labels: Vec<String>,
    /// The prompt it was trained with, by number.
    pub prompt: usize,
    /// Demonstrations in front of every training example.
    pub shots: usize,
    /// The data set it was trained on, by id.
    pub trained_on: Option<String>,
    /// Number of training examples.
    pub train_examples: Option<usize>,
    /// When it was made, RFC 3339.
    pub created: Option<String>,
    /// What its training inputs look like to the model that carries it.
    // Absent rather than null, so that a manifest from before there were profiles keeps its digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainProfile>,
    /// Hyperparameters and results of the training, in whatever form the trainer chose.
    pub training: serde_json::Value,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            task: None,
            method: Method::External,
            base_model: String::new(),
            base_digest: None,
            labels: Vec::new(),
            prompt: 0,
            shots: 0,
            trained_on: None,
            train_examples: None,
            created: None,
            domain: None,
            training: serde_json::Value::Null,
        }
    }
}

impl Manifest {
    /// Reads the bytes of a `manifest.json`. Fields it does not know are ignored.
    ///
    /// # Errors
    /// [`AdapterError::InvalidManifest`] on anything but a JSON object of schema 1 whose known
    /// fields have the right types.
    pub fn parse(bytes: &[u8]) -> Result<Self, AdapterError> {
        let invalid = |reason: String| AdapterError::InvalidManifest { reason };
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        if manifest.schema != SCHEMA {
            return Err(invalid(format!(
                "schema is {}, this version reads schema {SCHEMA}",
                manifest.schema
            )));
        }
        if let Some(created) = &manifest.created
            && let Err(error) = created.parse::<jiff::Timestamp>()
        {
            return Err(invalid(format!(
                "created must be an RFC 3339 time such as 2026-01-31T12:00:00Z: {error}"
            )));
        }
        if let Some(domain) = &manifest.domain {
            let checked = domain.check();
            checked.map_err(|reason| invalid(format!("domain: {reason}")))?;
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_absent_manifest_and_an_empty_one_mean_external() {
        let manifest = Manifest::parse(b"{}").expect("all fields have defaults");
        assert_eq!(manifest, Manifest::default());
        assert_eq!(manifest.method.to_string(), "external");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let manifest = Manifest {
            task: Some("sentiment".to_owned()),
            method: Method::Fticl,
            labels: vec!["positive".to_owned(), "negative".to_owned()],
            shots: 2,
            created: Some("2026-01-31T12:00:00Z".to_owned()),
            training: serde_json::json!({"lr": 0.001}),
            ..Manifest::default()
        };
        let bytes = serde_json::to_vec(&manifest).expect("plain data");
        assert_eq!(Manifest::parse(&bytes).expect("own output"), manifest);
    }

    #[test]
    fn a_domain_profile_is_read_back_and_an_absent_one_is_not_written() {
        let profile = DomainProfile {
            examples: 3,
            mean: vec![0.1, -1.75e-7],
            deviation: vec![1.5, 0.3],
            distances: vec![0.7, 0.9],
        };
        let mut manifest = Manifest {
            domain: Some(profile),
            ..Manifest::default()
        };
        let bytes = serde_json::to_vec(&manifest).expect("plain data");
        assert_eq!(Manifest::parse(&bytes).expect("own output"), manifest);
        manifest.domain = None;
        let text = serde_json::to_string(&manifest).expect("plain data");
        assert!(!text.contains("domain"), "{text}");
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        let refuse = |text: &str| {
            Manifest::parse(text.as_bytes())
                .expect_err("must be refused")
                .to_string()
        };
        insta::assert_snapshot!(refuse(r#"{"schema":2}"#), @"manifest.json: schema is 2, this version reads schema 1");
        assert!(refuse(r#"{"method":"dpo"}"#).contains("unknown variant `dpo`"));
        assert!(refuse(r#"{"created":"yesterday"}"#).contains("RFC 3339"));
        assert!(refuse(r#"{"shots":-1}"#).contains("-1"));
        insta::assert_snapshot!(
            refuse(r#"{"domain":{"examples":2,"mean":[1],"deviation":[0],"distances":[1,2]}}"#),
            @"manifest.json: domain: deviation holds 0 at index 0, expected a finite number above 0"
        );
        assert!(refuse(r#"{"domain":{"mean":[1]}}"#).contains("missing field"));
        assert!(refuse("[").contains("manifest.json"));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::parse(&bytes);
        }
    }
}
