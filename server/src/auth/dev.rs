//! `serve --dev`: a signing key in the data directory, and requests to paste.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::settings::Address;

/// Random bytes of the key, as many as HS256 hashes to.
const KEY_BYTES: usize = 32;
/// Who the printed token is of.
pub(crate) const USER: &str = "dev-user";
pub(crate) const CLIENT: &str = "dev-client";

/// Where a data directory keeps the key.
pub(crate) fn key_path(data_dir: &Path) -> PathBuf {
    data_dir.join("dev-signing-key")
}

/// Makes the key where there is none. Its name appears only once it is whole.
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
    // What a crash has left is not written into: its mode may not be ours.
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

/// What to paste: a PUT of the page's own example, and a GET of it.
pub(crate) fn requests(address: &Address, scheme: &str, version: &str, token: &str) -> String {
    let (options, origin) = match address {
        // The certificate may be anybody's.
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
