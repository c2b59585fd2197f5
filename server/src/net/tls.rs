//! The certificate that the server shows, read again when it is told to.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

/// The one protocol that is spoken (RFC 7301).
const HTTP_1_1: &[u8] = b"http/1.1";

/// Why a certificate cannot be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TlsError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: pem::Error },
    #[error("{}: no certificate in it", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{} and {}: {source}", certificate.display(), key.display())]
    Unfit {
        certificate: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
    #[error("cannot prepare for TLS: {0}")]
    Prepare(#[from] rustls::Error),
}

/// A certificate and its key, in PEM files. A cheap handle.
#[derive(Clone)]
pub(crate) struct Certificate {
    files: Arc<Files>,
    shown: Arc<Shown>,
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

struct Shown(RwLock<Arc<CertifiedKey>>);

impl Certificate {
    /// Of a file with a chain, the server's own certificate first, and one with its key.
    pub(crate) fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let files = Files {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        };
        let shown = Shown(RwLock::new(files.read()?));
        Ok(Self {
            files: Arc::new(files),
            shown: Arc::new(shown),
        })
    }

    /// Shows what the files hold now; where they cannot be used, what was shown before.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        let read = self.files.read()?;
        let mut shown = self.shown.0.write().unwrap_or_else(PoisonError::into_inner);
        *shown = read;
        Ok(())
    }

    /// What makes a connection one of TLS.
    pub(crate) fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let shown = Arc::clone(&self.shown);
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_cert_resolver(shown);
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        // A client that comes again needs no new handshake.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl Files {
    fn read(&self) -> Result<Arc<CertifiedKey>, TlsError> {
        let cannot_read = |path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::Read { path, source }
        };
        let chain = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(cannot_read(&self.certificate))?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate {
                path: self.certificate.clone(),
            });
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(cannot_read(&self.key))?;
        // Checks that they belong together.
        let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
        let certified = certified.map_err(|source| TlsError::Unfit {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        })?;
        Ok(Arc::new(certified))
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&shown))
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}
