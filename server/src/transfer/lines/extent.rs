//! How far a value of JSON goes. Strings, escapes and depth are all that is looked at:
//! whether it is JSON at all is for others to say.

/// How far a value goes that is read piece by piece.
#[derive(Default)]
pub(super) struct Extent {
    /// Arrays and objects that have begun.
    depth: u64,
    is_in_string: bool,
    is_escaped: bool,
    pub(super) is_over: bool,
}

impl Extent {
    /// As much of a buffer as is of the value; `None` where the value breaks off.
    pub(super) fn next<'a>(&mut self, buffer: &'a [u8]) -> Option<&'a [u8]> {
        if buffer.is_empty() {
            return None;
        }
        for (index, byte) in buffer.iter().enumerate() {
            if *byte == b'\n' && (self.depth > 0 || self.is_in_string) {
                return None;
            }
            if let Some(bytes) = self.end(*byte, index) {
                self.is_over = true;
                return Some(buffer.get(..bytes).unwrap_or_default());
            }
        }
        Some(buffer)
    }

    /// Where it ends, if it does so at or behind this byte.
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
