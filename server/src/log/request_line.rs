//! The log line of a request.

use std::time::SystemTime;

use tracing::Level;

use crate::log::output::Urgency;
use crate::log::start::append;
use crate::log::timestamp::timestamp;
use crate::settings::LogFormat;

/// The log target of the lines about requests. The log target must not change, because users filter the log by it.
/// For example, the help of `--log` contains this target.
pub(crate) const REQUEST_TARGET: &str = "prefd::exchange";

/// Whether the log filter accepts the lines of requests.
pub(crate) fn is_logging_requests() -> bool {
    tracing::enabled!(target: REQUEST_TARGET, Level::INFO)
}

/// A request, as it is logged.
pub(crate) struct RequestLine<'a> {
    /// The time at which the response was ready.
    pub(crate) time: SystemTime,
    pub(crate) id: &'a str,
    /// The method. Contains no character that JSON would escape, because HTTP allows none.
    pub(crate) method: &'a str,
    pub(crate) route: &'static str,
    pub(crate) status: u16,
    /// The code of the error, if the request failed.
    pub(crate) code: Option<&'static str>,
    /// The pseudonym of the user, if the user is known.
    pub(crate) user: Option<u64>,
    /// Duration of the request in microseconds.
    pub(crate) micros: u64,
}

impl RequestLine<'_> {
    /// Appends the line to the log, if the log filter accepts the lines of requests.
    pub(crate) fn log(&self) {
        if is_logging_requests() {
            append(Urgency::Soon, |format, lines| self.write(format, lines));
        }
    }

    /// Writes the line exactly as `tracing_subscriber` formats an event with these fields.
    fn write(&self, format: LogFormat, lines: &mut Vec<u8>) {
        let message = match self.code {
            None => "request completed",
            Some(_) => "request failed",
        };
        let mut line = LineWriter(lines);
        match format {
            LogFormat::Text => {
                line.bytes(&timestamp(self.time));
                line.text("  INFO ")
                    .text(REQUEST_TARGET)
                    .text(": ")
                    .text(message);
                line.text(" id=").text(self.id);
                line.text(" method=\"").text(self.method);
                line.text("\" route=\"").text(self.route);
                line.text("\" status=").number(self.status.into());
                if let Some(code) = self.code {
                    line.text(" code=\"").text(code).text("\"");
                }
                if let Some(user) = self.user {
                    line.text(" user=").hexadecimal(user);
                }
                line.text(" micros=").number(self.micros).text("\n");
            }
            LogFormat::Json => {
                line.text("{\"timestamp\":\"").bytes(&timestamp(self.time));
                line.text("\",\"level\":\"INFO\",\"message\":\"")
                    .text(message);
                line.text("\",\"id\":\"").text(self.id);
                line.text("\",\"method\":\"").text(self.method);
                line.text("\",\"route\":\"").text(self.route);
                line.text("\",\"status\":").number(self.status.into());
                if let Some(code) = self.code {
                    line.text(",\"code\":\"").text(code).text("\"");
                }
                if let Some(user) = self.user {
                    line.text(",\"user\":\"").hexadecimal(user).text("\"");
                }
                line.text(",\"micros\":").number(self.micros);
                line.text(",\"target\":\"")
                    .text(REQUEST_TARGET)
                    .text("\"}\n");
            }
        }
    }
}

/// Appends the parts of a line.
struct LineWriter<'a>(&'a mut Vec<u8>);

impl LineWriter<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.text(itoa::Buffer::new().format(number))
    }

    /// Appends 16 hexadecimal digits.
    fn hexadecimal(&mut self, number: u64) -> &mut Self {
        let mut digits = [0; 16];
        for (index, digit) in digits.iter_mut().rev().enumerate() {
            let value = u8::try_from((number >> (4 * index)) & 15).unwrap_or_default();
            *digit = if value < 10 { b'0' } else { b'a' - 10 } + value;
        }
        self.bytes(&digits)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::log::start::layer;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns the line that `tracing_subscriber` writes for a request.
    fn traced(request: &RequestLine<'_>, format: LogFormat) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let subscriber = tracing_subscriber::registry().with(layer(format, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let &RequestLine {
                id,
                method,
                route,
                status,
                code,
                micros,
                ..
            } = request;
            let user = request.user.map(|user| format!("{user:016x}"));
            let user = user.as_ref().map(tracing::field::display);
            match code {
                None => {
                    tracing::info!(target: "prefd::exchange", id = %id, method, route, status, user, micros, "request completed");
                }
                Some(code) => {
                    tracing::info!(target: "prefd::exchange", id = %id, method, route, status, code, user, micros, "request failed");
                }
            }
        });
        let line = memory.0.lock().unwrap().clone();
        String::from_utf8(line).unwrap()
    }

    /// Returns a line with its timestamp replaced by `T`.
    fn without_time(line: &str) -> String {
        let digits = |c: char| if c.is_ascii_digit() { '0' } else { c };
        let start = line.find("20").unwrap();
        let (before, rest) = line.split_at(start);
        let (time, after) = rest.split_at(27);
        let time: String = time.chars().map(digits).collect();
        assert_eq!(time, "0000-00-00T00:00:00.000000Z");
        format!("{before}T{after}")
    }

    #[test]
    fn line_of_a_request_has_the_format_of_other_lines() {
        let completed = RequestLine {
            time: SystemTime::now(),
            id: "dc708dugmo2urbdv84t0",
            method: "GET",
            route: "/user/{version}/preferences/{clientId}",
            status: 200,
            code: None,
            user: Some(0x0b9d_a2bb_0f04_3225),
            micros: 0,
        };
        let failed = RequestLine {
            code: Some("missing-token"),
            user: None,
            status: 401,
            micros: u64::MAX,
            ..completed
        };
        for request in [completed, failed] {
            for format in [LogFormat::Text, LogFormat::Json] {
                let mut line = Vec::new();
                request.write(format, &mut line);
                let line = String::from_utf8(line).unwrap();
                let traced = traced(&request, format);
                assert_eq!(without_time(&line), without_time(&traced));
            }
        }
    }
}
