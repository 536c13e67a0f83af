//! The log: lines of text or of JSON on standard error, each of a request's with its id.

use std::io::stderr;

use anyhow::{Context, Result};
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use crate::configuration::Configuration;

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object a line, for programs: timestamp, level, target, fields, and the spans that it stands in, the request's id among them.
    Json,
}

/// What the HTTP library calls an error is a client that does not speak HTTP, which any scanner is; the log of a server is for its own.
const CLIENTS_FAULTS: &str = "actix_http=off";

/// Starts the log as it was asked for.
///
/// # Errors
/// When `--log-level` is no filter.
pub fn start(configuration: &Configuration) -> Result<()> {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter(&configuration.log_level)?)
        .with_writer(stderr);
    match configuration.log_format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}

fn filter(wanted: &str) -> Result<EnvFilter> {
    let filter = EnvFilter::try_new(wanted)
        .with_context(|| format!("--log-level {wanted:?} is no filter"))?;
    match wanted.contains("actix_http") {
        true => Ok(filter),
        false => Ok(filter.add_directive(CLIENTS_FAULTS.parse()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_do_wrong_is_not_logged_unless_asked_for() {
        assert!(
            filter("info")
                .expect("a filter")
                .to_string()
                .contains(CLIENTS_FAULTS)
        );
        let asked = filter("info,actix_http=error")
            .expect("a filter")
            .to_string();
        assert!(!asked.contains(CLIENTS_FAULTS), "{asked}");
        assert!(filter("server=loud").is_err());
    }
}
