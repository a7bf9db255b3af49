//! The body on its way out: counted for the log, cut or slowed down if a test wants it.

use std::pin::Pin;
use std::task::{ready, Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use futures_util::{stream, Stream, StreamExt};

use super::fault::Fault;

/// Pause between the last bytes and a cut, so that they reach the client: what a test cuts after
/// N bytes shall have sent N bytes.
const BEFORE_CUT: Duration = Duration::from_millis(100);
/// Bytes that a slow body sends at once.
const SLOW_PIECE: usize = 4096;

/// Calls `done` with the bytes sent when the body has ended or the client has gone.
pub(super) fn counted(body: Body, done: impl FnOnce(u64) + Send + Unpin + 'static) -> Body {
    Body::from_stream(Counted {
        inner: body.into_data_stream(),
        bytes: 0,
        done: Some(done),
    })
}

/// The body with a fault in it.
pub(super) fn faulty(body: Body, fault: Fault) -> Body {
    match fault {
        Fault::CutAfter(limit) => cut(body, limit),
        Fault::Slow(rate) => slow(body, rate),
        Fault::Status(_) => body,
    }
}

struct Counted<F: FnOnce(u64)> {
    inner: BodyDataStream,
    bytes: u64,
    done: Option<F>,
}

impl<F: FnOnce(u64) + Unpin> Stream for Counted<F> {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = ready!(self.inner.poll_next_unpin(cx));
        if let Some(Ok(piece)) = &item {
            self.bytes += piece.len() as u64;
        }
        Poll::Ready(item)
    }
}

impl<F: FnOnce(u64)> Drop for Counted<F> {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(self.bytes);
        }
    }
}

fn cut(body: Body, limit: u64) -> Body {
    let stream = stream::unfold(
        (body.into_data_stream(), limit),
        |(mut inner, left)| async move {
            if left == 0 {
                tokio::time::sleep(BEFORE_CUT).await;
                let error = axum::Error::new(std::io::Error::other("cut by a test"));
                return Some((Err(error), (inner, 0)));
            }
            let piece = match inner.next().await? {
                Ok(piece) => piece,
                Err(error) => return Some((Err(error), (inner, left))),
            };
            let take = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            Some((Ok(piece.slice(..take)), (inner, left - take as u64)))
        },
    );
    Body::from_stream(stream)
}

fn slow(body: Body, rate: u64) -> Body {
    let pieces = body.into_data_stream().flat_map(|item| {
        let pieces: Vec<Result<Bytes, axum::Error>> = match item {
            Ok(bytes) => (0..bytes.len())
                .step_by(SLOW_PIECE)
                .map(|at| Ok(bytes.slice(at..bytes.len().min(at + SLOW_PIECE))))
                .collect(),
            Err(error) => vec![Err(error)],
        };
        stream::iter(pieces)
    });
    let rate = rate.max(1);
    let paced = pieces.then(move |item| async move {
        if let Ok(piece) = &item {
            let micros = (piece.len() as u64).saturating_mul(1_000_000) / rate;
            tokio::time::sleep(Duration::from_micros(micros)).await;
        }
        item
    });
    Body::from_stream(paced)
}
