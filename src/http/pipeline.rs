//! How far a client may send ahead of its answers.
//!
//! actix-http reads up to 128 KiB ahead and parses all the requests in it at once: thousands of small ones, 5 KiB of
//! memory each. So the stream hands it little, and no more while it answers; what the client has
//! sent stays with the system, which makes the client wait.
//!
//! What actix-http 3.20 does with a body that it has in part while it still answers the request before: it takes it for
//! a body that nobody reads, answers `Connection: close`, and closes when its queue is empty. So whoever sends requests
//! with bodies ahead has to send the last ones again, as RFC 9112 (9.3.2) has it; more often than without this bound.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use actix_web::{
    HttpMessage as _,
    body::{BodySize, BoxBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    web::Bytes,
};
use futures_util::{StreamExt as _, stream::poll_fn};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// So many bytes are handed on ahead of an answer, and of a body at once.
const AHEAD: usize = 4 << 10;

/// A connection, as its stream and the requests that come from it see it.
#[derive(Debug, Clone, Default)]
pub(super) struct Pipeline(Rc<State>);

#[derive(Debug, Default)]
struct State {
    /// The requests that are being answered: until the last byte of the answer is handed on.
    answering: Cell<usize>,
    /// How many bytes were handed on since nothing was answered, or a piece of a body was asked for.
    ahead: Cell<usize>,
    held: RefCell<Option<Waker>>,
}

impl Pipeline {
    /// The request that the service has begun to answer; the connection hands on its body as that is read.
    pub(super) fn begin(request: &mut ServiceRequest) -> Option<Answering> {
        let pipeline = request.conn_data::<Self>()?.clone();
        if let mut payload @ Payload::H1 { .. } = request.take_payload() {
            let wanted = pipeline.clone();
            let pieces = poll_fn(move |context| {
                wanted.go_on();
                payload.poll_next_unpin(context)
            });
            request.set_payload(Payload::Stream { payload: Box::pin(pieces) });
        }
        pipeline.0.answering.update(|n| n + 1);
        Some(Answering(pipeline))
    }

    fn go_on(&self) {
        self.0.ahead.set(0);
        self.wake();
    }

    fn wake(&self) {
        if let Some(held) = self.0.held.take() {
            held.wake();
        }
    }
}

/// A request that is being answered, until this is dropped.
#[derive(Debug)]
pub(super) struct Answering(Pipeline);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.answering.update(|n| n.saturating_sub(1));
        self.0.wake();
    }
}

/// The response, which is being answered until its body has been handed on.
pub(super) fn until_sent(
    answered: ServiceResponse<BoxBody>,
    answering: Option<Answering>,
) -> ServiceResponse<BoxBody> {
    match answering {
        Some(answering) => answered.map_body(|_, body| BoxBody::new(Sent { body, _answering: answering })),
        None => answered,
    }
}

struct Sent {
    body: BoxBody,
    _answering: Answering,
}

impl MessageBody for Sent {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

/// A stream from a client that hands on a little at a time.
pub(super) struct Bounded<S> {
    stream: S,
    pipeline: Pipeline,
    /// What was handed on is being parsed.
    paused: bool,
}

impl<S> Bounded<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, pipeline: Pipeline::default(), paused: false }
    }

    pub(super) fn pipeline(&self) -> Pipeline {
        self.pipeline.clone()
    }

    /// How many bytes may be handed on now.
    fn room(&mut self, context: &Context<'_>) -> Poll<usize> {
        let state = &self.pipeline.0;
        let room = AHEAD.saturating_sub(state.ahead.get());
        if room > 0 {
            self.paused = false;
            return Poll::Ready(room);
        }
        if state.answering.get() > 0 {
            state.held.replace(Some(context.waker().clone()));
            return Poll::Pending;
        }
        // a reader goes on until nothing comes, and parses then
        self.paused = !self.paused;
        if self.paused {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        state.ahead.set(0);
        Poll::Ready(AHEAD)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = ready!(self.room(context));
        let room = room.min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
        let read = Pin::new(&mut self.stream).poll_read(context, &mut part);
        let count = part.filled().len();
        let state = &self.pipeline.0;
        if read.is_pending() && state.answering.get() == 0 {
            state.ahead.set(0);
        }
        ready!(read)?;
        state.ahead.update(|n| n + count);
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// What comes until nothing does.
    async fn burst(stream: &mut Bounded<tokio::io::DuplexStream>) -> usize {
        let (mut all, mut buffer) = (0, vec![0; 1 << 20]);
        std::future::poll_fn(|context| {
            let mut read = ReadBuf::new(&mut buffer);
            while Pin::new(&mut *stream).poll_read(context, &mut read).is_ready() {
                all += read.filled().len();
                read.clear();
            }
            Poll::Ready(())
        })
        .await;
        all
    }

    fn begin(stream: &Bounded<tokio::io::DuplexStream>) -> Answering {
        stream.pipeline.0.answering.update(|n| n + 1);
        Answering(stream.pipeline())
    }

    #[tokio::test]
    async fn what_is_sent_ahead_waits_for_the_answer() {
        let (mut client, server) = duplex(1 << 20);
        let mut stream = Bounded::new(server);
        client.write_all(&vec![b'x'; 100_000]).await.unwrap();
        assert_eq!(burst(&mut stream).await, AHEAD);
        let answering = begin(&stream);
        assert_eq!(burst(&mut stream).await, 0);
        // the next one of the queue
        let next = begin(&stream);
        drop(answering);
        assert_eq!(burst(&mut stream).await, 0);
        drop(next);
        assert_eq!(burst(&mut stream).await, AHEAD);
    }

    #[tokio::test]
    async fn a_body_comes_as_it_is_asked_for() {
        let (mut client, server) = duplex(1 << 20);
        let mut stream = Bounded::new(server);
        let _answering = begin(&stream);
        client.write_all(&vec![b'x'; 100_000]).await.unwrap();
        let mut left = 100_000;
        while left > 0 {
            let came = burst(&mut stream).await;
            assert_eq!(came, left.min(AHEAD));
            left -= came;
            stream.pipeline.go_on();
        }
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken_by_the_end_of_the_answer() {
        let (mut client, server) = duplex(1 << 20);
        let mut stream = Bounded::new(server);
        client.write_all(&vec![b'x'; AHEAD + 1]).await.unwrap();
        burst(&mut stream).await;
        let answering = begin(&stream);
        let mut last = [0];
        tokio::join!(async { assert_eq!(stream.read(&mut last).await.unwrap(), 1) }, async {
            drop(answering)
        });
        assert_eq!(last, *b"x");
        // a head longer than that comes too, while nothing is answered
        client.write_all(&vec![b'y'; 3 * AHEAD]).await.unwrap();
        let mut all = vec![0; 3 * AHEAD];
        stream.read_exact(&mut all).await.unwrap();
    }
}
