//! The sources of settings: flags, environment variables, the configuration file and the
//! defaults. A flag overrides the environment, the environment overrides the file, and the
//! file overrides the defaults.
//!
//! The sources are merged as JSON objects, so that the code needs no second list of the fields.

use std::path::{Path, PathBuf};

use crate::settings::serve::Settings;

/// The sources of the settings of one server. The flags and environment variables are fixed when
/// the process starts. The configuration file can be read again while the server runs.
#[derive(Debug, Clone)]
pub(crate) struct SettingsSources {
    /// Settings from flags and environment variables. clap merges these two sources.
    pub(crate) flags: Settings,
    /// Path of the configuration file (`--config`).
    pub(crate) file: Option<PathBuf>,
}

impl SettingsSources {
    /// Reads the configuration file and merges all sources. Blocks on the file.
    pub(crate) fn settings(&self) -> Result<Settings, SettingsError> {
        self.flags.clone().over_file(self.file.as_deref())
    }
}

/// The settings could not be read or merged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SettingsError {
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the configuration file {} is invalid: {source}", path.display())]
    File {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("cannot merge the flags with the configuration file: {0}")]
    Merge(#[from] serde_json::Error),
}

impl Settings {
    /// Returns the settings in `self`, completed with settings from the file at `path`.
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

    /// Returns the settings in `self`, completed with settings from `below`.
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
    use crate::settings::human_duration::HumanDuration;

    #[test]
    fn upper_source_overrides_the_lower_one_per_setting() {
        let below = Settings {
            max_keys: Some(5),
            realm: Some("below".to_owned()),
            api_version: Some(vec!["1".to_owned(), "2".to_owned()]),
            ..Settings::default()
        };
        let above = Settings {
            realm: Some("above".to_owned()),
            head_timeout: Some(HumanDuration(Duration::from_millis(1_500))),
            ..Settings::default()
        };
        let merged = above.over(&below).unwrap();
        assert_eq!(merged.max_keys, Some(5));
        assert_eq!(merged.realm.as_deref(), Some("above"));
        assert_eq!(merged.api_version.map(|v| v.len()), Some(2));
        assert_eq!(
            merged.head_timeout,
            Some(HumanDuration(Duration::from_millis(1_500)))
        );
    }

    #[test]
    fn configuration_file_accepts_only_the_names_of_flags() {
        let file: Settings = toml::from_str(
            "data-dir = \"d\"\nlisten = \"127.0.0.1:0\"\nbody-timeout = \"2s\"\njwt-public-key-file = [\"a\", \"b\"]\ndev = true",
        )
        .unwrap();
        assert_eq!(file.dev, Some(true));
        assert_eq!(
            file.body_timeout,
            Some(HumanDuration(Duration::from_secs(2)))
        );
        assert_eq!(file.jwt_public_key_file.map(|files| files.len()), Some(2));
        assert!(toml::from_str::<Settings>("data_dir = \"d\"").is_err());
        assert!(toml::from_str::<Settings>("max-keys = \"5\"").is_err());
        assert!(toml::from_str::<Settings>("body-timeout = \"2\"").is_err());
    }
}
