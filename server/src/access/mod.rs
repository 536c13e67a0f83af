//! Who may do what: keys with scopes and limits, the file that they stand in, and the commands that change it.
//!
//! Which scope a route needs is said by the extractor that its handler lists (`authorization`); what is written about an admin
//! action is in `audit`, the certificate in `tls`.

pub mod commands;
pub mod key_file;
pub mod keyring;
pub mod limits;
pub mod scope;
pub mod secret;

use std::sync::Arc;

use anyhow::{Context, Result, ensure};

pub use key_file::{KeyFile, KeyFileError, KeyLimits, NewKey, StoredKey};
pub use keyring::{Key, Keyring};
pub use limits::{Admission, Limit};
pub use scope::{Scope, Scopes};
pub use secret::{Digest, Secret};

use crate::audit::AuditLog;
use crate::configuration::Configuration;
use crate::tls::Certificate;

/// What decides who is let in, and what is kept of who did what; all of it is read again on SIGHUP.
pub struct Access {
    /// The keys.
    pub keyring: Keyring,
    /// The certificate, when connections are encrypted.
    pub certificate: Option<Arc<Certificate>>,
    /// Admin actions.
    pub audit: AuditLog,
}

impl Access {
    /// Opens what the configuration says, and takes the keys out of it: from here on there are only their digests.
    ///
    /// # Errors
    /// When a file cannot be read, TLS is half configured, or anybody could reach a server that needs no key.
    pub fn open(configuration: &mut Configuration) -> Result<Self> {
        let keys = configuration.keys.clone();
        let keyring = Keyring::open(
            &std::mem::take(&mut configuration.api_key),
            &std::mem::take(&mut configuration.admin_key),
            keys.as_deref(),
        );
        let keyring = keyring.with_context(|| match keys {
            Some(file) => format!(
                "--keys {} cannot be used; `server keys create` makes such a file",
                file.display()
            ),
            None => "the keys cannot be used".to_owned(),
        })?;
        ensure!(
            configuration.host.is_loopback()
                || keyring.is_required()
                || configuration.allow_anonymous,
            "--host {} is reachable from outside and no key is configured; set --keys, --api-key or --admin-key, or pass --allow-anonymous",
            configuration.host
        );
        let (chain, key) = (&configuration.tls_certificate, &configuration.tls_key);
        let certificate = Certificate::open(chain.as_deref(), key.as_deref())?;
        let access = Self {
            keyring,
            certificate: certificate.map(Arc::new),
            audit: open_audit(configuration.audit_log.is_some(), configuration)?,
        };
        access.warn_of_readers();
        Ok(access)
    }

    /// Opens the audit log where nothing says where it is: in the folder that the store has made by now.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open_usual_audit(&mut self, configuration: &Configuration) -> Result<()> {
        if configuration.audit_log.is_none() {
            fs_err::create_dir_all(configuration.local_directory())?;
            self.audit = open_audit(true, configuration)?;
        }
        Ok(())
    }

    /// Says so in the log when others than its owner may read the file of keys.
    pub fn warn_of_readers(&self) {
        if let Some(file) = self.keyring.file()
            && let Ok(Some(mode)) = KeyFile::is_open_to_others(file)
        {
            tracing::warn!(
                file = %file.display(),
                mode = format!("{mode:o}"),
                "others than its owner can read the file of keys; chmod 600 it"
            );
        }
    }
}

fn open_audit(is_on: bool, configuration: &Configuration) -> Result<AuditLog> {
    let path = configuration.audit_file().filter(|_| is_on);
    AuditLog::open(path).context("--audit-log cannot be written; `--audit-log off` goes without")
}
