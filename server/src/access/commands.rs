//! `server keys create|list|revoke`: the file of keys from the command line.

use std::fmt::Display;
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::{KeyFile, KeyLimits, NewKey, Scope, Scopes, StoredKey};

/// What to do with the file of keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key, show it once on standard output, and keep its digest
    Create(Create),
    /// List the keys; what they are is not known any more
    List(List),
    /// Remove a key; a running server refuses it after SIGHUP
    Revoke(Revoke),
}

/// A key to make.
#[derive(Debug, Args)]
pub struct Create {
    /// The file of keys, made if it is not there
    #[arg(long = "keys", env = "QUICKCHANGE_KEYS")]
    file: PathBuf,
    /// Whose it is or what it is for
    #[arg(long)]
    name: String,
    /// What it allows; may be given several times
    #[arg(long = "scope", required = true)]
    scopes: Vec<Scope>,
    /// From when on it is refused: 2027-12-31 (midnight UTC) or 2027-12-31T18:00:00Z
    #[arg(long, value_parser = moment)]
    expires: Option<Timestamp>,
    #[command(flatten)]
    limits: LimitFlags,
}

/// Limits of a new key.
#[derive(Debug, Args)]
struct LimitFlags {
    /// Most requests for a model under way at a time
    #[arg(long)]
    max_concurrent: Option<NonZeroU32>,
    /// Most requests for a model in a minute
    #[arg(long)]
    requests_per_minute: Option<NonZeroU32>,
    /// Most tokens in a minute, of prompts and of what may be generated
    #[arg(long)]
    tokens_per_minute: Option<NonZeroU32>,
}

/// Which file to list.
#[derive(Debug, Args)]
pub struct List {
    /// The file of keys
    #[arg(long = "keys", env = "QUICKCHANGE_KEYS")]
    file: PathBuf,
}

/// A key to remove.
#[derive(Debug, Args)]
pub struct Revoke {
    /// The file of keys
    #[arg(long = "keys", env = "QUICKCHANGE_KEYS")]
    file: PathBuf,
    /// Its id, as `server keys list` shows it
    id: String,
}

impl KeysCommand {
    /// Does it.
    ///
    /// # Errors
    /// When the file cannot be read, used or replaced, there is no such key, or nobody reads the output.
    pub fn run(self) -> Result<()> {
        let (mut output, mut remarks) = (io::stdout(), io::stderr());
        match self {
            Self::Create(create) => create.run(&mut output, &mut remarks),
            Self::List(List { file }) => {
                warn_of_readers(&file, &mut remarks)?;
                let keys = KeyFile::read(&file).with_context(|| cannot(&file))?.keys;
                Ok(output.write_all(table(&keys).as_bytes())?)
            }
            Self::Revoke(Revoke { file, id }) => {
                warn_of_readers(&file, &mut remarks)?;
                let gone = KeyFile::revoke(&file, &id).with_context(|| cannot(&file))?;
                writeln!(
                    remarks,
                    "{} ({}) is revoked; a running server refuses it after SIGHUP",
                    gone.id, gone.name
                )?;
                Ok(())
            }
        }
    }
}

impl Create {
    fn run(self, output: &mut impl Write, remarks: &mut impl Write) -> Result<()> {
        let file = self.file;
        warn_of_readers(&file, remarks)?;
        let new = NewKey {
            name: self.name,
            scopes: self.scopes,
            expires: self.expires,
            limits: KeyLimits {
                max_concurrent: self.limits.max_concurrent,
                requests_per_minute: self.limits.requests_per_minute,
                tokens_per_minute: self.limits.tokens_per_minute,
            },
        };
        let (key, stored) = KeyFile::create(&file, new).with_context(|| cannot(&file))?;
        writeln!(output, "{}", key.reveal())?;
        writeln!(
            remarks,
            "{} ({}) is in {}; the key above is shown this once, and a running server knows it after SIGHUP",
            stored.id,
            stored.name,
            file.display()
        )?;
        Ok(())
    }
}

fn cannot(file: &Path) -> String {
    format!("the keys in {} cannot be used", file.display())
}

fn warn_of_readers(file: &Path, remarks: &mut impl Write) -> io::Result<()> {
    // A file that is not there is for whoever reads it to name.
    if let Ok(Some(mode)) = KeyFile::is_open_to_others(file) {
        writeln!(
            remarks,
            "warning: others than its owner can read {} (mode {mode:o}); chmod 600 it",
            file.display()
        )?;
    }
    Ok(())
}

/// A day means its first moment in UTC.
fn moment(text: &str) -> Result<Timestamp, String> {
    let of_day = || {
        let day: Date = text.parse().ok()?;
        Some(day.to_zoned(TimeZone::UTC).ok()?.timestamp())
    };
    let moment = text.parse().ok().or_else(of_day);
    moment.ok_or_else(|| "must be a day, 2027-12-31, or a moment, 2027-12-31T18:00:00Z".to_owned())
}

fn table(keys: &[StoredKey]) -> String {
    let heads = ["ID", "NAME", "SCOPES", "CREATED", "EXPIRES", "LIMITS"];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(keys.iter().map(row));
    let width = |column: usize| {
        let lengths = rows.iter().map(|row| row[column].chars().count());
        lengths.max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths);
        let padded: String = cells
            .map(|(cell, width)| format!("{cell:<width$}  "))
            .collect();
        padded.trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

fn row(key: &StoredKey) -> [String; 6] {
    let expires = match key.expires {
        Some(moment) if moment <= Timestamp::now() => format!("{moment} (expired)"),
        Some(moment) => moment.to_string(),
        None => "never".to_owned(),
    };
    let limits = [
        limit("max_concurrent", key.limits.max_concurrent),
        limit("requests_per_minute", key.limits.requests_per_minute),
        limit("tokens_per_minute", key.limits.tokens_per_minute),
    ];
    let limits: Vec<String> = limits.into_iter().flatten().collect();
    [
        key.id.clone(),
        key.name.clone(),
        Scopes::new(key.scopes.clone()).to_string().replace('`', ""),
        key.created.to_string(),
        expires,
        match limits.is_empty() {
            true => "none".to_owned(),
            false => limits.join(", "),
        },
    ]
}

fn limit(name: &str, value: Option<impl Display>) -> Option<String> {
    value.map(|value| format!("{name} {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_expires_at_a_moment_or_as_a_day_begins() {
        let shown = |text: &str| moment(text).map(|moment| moment.to_string());
        let day = Ok("2027-12-31T00:00:00Z".to_owned());
        assert_eq!(shown("2027-12-31"), day);
        assert_eq!(shown("2027-12-31T01:00:00+01:00"), day);
        assert!(
            shown("tomorrow")
                .expect_err("no day")
                .contains("2027-12-31")
        );
    }

    #[test]
    fn the_list_shows_what_a_key_is_for_and_nothing_of_the_key() {
        let new = NewKey {
            name: "shop".to_owned(),
            scopes: vec![Scope::Inference, Scope::Metrics],
            expires: None,
            limits: KeyLimits {
                max_concurrent: NonZeroU32::new(4),
                ..KeyLimits::default()
            },
        };
        let (secret, mut stored) = StoredKey::generate(new).expect("random bytes");
        stored.id = "key-1".to_owned();
        stored.created = "2026-11-28T00:00:00Z".parse().expect("a moment");
        let shown = table(&[stored]);
        let expected = "ID     NAME  SCOPES              CREATED               EXPIRES  LIMITS\n\
                        key-1  shop  inference, metrics  2026-11-28T00:00:00Z  never    max_concurrent 4\n";
        assert_eq!(shown, expected);
        assert!(!shown.contains(secret.reveal()));
    }
}
