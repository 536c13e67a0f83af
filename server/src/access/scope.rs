//! What a key allows.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// One thing that a key may be for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Running models, and looking at what can be run.
    Inference,
    /// Everything: adapters, data sets and evaluations, and what the other scopes allow.
    Admin,
    /// Reading `/metrics`.
    Metrics,
}

/// What one key is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scopes(Vec<Scope>);

impl Scope {
    /// Its name in files, flags and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl Scopes {
    /// In one order, each once.
    pub fn new(mut scopes: Vec<Scope>) -> Self {
        scopes.sort_unstable();
        scopes.dedup();
        Self(scopes)
    }

    /// Whether a key with these may be used where `needed` is asked for.
    pub fn allow(&self, needed: Scope) -> bool {
        self.0.contains(&needed) || self.0.contains(&Scope::Admin)
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.iter().map(|scope| format!("`{scope}`")).collect();
        formatter.write_str(&names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_key_opens_everything_and_the_others_their_own() {
        let all = [Scope::Inference, Scope::Admin, Scope::Metrics];
        let opened = |scope| {
            let scopes = Scopes::new(vec![scope]);
            all.map(|needed| scopes.allow(needed))
        };
        assert_eq!(opened(Scope::Inference), [true, false, false]);
        assert_eq!(opened(Scope::Admin), [true, true, true]);
        assert_eq!(opened(Scope::Metrics), [false, false, true]);
    }

    #[test]
    fn scopes_are_listed_once_in_one_order() {
        let scopes = Scopes::new(vec![Scope::Metrics, Scope::Inference, Scope::Metrics]);
        assert_eq!(scopes.to_string(), "`inference`, `metrics`");
    }
}
