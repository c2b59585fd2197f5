//! Durations in settings, written as a number and a unit.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A duration of at least 1 ms, written as a whole number and a unit: `500ms`, `30s`, `15m`,
/// `1h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct HumanDuration(pub(crate) Duration);

/// Returns the duration of a setting, or `default` if the setting is not set.
pub(crate) fn duration_or(setting: Option<HumanDuration>, default: Duration) -> Duration {
    setting.map_or(default, |duration| duration.0)
}

/// The text is not a valid duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a whole number greater than 0 and a unit, such as 500ms, 30s, 15m, 1h or 7d")]
pub(crate) struct InvalidDuration;

impl std::str::FromStr for HumanDuration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits).ok_or(InvalidDuration)?;
        let number: u64 = number.parse().map_err(|_| InvalidDuration)?;
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(InvalidDuration),
        };
        let ms = number.checked_mul(unit_ms).filter(|ms| *ms > 0);
        ms.map(|ms| Self(Duration::from_millis(ms)))
            .ok_or(InvalidDuration)
    }
}

impl TryFrom<String> for HumanDuration {
    type Error = InvalidDuration;

    fn try_from(text: String) -> Result<Self, InvalidDuration> {
        text.parse()
    }
}

impl From<HumanDuration> for String {
    fn from(duration: HumanDuration) -> Self {
        format!("{}ms", duration.0.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_requires_a_number_and_a_unit() {
        for (text, ms) in [
            ("1ms", 1),
            ("2s", 2_000),
            ("15m", 900_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
        ] {
            let expected = HumanDuration(Duration::from_millis(ms));
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "1",
            "s",
            "-1s",
            "1.5s",
            "1 s",
            "1w",
            "0s",
            "99999999999999999999s",
            "é",
        ] {
            assert_eq!(
                text.parse::<HumanDuration>(),
                Err(InvalidDuration),
                "{text}"
            );
        }
    }
}
