//! Finds the end of a JSON value.

/// An incremental scanner for the end of a JSON value. The scanner tracks only strings, escapes
/// and nesting. It does not check that the value is valid JSON.
#[derive(Default)]
pub(super) struct ValueScanner {
    /// Number of open arrays and objects.
    depth: u64,
    is_in_string: bool,
    is_escaped: bool,
    /// Whether the end of the value was found.
    pub(super) is_finished: bool,
}

impl ValueScanner {
    /// Scans the next chunk, and returns the leading part of the chunk that belongs to the value.
    /// Returns `None` if the chunk is empty, or if a line break interrupts the value.
    pub(super) fn next<'a>(&mut self, buffer: &'a [u8]) -> Option<&'a [u8]> {
        if buffer.is_empty() {
            return None;
        }
        for (index, byte) in buffer.iter().enumerate() {
            if *byte == b'\n' && (self.depth > 0 || self.is_in_string) {
                return None;
            }
            if let Some(bytes) = self.end(*byte, index) {
                self.is_finished = true;
                return Some(buffer.get(..bytes).unwrap_or_default());
            }
        }
        Some(buffer)
    }

    /// Scans the byte at `index`. If this byte is the last byte of the value, or the first byte
    /// after the value, returns the number of bytes in the chunk that belong to the value.
    fn end(&mut self, byte: u8, index: usize) -> Option<usize> {
        let is_last = match byte {
            _ if std::mem::take(&mut self.is_escaped) => false,
            b'\\' if self.is_in_string => {
                self.is_escaped = true;
                false
            }
            b'"' => {
                self.is_in_string = !self.is_in_string;
                !self.is_in_string
            }
            _ if self.is_in_string => false,
            b'{' | b'[' => {
                self.depth += 1;
                false
            }
            b'}' | b']' if self.depth > 0 => {
                self.depth -= 1;
                true
            }
            b'}' | b']' | b',' | b' ' | b'\t' | b'\r' | b'\n' if self.depth == 0 => {
                return Some(index);
            }
            _ => false,
        };
        (is_last && self.depth == 0).then_some(index + 1)
    }
}
