//! Defines the name, the help text and the value of every metric.
//!
//! Names and units follow the conventions of Prometheus
//! (<https://prometheus.io/docs/practices/naming/>): base units, and the suffix `_total` for
//! counters. The encoder adds the suffix `_total` to the name of a counter, and the unit, if any,
//! to the name of a histogram. docs/operations.md lists the metrics.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::store::{Histogram, Metrics};
use crate::telemetry::process::ProcessStats;
use crate::telemetry::sources::MetricSources;

/// Encodes the metrics that are read from [`MetricSources`].
pub(super) struct Exposition(pub(super) MetricSources);

impl fmt::Debug for Exposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exposition")
    }
}

impl Collector for Exposition {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = MetricEncoder(encoder);
        self.http(&mut out)?;
        self.server(&mut out)?;
        self.identity(&mut out)?;
        self.store(&mut out)?;
        process(&mut out)
    }
}

/// Encodes metrics in the order in which the methods are called.
struct MetricEncoder<'a>(DescriptorEncoder<'a>);

impl MetricEncoder<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.one(name, help, &ConstCounter::new(value), MetricType::Counter)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.one(name, help, &ConstGauge::new(value), MetricType::Gauge)
    }

    /// Encodes a gauge whose value may be a fraction.
    fn float_gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.one(name, help, &ConstGauge::new(value), MetricType::Gauge)
    }

    /// The values are divided by `scale` to convert them to the unit of the metric. For values in
    /// microseconds and a metric in seconds, `scale` is 1e6.
    #[allow(
        clippy::cast_precision_loss,
        reason = "a metric does not need more precision"
    )]
    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: &Histogram,
        scale: f64,
    ) -> fmt::Result {
        let bounds = values.bounds.iter().map(|bound| *bound as f64 / scale);
        let bounds = bounds.chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(values.counts.iter().copied()).collect();
        self.0
            .encode_descriptor(name, help, unit, MetricType::Histogram)?
            .encode_histogram::<[(&str, &str); 0]>(
                values.sum as f64 / scale,
                values.count(),
                &buckets,
                None,
            )
    }

    /// Encodes one metric without labels.
    fn one(
        &mut self,
        name: &str,
        help: &str,
        metric: &impl EncodeMetric,
        kind: MetricType,
    ) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, kind)?;
        metric.encode(encoder)
    }

    /// Encodes one metric with a value for each set of labels.
    fn family<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        rows: impl Iterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in rows {
            let encoder = family.encode_family(&labels)?;
            match kind {
                MetricType::Counter => ConstCounter::new(value).encode(encoder)?,
                _ => ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder)?,
            }
        }
        Ok(())
    }
}

impl Exposition {
    fn http(&self, out: &mut MetricEncoder<'_>) -> fmt::Result {
        let requests = &self.0.requests;
        out.family(
            "prefd_http_requests",
            "Responses that the API listener has sent",
            MetricType::Counter,
            requests
                .counts()
                .into_iter()
                .map(|(route, method, status, count)| {
                    let labels = [
                        ("route", route.to_owned()),
                        ("method", method.to_owned()),
                        ("status", status),
                    ];
                    (labels, count)
                }),
        )?;
        let mut durations = out.0.encode_descriptor(
            "prefd_http_request_duration",
            "Time from the request head to the response head; for a PUT, this includes receiving the body and syncing",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for histogram in requests.durations() {
            durations
                .encode_family(&[("method", histogram.method)])?
                .encode_histogram::<[(&str, &str); 0]>(
                    histogram.sum_seconds,
                    histogram.count,
                    &histogram.buckets,
                    None,
                )?;
        }
        Ok(())
    }

    fn server(&self, out: &mut MetricEncoder<'_>) -> fmt::Result {
        let MetricSources {
            connections,
            budget,
            max_connections,
            health,
            ..
        } = &self.0;
        out.gauge(
            "prefd_http_connections",
            "Open connections of the API listener",
            connections.open.get(),
        )?;
        out.gauge(
            "prefd_http_connections_max",
            "Maximum number of connections of the API listener",
            *max_connections as u64,
        )?;
        out.counter(
            "prefd_tls_handshakes_failed",
            "TLS handshakes that failed or timed out",
            connections.failed_handshakes.get(),
        )?;
        out.gauge(
            "prefd_http_bodies_bytes",
            "Memory reserved for request bodies that are being received",
            budget.memory_bytes(),
        )?;
        out.gauge(
            "prefd_http_bodies_max_bytes",
            "Maximum memory for request bodies that are being received",
            budget.max_memory_bytes(),
        )?;
        out.gauge(
            "prefd_unfinished_uploads_bytes",
            "Disk space reserved for documents that are being received",
            budget.disk_bytes(),
        )?;
        out.gauge(
            "prefd_unfinished_uploads_max_bytes",
            "Maximum disk space for documents that are being received",
            budget.max_disk_bytes(),
        )?;
        let evictions = budget.evictions();
        out.family(
            "prefd_uploads_ended",
            "Uploads that the server has ended before the body was complete, to free memory or disk space",
            MetricType::Counter,
            [
                ([("reason", "stalled")], evictions.stalled.get()),
                ([("reason", "memory")], evictions.memory.get()),
                ([("reason", "disk")], evictions.disk.get()),
            ]
            .into_iter(),
        )?;
        out.gauge(
            "prefd_ready",
            "1 if /readyz returns 200, otherwise 0",
            u64::from(health.not_ready_reasons().is_empty()),
        )?;
        out.family(
            "prefd_build_info",
            "Always 1; the label is the version of prefd",
            MetricType::Gauge,
            std::iter::once(([("version", env!("CARGO_PKG_VERSION"))], 1)),
        )
    }

    fn identity(&self, out: &mut MetricEncoder<'_>) -> fmt::Result {
        let authenticator = &self.0.authenticator;
        let counters = authenticator.counters();
        out.counter(
            "prefd_tokens_remembered",
            "Token verifications answered from a cache",
            counters.cached.get(),
        )?;
        out.counter(
            "prefd_tokens_judged",
            "Token verifications that were not answered from a cache",
            counters.verified.get(),
        )?;
        out.family(
            "prefd_identity_provider_up",
            "1 if the last fetch of the identity provider's keys succeeded, otherwise 0",
            MetricType::Gauge,
            authenticator
                .providers()
                .iter()
                .map(|provider| ([("provider", provider.name())], u64::from(provider.is_up()))),
        )?;
        out.family(
            "prefd_identity_provider_fetches",
            "Fetches of the identity provider's keys, successful or not",
            MetricType::Counter,
            authenticator
                .providers()
                .iter()
                .map(|provider| ([("provider", provider.name())], provider.fetches())),
        )?;
        let Some(introspection) = authenticator.introspection() else {
            return Ok(());
        };
        out.counter(
            "prefd_introspections",
            "Token introspection requests",
            introspection.requests().get(),
        )?;
        out.counter(
            "prefd_introspections_failed",
            "Token introspection requests that failed",
            introspection.failed_requests().get(),
        )
    }

    fn store(&self, out: &mut MetricEncoder<'_>) -> fmt::Result {
        let metrics = self.0.store.metrics();
        let space = &metrics.space;
        out.gauge("prefd_documents", "Stored documents", space.documents)?;
        out.gauge("prefd_log_segments", "Segments of the log", space.segments)?;
        out.gauge(
            "prefd_log_live_bytes",
            "Live bytes: frames of current documents in the log",
            space.live_bytes,
        )?;
        out.gauge(
            "prefd_log_dead_bytes",
            "Dead bytes: all other frames in the log, such as replaced and deleted documents",
            space.dead_bytes,
        )?;
        out.gauge(
            "prefd_blobs",
            "Blob files that contain current documents",
            space.blobs,
        )?;
        out.gauge(
            "prefd_damaged_frames",
            "Unreadable frames of the log that may contain current documents",
            space.damaged_frames,
        )?;
        out.gauge(
            "prefd_writable",
            "1 in normal operation; 0 if a failed sync or another failure has stopped all writes until a restart",
            metrics.is_writable.into(),
        )?;
        reads(out, &metrics)?;
        writes(out, &metrics)?;
        compaction(out, &metrics)
    }
}

fn reads(out: &mut MetricEncoder<'_>, metrics: &Metrics) -> fmt::Result {
    out.family(
        "prefd_document_reads",
        "Reads of a document or its metadata, from memory or from disk",
        MetricType::Counter,
        [
            ([("from", "memory")], metrics.reads_from_memory),
            ([("from", "disk")], metrics.reads_from_disk),
        ]
        .into_iter(),
    )?;
    out.gauge(
        "prefd_document_cache_bytes",
        "Memory used by the document cache",
        metrics.cache_bytes,
    )
}

fn writes(out: &mut MetricEncoder<'_>, metrics: &Metrics) -> fmt::Result {
    out.histogram(
        "prefd_commit_writes",
        "Writes per commit; the writes of a commit share one sync",
        None,
        &metrics.batch_writes,
        1.0,
    )?;
    out.histogram(
        "prefd_log_sync_duration",
        "Duration of log syncs (fdatasync)",
        Some(&Unit::Seconds),
        &metrics.log_sync_us,
        1e6,
    )?;
    out.counter(
        "prefd_log_written_bytes",
        "Bytes appended to the log by writes, without the copies that compaction makes",
        metrics.log_bytes,
    )?;
    out.counter(
        "prefd_log_marks",
        "Marks written to the log after a time without writes",
        metrics.marks,
    )?;
    out.counter("prefd_blob_syncs", "Syncs of blobs", metrics.blob_syncs)?;
    out.gauge(
        "prefd_queued_writes",
        "Writes in the commit queue",
        metrics.queued_writes,
    )?;
    out.gauge(
        "prefd_queued_writes_bytes",
        "Memory used by the commit queue",
        metrics.queued_bytes,
    )?;
    out.gauge(
        "prefd_catalogue_pending_bytes",
        "Memory used by changes that are not yet in the catalogue",
        metrics.catalogue_pending_bytes,
    )
}

fn compaction(out: &mut MetricEncoder<'_>, metrics: &Metrics) -> fmt::Result {
    out.counter(
        "prefd_compacted_segments",
        "Segments that compaction or an erasure removed from the log",
        metrics.segments_rewritten,
    )?;
    out.counter(
        "prefd_compaction_copied_bytes",
        "Bytes that compaction or an erasure copied from removed segments",
        metrics.copied_bytes,
    )
}

fn process(out: &mut MetricEncoder<'_>) -> fmt::Result {
    let process = ProcessStats::read();
    if let Some(seconds) = process.cpu_seconds {
        let counter = ConstCounter::new(seconds);
        out.one(
            "process_cpu_seconds",
            "Processor time in user and kernel mode, in seconds",
            &counter,
            MetricType::Counter,
        )?;
    }
    if let Some(bytes) = process.resident_bytes {
        out.gauge("process_resident_memory_bytes", "Resident memory", bytes)?;
    }
    if let Some(files) = process.open_files {
        out.gauge("process_open_fds", "Open file descriptors", files)?;
    }
    if let Some(files) = process.max_files {
        out.gauge(
            "process_max_fds",
            "Maximum number of open file descriptors",
            files,
        )?;
    }
    if let Some(seconds) = process.start_seconds {
        out.float_gauge(
            "process_start_time_seconds",
            "Start time of the process, in seconds since 1970",
            seconds,
        )?;
    }
    Ok(())
}
