//! Documents out of a store, as lines of JSON.

use std::io::Write;

use prefd_engine::Engine;

use crate::transfer::lines::{LineError, write_line};

/// Namespaces that are listed at once.
const PAGE: usize = 256;
/// Writes the line of each document, or of each of one user.
pub(crate) fn write_lines(
    engine: &Engine,
    user: Option<&str>,
    out: &mut dyn Write,
) -> Result<u64, LineError> {
    let mut written = 0;
    let mut last: Option<(String, String)> = None;
    loop {
        let after = last
            .as_ref()
            .map(|(user, client)| (user.as_str(), client.as_str()));
        let page: Vec<(String, String)> = match user {
            Some(user) => engine
                .list(user, after.map(|(_, client)| client), PAGE)?
                .into_iter()
                .map(|entry| (user.to_owned(), entry.client))
                .collect(),
            None => engine
                .list_all(after, PAGE)?
                .into_iter()
                .map(|(user, entry)| (user, entry.client))
                .collect(),
        };
        for (user, client) in &page {
            // One that was deleted since is none.
            if let Some(document) = engine.get(user, client)? {
                write_line(out, user, client, &document)?;
                written += 1;
            }
        }
        last = page.into_iter().next_back();
        if last.is_none() {
            return Ok(written);
        }
    }
}
