//! TLS: the certificate that the server shows, which can become another one while it runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// A certificate chain with its key, from two PEM files.
#[derive(Debug)]
pub struct Certificate {
    chain_file: PathBuf,
    key_file: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of two settings.
    #[error(
        "TLS needs both --tls-certificate and --tls-key; only {given} is set, so set the other too or neither"
    )]
    HalfConfigured {
        /// The one that is set.
        given: &'static str,
    },
    /// A file that cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A file that is not PEM.
    #[error("{} cannot be read as PEM: {error}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: pem::Error,
    },
    /// A file without what it is for.
    #[error("{} holds no {what} in PEM", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
    },
    /// A pair that cannot be used.
    #[error("the key of --tls-key {} does not go with the certificate of --tls-certificate {}: {error}", key.display(), chain.display())]
    Mismatch {
        /// The file of the certificate.
        chain: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// Why.
        error: rustls::Error,
    },
    /// TLS itself cannot be set up.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

impl Certificate {
    /// Reads the files of both settings; `None` without either.
    ///
    /// # Errors
    /// `HalfConfigured`, and those of files that cannot be read or do not belong together.
    pub fn open(chain: Option<&Path>, key: Option<&Path>) -> Result<Option<Self>, TlsError> {
        let given = match (chain, key) {
            (None, None) => return Ok(None),
            (Some(chain), Some(key)) => {
                return Ok(Some(Self {
                    current: RwLock::new(Arc::new(read(chain, key)?)),
                    chain_file: chain.to_owned(),
                    key_file: key.to_owned(),
                }));
            }
            (Some(_), None) => "--tls-certificate",
            (None, Some(_)) => "--tls-key",
        };
        Err(TlsError::HalfConfigured { given })
    }

    /// Reads the files again; connections from now on see what is there.
    ///
    /// # Errors
    /// Those of [`Certificate::open`]; the certificate stays the one it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        let read = Arc::new(read(&self.chain_file, &self.key_file)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }

    /// The file of the certificate chain.
    pub fn file(&self) -> &Path {
        &self.chain_file
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&current))
    }
}

/// TLS 1.2 and 1.3 with a certificate, no client certificates.
///
/// # Errors
/// When the library has no protocol version left.
pub fn server_config(certificate: &Arc<Certificate>) -> Result<ServerConfig, TlsError> {
    let certificate: Arc<Certificate> = Arc::clone(certificate);
    Ok(ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn read(chain_file: &Path, key_file: &Path) -> Result<CertifiedKey, TlsError> {
    let in_file = |path: &Path, what, error| match error {
        pem::Error::NoItemsFound => TlsError::Missing {
            path: path.to_owned(),
            what,
        },
        error => TlsError::Pem {
            path: path.to_owned(),
            error,
        },
    };
    let chain = CertificateDer::pem_slice_iter(&fs_err::read(chain_file)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| in_file(chain_file, "certificate", error))?;
    if chain.is_empty() {
        return Err(in_file(chain_file, "certificate", pem::Error::NoItemsFound));
    }
    let key = PrivateKeyDer::from_pem_slice(&fs_err::read(key_file)?)
        .map_err(|error| in_file(key_file, "private key", error))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| TlsError::Mismatch {
        chain: chain_file.to_owned(),
        key: key_file.to_owned(),
        error,
    })
}
