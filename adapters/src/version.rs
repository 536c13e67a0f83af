//! The content version of an adapter: a SHA-256, and prefixes of it as users type them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::AdapterError;

/// Hex digits of a whole version.
const DIGITS: usize = 64;

/// Hex digits that a prefix needs at least.
const PREFIX_DIGITS: usize = 8;

/// The SHA-256 of an adapter's canonical content as 64 lower-case hex digits.
///
/// Same content, same version; [`crate::AdapterFiles::version`] says what the content is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(String);

impl Version {
    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `prefix` names this version: at least eight hex digits that the version begins with.
    pub fn matches_prefix(&self, prefix: &str) -> bool {
        prefix.len() >= PREFIX_DIGITS && self.0.starts_with(prefix)
    }

    pub(crate) fn from_digest(digest: &[u8]) -> Self {
        use fmt::Write as _;
        let mut digits = String::with_capacity(DIGITS);
        for byte in digest {
            write!(digits, "{byte:02x}").expect("writing to a String cannot fail");
        }
        Self(digits)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for Version {
    type Err = AdapterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == DIGITS && text.bytes().all(is_digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(AdapterError::InvalidVersion {
                text: text.chars().take(2 * DIGITS).collect(),
            })
        }
    }
}

impl TryFrom<String> for Version {
    type Error = AdapterError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn parses_only_64_lower_case_hex_digits() {
        let version: Version = TEXT.parse().expect("64 digits");
        assert_eq!(version.to_string(), TEXT);
        for wrong in [&TEXT[1..], "", &TEXT.to_uppercase(), &format!("{TEXT}0")] {
            assert_eq!(
                wrong.parse::<Version>().unwrap_err().code(),
                "invalid_version"
            );
        }
        let quoted = format!("\"{TEXT}\"");
        assert_eq!(
            serde_json::from_str::<Version>(&quoted).expect("transparent"),
            version
        );
        assert_eq!(
            serde_json::to_string(&version).expect("transparent"),
            quoted
        );
        assert!(serde_json::from_str::<Version>("\"../../etc\"").is_err());
    }

    #[test]
    fn a_prefix_needs_eight_digits() {
        let version: Version = TEXT.parse().expect("64 digits");
        assert!(version.matches_prefix("00112233"));
        assert!(version.matches_prefix(TEXT));
        assert!(!version.matches_prefix("0011223"));
        assert!(!version.matches_prefix("00112234"));
        assert!(!version.matches_prefix(""));
    }

    #[test]
    fn digests_become_padded_hex() {
        let version = Version::from_digest(&[0x0a; 32]);
        assert_eq!(version.as_str(), "0a".repeat(32));
    }
}
