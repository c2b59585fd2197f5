//! The store as threads use it that go through many documents: exports, imports and
//! measurements. Every call here may block.

use prefd_engine::{
    Commit, Damage, Document, Durability, Engine, Erased, Error, Precondition, Prepared, Progress,
    QueueFull, Snapshot, WriteOptions,
};

use crate::store::name::Name;

/// Namespaces that are listed at once.
const PAGE: usize = 256;

/// An open store, for a thread that may block.
pub(crate) struct Bulk(Engine);

impl Bulk {
    /// On an engine that is open.
    pub(crate) fn of(engine: Engine) -> Self {
        Self(engine)
    }

    /// The document of a namespace.
    pub(crate) fn get(&self, name: Name<'_>) -> Result<Option<Document>, Error> {
        self.0.get(name.user, name.client)
    }

    /// Calls `take` for each document, or for each document of one user: with the document,
    /// or with the error if stored bytes of it are lost.
    pub(crate) fn each_document<E: From<Error>>(
        &self,
        user: Option<&str>,
        mut take: impl FnMut(Name<'_>, Result<&Document, Error>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut last: Option<(String, String)> = None;
        loop {
            let page = self.page(user, last.as_ref())?;
            for (user, client) in &page {
                let name = Name { user, client };
                match self.get_intact(name) {
                    Ok(Some(document)) => take(name, Ok(&document))?,
                    // It was deleted after the listing.
                    Ok(None) => {}
                    Err(error) if error.is_damage() => take(name, Err(error))?,
                    Err(error) => return Err(error.into()),
                }
            }
            last = page.into_iter().next_back();
            if last.is_none() {
                return Ok(());
            }
        }
    }

    /// A document all of whose bytes were read and verified. A document that is not in memory
    /// is read once for that, so that no reader of it stops in the middle.
    fn get_intact(&self, name: Name<'_>) -> Result<Option<Document>, Error> {
        let document = self.get(name)?;
        if let Some(document) = document.as_ref().filter(|d| d.in_memory().is_none()) {
            for chunk in document.chunks() {
                chunk?;
            }
        }
        Ok(document)
    }

    /// What was found damaged when the store was opened: documents may be missing from
    /// [`Self::each_document`].
    pub(crate) fn damage(&self) -> &[Damage] {
        self.0.damage()
    }

    /// The namespaces after `last`, or those of one user.
    fn page(
        &self,
        user: Option<&str>,
        last: Option<&(String, String)>,
    ) -> Result<Vec<(String, String)>, Error> {
        let after = last.map(|(user, client)| (user.as_str(), client.as_str()));
        let page = self.0.list_known(user, after, PAGE)?;
        let names = page.into_iter().map(|(user, entry)| (user, entry.client));
        Ok(names.collect())
    }

    /// A way in for a document that comes in chunks.
    pub(crate) fn writer(&self) -> prefd_engine::Writer {
        self.0.writer()
    }

    /// Checks a document that is whole in memory.
    pub(crate) fn prepare(&self, text: &[u8]) -> Result<Prepared, Error> {
        self.0.prepare(text)
    }

    /// Queues a change, and blocks while the queue is full. [`Commit::wait`] says what came
    /// of it.
    pub(crate) fn queue(
        &self,
        name: Name<'_>,
        document: Prepared,
        precondition: Precondition,
    ) -> Result<Commit, Error> {
        let options = WriteOptions {
            precondition,
            queue_full: QueueFull::Wait,
            ..WriteOptions::default()
        };
        let namespace = self.0.namespace(name.user, name.client)?;
        Ok(namespace.submit(document, options))
    }

    /// Replaces a document, and waits until that is as durable as is asked for.
    pub(crate) fn put(
        &self,
        name: Name<'_>,
        text: &[u8],
        durability: Durability,
    ) -> Result<(), Error> {
        let options = WriteOptions {
            durability: Some(durability),
            ..WriteOptions::default()
        };
        let namespace = self.0.namespace(name.user, name.client)?;
        namespace.write(text, options).map(drop)
    }

    /// Erases a user.
    pub(crate) fn erase(
        &self,
        user: &str,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Erased, Error> {
        self.0.erase(user, progress)
    }

    /// Gives back what replaced and deleted documents take.
    pub(crate) fn compact(&self, progress: &mut dyn FnMut(Progress)) -> Result<(), Error> {
        self.0.compact_with(progress)
    }

    /// The store at one moment.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, Error> {
        self.0.snapshot()
    }

    /// Closes the store. What was written is then durable, however it was written.
    pub(crate) fn close(&self) -> Result<(), Error> {
        self.0.close()
    }
}
