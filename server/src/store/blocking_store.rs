//! The store for threads that read or write many documents: exports, imports and benchmarks. Every
//! function in this file may block.

use prefd_engine::{
    CatalogueEntry, Commit, Damage, Document, Durability, Engine, Erased, Error, KnownDocuments,
    Precondition, Prepared, Progress, QueueFull, Snapshot, WriteOptions,
};

use crate::store::namespace::Namespace;

/// Maximum number of namespaces that are listed with one call to the engine.
const PAGE_ENTRIES: usize = 256;

/// An open store, for threads that may block.
pub(crate) struct BlockingStore(Engine);

impl BlockingStore {
    pub(crate) fn new(engine: Engine) -> Self {
        Self(engine)
    }

    /// Returns the document of a namespace.
    pub(crate) fn get(&self, namespace: Namespace<'_, str>) -> Result<Option<Document>, Error> {
        self.0.get(namespace.user, namespace.client)
    }

    /// Calls `visit` with each document. If `user` is given, calls `visit` only with the documents
    /// of this user. If a document cannot be read, `visit` receives the error instead of the
    /// document. Returns the damage that may hide documents.
    ///
    /// # Errors
    /// The errors of `visit`, and the errors that prevent further reads: the documents cannot be
    /// listed, or the store was closed.
    pub(crate) fn each_document<E: From<Error>>(
        &self,
        user: Option<&str>,
        mut visit: impl FnMut(Namespace<'_, str>, Result<&Document, Error>) -> Result<(), E>,
    ) -> Result<Vec<Damage>, E> {
        let mut damage = self.0.damage().to_vec();
        let mut last: Option<(String, String)> = None;
        loop {
            let page = self.page(user, last.as_ref())?;
            // The damage that was found when the store was opened is not repeated.
            let is_new = |found: &Damage| damage.iter().all(|known| known.path != found.path);
            damage.extend(page.damage.filter(is_new));
            for (user, CatalogueEntry { client, .. }) in &page.entries {
                let namespace = Namespace {
                    user: user.as_str(),
                    client: client.as_str(),
                };
                match self.get_verified(namespace) {
                    Ok(Some(document)) => visit(namespace, Ok(&document))?,
                    // The document was deleted after it was listed.
                    Ok(None) => {}
                    Err(error @ Error::Closed) => return Err(error.into()),
                    Err(error) => visit(namespace, Err(error))?,
                }
            }
            let Some((user, entry)) = page.entries.into_iter().next_back() else {
                return Ok(damage);
            };
            last = Some((user, entry.client));
        }
    }

    /// Returns a document. If the document is not in memory, all its bytes are read and verified
    /// before the document is returned, so that the caller uses no part of a damaged document. The
    /// caller then reads the bytes a second time.
    fn get_verified(&self, namespace: Namespace<'_, str>) -> Result<Option<Document>, Error> {
        let document = self.get(namespace)?;
        if let Some(document) = document.as_ref().filter(|d| d.in_memory().is_none()) {
            for chunk in document.chunks() {
                chunk?;
            }
        }
        Ok(document)
    }

    /// Lists up to [`PAGE_ENTRIES`] namespaces, sorted by user and then by client, starting after
    /// `last`. If `user` is given, lists only the namespaces of this user.
    fn page(
        &self,
        user: Option<&str>,
        last: Option<&(String, String)>,
    ) -> Result<KnownDocuments, Error> {
        let after = last.map(|(user, client)| (user.as_str(), client.as_str()));
        self.0.list_known(user, after, PAGE_ENTRIES)
    }

    /// Returns a writer for a document that arrives in chunks.
    pub(crate) fn writer(&self) -> prefd_engine::Writer {
        self.0.writer()
    }

    /// Validates a document whose complete text is in memory.
    pub(crate) fn prepare(&self, text: &[u8]) -> Result<Prepared, Error> {
        self.0.prepare(text)
    }

    /// Submits a document, and blocks while the commit queue is full. [`Commit::wait`] returns
    /// the result.
    pub(crate) fn submit(
        &self,
        namespace: Namespace<'_, str>,
        document: Prepared,
        precondition: Precondition,
    ) -> Result<Commit, Error> {
        let options = WriteOptions {
            precondition,
            queue_full: QueueFull::Wait,
            ..WriteOptions::default()
        };
        let namespace = self.0.namespace(namespace.user, namespace.client)?;
        Ok(namespace.submit(document, options))
    }

    /// Stores a document, replacing an existing one, and waits for the commit. With
    /// [`Durability::Sync`], `put` also waits until the document is on stable storage.
    pub(crate) fn put(
        &self,
        namespace: Namespace<'_, str>,
        text: &[u8],
        durability: Durability,
    ) -> Result<(), Error> {
        let options = WriteOptions {
            durability: Some(durability),
            ..WriteOptions::default()
        };
        let namespace = self.0.namespace(namespace.user, namespace.client)?;
        namespace.write(text, options).map(drop)
    }

    /// Erases all documents of a user, including old versions that are still on the disk. The
    /// returned [`Erased`] reports data that could not be erased.
    pub(crate) fn erase(
        &self,
        user: &str,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Erased, Error> {
        self.0.erase(user, progress)
    }

    /// Reclaims disk space from replaced and deleted documents.
    pub(crate) fn compact(&self, progress: &mut dyn FnMut(Progress)) -> Result<(), Error> {
        self.0.compact_with(progress)
    }

    /// Takes a snapshot: the contents of the store at one moment.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, Error> {
        self.0.snapshot()
    }

    /// Closes the store. After a successful close, all documents are on stable storage, including
    /// documents that were written with [`Durability::Buffered`].
    pub(crate) fn close(&self) -> Result<(), Error> {
        self.0.close()
    }
}
