//! The codec for stored structures: the metadata of frames and the body of the manifest.
//!
//! Only this module uses bincode. bincode 1.3 is feature-complete and no longer maintained. A codec
//! id is stored before each structure, so that another codec can be introduced without changing the
//! surrounding layout.

use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The id of this codec: bincode 1.3 with fixed-width, little-endian integers.
pub(crate) const CODEC: u8 = 1;

/// Maximum length of an encoded structure in bytes. The maximum prevents a damaged length field
/// from causing a large allocation. 16 MiB is enough for the metadata of more than 100 GiB of
/// extents, or for a manifest with more than 400,000 segments.
pub(crate) const MAX_ENCODED_BYTES: u64 = 16 * 1024 * 1024;

/// The error that is returned if a structure cannot be encoded or decoded.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CodecError(#[from] bincode::Error);

fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_little_endian()
        .reject_trailing_bytes()
        .with_limit(MAX_ENCODED_BYTES)
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    Ok(options().serialize(value)?)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    Ok(options().deserialize(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_and_huge_lengths_are_rejected() {
        let mut bytes = encode(&("ab".to_owned(), 7u32)).unwrap();
        assert_eq!(
            decode::<(String, u32)>(&bytes).unwrap(),
            ("ab".to_owned(), 7)
        );
        bytes.push(0);
        assert!(decode::<(String, u32)>(&bytes).is_err());
        assert!(decode::<Vec<u64>>(&u64::MAX.to_le_bytes()).is_err());
    }
}
