//! The server's TLS certificate, which can be reloaded while the server runs.

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

/// The only protocol that the server offers in ALPN (RFC 7301).
const HTTP_1_1: &[u8] = b"http/1.1";

/// Why TLS cannot be used with the configured certificate and key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TlsError {
    #[error("{setting}: cannot read {}: {source}", path.display())]
    Read {
        setting: &'static str,
        path: PathBuf,
        source: pem::Error,
    },
    #[error(
        "{CERTIFICATE_SETTING} {}: expected a PEM certificate chain, leaf first, but found no certificate",
        path.display()
    )]
    NoCertificate { path: PathBuf },
    #[error(
        "cannot use {CERTIFICATE_SETTING} {} with {KEY_SETTING} {}: {source}",
        certificate.display(),
        key.display()
    )]
    Unusable {
        certificate: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

const CERTIFICATE_SETTING: &str = "--tls-cert-file";
const KEY_SETTING: &str = "--tls-key-file";

/// A certificate and its private key, which were read from PEM files. Clones are cheap and share
/// the certificate.
#[derive(Clone)]
pub(crate) struct Certificate {
    files: Arc<CertificateFiles>,
    current: Arc<CurrentCertificate>,
}

struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
}

struct CurrentCertificate(RwLock<Arc<CertifiedKey>>);

impl Certificate {
    /// Reads the certificate chain from one file and the private key from another. The chain must
    /// begin with the leaf. Blocks.
    pub(crate) fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let files = CertificateFiles {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        };
        let current = CurrentCertificate(RwLock::new(files.read()?));
        Ok(Self {
            files: Arc::new(files),
            current: Arc::new(current),
        })
    }

    /// Reads the certificate and the key again, and uses them for new connections. If the files
    /// cannot be used, the old certificate stays in use. Blocks.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        let new = self.files.read()?;
        let current = &self.current.0;
        *current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// Returns an acceptor, which performs the TLS handshakes of a listener. Each handshake uses
    /// the certificate that is current at that time.
    pub(crate) fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let current = Arc::clone(&self.current);
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_cert_resolver(current);
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        // With a session ticket, a returning client does not need a full handshake.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl CertificateFiles {
    fn read(&self) -> Result<Arc<CertifiedKey>, TlsError> {
        let cannot_read = |setting: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::Read {
                setting,
                path,
                source,
            }
        };
        let chain = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(cannot_read(CERTIFICATE_SETTING, &self.certificate))?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate {
                path: self.certificate.clone(),
            });
        }
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(cannot_read(KEY_SETTING, &self.key))?;
        // `from_der` also checks that the private key belongs to the certificate.
        let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
        let certified = certified.map_err(|source| TlsError::Unusable {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        })?;
        Ok(Arc::new(certified))
    }
}

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&current))
    }
}

/// [`ResolvesServerCert`] requires this trait. The debug output does not contain the key.
impl fmt::Debug for CurrentCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CurrentCertificate")
    }
}
