//! The documents that are put: JSON of an exact length, as an app might keep it.

use std::fmt::Write;

/// The shortest: `{"fill":""}` and a bit.
pub(super) const MIN_BYTES: usize = 16;

/// A list of small objects, and then a string that makes it as long as it is to be. What
/// is random in it depends on `seed`.
pub(super) fn of(bytes: usize, seed: u64) -> String {
    const BEGIN: &str = "{\"items\":[";
    const FILL: &str = "],\"fill\":\"";
    const END: &str = "\"}";
    let mut random = Random(seed | 1);
    let mut text = String::with_capacity(bytes);
    let room = bytes.saturating_sub(FILL.len() + END.len());
    if BEGIN.len() <= room {
        text.push_str(BEGIN);
        loop {
            let (id, shown) = (random.next() % 1_000_000, random.next().is_multiple_of(2));
            let mut item = String::from(if text.ends_with('[') { "" } else { "," });
            // Writing to a string does not fail.
            let _ = write!(item, "{{\"id\":{id},\"shown\":{shown},\"name\":\"");
            let letters = random.next() % 32;
            item.extend((0..letters).map(|_| random.letter()));
            item.push_str("\"}");
            if text.len() + item.len() > room {
                break;
            }
            text.push_str(&item);
        }
        text.push_str(FILL);
    } else {
        text.push_str("{\"fill\":\"");
    }
    while text.len() + END.len() < bytes {
        text.push(random.letter());
    }
    text.push_str(END);
    text
}

/// Xorshift (Marsaglia, "Xorshift RNGs", 2003): enough for text that does not repeat.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn letter(&mut self) -> char {
        char::from(b'a' + u8::try_from(self.next() % 26).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_objects_of_their_length() {
        for bytes in [MIN_BYTES, 21, 22, 23, 24, 64, 100, 1024, 65_536] {
            let text = of(bytes, 7);
            assert_eq!(text.len(), bytes);
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(value.is_object());
            assert!(bytes < 64 || text != of(bytes, 8));
        }
    }
}
