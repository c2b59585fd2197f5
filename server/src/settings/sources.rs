//! The sources of settings: flags, environment variables, the configuration file and the
//! defaults. A flag overrides the environment, the environment overrides the file, and the
//! file overrides the defaults.
//!
//! The sources are merged as JSON objects, so that the code needs no second list of the fields.

use std::io;
use std::path::{Path, PathBuf};

use crate::settings::serve::Settings;
use crate::small_file;

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
        let settings = self.flags.clone().over_file(self.file.as_deref())?;
        match settings.empty() {
            Some(name) => Err(SettingsError::Empty(name)),
            None => Ok(settings),
        }
    }
}

/// The settings could not be read or merged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SettingsError {
    #[error("--config: cannot read the configuration file {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the configuration file {} is invalid: {source}", path.display())]
    File {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("--{0} is empty: give it a value, or leave it out")]
    Empty(String),
    #[error("cannot merge the flags with the configuration file: {0}")]
    Merge(#[from] serde_json::Error),
}

impl Settings {
    /// Returns the settings in `self`, completed with settings from the file at `path`.
    fn over_file(self, path: Option<&Path>) -> Result<Self, SettingsError> {
        let Some(path) = path else {
            return Ok(self);
        };
        let text = small_file::read_text(path)
            .and_then(|text| String::from_utf8(text).map_err(io::Error::other))
            .map_err(|source| SettingsError::Read {
                path: path.to_owned(),
                source,
            })?;
        let file: Self = toml::from_str(&text).map_err(|source| SettingsError::File {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        Ok(self.over(&file)?)
    }

    /// Returns the name of a setting whose value, or an element of whose list, is an empty text.
    /// Without this check, an audience that a script passes as an empty text would make the server
    /// refuse all tokens.
    fn empty(&self) -> Option<String> {
        // Only a path that is not UTF-8 has no JSON text. Such a path is not empty.
        let serde_json::Value::Object(settings) = serde_json::to_value(self).ok()? else {
            return None;
        };
        let is_empty = |value: &serde_json::Value| value.as_str() == Some("");
        let mut settings = settings.into_iter();
        settings
            .find(|(_, value)| match value.as_array() {
                Some(elements) => elements.iter().any(is_empty),
                None => is_empty(value),
            })
            .map(|(name, _)| name)
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
