//! Every metric: its name, what it means, and where its value is.
//!
//! Names and units as Prometheus has them (<https://prometheus.io/docs/practices/naming/>):
//! base units, `_total` behind what only grows, which the encoder adds.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::store::{Histogram, Metrics};
use crate::telemetry::process::Process;
use crate::telemetry::sources::Sources;

/// What [`Sources`] have, for an encoder.
pub(super) struct Exposition(pub(super) Sources);

impl fmt::Debug for Exposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exposition")
    }
}

impl Collector for Exposition {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.http(&mut out)?;
        self.server(&mut out)?;
        self.identity(&mut out)?;
        self.store(&mut out)?;
        process(&mut out)
    }
}

/// Metrics one after the other.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.one(name, help, &ConstCounter::new(value), MetricType::Counter)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.one(name, help, &ConstGauge::new(value), MetricType::Gauge)
    }

    fn decimal(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.one(name, help, &ConstGauge::new(value), MetricType::Gauge)
    }

    /// `units`: how many of a value's units make one of the metric's.
    #[allow(clippy::cast_precision_loss, reason = "shown, and never so large")]
    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: &Histogram,
        units: f64,
    ) -> fmt::Result {
        let bounds = values.bounds.iter().map(|bound| *bound as f64 / units);
        let bounds = bounds.chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(values.counts.iter().copied()).collect();
        self.0
            .encode_descriptor(name, help, unit, MetricType::Histogram)?
            .encode_histogram::<[(&str, &str); 0]>(
                values.sum as f64 / units,
                values.count(),
                &buckets,
                None,
            )
    }

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

    /// One metric with a value for each set of labels.
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
    fn http(&self, out: &mut Out<'_>) -> fmt::Result {
        let requests = &self.0.requests;
        out.family(
            "prefd_http_requests",
            "Requests that were answered on the API listener",
            MetricType::Counter,
            requests
                .answered()
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
        let mut times = out.0.encode_descriptor(
            "prefd_http_request_duration",
            "Time from a request's head to the head of its answer, the body of a PUT included",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for histogram in requests.times() {
            times
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

    fn server(&self, out: &mut Out<'_>) -> fmt::Result {
        let Sources {
            connections,
            budget,
            max_connections,
            health,
            ..
        } = &self.0;
        out.gauge(
            "prefd_http_connections",
            "Connections of the API listener",
            connections.open.get(),
        )?;
        out.gauge(
            "prefd_http_connections_max",
            "Connections that there may be at a time",
            *max_connections as u64,
        )?;
        out.counter(
            "prefd_tls_handshakes_failed",
            "TLS handshakes that failed or did not end in time",
            connections.failed_handshakes.get(),
        )?;
        out.gauge(
            "prefd_http_bodies_bytes",
            "Memory that bodies in flight have been given",
            budget.taken_bytes(),
        )?;
        out.gauge(
            "prefd_http_bodies_max_bytes",
            "Memory that bodies in flight may be given",
            budget.all_bytes(),
        )?;
        out.gauge(
            "prefd_ready",
            "Whether /readyz says yes",
            u64::from(health.reasons().is_empty()),
        )?;
        out.family(
            "prefd_build_info",
            "The version that runs; always 1",
            MetricType::Gauge,
            std::iter::once(([("version", env!("CARGO_PKG_VERSION"))], 1)),
        )
    }

    fn identity(&self, out: &mut Out<'_>) -> fmt::Result {
        let authenticator = &self.0.authenticator;
        let counters = authenticator.counters();
        out.counter(
            "prefd_tokens_remembered",
            "Tokens of which it was still known whether they are good",
            counters.cached.get(),
        )?;
        out.counter(
            "prefd_tokens_judged",
            "Tokens that were judged anew, by a key or by asking",
            counters.verified.get(),
        )?;
        out.family(
            "prefd_identity_provider_up",
            "Whether the last fetch of a provider's keys went well",
            MetricType::Gauge,
            authenticator
                .providers()
                .iter()
                .map(|provider| ([("provider", provider.name())], u64::from(provider.is_up()))),
        )?;
        out.family(
            "prefd_identity_provider_fetches",
            "Times that a provider's keys were fetched, or could not be",
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
            "Questions about tokens to an identity provider",
            introspection.requests().get(),
        )?;
        out.counter(
            "prefd_introspections_failed",
            "Questions about tokens that were not answered",
            introspection.failed_requests().get(),
        )
    }

    fn store(&self, out: &mut Out<'_>) -> fmt::Result {
        let metrics = self.0.store.metrics();
        let space = &metrics.space;
        out.gauge("prefd_documents", "Documents in the store", space.documents)?;
        out.gauge("prefd_log_segments", "Files of the log", space.segments)?;
        out.gauge(
            "prefd_log_live_bytes",
            "Bytes of current documents in the log",
            space.live_bytes,
        )?;
        out.gauge(
            "prefd_log_dead_bytes",
            "Bytes of the log that are replaced, deleted, or not documents",
            space.dead_bytes,
        )?;
        out.gauge(
            "prefd_blobs",
            "Large documents, each in a file of its own",
            space.blobs,
        )?;
        out.gauge(
            "prefd_damaged_frames",
            "Frames of the log that cannot be read",
            space.damaged_frames,
        )?;
        out.gauge(
            "prefd_writable",
            "Whether writes are possible: 0 after a failed sync, until prefd is started anew",
            metrics.is_writable.into(),
        )?;
        reads(out, &metrics)?;
        writes(out, &metrics)?;
        compaction(out, &metrics)
    }
}

fn reads(out: &mut Out<'_>, metrics: &Metrics) -> fmt::Result {
    out.family(
        "prefd_document_reads",
        "Reads of a document or of what is known of it, by where that was",
        MetricType::Counter,
        [
            ([("from", "memory")], metrics.reads_from_memory),
            ([("from", "disk")], metrics.reads_from_disk),
        ]
        .into_iter(),
    )?;
    out.gauge(
        "prefd_document_cache_bytes",
        "Memory of documents that were read lately",
        metrics.cache_bytes,
    )
}

fn writes(out: &mut Out<'_>, metrics: &Metrics) -> fmt::Result {
    out.histogram(
        "prefd_commit_writes",
        "Puts and deletes that were committed together",
        None,
        &metrics.batch_writes,
        1.0,
    )?;
    out.histogram(
        "prefd_log_sync_duration",
        "Time that syncs of the log took (fdatasync)",
        Some(&Unit::Seconds),
        &metrics.log_sync_us,
        1e6,
    )?;
    out.counter(
        "prefd_log_written_bytes",
        "Bytes that puts and deletes have added to the log",
        metrics.log_bytes,
    )?;
    out.counter(
        "prefd_blob_syncs",
        "Syncs of large documents' files",
        metrics.blob_syncs,
    )?;
    out.gauge(
        "prefd_queued_writes",
        "Writes that wait to be committed",
        metrics.queued_writes,
    )?;
    out.gauge(
        "prefd_queued_writes_bytes",
        "Memory of writes that wait to be committed",
        metrics.queued_bytes,
    )?;
    out.gauge(
        "prefd_catalogue_pending_bytes",
        "Memory of changes that wait for the catalogue",
        metrics.catalogue_pending_bytes,
    )
}

fn compaction(out: &mut Out<'_>, metrics: &Metrics) -> fmt::Result {
    out.counter(
        "prefd_compacted_segments",
        "Files of the log that were written anew and removed",
        metrics.segments_rewritten,
    )?;
    out.counter(
        "prefd_compaction_copied_bytes",
        "Bytes of documents that compaction has copied",
        metrics.copied_bytes,
    )
}

fn process(out: &mut Out<'_>) -> fmt::Result {
    let process = Process::now();
    if let Some(seconds) = process.cpu_seconds {
        let counter = ConstCounter::new(seconds);
        out.one(
            "process_cpu_seconds",
            "Processor time, in the kernel too",
            &counter,
            MetricType::Counter,
        )?;
    }
    if let Some(bytes) = process.resident_bytes {
        out.gauge(
            "process_resident_memory_bytes",
            "Memory that the process has resident",
            bytes,
        )?;
    }
    if let Some(files) = process.open_files {
        out.gauge("process_open_fds", "Open file descriptors", files)?;
    }
    if let Some(files) = process.max_files {
        out.gauge(
            "process_max_fds",
            "File descriptors that there may be",
            files,
        )?;
    }
    if let Some(seconds) = process.start_seconds {
        out.decimal(
            "process_start_time_seconds",
            "When the process began, in seconds since 1970",
            seconds,
        )?;
    }
    Ok(())
}
