//! The sources that settings come from. Flags win over the environment, the environment
//! over the configuration file, and the file over the defaults.
//!
//! The sources are merged as values, so that no second list of the fields exists.

use std::path::{Path, PathBuf};

use crate::settings::serve::Settings;

/// What `serve` was told: the flags and the environment, which stay, and a file, which can
/// be read again.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub(crate) flags: Settings,
    pub(crate) file: Option<PathBuf>,
}

impl Given {
    pub(crate) fn settings(&self) -> Result<Settings, SettingsError> {
        self.flags.clone().over_file(self.file.as_deref())
    }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SettingsError {
    #[error("cannot read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: {source}", path.display())]
    File {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("cannot lay the settings over each other: {0}")]
    Overlay(#[from] serde_json::Error),
}

impl Settings {
    /// These settings, and where they say nothing, those of the file.
    fn over_file(self, path: Option<&Path>) -> Result<Self, SettingsError> {
        let Some(path) = path else {
            return Ok(self);
        };
        let text = std::fs::read_to_string(path).map_err(|source| SettingsError::Read {
            path: path.to_owned(),
            source,
        })?;
        let file: Self = toml::from_str(&text).map_err(|source| SettingsError::File {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        Ok(self.over(&file)?)
    }

    fn over(self, below: &Self) -> Result<Self, serde_json::Error> {
        let mut merged = serde_json::to_value(below)?;
        let above = serde_json::to_value(self)?;
        if let (Some(merged), serde_json::Value::Object(above)) = (merged.as_object_mut(), above) {
            merged.extend(above.into_iter().filter(|(_, value)| !value.is_null()));
        }
        serde_json::from_value(merged)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::settings::span::Span;

    #[test]
    fn what_is_given_above_wins_and_the_rest_shows_through() {
        let below = Settings {
            max_keys: Some(5),
            realm: Some("below".to_owned()),
            api_version: Some(vec!["1".to_owned(), "2".to_owned()]),
            ..Settings::default()
        };
        let above = Settings {
            realm: Some("above".to_owned()),
            head_timeout: Some(Span(Duration::from_millis(1_500))),
            ..Settings::default()
        };
        let merged = above.over(&below).unwrap();
        assert_eq!(merged.max_keys, Some(5));
        assert_eq!(merged.realm.as_deref(), Some("above"));
        assert_eq!(merged.api_version.map(|v| v.len()), Some(2));
        assert_eq!(
            merged.head_timeout,
            Some(Span(Duration::from_millis(1_500)))
        );
    }

    #[test]
    fn the_file_has_the_flags_names_and_no_others() {
        let file: Settings = toml::from_str(
            "data-dir = \"d\"\nlisten = \"127.0.0.1:0\"\nbody-timeout = \"2s\"\njwt-public-key-file = [\"a\", \"b\"]\ndev = true",
        )
        .unwrap();
        assert_eq!(file.dev, Some(true));
        assert_eq!(file.body_timeout, Some(Span(Duration::from_secs(2))));
        assert_eq!(file.jwt_public_key_file.map(|files| files.len()), Some(2));
        assert!(toml::from_str::<Settings>("data_dir = \"d\"").is_err());
        assert!(toml::from_str::<Settings>("max-keys = \"5\"").is_err());
        assert!(toml::from_str::<Settings>("body-timeout = \"2\"").is_err());
    }
}
