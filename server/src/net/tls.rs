//! The server's TLS certificate, which can be reloaded while the server runs.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use crate::net::certificate_expiry::expiry;
use crate::small_file;

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
        source: io::Error,
    },
    #[error("{setting} {}: not a valid PEM file: {source}", path.display())]
    Pem {
        setting: &'static str,
        path: PathBuf,
        source: pem::Error,
    },
    #[error(
        "{KEY_SETTING} {}: the private key is encrypted, and prefd has no passphrase for it: write an \
         unencrypted key to a file that only prefd can read, for example with \"openssl pkey\"",
        path.display()
    )]
    EncryptedKey { path: PathBuf },
    #[error(
        "{CERTIFICATE_SETTING} {}: expected a PEM certificate chain, leaf first, but found no certificate",
        path.display()
    )]
    NoCertificate { path: PathBuf },
    #[error(
        "cannot use {CERTIFICATE_SETTING} {} with {KEY_SETTING} {}: {source}. The key must be the \
         private key of the first certificate, and must be RSA (2,048 to 8,192 bits), ECDSA (P-256, \
         P-384 or P-521) or Ed25519",
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
        let text = read(CERTIFICATE_SETTING, &self.certificate)?;
        let chain = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(invalid(CERTIFICATE_SETTING, &self.certificate))?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate {
                path: self.certificate.clone(),
            });
        }
        self.warn_about_expiry(&chain);
        let text = read(KEY_SETTING, &self.key)?;
        if is_encrypted(&text) {
            return Err(TlsError::EncryptedKey {
                path: self.key.clone(),
            });
        }
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(invalid(KEY_SETTING, &self.key))?;
        // `from_der` also checks that the private key belongs to the certificate.
        let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
        let certified = certified.map_err(|source| TlsError::Unusable {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        })?;
        Ok(Arc::new(certified))
    }

    /// Logs a warning if a certificate of the chain has expired or expires soon.
    fn warn_about_expiry(&self, chain: &[CertificateDer<'_>]) {
        let Some(expiry) = expiry(chain) else {
            return;
        };
        let file = self.certificate.display();
        let not_after = httpdate::fmt_http_date(expiry.at);
        if expiry.has_expired {
            tracing::warn!(
                setting = CERTIFICATE_SETTING, %file, not_after,
                "TLS certificate has expired, so clients will refuse it: renew it and send SIGHUP"
            );
        } else {
            tracing::warn!(
                setting = CERTIFICATE_SETTING, %file, not_after,
                "TLS certificate expires soon: renew it and send SIGHUP"
            );
        }
    }
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    small_file::read_text(path).map_err(|source| TlsError::Read {
        setting,
        path: path.to_owned(),
        source,
    })
}

fn invalid(setting: &'static str, path: &Path) -> impl FnOnce(pem::Error) -> TlsError {
    let path = path.to_owned();
    move |source| TlsError::Pem {
        setting,
        path,
        source,
    }
}

/// Whether a PEM private key is encrypted: with PKCS #8 (RFC 7468 section 11), or in the older form
/// of RFC 1421.
fn is_encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
        || text.contains("Proc-Type: 4,ENCRYPTED")
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
