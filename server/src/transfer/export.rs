//! Exports documents as JSON Lines.

use std::io::Write;

use crate::store::{BlockingStore, Damage, Error, Namespace, cause};
use crate::transfer::lines::{ExportError, write_line};

const MAY_BE_MISSING: &str =
    "documents may be missing, because a part of the log is damaged or cannot be read";

/// The documents that are missing from an export, because the store is damaged or they cannot be
/// read from the disk.
#[derive(Debug)]
pub(crate) struct UnreadableDocuments {
    /// Number of documents that cannot be read.
    documents: u64,
    /// Whether damage of the log may hide further documents.
    may_hide_documents: bool,
    /// Maximum length of `places`.
    max_places: usize,
    /// The unreadable places: damaged places of the log, which may contain further documents, and
    /// the places of documents that cannot be read. Each text names the file, the offset and the
    /// reason.
    places: Vec<String>,
}

impl UnreadableDocuments {
    fn new(max_places: usize) -> Self {
        Self {
            documents: 0,
            may_hide_documents: false,
            max_places,
            places: Vec::new(),
        }
    }

    /// Adds damage of the log before the other places, because it can hide any number of documents.
    fn add_damage(&mut self, damage: &[Damage]) {
        self.may_hide_documents = !damage.is_empty();
        let damage = damage
            .iter()
            .map(|place| format!("{MAY_BE_MISSING}: {place}"));
        self.places.splice(0..0, damage);
        self.places.truncate(self.max_places);
    }

    fn add(&mut self, namespace: Namespace<'_, str>, error: &Error) {
        self.documents += 1;
        if self.places.len() < self.max_places {
            let (user, client) = (namespace.user, namespace.client);
            self.places.push(format!(
                "the document of user {user:?}, client {client:?} cannot be read: {}",
                place(error)
            ));
        }
    }

    /// Returns true if the export contains all documents.
    pub(crate) fn is_empty(&self) -> bool {
        self.documents == 0 && !self.may_hide_documents
    }

    /// Returns a sentence that states how much is missing.
    pub(crate) fn summary(&self) -> String {
        let unreadable = match self.documents {
            0 => return MAY_BE_MISSING.to_owned(),
            1 => "1 document cannot be read".to_owned(),
            count => format!("{count} documents cannot be read"),
        };
        if self.may_hide_documents {
            format!("{unreadable}, and further {MAY_BE_MISSING}")
        } else {
            unreadable
        }
    }

    /// Returns the unreadable places, up to the maximum number that was passed to
    /// [`export_lines`].
    pub(crate) fn places(&self) -> &[String] {
        &self.places
    }
}

/// Describes the place that could not be read: the file, the offset and the reason.
fn place(error: &Error) -> String {
    match (Damage::from_error(error), error) {
        (Some(damage), _) => damage.to_string(),
        // The file could not be opened, so nothing could be read from its start on.
        (None, Error::Io { op, path, source }) => {
            format!(
                "{} at byte 0: cannot {op} the file: {source}",
                path.display()
            )
        }
        (None, error) => format!("{error}{}", cause(error)),
    }
}

/// Writes each document, or each document of one user, as a line of JSON. Documents that cannot be
/// read are skipped, and reported in the result. The result describes at most `max_places`
/// unreadable places.
///
/// # Errors
/// [`ExportError`] if the store cannot be listed or `out` cannot be written.
pub(crate) fn export_lines(
    store: &BlockingStore,
    user: Option<&str>,
    max_places: usize,
    out: &mut dyn Write,
) -> Result<UnreadableDocuments, ExportError> {
    let mut unreadable = UnreadableDocuments::new(max_places);
    let damage = store.each_document(user, |namespace, document| {
        match document {
            Ok(document) => write_line(out, namespace, document)?,
            Err(error) => unreadable.add(namespace, &error),
        }
        Ok::<_, ExportError>(())
    })?;
    unreadable.add_damage(&damage);
    Ok(unreadable)
}
