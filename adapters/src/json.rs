//! JSON whose objects keep the order of the text and refuse a key that comes twice.
//!
//! PEFT takes the first `rank_pattern` entry that matches, so order is meaning there, and a key
//! that comes twice means different things to different parsers.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Number;

use crate::AdapterError;

/// Longest rendering of a value in an error message, in characters.
const SHOWN: usize = 80;

/// Any JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Parses a whole file; nesting beyond 128 levels is refused.
    pub(crate) fn parse(file: &'static str, bytes: &[u8]) -> Result<Self, AdapterError> {
        serde_json::from_slice(bytes).map_err(|error| AdapterError::InvalidJson {
            file,
            reason: error.to_string(),
        })
    }

    /// The text without white space, objects in their own order.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("JSON values always have a text")
    }

    /// Whether the value turns nothing on: null, false, or an empty string, list or object. Zero is
    /// not among them, it may be the number of a layer.
    pub(crate) fn is_inactive(&self) -> bool {
        match self {
            Json::Null => true,
            Json::Bool(value) => !value,
            Json::Number(_) => false,
            Json::String(text) => text.is_empty(),
            Json::Array(items) => items.is_empty(),
            Json::Object(members) => members.is_empty(),
        }
    }

    /// The value as an error message shows it, shortened.
    pub(crate) fn shown(&self) -> String {
        shorten(&String::from_utf8_lossy(&self.to_bytes()))
    }
}

/// The first characters of `text`, with an ellipsis when there are more.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Null => serializer.serialize_unit(),
            Json::Bool(value) => serializer.serialize_bool(*value),
            Json::Number(number) => number.serialize(serializer),
            Json::String(text) => serializer.serialize_str(text),
            Json::Array(items) => serializer.collect_seq(items),
            Json::Object(members) => {
                serializer.collect_map(members.iter().map(|(key, value)| (key, value)))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Json, E> {
        Number::from_f64(value)
            .map(Json::Number)
            .ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        let mut seen = HashSet::new();
        while let Some((key, value)) = map.next_entry::<String, Json>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format_args!(
                    "the key {:?} comes twice",
                    shorten(&key)
                )));
            }
            members.push((key, value));
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_and_white_space_is_not() {
        let json = Json::parse(
            "x",
            br#" { "b" : [1, 2.5, -3], "a": {"z": null, "y": "\u00e9"} } "#,
        )
        .expect("valid");
        assert_eq!(
            String::from_utf8(json.to_bytes()).expect("text"),
            r#"{"b":[1,2.5,-3],"a":{"z":null,"y":"é"}}"#
        );
    }

    #[test]
    fn a_repeated_key_is_refused() {
        let error = Json::parse("x.json", br#"{"r": 8, "r": 64}"#).unwrap_err();
        assert!(error.to_string().contains("the key \"r\" comes twice"));
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_crash() {
        let text = "[".repeat(100_000);
        assert!(Json::parse("x.json", text.as_bytes()).is_err());
    }

    #[test]
    fn zero_is_active_and_empty_is_not() {
        let inactive = |text: &str| {
            Json::parse("x", text.as_bytes())
                .expect("valid")
                .is_inactive()
        };
        assert!(
            ["null", "false", "[]", "{}", "\"\""]
                .into_iter()
                .all(inactive)
        );
        assert!(
            !["0", "true", "[0]", "{\"a\":null}", "\"x\""]
                .into_iter()
                .any(inactive)
        );
    }

    #[test]
    fn long_values_are_shortened_at_a_character() {
        let shown = Json::String("é".repeat(200)).shown();
        assert_eq!(shown, format!("\"{}…", "é".repeat(79)));
    }
}
