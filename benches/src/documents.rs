//! Generates the documents that all contenders store: JSON objects of an exact length, like
//! those that clients send. The key of a document is a user and a client.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Digits of the number in a user's name.
const USER_DIGITS: usize = 12;
const CLIENT: &str = "preferences-app";
/// Number of different documents that a generator cycles through.
const VARIETY: usize = 16;
/// Maximum memory for these documents. If they are large, there are fewer of them.
const MAX_VARIETY_BYTES: usize = 32 * 1024 * 1024;
/// Offset of the serial number, which makes each document unique.
const SERIAL_OFFSET: usize = "{\"n\":\"".len();
const SERIAL_DIGITS: usize = 16;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The key of a document. prefd identifies a document by its user and its client. The other
/// engines use both names, joined by a NUL byte, as the key.
#[derive(Debug, Clone)]
pub struct Key(String);

impl Default for Key {
    fn default() -> Self {
        Self(format!("user-{:0USER_DIGITS$}\0{CLIENT}", 0))
    }
}

impl Key {
    /// Changes this to the key of document `n`.
    pub fn set(&mut self, n: u64) {
        use std::fmt::Write;
        self.0.clear();
        // Writing to a string cannot fail.
        let _ = write!(self.0, "user-{n:0USER_DIGITS$}\0{CLIENT}");
    }

    /// Name of the user.
    pub fn user(&self) -> &str {
        self.0.split_once('\0').map_or("", |(user, _)| user)
    }

    /// Name of the client.
    pub fn client(&self) -> &str {
        CLIENT
    }

    /// Both names, joined by a NUL byte.
    pub fn joined(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Generates documents of one length.
pub struct DocumentGenerator {
    bodies: Vec<Vec<u8>>,
    next: usize,
    serial: u64,
}

impl DocumentGenerator {
    /// Generates documents of `bytes` bytes, which must be at least 64. Generators with
    /// different seeds generate different documents.
    pub fn new(bytes: usize, seed: u64) -> Self {
        let variety = (MAX_VARIETY_BYTES / bytes.max(1)).clamp(1, VARIETY);
        let mut random = SmallRng::seed_from_u64(seed);
        Self {
            bodies: (0..variety).map(|_| body(bytes, &mut random)).collect(),
            next: 0,
            serial: seed << 32,
        }
    }

    /// Returns the next document. Each one is different.
    pub fn next_document(&mut self) -> &[u8] {
        self.serial += 1;
        self.next = (self.next + 1) % self.bodies.len();
        let body = &mut self.bodies[self.next];
        let mut serial = self.serial;
        for digit in body[SERIAL_OFFSET..SERIAL_OFFSET + SERIAL_DIGITS]
            .iter_mut()
            .rev()
        {
            *digit = b"0123456789abcdef"[(serial % 16) as usize];
            serial /= 16;
        }
        body
    }
}

/// An object with a serial number, a list of small objects, and a string that pads it to the
/// given length.
fn body(bytes: usize, random: &mut SmallRng) -> Vec<u8> {
    let mut text = format!("{{\"n\":\"{}\",\"items\":[", "0".repeat(SERIAL_DIGITS));
    let fill = "],\"fill\":\"\"}".len();
    let mut separator = "";
    loop {
        let item = format!(
            "{separator}{{\"id\":{},\"name\":\"{}\",\"shown\":{},\"at\":[{},{}]}}",
            random.random_range(0..1_000_000),
            letters(random.random_range(8..40), random),
            random.random_bool(0.5),
            random.random_range(-1000..1000),
            random.random_range(0.0..1000.0_f32),
        );
        if text.len() + item.len() + fill > bytes {
            break;
        }
        text.push_str(&item);
        separator = ",";
    }
    let left = bytes.saturating_sub(text.len() + fill);
    text.push_str("],\"fill\":\"");
    text.push_str(&letters(left, random));
    text.push_str("\"}");
    text.into_bytes()
}

/// A string of `n` random characters.
fn letters(n: usize, random: &mut SmallRng) -> String {
    (0..n)
        .map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_json_of_their_length_and_differ() {
        for bytes in [64, 100, 300, 1024, 65_536] {
            let mut documents = DocumentGenerator::new(bytes, 7);
            let first = documents.next_document().to_vec();
            for _ in 0..40 {
                let next = documents.next_document();
                assert_eq!(next.len(), bytes);
                assert_ne!(next, first);
                serde_json::from_slice::<serde_json::Value>(next).unwrap();
            }
        }
    }

    #[test]
    fn keys_name_the_user_and_the_client() {
        let mut key = Key::default();
        key.set(42);
        assert_eq!(key.user(), "user-000000000042");
        assert_eq!(key.joined(), b"user-000000000042\0preferences-app");
    }
}
