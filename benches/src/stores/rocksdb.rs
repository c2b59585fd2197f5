//! RocksDB, with bloom filters and a shared block cache. Documents of 64 KiB and more are
//! stored in blob files. The tuning guide of RocksDB advises both.

use std::path::Path;

use rocksdb::{BlockBasedOptions, Cache, DB, WriteOptions};

use super::store::{Session, Store, StoreOptions};
use crate::Result;
use crate::documents::Key;

/// Minimum size of documents that are stored in blob files.
const LARGE_BYTES: usize = 64 * 1024;
/// Bits of the bloom filter per key.
const BLOOM_BITS: f64 = 10.0;

struct RocksDbStore {
    db: DB,
    write: WriteOptions,
}

pub(super) fn open(dir: &Path, options: StoreOptions) -> Result<Box<dyn Store>> {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(options.cache_bytes as usize));
    blocks.set_bloom_filter(BLOOM_BITS, false);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut with = rocksdb::Options::default();
    with.create_if_missing(true);
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    with.increase_parallelism(cores.try_into()?);
    with.set_level_compaction_dynamic_level_bytes(true);
    with.set_block_based_table_factory(&blocks);
    with.set_bytes_per_sync(1024 * 1024);
    if options.value_bytes >= LARGE_BYTES {
        with.set_enable_blob_files(true);
        with.set_min_blob_size(LARGE_BYTES as u64 / 2);
        with.set_enable_blob_gc(true);
    }
    let mut write = WriteOptions::default();
    write.set_sync(options.durable);
    let db = DB::open(&with, dir)?;
    Ok(Box::new(RocksDbStore { db, write }))
}

impl Store for RocksDbStore {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(self))
    }

    fn sync(&self) -> Result<()> {
        Ok(self.db.flush_wal(true)?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.sync()?;
        self.db.cancel_all_background_work(true);
        Ok(())
    }
}

impl Session for &RocksDbStore {
    fn put(&mut self, key: &Key, document: &[u8]) -> Result<()> {
        Ok(self.db.put_opt(key.joined(), document, &self.write)?)
    }

    fn get(&mut self, key: &Key, on_chunk: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let Some(document) = self.db.get_pinned(key.joined())? else {
            return Ok(false);
        };
        on_chunk(&document);
        Ok(true)
    }
}
