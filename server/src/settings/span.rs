//! Spans of time, as settings have them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A span of time, written as a number and a unit: `500ms`, `30s`, `15m`, `1h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Span(pub(crate) Duration);

/// The span that was given, or the default.
pub(crate) fn span(given: Option<Span>, default: Duration) -> Duration {
    given.map_or(default, |span| span.0)
}

/// Not a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a time such as 500ms, 30s, 15m, 1h or 7d")]
pub(crate) struct NoSpan;

impl std::str::FromStr for Span {
    type Err = NoSpan;

    fn from_str(text: &str) -> Result<Self, NoSpan> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits).ok_or(NoSpan)?;
        let number: u64 = number.parse().map_err(|_| NoSpan)?;
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(NoSpan),
        };
        let ms = number.checked_mul(unit_ms).filter(|ms| *ms > 0);
        ms.map(|ms| Self(Duration::from_millis(ms))).ok_or(NoSpan)
    }
}

impl TryFrom<String> for Span {
    type Error = NoSpan;

    fn try_from(text: String) -> Result<Self, NoSpan> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        format!("{}ms", span.0.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_need_a_number_and_a_unit() {
        for (text, ms) in [
            ("1ms", 1),
            ("2s", 2_000),
            ("15m", 900_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(ms))), "{text}");
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
            assert_eq!(text.parse::<Span>(), Err(NoSpan), "{text}");
        }
    }
}
