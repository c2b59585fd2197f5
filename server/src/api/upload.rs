//! A document on its way in: from the connection, chunk by chunk, to the store's
//! writer.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use crate::http::{Budget, Code, Refusal};
use crate::net::BUFFER_BYTES;
use crate::store::{Prepared, Store};

/// What an upload may bring before it takes room in the budget. So one that brings next
/// to nothing keeps no others from it, and most documents need none.
const FREE_BYTES: usize = 16 * 1024;
/// What counts as going on: a client that sends less keeps others from the memory.
const PROGRESS_BYTES: usize = 16 * 1024;
/// What one upload takes at most, in addition to what the store's writer takes.
pub(crate) const BUFFERS_BYTES: u64 = 2 * BUFFER_BYTES as u64;

/// A document that was received, and its room in the budget.
pub(super) struct Received {
    pub(crate) document: Prepared,
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

/// Receives a document. `idle`: how long the client may send nothing.
///
/// Reading the body is what asks for it, where the client waits for that.
pub(super) async fn receive(
    store: &Store,
    body: &mut Incoming,
    idle: Duration,
    budget: &Budget,
) -> Result<Received, Box<Refusal>> {
    let length = body.size_hint().exact();
    let mut room = None;
    let mut bytes = 0;
    let mut writer = store.writer();
    let mut waits_since = Instant::now();
    let mut moved_bytes = 0;
    while !body.is_end_stream() {
        let next = tokio::select! {
            biased;
            next = timeout(idle, body.frame()) => next.map_err(|_| Stalled::TooLong),
            // One that has no room cannot give any.
            () = budget.is_wanted_from(waits_since), if room.is_some() => {
                Err(Stalled::WhileOthersWait)
            }
        };
        let frame = match next {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            cut => {
                // What is wrong with the bytes before comes first.
                writer.abandon().await?;
                return Err(cut_short(cut));
            }
        };
        let Ok(chunk) = frame.into_data() else {
            continue;
        };
        bytes += chunk.len();
        if bytes > FREE_BYTES && room.is_none() {
            room = Some(budget.take(length).await?);
        }
        moved_bytes += chunk.len();
        if moved_bytes >= PROGRESS_BYTES {
            (waits_since, moved_bytes) = (Instant::now(), 0);
        }
        if body.is_end_stream() {
            let document = writer.finish_with(chunk).await?;
            return Ok(Received { document, room });
        }
        writer = writer.write(chunk).await?;
    }
    let document = writer.finish().await?;
    Ok(Received { document, room })
}

/// How a body stalled.
enum Stalled {
    TooLong,
    WhileOthersWait,
}

/// Why a body that does not go on is refused.
fn cut_short<T>(next: Result<Option<hyper::Result<T>>, Stalled>) -> Box<Refusal> {
    let detail = match next {
        Err(Stalled::TooLong) => "The body did not go on in time.",
        Err(Stalled::WhileOthersWait) => "The body came too slowly while others waited.",
        Ok(cut) => {
            if let Some(Err(error)) = cut {
                tracing::debug!(%error, "a body broke off");
            }
            return Refusal::new(
                Code::InvalidRequest,
                "The body is not framed correctly, or it broke off.",
            );
        }
    };
    Refusal::new(Code::RequestTimeout, detail)
}
