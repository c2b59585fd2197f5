//! The engine: a handle to an open store, which reads documents and lists the namespaces of users.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::api::handle::EngineHandle;
use crate::api::namespace::Namespace;
use crate::api::open::open;
use crate::api::read::{NamespaceReader, Peek};
use crate::catalogue::{Catalogue, CatalogueEntry, KnownDocuments, Listing, UserUsage};
use crate::commit::core::Core;
use crate::commit::writer::{Prepared, Writer};
use crate::index::document::Document;
use crate::model::config::Config;
use crate::model::damage::{Damage, DroppedTail};
#[cfg(doc)]
use crate::model::error::Error;
use crate::model::error::Result;
use crate::model::limits::Limits;
use crate::model::names::{AsName, Names, invalid_client, invalid_user};

/// An open store.
///
/// `Engine` is a handle: cloning is cheap, and all clones use the same store. An `Engine` can be
/// used from many threads at the same time.
///
/// [`Engine::close`] closes the store. Each `Engine`, [`Namespace`] and [`Located`](crate::Located)
/// is a handle to the open store. Dropping the last of these handles also closes the store, but
/// cannot report errors. If the process ends without closing the store, the next open recovers all
/// acknowledged writes. After a crash of the machine, the next open recovers all acknowledged
/// writes with [`Durability::Sync`](crate::Durability::Sync), but writes with
/// [`Durability::Buffered`](crate::Durability::Buffered) may be lost.
///
/// # Examples
/// ```
/// use prefd_engine::{Config, Engine, WriteOptions};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path();
/// let engine = Engine::open(Config::new(path))?;
/// let namespace = engine.namespace("user-1", "my-app")?;
/// let revision = namespace.write(br#"{"theme":"dark"}"#, WriteOptions::default())?;
/// let document = namespace.get()?.expect("a document is stored");
/// assert_eq!(Some(document.stat().revision), revision);
/// assert_eq!(document.read()?, br#"{"theme":"dark"}"#);
/// engine.close()?;
/// # Ok::<(), prefd_engine::Error>(())
/// ```
#[derive(Clone)]
pub struct Engine(pub(super) Arc<EngineHandle>);

impl Engine {
    /// Opens the store in [`Config::data_dir`]. Creates the directory and an empty store if they do
    /// not exist. With [`Config::read_only`], opens an existing store, and changes nothing in the
    /// directory.
    ///
    /// Blocks until the location of every document has been loaded into memory. If the store was
    /// closed with [`Engine::close`], `open` reads the manifest and the summaries of the log
    /// segments, but no documents. After a crash, `open` also reads the segment that was active at
    /// the time of the crash. The catalogue is opened in the background.
    ///
    /// Memory: the table of all documents usually uses less than 60 bytes for each document and for
    /// each tombstone (the record of a delete). [`Config`] has fields that limit the memory for
    /// caches, queues and the validation of large values.
    ///
    /// # Errors
    /// - [`Error::InvalidConfig`]: a setting is out of range.
    /// - [`Error::Locked`]: another engine, in this process or another one, has the directory
    ///   open. Several engines can have the directory open with [`Config::read_only`].
    /// - [`Error::NotAStore`]: [`Config::read_only`] is set, and the directory has no store.
    /// - [`Error::Corrupt`], [`Error::Unreadable`]: the manifest or the header of the active
    ///   segment is damaged, or the manifest is missing or outdated. A store with damage in other
    ///   files can be opened; see [`Self::damage`].
    /// - [`Error::UnsupportedFormat`]: the store has a format version that this version of the
    ///   engine cannot read. `open` does not change a store in an unsupported format.
    /// - [`Error::StorageFull`]: the disk has too little space for recovery.
    /// - [`Error::Io`].
    pub fn open(config: Config) -> Result<Self> {
        config.validate()?;
        config.limits.check()?;
        Ok(Self(Arc::new(open(config)?)))
    }

    /// Returns a handle to the namespace of a user and a client, even if the namespace contains no
    /// document. Never blocks.
    ///
    /// # Errors
    /// [`Error::InvalidName`] if a name is empty, is longer than 255 bytes, or contains a control
    /// character.
    pub fn namespace(&self, user: impl AsName, client: impl AsName) -> Result<Namespace> {
        let names = Names::new(user, client)?;
        Ok(Namespace::new(Arc::clone(&self.0), names))
    }

    /// Returns the document of a user and a client, or `None` if no document is stored. Returns the
    /// same result as [`Namespace::get`], but does not allocate a handle. Blocks on the disk unless
    /// the document is in the cache.
    ///
    /// # Errors
    /// [`Error::InvalidName`]; the errors of [`Namespace::get`].
    pub fn get(&self, user: impl AsName, client: impl AsName) -> Result<Option<Document>> {
        self.reader(&user, &client)?.get()
    }

    /// Looks up the document of a user and a client without accessing the disk. Returns the same
    /// result as [`Namespace::peek`], but allocates a handle only if the document is on disk. Never
    /// blocks on the disk, so `peek` can be called on an async worker thread.
    ///
    /// # Errors
    /// [`Error::InvalidName`]; the errors of [`Namespace::peek`].
    pub fn peek(&self, user: impl AsName, client: impl AsName) -> Result<Peek> {
        let reader = self.reader(&user, &client)?;
        reader.peek(|| Names::new(&user, &client))
    }

    /// Returns the latest date, in whole seconds, with which a document may be shown if it is
    /// looked up after this call. Never blocks.
    ///
    /// A date that was shown for a document must not match a later version of the document in a
    /// condition such as `If-Unmodified-Since`, even if the clock is set back. A program meets this
    /// requirement if it calls `latest_date` before each lookup, shows the earlier one of
    /// [`Stat::modified`](crate::Stat::modified) and this date, and compares the dates of
    /// conditions with [`Stat::modified`](crate::Stat::modified). Every write that is committed
    /// later gets a time in a later second than the shown date, also after the store is opened
    /// again.
    ///
    /// `now` is the current time. The returned date is at least one second earlier than `now`, and
    /// is not later than the time of the newest write to the store.
    ///
    /// # Examples
    /// ```
    /// use std::time::SystemTime;
    ///
    /// use prefd_engine::{Config, Engine, WriteOptions};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let engine = Engine::open(Config::new(dir.path()))?;
    /// let namespace = engine.namespace("alice", "editor")?;
    /// namespace.write(b"{}", WriteOptions::default())?;
    /// let latest = engine.latest_date(SystemTime::now());
    /// if let Some(stat) = namespace.stat()? {
    ///     let last_modified = stat.modified.min(latest);
    ///     assert!(last_modified < SystemTime::now());
    /// }
    /// # Ok::<(), prefd_engine::Error>(())
    /// ```
    pub fn latest_date(&self, now: SystemTime) -> SystemTime {
        let now = now.duration_since(SystemTime::UNIX_EPOCH);
        let limit = now.map_or(0, |now| now.as_secs().saturating_sub(1));
        let seconds = self.core().closed_time.close_until(limit);
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn reader<'a>(
        &'a self,
        user: &'a impl AsName,
        client: &'a impl AsName,
    ) -> Result<NamespaceReader<'a>> {
        let user = user.as_name_str().map_err(invalid_user)?;
        let client = client.as_name_str().map_err(invalid_client)?;
        let hash = self.core().directory.hash(user, client);
        Ok(NamespaceReader {
            handle: &self.0,
            user,
            client,
            hash,
        })
    }

    /// The limits for new documents. Never blocks.
    pub fn limits(&self) -> &Limits {
        &self.0.core.write_context.limits
    }

    /// Returns a writer for a document that arrives in chunks. Never blocks.
    pub fn writer(&self) -> Writer {
        Writer::new(Arc::clone(&self.0.core.write_context))
    }

    /// Returns the approximate maximum memory of a [`Writer`] that receives a document of `length`
    /// bytes, in bytes. Does not include the memory for a value that is read back for validation.
    /// Never blocks.
    pub fn writer_bytes(&self, length: u64) -> u64 {
        self.0.core.write_context.writer_bytes(length)
    }

    /// Validates a document that is completely in memory, and prepares it for a commit.
    ///
    /// Blocks on the disk if the document is longer than [`Config::inline_bytes`], because a large
    /// document is written to a blob file and synced.
    ///
    /// # Errors
    /// The errors of [`Writer::write`] and [`Writer::finish`].
    pub fn prepare(&self, body: &[u8]) -> Result<Prepared> {
        Writer::prepare(&self.0.core.write_context, body)
    }

    /// Lists the namespaces of `user` that contain a document, in the byte order of their clients.
    /// Returns up to `limit` entries, starting after the client `after`. The result reflects every
    /// write that was acknowledged before the call.
    ///
    /// Blocks on the disk. The call also waits while the catalogue is being rebuilt after a crash
    /// or an erasure, and while the catalogue catches up after a burst of writes
    /// ([`Config::catalogue_pending_bytes`]).
    ///
    /// # Errors
    /// - [`Error::InvalidName`]: `user` is not a valid name.
    /// - [`Error::CatalogueUnavailable`]: the catalogue is disabled or has failed, or a rebuild of
    ///   the catalogue started during the call.
    /// - [`Error::Corrupt`], [`Error::Unreadable`]: the list could be incomplete, because a damaged
    ///   frame, or a file that could not be read, may belong to any user. [`Self::list_known`]
    ///   returns the documents that are known. If the damage was found after the store was opened,
    ///   the next call reads the log again, but at most once a minute.
    /// - [`Error::Closed`].
    pub fn list(
        &self,
        user: impl AsName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<CatalogueEntry>> {
        let user = user.as_name_str().map_err(invalid_user)?;
        self.complete_catalogue()?
            .list(user, after, limit)?
            .complete()
    }

    /// Lists the namespaces of all users that contain a document, in the byte order of users and
    /// then clients. Returns up to `limit` pairs of a user and an entry, starting after the user
    /// and client `after`. Blocks like [`Self::list`].
    ///
    /// # Errors
    /// The errors of [`Self::list`], except [`Error::InvalidName`].
    pub fn list_all(
        &self,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<(String, CatalogueEntry)>> {
        self.complete_catalogue()?
            .list_all(after, limit)?
            .complete()
    }

    /// Lists the namespaces of all users like [`Self::list_all`], but does not fail if the list is
    /// incomplete because of damage. If `user` is given, lists only the namespaces of that user.
    /// Use `list_known` to rescue the documents of a damaged store. The list is complete if
    /// [`KnownDocuments::damage`] is `None` and [`Self::damage`] returns no damage. Blocks like
    /// [`Self::list`].
    ///
    /// # Errors
    /// [`Error::InvalidName`]; [`Error::CatalogueUnavailable`]; [`Error::Closed`].
    pub fn list_known(
        &self,
        user: Option<&str>,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<KnownDocuments> {
        self.core().check_open()?;
        let catalogue = &self.core().catalogue;
        let listing = match user {
            None => catalogue.list_all(after, limit)?,
            Some(user) => {
                let user = user.as_name_str().map_err(invalid_user)?;
                let after = after.map(|(_, client)| client);
                let Listing { entries, skipped } = catalogue.list(user, after, limit)?;
                let named = entries.into_iter().map(|entry| (user.to_owned(), entry));
                Listing {
                    entries: named.collect(),
                    skipped,
                }
            }
        };
        Ok(KnownDocuments {
            entries: listing.entries,
            damage: listing.skipped.as_ref().and_then(Damage::from_error),
        })
    }

    /// Returns the number of documents of `user`, their total number of keys, and their total size
    /// in bytes. Blocks like [`Self::list`].
    ///
    /// # Errors
    /// The errors of [`Self::list`].
    pub fn usage(&self, user: impl AsName) -> Result<UserUsage> {
        let user = user.as_name_str().map_err(invalid_user)?;
        self.complete_catalogue()?.usage(user)
    }

    /// Returns the catalogue, if recovery found no damage that may hide documents from it.
    fn complete_catalogue(&self) -> Result<&Catalogue> {
        self.core().check_open()?;
        self.core().check_listable()?;
        Ok(&self.core().catalogue)
    }

    /// Returns a pseudonym for a user: a number that identifies the user, for example in logs, but
    /// does not reveal the name.
    ///
    /// The pseudonym of a user never changes, and is the same in copies of the store. The pseudonym
    /// is a hash of the name with a secret key, which is stored in the store. Without the key, it
    /// is impossible to check whether a pseudonym belongs to a given name. Never blocks.
    pub fn pseudonym(&self, user: &str) -> u64 {
        // The hash of a user with an empty client name is not the hash of any namespace, because
        // the client name of a namespace is never empty.
        self.core().directory.hash(user, "").halves().0
    }

    /// Returns the damage that was found when the store was opened. The list contains the first
    /// damage of each log segment in which a damaged frame may be the current frame of a namespace.
    /// In a damaged store, [`Self::list`], [`Self::list_all`] and [`Self::usage`] may fail, and the
    /// result of [`Self::list_known`] may be incomplete. Never blocks.
    pub fn damage(&self) -> &[Damage] {
        &self.core().damage
    }

    /// Returns the bytes at the end of the log that were dropped when the store was opened, or
    /// `None` if no bytes were dropped. Usually, these bytes are a write that a crash interrupted.
    /// However, damage to a write that was committed shortly before a crash
    /// ([`Config::mark_delay`]) looks the same. Never blocks.
    pub fn dropped_tail(&self) -> Option<&DroppedTail> {
        self.core().dropped.as_ref()
    }

    /// Counts the documents by iterating over the entire table in memory. [`Self::usage_on_disk`]
    /// returns the same number without iterating over the table.
    pub fn documents(&self) -> u64 {
        self.core().table.documents()
    }

    /// Checks that no failure has stopped all writes. Does not check whether the disk is full or
    /// the store is closed. Never blocks.
    ///
    /// # Errors
    /// - [`Error::Poisoned`] if an earlier failure has stopped all writes, for example a failed
    ///   sync of the log, or the removal of the data directory (which is detected within a second).
    ///   To make writes possible again, close the store and open it again.
    /// - [`Error::ReadOnly`] if the store is open for reading only.
    pub fn writable(&self) -> Result<()> {
        self.core().poison().map_or(Ok(()), Err)
    }

    /// Returns true if the data directory itself is locked. Returns false if the file system cannot
    /// lock directories. In this case, only the file `lock` is locked, and another engine can open
    /// the store if somebody removes this file. Never blocks.
    pub fn is_directory_locked(&self) -> bool {
        self.core().watch.lock().is_directory_locked()
    }

    /// Closes the store: commits all queued writes, seals the log so that the next open is
    /// fast, removes obsolete files, and unlocks the directory.
    ///
    /// Reads and writes after `close` fail with [`Error::Closed`]. Blocks until the store is
    /// closed. If `close` is called a second time, the second call waits for the first one, and
    /// then does nothing.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::StorageFull`] or [`Error::Io`] if the log could not be sealed.
    /// After such an error, the next open recovers the store as after a crash.
    pub fn close(&self) -> Result<()> {
        self.0.close()
    }

    pub(crate) fn core(&self) -> &Core {
        &self.0.core
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("log", &self.core().directory.dir)
            .finish_non_exhaustive()
    }
}
