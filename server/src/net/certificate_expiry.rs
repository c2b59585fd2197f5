//! Finds certificates that have expired or expire soon.

use std::time::{Duration, SystemTime};

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};

/// A certificate that expires within this time is reported. Certificates from ACME are usually
/// renewed 30 days before they expire, so a certificate that is reported was not renewed in time.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The end of a certificate's validity period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expiry {
    pub(super) has_expired: bool,
    pub(super) at: SystemTime,
}

/// The first expiry in a chain, if a certificate of the chain has expired or expires soon.
pub(super) fn expiry(chain: &[CertificateDer<'_>]) -> Option<Expiry> {
    let now = UnixTime::now();
    let soon = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + SOON);
    let ends = chain.iter().filter_map(|one| not_after(one, soon));
    let first = ends.min_by_key(UnixTime::as_secs)?;
    Some(Expiry {
        has_expired: first.as_secs() < now.as_secs(),
        at: SystemTime::UNIX_EPOCH + Duration::from_secs(first.as_secs()),
    })
}

/// The end of the validity period of a certificate, if the period has ended at `time`.
///
/// rustls has no function to read the validity period, but it compares the period with a time
/// before it looks for a trust anchor. Without trust anchors, no certificate passes.
fn not_after(certificate: &CertificateDer<'_>, time: UnixTime) -> Option<UnixTime> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let roots = RootCertStore::empty();
    match verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], time, &[]) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(not_after)
        }
        _ => None,
    }
}
