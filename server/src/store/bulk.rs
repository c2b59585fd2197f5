//! The store as threads use it that go through many documents: exports, imports and
//! measurements. Every call here may block.

use prefd_engine::{
    Commit, Document, Durability, Engine, Erased, Error, Precondition, Prepared, Progress,
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

    /// Hands each document to `take`, or each of one user.
    pub(crate) fn each_document<E: From<Error>>(
        &self,
        user: Option<&str>,
        mut take: impl FnMut(Name<'_>, &Document) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut last: Option<(String, String)> = None;
        loop {
            let page = self.page(user, last.as_ref())?;
            for (user, client) in &page {
                let name = Name { user, client };
                // One that was deleted since is none.
                if let Some(document) = self.get(name)? {
                    take(name, &document)?;
                }
            }
            last = page.into_iter().next_back();
            if last.is_none() {
                return Ok(());
            }
        }
    }

    /// The namespaces behind `last`, or those of one user.
    fn page(
        &self,
        user: Option<&str>,
        last: Option<&(String, String)>,
    ) -> Result<Vec<(String, String)>, Error> {
        let after = last.map(|(user, client)| (user.as_str(), client.as_str()));
        Ok(match user {
            Some(user) => self
                .0
                .list(user, after.map(|(_, client)| client), PAGE)?
                .into_iter()
                .map(|entry| (user.to_owned(), entry.client))
                .collect(),
            None => self
                .0
                .list_all(after, PAGE)?
                .into_iter()
                .map(|(user, entry)| (user, entry.client))
                .collect(),
        })
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
