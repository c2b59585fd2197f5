//! The codec of what is stored as structures rather than as bytes: the metadata of
//! a frame and the manifest. The only module that names bincode, and it does no I/O.
//!
//! bincode 1.3 is complete and unmaintained. Every stored structure stands behind a
//! codec id, so that another codec can take over without a change of the format
//! around it.

use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The id of this codec: bincode 1.3, fixed-width integers, little endian.
pub(crate) const CODEC: u8 = 1;

/// Bytes of one encoded structure, at most; a damaged length must not become an
/// allocation. The metadata of 100 GiB of extents, or a manifest of 400,000
/// segments, fits.
pub(crate) const MAX_ENCODED_BYTES: u64 = 16 * 1024 * 1024;

/// The structure cannot be encoded or decoded.
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
    fn trailing_bytes_and_absurd_lengths_are_refused() {
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
