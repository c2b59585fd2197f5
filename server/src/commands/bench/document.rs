//! The documents of the benchmark: JSON text of an exact length, similar to the preferences of an
//! app.

use std::fmt::Write;

/// Minimum length of a document in bytes, which is enough for `{"fill":""}` and five letters.
pub(super) const MIN_BYTES: usize = 16;

/// Returns a document of exactly `bytes` bytes. A document contains a list of small objects, if
/// there is room for the list, and a string that fills the remaining bytes. The same `bytes` and
/// `seed` always result in the same document.
pub(super) fn generate(bytes: usize, seed: u64) -> String {
    const BEGIN: &str = "{\"items\":[";
    const FILL: &str = "],\"fill\":\"";
    const END: &str = "\"}";
    let mut random = Xorshift(seed | 1);
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

/// A random number generator (Marsaglia, "Xorshift RNGs", 2003). The quality of the random numbers
/// is sufficient to generate text that does not compress well.
struct Xorshift(u64);

impl Xorshift {
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
    fn document_is_an_object_of_the_requested_length() {
        for bytes in [MIN_BYTES, 21, 22, 23, 24, 64, 100, 1024, 65_536] {
            let text = generate(bytes, 7);
            assert_eq!(text.len(), bytes);
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(value.is_object());
            assert!(bytes < 64 || text != generate(bytes, 8));
        }
    }
}
