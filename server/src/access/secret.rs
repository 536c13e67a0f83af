//! A key as its owner has it, which nothing writes down, and its digest, which is all that a server keeps.

use std::convert::Infallible;
use std::fmt::{self, Write as _};
use std::str::FromStr;

use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// What every key that is made here begins with, so that people and scanners for leaked secrets know one.
pub const PREFIX: &str = "qc_";
/// Random bytes of a key.
const RANDOM_BYTES: usize = 32;

/// A key in the clear. It has no `Display`, and its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// The SHA-256 of a key. One hash is enough: a key has 256 random bits, so there is nothing to guess.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Secret {
    /// A new key: `qc_` and 64 hex digits from the operating system's random source.
    ///
    /// # Errors
    /// When the operating system has no random bytes to give.
    pub fn generate() -> std::io::Result<Self> {
        let mut bytes = [0; RANDOM_BYTES];
        OsRng
            .try_fill_bytes(&mut bytes)
            .map_err(std::io::Error::other)?;
        Ok(Self(format!("{PREFIX}{}", hex(&bytes))))
    }

    /// Whether there is nothing in it, as in a variable that is set to nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a server keeps of it.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }

    /// The key itself, for the one time that it is shown.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

impl Digest {
    /// The digest of a key.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// Reads 64 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 2 * bytes.len() || !text.is_ascii() {
            return None;
        }
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).ok()?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            *byte = u8::from_str_radix(digits, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// As 64 hex digits.
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }

    /// Whether both are of the same key, in a time that does not depend on where they differ.
    pub fn is(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Digest(…)")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_long_random_and_hidden() {
        let one = Secret::generate().expect("random bytes");
        let other = Secret::generate().expect("random bytes");
        assert_eq!(one.reveal().len(), PREFIX.len() + 64);
        assert_ne!(one, other);
        let shown = format!("{one:?} {:?}", one.digest());
        assert_eq!(shown, "Secret(…) Digest(…)");
    }

    #[test]
    fn a_digest_is_the_sha_256_that_other_tools_compute() {
        let digest = Digest::of("abc");
        assert_eq!(
            digest.to_hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let read = Digest::parse(&digest.to_hex()).expect("64 hex digits");
        assert!(bool::from(read.is(&digest)));
        assert!(!bool::from(read.is(&Digest::of("abd"))));
        for wrong in ["", "ba78", &"é".repeat(32), &"+1".repeat(32)] {
            assert!(Digest::parse(wrong).is_none(), "{wrong}");
        }
    }
}
