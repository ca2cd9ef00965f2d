//! Answer bodies: whole, cut short, slow, or generated while they are sent.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Interval, interval};

use crate::fault::endless_chunk;

/// A body of a simulated answer.
#[derive(Debug)]
pub(crate) enum SimBody {
    /// All of it at once.
    Full(Option<Bytes>),
    /// This much, then the connection ends; the length said is that of the whole.
    Truncated { left: Option<Bytes>, claimed: u64, flushed: bool },
    /// A little at a time.
    Drip { left: Bytes, step: usize, clock: Interval },
    /// `{"Filler":"xxx…"}`.
    Endless { stage: Stage, left: u64 },
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Head,
    Filler,
    Done,
}

/// The end of a truncated body, which makes the server end the connection.
#[derive(Debug, thiserror::Error)]
#[error("the body is cut short on purpose")]
pub(crate) struct CutShort;

impl From<Infallible> for CutShort {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// How often a slow body moves.
const TICKS_PER_SECOND: usize = 10;

impl SimBody {
    pub(crate) fn truncated(body: &Bytes, after: usize) -> Self {
        let left = Some(body.slice(..after.min(body.len())));
        Self::Truncated { left, claimed: body.len() as u64, flushed: false }
    }

    pub(crate) fn drip(body: Bytes, bytes_per_second: usize) -> Self {
        let step = (bytes_per_second / TICKS_PER_SECOND).max(1);
        let ticks = u32::try_from((bytes_per_second / step).max(1)).unwrap_or(1);
        Self::Drip { left: body, step, clock: interval(Duration::from_secs(1) / ticks) }
    }

    pub(crate) fn endless(bytes: u64) -> Self {
        Self::Endless { stage: Stage::Head, left: bytes }
    }
}

impl Body for SimBody {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        let frame = match self.get_mut() {
            Self::Full(body) => body.take().filter(|body| !body.is_empty()),
            Self::Truncated { left, flushed, .. } => match left.take() {
                Some(part) if !part.is_empty() => Some(part),
                _ if *flushed => return Poll::Ready(Some(Err(CutShort))),
                _ => {
                    // The server flushes what it has while a body is pending, and drops it when a body fails.
                    *flushed = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            },
            Self::Drip { left, step, clock } => {
                if left.is_empty() {
                    return Poll::Ready(None);
                }
                std::task::ready!(clock.poll_tick(cx));
                Some(left.split_to((*step).min(left.len())))
            }
            Self::Endless { stage, left } => match stage {
                Stage::Head => {
                    *stage = Stage::Filler;
                    Some(Bytes::from_static(b"{\"Filler\":\""))
                }
                Stage::Filler if *left == 0 => {
                    *stage = Stage::Done;
                    Some(Bytes::from_static(b"\"}"))
                }
                Stage::Filler => {
                    let chunk = endless_chunk();
                    let size = usize::try_from(*left).unwrap_or(usize::MAX).min(chunk.len());
                    *left -= size as u64;
                    Some(chunk.slice(..size))
                }
                Stage::Done => None,
            },
        };
        Poll::Ready(frame.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(body) => body.as_ref().is_none_or(Bytes::is_empty),
            Self::Truncated { .. } => false,
            Self::Drip { left, .. } => left.is_empty(),
            Self::Endless { stage, .. } => *stage == Stage::Done,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(body) => SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64)),
            Self::Truncated { claimed, .. } => SizeHint::with_exact(*claimed),
            Self::Drip { left, .. } => SizeHint::with_exact(left.len() as u64),
            // Unknown on purpose: sent in chunks, so that a client cannot refuse it by its length alone.
            Self::Endless { .. } => SizeHint::default(),
        }
    }
}
