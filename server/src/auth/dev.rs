//! Implements `serve --dev`, which creates a signing key in the data directory, and prints example
//! requests.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::settings::Address;

/// Number of random bytes from which the key is made: the length of an HS256 hash.
const KEY_BYTES: usize = 32;
/// The user and the client in the claims of the printed token.
pub(crate) const USER: &str = "dev-user";
pub(crate) const CLIENT: &str = "dev-client";

/// The path of the signing key in a data directory.
pub(crate) fn key_path(data_dir: &Path) -> PathBuf {
    data_dir.join("dev-signing-key")
}

/// Creates the signing key if it does not exist. The key file gets its final name only after its
/// contents are on stable storage. Blocks.
pub(crate) fn ensure_key(data_dir: &Path) -> io::Result<()> {
    let path = key_path(data_dir);
    if path.exists() {
        return Ok(());
    }
    let mut random = [0; KEY_BYTES];
    getrandom::fill(&mut random).map_err(io::Error::from)?;
    let mut hex = String::with_capacity(2 * KEY_BYTES);
    for byte in random {
        hex.extend(
            [byte >> 4, byte & 15]
                .map(|digit| char::from_digit(digit.into(), 16))
                .iter()
                .flatten(),
        );
    }
    // A crash can leave the temporary file behind. A leftover temporary file is not reused, because
    // its mode may allow other users to read it.
    let temporary = path.with_extension("new");
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    writeln!(file, "{hex}")?;
    file.sync_all()?;
    std::fs::rename(&temporary, &path)?;
    File::open(data_dir)?.sync_all()
}

/// Returns two curl commands for trying out the server: a PUT and a GET. The document in the PUT is
/// taken from the documentation of the PACE Cloud preferences API.
pub(crate) fn requests(address: &Address, scheme: &str, version: &str, token: &str) -> String {
    let (options, origin) = match address {
        // `-k` is needed because the server's certificate may not be valid for this address.
        Address::Tcp(address) if scheme == "https://" => {
            ("-k ".to_owned(), format!("{scheme}{address}"))
        }
        Address::Tcp(address) => (String::new(), format!("{scheme}{address}")),
        Address::Unix(path) => (
            format!("--unix-socket {} ", path.display()),
            "http://localhost".to_owned(),
        ),
    };
    let url = format!("{origin}/user/{version}/preferences/{CLIENT}");
    format!(
        "\n\
         # set the preferences of {USER} in the namespace of {CLIENT}\n\
         curl {options}-X PUT {url} -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' \
         -d '{{\"some\":\"value\",\"everything\":[{{\"is\":\"up\",\"to\":123123,\"the\":[\"client\"]}}]}}'\n\
         \n\
         # and read them\n\
         curl {options}{url} -H 'Authorization: Bearer {token}'\n"
    )
}
