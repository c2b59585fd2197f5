//! The document limits that are configured in the settings of the server.

use std::fmt;

use prefd_engine::Limits;

use crate::settings::Settings;

/// The configured limits allow documents with too many or too long keys or values to be stored.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnstorableLimits(Limits);

impl std::error::Error for UnstorableLimits {}

impl fmt::Display for UnstorableLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(limits) = self;
        write!(
            f,
            "the limits allow a document with {} bytes of keys and metadata, but prefd stores \
             at most {}: lower --max-keys ({}), --max-key-bytes ({}), --max-value-bytes ({}) or \
             --max-body-bytes ({})",
            limits.metadata_bytes(),
            Limits::MAX_METADATA_BYTES,
            limits.max_keys,
            limits.max_key_bytes,
            limits.max_value_bytes,
            limits.max_body_bytes,
        )?;
        match limits.highest_max_keys() {
            0 => Ok(()),
            keys => write!(
                f,
                ". With the other limits, --max-keys can be at most {keys}"
            ),
        }
    }
}

/// Returns the configured limits.
///
/// # Errors
/// [`UnstorableLimits`] if a document within the limits could not be stored.
pub(crate) fn limits(settings: &Settings) -> Result<Limits, UnstorableLimits> {
    let default = Limits::default();
    let mut limits = Limits::new(
        settings.max_keys.unwrap_or(default.max_keys),
        settings.max_key_bytes.unwrap_or(default.max_key_bytes),
        settings.max_value_bytes.unwrap_or(default.max_value_bytes),
    );
    limits.max_body_bytes = settings.max_body_bytes.unwrap_or(limits.max_body_bytes);
    match limits.check() {
        Ok(()) => Ok(limits),
        Err(_) => Err(UnstorableLimits(limits)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_limit_is_derived_from_the_other_limits_unless_configured() {
        let mut settings = Settings {
            max_keys: Some(2),
            max_key_bytes: Some(4),
            max_value_bytes: Some(10),
            ..Settings::default()
        };
        assert_eq!(
            limits(&settings).unwrap().max_body_bytes,
            2 * (10 + 32) + 1024 * 1024
        );
        settings.max_body_bytes = Some(7);
        assert_eq!(limits(&settings).unwrap().max_body_bytes, 7);
    }

    #[test]
    fn highest_max_keys_that_the_error_names_is_accepted() {
        let settings = |max_keys| Settings {
            max_keys: Some(max_keys),
            ..Settings::default()
        };
        let error = limits(&settings(28_000)).unwrap_err().to_string();
        let (_, highest) = error.rsplit_once(' ').unwrap();
        let highest = highest.parse().unwrap();
        assert!(limits(&settings(highest)).is_ok(), "{error}");
        assert!(limits(&settings(highest + 1)).is_err(), "{error}");
    }
}
