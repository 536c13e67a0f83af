//! Names of adapters: labels that point at versions, and folder names in the store.

use std::fmt;

use crate::AdapterError;
use crate::json::shorten;

/// Longest name, in characters.
const MAX_LENGTH: usize = 64;

/// Means the base model wherever a model is named.
const BASE: &str = "base";

/// A name that matches `[A-Za-z0-9][A-Za-z0-9._-]{0,63}` and is not reserved. It is safe as the
/// name of a folder: it holds no separator and does not begin with a dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdapterName(String);

impl AdapterName {
    /// Checks `name` against the alphabet and against `reserved`; `base` is always reserved.
    ///
    /// # Errors
    /// [`AdapterError::InvalidName`], [`AdapterError::ReservedName`].
    pub fn parse(name: &str, reserved: &[&str]) -> Result<Self, AdapterError> {
        let starts = |byte: &u8| byte.is_ascii_alphanumeric();
        let continues = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let valid = name.len() <= MAX_LENGTH
            && name.as_bytes().first().is_some_and(starts)
            && name.bytes().all(continues);
        if !valid {
            return Err(AdapterError::InvalidName {
                name: shorten(name),
            });
        }
        if name == BASE || reserved.contains(&name) {
            return Err(AdapterError::ReservedName {
                name: name.to_owned(),
            });
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AdapterName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl AsRef<str> for AdapterName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<AdapterName> for String {
    fn from(name: AdapterName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn valid_names_keep_their_text() {
        for name in ["sentiment-ft", "7", "A.b_c-D..", &"x".repeat(64)] {
            assert_eq!(AdapterName::parse(name, &[]).expect(name).as_str(), name);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let code = |name: &str| {
            AdapterName::parse(name, &["smollm2"])
                .expect_err(name)
                .code()
        };
        for name in [
            "",
            ".",
            "..",
            "-x",
            "a/b",
            "a@b",
            "a:b",
            "é",
            "a\0",
            "a\n",
            &"x".repeat(65),
        ] {
            assert_eq!(code(name), "invalid_name", "{name:?}");
        }
        assert_eq!(code("base"), "reserved_name");
        assert_eq!(code("smollm2"), "reserved_name");
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_a_safe_folder_name(name in "\\PC{0,70}|[A-Za-z0-9._/-]{0,70}") {
            if let Ok(name) = AdapterName::parse(&name, &[]) {
                prop_assert!(name.as_str().len() <= 64);
                prop_assert_eq!(std::path::Path::new(name.as_str()).components().count(), 1);
                prop_assert!(!name.as_str().starts_with('.'));
            }
        }
    }
}
