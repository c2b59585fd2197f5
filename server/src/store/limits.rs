//! The document limits that are configured in the settings of the server.

use prefd_engine::Limits;

use crate::settings::Settings;

/// Returns the configured limits.
pub(crate) fn limits(settings: &Settings) -> Limits {
    let default = Limits::default();
    let mut limits = Limits::new(
        settings.max_keys.unwrap_or(default.max_keys),
        settings.max_key_bytes.unwrap_or(default.max_key_bytes),
        settings.max_value_bytes.unwrap_or(default.max_value_bytes),
    );
    limits.max_body_bytes = settings.max_body_bytes.unwrap_or(limits.max_body_bytes);
    limits
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
            limits(&settings).max_body_bytes,
            2 * (10 + 32) + 1024 * 1024
        );
        settings.max_body_bytes = Some(7);
        assert_eq!(limits(&settings).max_body_bytes, 7);
    }
}
