//! Regular expressions of adapter_config.json, matched against module paths as PEFT matches them.
//!
//! The expressions run in linear time. Python's look-around and back-references are refused when
//! the configuration is parsed.

use regex::{Regex, RegexBuilder};

use crate::AdapterError;
use crate::json::shorten;

/// Longest expression, in bytes.
const MAX_BYTES: usize = 4096;
/// Largest compiled expression, in bytes.
const MAX_COMPILED: usize = 1 << 18;

/// A compiled expression with its source text.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    source: String,
    regex: Regex,
}

impl Pattern {
    /// An expression that must match the whole path, as `target_modules` and `exclude_modules` do
    /// when they are a string (`re.fullmatch`).
    pub(crate) fn whole(field: &'static str, source: &str) -> Result<Self, AdapterError> {
        Self::compile(field, source, &format!(r"\A(?:{source})\z"))
    }

    /// An expression that must match the path or what follows one of its dots, as the keys of
    /// `rank_pattern` and `alpha_pattern` do (`re.match(r"(.*\.)?(KEY)$")`).
    pub(crate) fn suffix(field: &'static str, source: &str) -> Result<Self, AdapterError> {
        Self::compile(field, source, &format!(r"\A(?:.*\.)?(?:{source})\z"))
    }

    /// The modules of this name: letters, digits and underscores, which mean themselves.
    pub(crate) fn name(name: &'static str) -> Self {
        Self::suffix("rank_pattern", name).expect("a module's name is a valid expression")
    }

    fn compile(field: &'static str, source: &str, anchored: &str) -> Result<Self, AdapterError> {
        let invalid = |reason: String| AdapterError::InvalidPattern {
            field,
            pattern: shorten(source),
            reason,
        };
        if source.len() > MAX_BYTES {
            return Err(invalid(format!(
                "it has {} bytes, the limit is {MAX_BYTES}",
                source.len()
            )));
        }
        let build = |text: &str| {
            RegexBuilder::new(text)
                .size_limit(MAX_COMPILED)
                .build()
                .map_err(|error| invalid(last_line(&error.to_string())))
        };
        // Alone first: an unbalanced `a)|(b` would become valid between the anchors' parentheses.
        build(source)?;
        Ok(Self {
            source: source.to_owned(),
            regex: build(anchored)?,
        })
    }

    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    pub(crate) fn matches(&self, path: &str) -> bool {
        self.regex.is_match(path)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// The regex crate draws a picture of the mistake and ends with a line that names it.
fn last_line(message: &str) -> String {
    shorten(message.lines().last().unwrap_or(message).trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "model.layers.1.self_attn.q_proj";

    #[test]
    fn a_suffix_begins_after_a_dot() {
        let matches = |source: &str| {
            Pattern::suffix("rank_pattern", source)
                .expect("valid")
                .matches(PATH)
        };
        assert!(matches("q_proj"));
        assert!(matches("self_attn.q_proj"));
        assert!(matches(PATH));
        assert!(matches(r"layers\.[01]\..*_proj"));
        assert!(matches("k_proj|q_proj"));
        assert!(!matches("proj"));
        assert!(!matches("q_pro"));
        assert!(!matches("2.self_attn.q_proj"));
    }

    #[test]
    fn a_whole_pattern_matches_end_to_end() {
        let matches = |source: &str| {
            Pattern::whole("target_modules", source)
                .expect("valid")
                .matches(PATH)
        };
        assert!(matches(r".*\.(q|v)_proj"));
        assert!(!matches("q_proj"));
        assert!(!matches(r"model.*self_attn"));
    }

    #[test]
    fn unusable_patterns_are_refused_with_the_reason() {
        let refuse = |source: &str| {
            Pattern::suffix("rank_pattern", source)
                .expect_err("must be refused")
                .to_string()
        };
        insta::assert_snapshot!(refuse("(?!x)q"), @r#"adapter_config.json: rank_pattern: the pattern "(?!x)q" cannot be used: error: look-around, including look-ahead and look-behind, is not supported"#);
        assert!(refuse("a)|(b").contains("unopened group"));
        assert!(refuse(r"(\w{500}){500}").contains("size limit"));
        assert!(refuse(&"x".repeat(5000)).contains("5000 bytes"));
    }
}
