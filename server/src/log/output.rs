//! Collects log lines in one buffer per thread, and writes them to standard error on one thread.
//!
//! A line is written at most [`MAX_DELAY`] after it was appended, usually together with many
//! others. Lines are written at once if the buffer is long, or if a line is a warning or an error.
//! The lines of one thread stay in their order. Lines of different threads may be written in
//! another order than their timestamps.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Maximum time between appending a line and writing it, unless standard error is slow.
const MAX_DELAY: Duration = Duration::from_millis(100);
/// Length in bytes of a buffer that is written at once.
const LONG_BUFFER_BYTES: usize = 64 * 1024;
/// Maximum length of a buffer in bytes. If standard error is so slow that a buffer gets longer,
/// further lines are lost.
const MAX_BUFFER_BYTES: usize = 1024 * 1024;
/// Room for warnings and errors in a buffer that is full of other lines, in bytes.
const RESERVED_BYTES: usize = 64 * 1024;
/// Pause before a write is repeated. Standard error can be a full pipe whose file description
/// another process has set to non-blocking mode.
const WRITE_PAUSE: Duration = Duration::from_millis(10);
/// Maximum time to wait for the last lines to be written when the log ends.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// How soon a line must be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Urgency {
    /// No line waits to be written.
    None,
    /// Within [`MAX_DELAY`].
    Soon,
    /// At once.
    Now,
}

/// Collects the lines of all threads, and passes them to the thread that writes them.
pub(super) struct LogOutput {
    /// The buffers of all threads that have logged.
    buffers: Mutex<Vec<Arc<LineBuffer>>>,
    /// The greatest [`Urgency`] of the lines that wait to be written.
    urgency: AtomicU8,
    is_stopping: AtomicBool,
    /// Number of lines that were lost since the last report.
    lost_lines: AtomicU64,
    writer: OnceLock<Thread>,
}

/// The lines of one thread that wait to be written. The thread locks its buffer for each line.
/// The writing thread locks the buffer only while it takes the lines.
#[derive(Default)]
pub(super) struct LineBuffer(Mutex<Vec<u8>>);

impl LineBuffer {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running thread that writes the lines. Dropping this value waits until all lines are written,
/// but at most for [`STOP_TIMEOUT`].
pub(super) struct LogWriter {
    output: &'static LogOutput,
    /// Disconnected when the thread has ended.
    end: Mutex<Receiver<()>>,
}

impl LogOutput {
    pub(super) const fn new() -> Self {
        Self {
            buffers: Mutex::new(Vec::new()),
            urgency: AtomicU8::new(Urgency::None as u8),
            is_stopping: AtomicBool::new(false),
            lost_lines: AtomicU64::new(0),
            writer: OnceLock::new(),
        }
    }

    /// Starts the thread that writes the lines to `file`. If the thread was already started, the
    /// result is `None`.
    pub(super) fn start(
        &'static self,
        mut file: impl Write + Send + 'static,
    ) -> io::Result<Option<LogWriter>> {
        if self.writer.get().is_some() {
            return Ok(None);
        }
        let (ended, end) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("prefd-log".to_owned())
            .spawn(move || {
                self.write_until_stop(&mut file);
                drop(ended);
            })?;
        let _ = self.writer.set(thread.thread().clone());
        // A line may have been appended before the thread could be woken.
        thread.thread().unpark();
        Ok(Some(LogWriter {
            output: self,
            end: Mutex::new(end),
        }))
    }

    /// Returns a new buffer for the lines of one thread.
    pub(super) fn register(&self) -> Arc<LineBuffer> {
        let buffer = Arc::default();
        self.lock_buffers().push(Arc::clone(&buffer));
        buffer
    }

    /// Calls `write`, which appends complete lines to `buffer`. Never waits for standard error. If
    /// the buffer is full, the lines are lost.
    pub(super) fn append(
        &self,
        buffer: &LineBuffer,
        urgency: Urgency,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let mut lines = buffer.lock();
        let is_urgent = urgency == Urgency::Now;
        if lines.len() >= MAX_BUFFER_BYTES + usize::from(is_urgent) * RESERVED_BYTES {
            self.lost_lines.fetch_add(1, Ordering::Relaxed);
            return;
        }
        write(&mut lines);
        let is_long = lines.len() >= LONG_BUFFER_BYTES;
        drop(lines);
        self.wake(if is_long { Urgency::Now } else { urgency });
    }

    /// Wakes the writing thread, unless it already knows of lines that are as urgent.
    ///
    /// Relaxed loads are enough: if the writing thread has reset the urgency before it took the
    /// lines of a buffer, a thread that appends to the buffer afterwards sees the reset, because
    /// both have locked the buffer.
    fn wake(&self, urgency: Urgency) {
        let urgency = urgency as u8;
        if self.urgency.load(Ordering::Relaxed) < urgency
            && self.urgency.fetch_max(urgency, Ordering::AcqRel) < urgency
            && let Some(writer) = self.writer.get()
        {
            writer.unpark();
        }
    }

    fn lock_buffers(&self) -> MutexGuard<'_, Vec<Arc<LineBuffer>>> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_until_stop(&self, file: &mut impl Write) {
        let mut lines = Vec::new();
        loop {
            self.wait_for_lines();
            // The flag is read before the lines are taken, so that all lines from before the stop
            // are written.
            let is_stopping = self.is_stopping.load(Ordering::Acquire);
            self.urgency.store(Urgency::None as u8, Ordering::Release);
            self.report_lost_lines();
            self.write_buffers(&mut lines, file);
            if is_stopping {
                return;
            }
        }
    }

    /// Waits until lines must be written.
    fn wait_for_lines(&self) {
        let is = |urgency: Urgency| self.urgency.load(Ordering::Acquire) == urgency as u8;
        while is(Urgency::None) {
            thread::park();
        }
        let write_at = Instant::now() + MAX_DELAY;
        while is(Urgency::Soon) {
            match write_at.checked_duration_since(Instant::now()) {
                Some(rest) if !rest.is_zero() => thread::park_timeout(rest),
                _ => return,
            }
        }
    }

    /// Writes the lines of all buffers to `file`. `lines` is an empty vector, whose allocation is
    /// exchanged with those of the buffers, so that neither has to grow again.
    fn write_buffers(&self, lines: &mut Vec<u8>, file: &mut impl Write) {
        let buffers = self.lock_buffers().clone();
        for buffer in &buffers {
            std::mem::swap(lines, &mut *buffer.lock());
            write_all(file, lines);
            lines.clear();
            lines.shrink_to(2 * LONG_BUFFER_BYTES);
        }
        // A flush that fails can only be reported by a line that would be lost as well.
        let _ = file.flush();
        drop(buffers);
        // Remove the empty buffers of threads that have ended.
        self.lock_buffers()
            .retain(|buffer| Arc::strong_count(buffer) > 1 || !buffer.lock().is_empty());
    }

    fn report_lost_lines(&self) {
        let lost_lines = self.lost_lines.swap(0, Ordering::Relaxed);
        if lost_lines > 0 {
            tracing::warn!(
                lost_lines,
                "log lines were lost, because standard error was read too slowly"
            );
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.output.is_stopping.store(true, Ordering::Release);
        self.output.wake(Urgency::Now);
        let end = self.end.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = end.recv_timeout(STOP_TIMEOUT);
    }
}

/// Writes all of `lines`. If the file cannot be written, for example because its disk is full, the
/// rest of the lines is lost.
fn write_all(file: &mut impl Write, mut lines: &[u8]) {
    while !lines.is_empty() {
        match file.write(lines) {
            Ok(0) => return,
            Ok(written) => lines = lines.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(WRITE_PAUSE),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Sender;

    use super::*;

    /// Sends the bytes of each write to the test.
    struct Sent(Sender<Vec<u8>>);

    impl Write for Sent {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A file whose writes wait until the test allows them.
    struct Blocked(Receiver<()>, Sent);

    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn new_output() -> &'static LogOutput {
        Box::leak(Box::new(LogOutput::new()))
    }

    fn append(output: &LogOutput, buffer: &LineBuffer, urgency: Urgency, line: &str) {
        output.append(buffer, urgency, |lines| {
            lines.extend_from_slice(line.as_bytes());
        });
    }

    #[test]
    fn lines_are_written_without_further_lines() {
        let (sender, written) = mpsc::channel();
        let output = new_output();
        let writer = output.start(Sent(sender)).unwrap();
        let buffer = output.register();
        for round in ["first\n", "second\n"] {
            append(output, &buffer, Urgency::Soon, round);
            assert_eq!(written.recv().unwrap(), round.as_bytes());
        }
        drop(writer);
    }

    #[test]
    fn warning_is_written_after_the_earlier_lines_of_its_thread() {
        let (sender, written) = mpsc::channel();
        let output = new_output();
        let buffer = output.register();
        append(output, &buffer, Urgency::Soon, "line\n");
        append(output, &buffer, Urgency::Now, "warning\n");
        let _writer = output.start(Sent(sender)).unwrap();
        assert_eq!(written.recv().unwrap(), b"line\nwarning\n");
    }

    #[test]
    fn stop_writes_the_lines_of_all_threads() {
        let (sender, written) = mpsc::channel();
        let output = new_output();
        let writer = output.start(Sent(sender)).unwrap();
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                thread::spawn(move || {
                    let buffer = output.register();
                    for line in 0..1000 {
                        let line = format!("{thread} {line}\n");
                        append(output, &buffer, Urgency::Soon, &line);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        drop(writer);
        let written = String::from_utf8(written.iter().flatten().collect()).unwrap();
        for thread in 0..8 {
            let of_thread = format!("{thread} ");
            let lines = written
                .lines()
                .filter_map(|line| line.strip_prefix(&of_thread));
            let expected = (0..1000).map(|line| line.to_string());
            assert!(lines.eq(expected), "lines of thread {thread}");
        }
        // The buffers of threads that have ended are removed.
        assert_eq!(output.lock_buffers().len(), 0);
    }

    #[test]
    fn full_buffer_loses_lines_but_has_room_for_warnings() {
        let (allow, allowed) = mpsc::channel();
        let (sender, written) = mpsc::channel();
        let output = new_output();
        let writer = output.start(Blocked(allowed, Sent(sender))).unwrap();
        let buffer = output.register();
        let line = format!("{}\n", "x".repeat(1023));
        // The first line may already be taken while the file is blocked.
        for _ in 0..2 * MAX_BUFFER_BYTES / line.len() {
            append(output, &buffer, Urgency::Soon, &line);
        }
        assert!(buffer.lock().len() <= MAX_BUFFER_BYTES);
        assert!(output.lost_lines.load(Ordering::Relaxed) > 0);
        append(output, &buffer, Urgency::Now, "warning\n");
        drop(allow);
        drop(writer);
        let written: Vec<u8> = written.iter().flatten().collect();
        assert!(written.ends_with(b"warning\n"));
    }

    #[test]
    fn interrupted_and_short_writes_are_continued() {
        struct Difficult(Vec<u8>, Vec<io::ErrorKind>);
        impl Write for Difficult {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if let Some(error) = self.1.pop() {
                    return Err(error.into());
                }
                let written = bytes.len().min(3);
                self.0.extend_from_slice(&bytes[..written]);
                Ok(written)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let errors = vec![io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted];
        let mut file = Difficult(Vec::new(), errors);
        write_all(&mut file, b"a longer line\n");
        assert_eq!(file.0, b"a longer line\n");
    }
}
