//! Verification of documents in blobs, and of the catalogue.

use std::sync::Arc;

use crate::catalogue::audit::{AuditOutcome, audit};
use crate::catalogue::marker::CatalogueIdentity;
use crate::catalogue::row::DocumentVisitor;
use crate::format::location::FrameLocation;
use crate::format::summary::entry::SummaryEntry;
use crate::index::document::Document;
use crate::index::loader;
use crate::model::error::{Error, Result};
use crate::offline::report::{CatalogueCheck, Impact};
use crate::offline::verify::verifier::Verifier;
use crate::storage::blobs::BlobStore;
use crate::storage::log::reader::FrameReader;

impl Verifier<'_> {
    /// Reads every current document whose body is in a blob.
    pub(super) fn verify_blob_documents(&mut self) -> Result<()> {
        let config = self.config;
        let blobs = BlobStore::open_read_only(
            Arc::clone(&config.fs),
            &config.data_dir.join("blobs"),
            self.scan.directory.store,
            self.scan.documents.blobs(),
        )?;
        self.report.unnamed_blobs = blobs.obsolete_count();
        if let Err(error) = blobs.check_origin() {
            self.record_problem(&error, Impact::Document, None)?;
        }
        let reader = self.reader();
        for entry in std::mem::take(&mut self.blob_documents) {
            let mut namespace = None;
            match self.read_document(&reader, &blobs, &entry, &mut namespace) {
                Ok(()) => self.report.documents += 1,
                Err(error) => self.record_problem(&error, Impact::Document, namespace)?,
            }
        }
        Ok(())
    }

    /// Reads all bytes of a document. Sets `namespace` as soon as the names are known. If a later
    /// step fails, the caller can then report the names with the error.
    fn read_document(
        &mut self,
        reader: &FrameReader,
        blobs: &BlobStore,
        entry: &FrameLocation,
        namespace: &mut Option<(String, String)>,
    ) -> Result<()> {
        let frame = reader.any_frame(entry, |_| true)?;
        *namespace = Some((frame.names.user.to_string(), frame.names.client.to_string()));
        for chunk in Document::new(frame, blobs)?.chunks() {
            self.add_read_bytes(chunk?.len() as u64);
        }
        Ok(())
    }

    /// Compares the catalogue with the documents. Does nothing if the store was not closed cleanly
    /// or if documents are damaged, because the catalogue may then differ from the documents.
    pub(super) fn verify_catalogue(&mut self) -> Result<()> {
        let scan = self.scan;
        let is_clean = scan.manifest.segments.iter().all(|r| r.sealed.is_some());
        if !is_clean
            || self
                .report
                .problems
                .iter()
                .any(|p| p.impact == Impact::Document)
        {
            return Ok(());
        }
        let identity = CatalogueIdentity {
            store: scan.directory.store,
            reserved_revision: scan.manifest.reserved_revision,
        };
        let dir = self.config.data_dir.join("catalogue");
        let is_current = |segment, entry: &SummaryEntry| scan.is_current(segment, entry);
        let index = (&scan.documents.table, &scan.documents.accounting);
        let documents = |visit: &mut DocumentVisitor<'_>| {
            loader::visit(&scan.directory, index, is_current, visit)
        };
        let audit = audit(
            &dir,
            self.config.catalogue_cache_bytes,
            identity,
            &documents,
        )?;
        self.report.catalogue = match audit {
            AuditOutcome::Agrees => CatalogueCheck::Agrees,
            AuditOutcome::Unclean => CatalogueCheck::Unclean,
            AuditOutcome::Skipped(error) => {
                self.record_problem(&error, Impact::Document, None)?;
                CatalogueCheck::Unclean
            }
            AuditOutcome::Unchecked => CatalogueCheck::Unchecked,
            AuditOutcome::Differs(what) => {
                self.record_problem(&Error::corrupt(&dir, 0, what), Impact::Derived, None)?;
                CatalogueCheck::Differs
            }
        };
        Ok(())
    }
}
