//! The one byte string that an adapter's version is the hash of.

use sha2::{Digest as _, Sha256};

use crate::files::{CONFIG_FILE, MANIFEST_FILE, WEIGHTS_FILE};
use crate::json::Json;
use crate::{AdapterError, AdapterFiles, Version};

/// First bytes of what is hashed; another layout would get another line.
const LAYOUT: &[u8] = b"adapter content 1\n";

/// Fields of the configuration in which order is meaning.
const ORDERED_FIELDS: [&str; 2] = ["rank_pattern", "alpha_pattern"];

/// See [`AdapterFiles::version`] for the form.
pub(crate) fn version(files: &AdapterFiles) -> Result<Version, AdapterError> {
    let mut hash = ContentHash::begin(&files.config, files.weights.len() as u64)?;
    hash.weights(&files.weights);
    hash.finish(files.manifest.as_deref())
}

/// The hash over an adapter's content, whose weights are added piece by piece.
pub(crate) struct ContentHash(Sha256);

impl ContentHash {
    /// Takes the configuration, and how many bytes of weights will follow.
    pub(crate) fn begin(config: &[u8], weights_bytes: u64) -> Result<Self, AdapterError> {
        let config = sorted_config(Json::parse(CONFIG_FILE, config)?).to_bytes();
        let mut hash = Sha256::new();
        hash.update(LAYOUT);
        add(&mut hash, CONFIG_FILE, &config);
        add_part(&mut hash, WEIGHTS_FILE.as_bytes());
        hash.update(weights_bytes.to_le_bytes());
        Ok(Self(hash))
    }

    pub(crate) fn weights(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(mut self, manifest: Option<&[u8]>) -> Result<Version, AdapterError> {
        if let Some(manifest) = manifest {
            let manifest = sorted(Json::parse(MANIFEST_FILE, manifest)?).to_bytes();
            add(&mut self.0, MANIFEST_FILE, &manifest);
        }
        Ok(Version::from_digest(&self.0.finalize()))
    }
}

fn add(hash: &mut Sha256, name: &str, content: &[u8]) {
    add_part(hash, name.as_bytes());
    add_part(hash, content);
}

fn add_part(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_le_bytes());
    hash.update(part);
}

fn sorted_config(config: Json) -> Json {
    let Json::Object(mut members) = config else {
        return sorted(config);
    };
    for (key, value) in &mut members {
        if !ORDERED_FIELDS.contains(&key.as_str()) {
            *value = sorted(std::mem::replace(value, Json::Null));
        }
    }
    members.sort_by(|left, right| left.0.cmp(&right.0));
    Json::Object(members)
}

fn sorted(value: Json) -> Json {
    match value {
        Json::Array(items) => Json::Array(items.into_iter().map(sorted).collect()),
        Json::Object(members) => {
            let mut members: Vec<_> = members
                .into_iter()
                .map(|(key, value)| (key, sorted(value)))
                .collect();
            members.sort_by(|left, right| left.0.cmp(&right.0));
            Json::Object(members)
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version_of(config: &str, weights: &[u8], manifest: Option<&str>) -> String {
        AdapterFiles {
            config: config.as_bytes().to_vec(),
            weights: weights.to_vec(),
            manifest: manifest.map(|text| text.as_bytes().to_vec()),
        }
        .version()
        .expect("valid JSON")
        .to_string()
    }

    #[test]
    fn the_hashed_bytes_are_the_documented_ones() {
        let mut bytes = b"adapter content 1\n".to_vec();
        for part in [
            "adapter_config.json",
            r#"{"a":{"c":3,"d":2},"r":1}"#,
            "adapter_model.safetensors",
            "xyz",
            "manifest.json",
            "{}",
        ] {
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend(part.as_bytes());
        }
        let expected = Version::from_digest(&Sha256::digest(&bytes)).to_string();
        let config = r#"{ "r": 1, "a": {"d": 2, "c": 3} }"#;
        assert_eq!(version_of(config, b"xyz", Some(" {}\n")), expected);
    }

    #[test]
    fn formatting_does_not_count_and_content_does() {
        let plain = version_of(r#"{"r":8,"use_dora":false}"#, b"w", None);
        assert_eq!(
            version_of("{\"use_dora\": false,\n \"r\": 8}", b"w", None),
            plain
        );
        assert_ne!(version_of(r#"{"r":9,"use_dora":false}"#, b"w", None), plain);
        assert_ne!(version_of(r#"{"r":8,"use_dora":false}"#, b"v", None), plain);
        assert_ne!(
            version_of(r#"{"r":8,"use_dora":false}"#, b"w", Some("{}")),
            plain
        );
    }

    #[test]
    fn the_order_of_patterns_counts() {
        let first = version_of(r#"{"rank_pattern":{"q_proj":2,"0.q_proj":4}}"#, b"w", None);
        let second = version_of(r#"{"rank_pattern":{"0.q_proj":4,"q_proj":2}}"#, b"w", None);
        assert_ne!(first, second);
    }
}
