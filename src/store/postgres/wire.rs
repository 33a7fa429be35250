//! Parts of the Postgres protocol that diesel does not pass on.
//!
//! diesel-async hides two things that the store must know: the SQLSTATE of an error (its texts are
//! in the server's language), and whether the server thinks a transaction is open (a future that was
//! dropped half-way leaves one). Both stand in the protocol, so the stream is read on its way in:
//! an `ErrorResponse` gets its SQLSTATE written in front of its message, `[53100] …`, and each
//! `ReadyForQuery` tells the session's state. Everything else passes as it is.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

/// Errors longer than this pass as they are.
const MAX_ERROR: usize = 64 << 10;

/// What is known of a connection. Shared by the stream, its driver and its user.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// The last `ReadyForQuery`'s status; 0 while an answer is under way.
    status: AtomicU8,
    settled: Notify,
    /// Statements begun and not ended. One whose future was dropped never ends.
    under_way: AtomicI64,
    /// When bytes last went either way, in milliseconds since `made`.
    last_ms: AtomicU64,
    made: Made,
    closed: AtomicBool,
    /// Told that nobody waits for the server any more.
    ended: Notify,
}

/// When it was made.
#[derive(Debug)]
struct Made(Instant);

impl Default for Made {
    fn default() -> Self {
        Self(Instant::now())
    }
}

/// What the server thinks of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Session {
    /// No transaction is open.
    Idle,
    /// One is.
    Open,
    /// An answer is under way: it will tell.
    Unsettled,
}

impl Wire {
    pub(super) fn session(&self) -> Session {
        match self.status.load(Ordering::Acquire) {
            0 => Session::Unsettled,
            b'I' => Session::Idle,
            _ => Session::Open,
        }
    }

    /// The session, once no answer is under way.
    pub(super) async fn settle(&self) -> Session {
        loop {
            let told = self.settled.notified();
            match self.session() {
                Session::Unsettled if !self.is_closed() => told.await,
                session => return session,
            }
        }
    }

    /// A statement begins (1) or ends (-1).
    pub(super) fn count(&self, by: i64) {
        self.touch();
        self.under_way.fetch_add(by, Ordering::AcqRel);
    }

    fn touch(&self) {
        let ms = u64::try_from(self.made.0.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(ms, Ordering::Relaxed);
    }

    /// How long a statement has been waited for without a byte; `None` where none is.
    pub(super) fn silence(&self) -> Option<Duration> {
        (self.is_abandoned() && !self.is_closed()).then(|| {
            let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            self.made.0.elapsed().saturating_sub(last)
        })
    }

    /// Gives the server up.
    pub(super) fn end(&self) {
        self.ended.notify_one();
    }

    /// Waits for [`Wire::end`].
    pub(super) async fn given_up(&self) {
        self.ended.notified().await;
    }

    /// Whether a statement was begun whose end nobody waited for.
    pub(super) fn is_abandoned(&self) -> bool {
        self.under_way.load(Ordering::Acquire) != 0
    }

    /// All that was begun has ended, whoever waited for it.
    pub(super) fn forget(&self) {
        self.under_way.store(0, Ordering::Release);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.settled.notify_waiters();
    }

    fn saw(&self, tag: u8) {
        // notices, parameters and notifications come at any time
        if !matches!(tag, b'N' | b'S' | b'A' | b'Z') {
            self.status.store(0, Ordering::Release);
        }
    }

    fn ready(&self, status: u8) {
        self.status.store(status, Ordering::Release);
        self.settled.notify_waiters();
    }
}

/// Where the reader stands in the protocol.
#[derive(Debug, Clone, Copy)]
enum At {
    /// So many bytes of a tag and length have come.
    Head(usize, [u8; 5]),
    /// So many bytes of a message are still to pass; whether it is a `ReadyForQuery`.
    Body(usize, bool),
}

const START: At = At::Head(0, [0; 5]);

/// A stream that reads along.
#[derive(Debug)]
pub(super) struct Tap<S> {
    inner: S,
    wire: Arc<Wire>,
    at: At,
    /// An error that has not come whole.
    held: Vec<u8>,
    /// Ready to be handed out.
    out: VecDeque<u8>,
}

impl<S> Tap<S> {
    pub(super) fn new(inner: S, wire: Arc<Wire>) -> Self {
        Self { inner, wire, at: START, held: Vec::new(), out: VecDeque::new() }
    }

    /// Reads along until an error begins; its place, if one does.
    fn scan(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut n = 0;
        while let Some(&byte) = bytes.get(n) {
            match &mut self.at {
                At::Head(0, _) if byte == b'E' => return Some(n),
                At::Head(seen, head) => {
                    if let Some(place) = head.get_mut(*seen) {
                        *place = byte;
                    }
                    *seen += 1;
                    n += 1;
                    if *seen == head.len() {
                        let [tag, length @ ..] = *head;
                        self.wire.saw(tag);
                        let body = (u32::from_be_bytes(length) as usize).saturating_sub(4);
                        self.at = if body == 0 { START } else { At::Body(body, tag == b'Z') };
                    }
                }
                At::Body(left, is_ready) => {
                    if *is_ready {
                        self.wire.ready(byte);
                    }
                    let step = (*left).min(bytes.len() - n);
                    *left -= step;
                    n += step;
                    if *left == 0 {
                        self.at = START;
                    }
                }
            }
        }
        None
    }

    /// Takes in what came after an error began, and hands out what is whole.
    fn take_in(&mut self) {
        loop {
            let Some((head, rest)) = self.held.split_first_chunk::<5>() else { return };
            let [tag, length @ ..] = *head;
            let length = u32::from_be_bytes(length) as usize;
            let body = length.saturating_sub(4);
            self.wire.saw(tag);
            if !(4..=MAX_ERROR).contains(&length) {
                // not one that we read: it passes, whatever it is
                self.at = if body == 0 { START } else { At::Body(body, false) };
                self.out.extend(*head);
                self.held.drain(..head.len());
            } else if let Some(fields) = rest.get(..body) {
                self.out.extend(with_code(fields));
                self.held.drain(..head.len() + body);
                self.at = START;
            } else {
                return;
            }
            let held = std::mem::take(&mut self.held);
            let passes = self.scan(&held).unwrap_or(held.len());
            self.out.extend(held.iter().take(passes));
            self.held.extend(held.iter().skip(passes));
        }
    }

    fn hand_out(&mut self, buf: &mut ReadBuf<'_>) {
        let (front, _) = self.out.as_slices();
        let n = front.len().min(buf.remaining());
        if let Some(front) = front.get(..n) {
            buf.put_slice(front);
        }
        self.out.drain(..n);
    }
}

/// The error with its SQLSTATE in front of its message.
fn with_code(fields: &[u8]) -> Vec<u8> {
    let each = || fields.split(|b| *b == 0).filter_map(|field| field.split_first());
    let code: Vec<u8> =
        each().find(|(name, _)| **name == b'C').map(|(_, code)| code.to_vec()).unwrap_or_default();
    let mut body = Vec::with_capacity(fields.len() + code.len() + 3);
    for (name, text) in each() {
        body.push(*name);
        if *name == b'M' && !code.is_empty() {
            body.push(b'[');
            body.extend(&code);
            body.extend(b"] ");
        }
        body.extend(text);
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    let mut whole = vec![b'E'];
    whole.extend(length.to_be_bytes());
    whole.extend(body);
    whole
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = &mut *self;
        loop {
            if !me.out.is_empty() {
                me.hand_out(buf);
                return Poll::Ready(Ok(()));
            }
            if buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut me.inner).poll_read(cx, buf))?;
            me.wire.touch();
            let came = buf.filled().get(before..).unwrap_or_default();
            if came.is_empty() {
                // the end: what was held will not become whole
                me.out.extend(me.held.drain(..));
                if me.out.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            if me.held.is_empty() {
                let Some(passes) = me.scan(came) else { return Poll::Ready(Ok(())) };
                me.held.extend(came.iter().skip(passes));
                buf.set_filled(before + passes);
            } else {
                me.held.extend(came);
                buf.set_filled(before);
            }
            me.take_in();
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S: TlsStream + Unpin> TlsStream for Tap<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.inner.channel_binding()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;

    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut whole = vec![tag];
        whole.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        whole.extend(body);
        whole
    }

    /// What comes through when it came in such pieces, into a buffer of such a size.
    fn through(pieces: &[Vec<u8>], room: usize) -> (Vec<u8>, Session) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let pieces = one_a_read(pieces);
            let wire = Arc::new(Wire::default());
            let mut tap = Tap::new(pieces, Arc::clone(&wire));
            let (mut all, mut some) = (Vec::new(), vec![0; room]);
            loop {
                match tap.read(&mut some).await.unwrap() {
                    0 => break (all, wire.session()),
                    n => all.extend(&some[..n]),
                }
            }
        })
    }

    /// A reader that gives one piece a read.
    struct Pieces(VecDeque<Vec<u8>>);

    fn one_a_read(pieces: &[Vec<u8>]) -> Pieces {
        Pieces(pieces.iter().filter(|p| !p.is_empty()).cloned().collect())
    }

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if let Some(mut piece) = self.0.pop_front() {
                let rest = piece.split_off(piece.len().min(buf.remaining()));
                buf.put_slice(&piece);
                if !rest.is_empty() {
                    self.0.push_front(rest);
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    fn cut(bytes: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
        let mut at: Vec<usize> = cuts.iter().map(|c| c % (bytes.len() + 1)).collect();
        at.push(bytes.len());
        at.sort_unstable();
        let mut from = 0;
        at.iter().map(|to| bytes[std::mem::replace(&mut from, *to)..*to].to_vec()).collect()
    }

    proptest! {
        /// However the bytes are cut, errors gain their code and all else passes unchanged.
        #[test]
        fn errors_gain_their_code_and_nothing_else_changes(
            kinds in prop::collection::vec(0_u8..6, 0..12),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
            room in 1_usize..40,
        ) {
            let (mut sent, mut expected): (Vec<u8>, Vec<u8>) = Default::default();
            let mut last = Session::Unsettled;
            for kind in kinds {
                let (a, b) = match kind {
                    0 => (message(b'D', b"EEEZZZ\x00E"), None),
                    1 => (message(b'Z', b"I"), None),
                    2 => (message(b'Z', b"T"), None),
                    3 => (message(b'n', b""), None),
                    4 => (
                        message(b'E', b"SERROR\0C53100\0Mno room\0\0"),
                        Some(message(b'E', b"SERROR\0C53100\0M[53100] no room\0\0")),
                    ),
                    // longer than it is read: passes
                    _ => (message(b'E', &vec![b'x'; MAX_ERROR]), None),
                };
                last = match kind {
                    1 => Session::Idle,
                    2 => Session::Open,
                    _ => Session::Unsettled,
                };
                expected.extend(b.as_ref().unwrap_or(&a));
                sent.extend(a);
            }
            let (came, session) = through(&cut(&sent, &cuts), room);
            prop_assert_eq!(came, expected);
            prop_assert_eq!(session, last);
        }
    }

    #[test]
    fn what_is_cut_short_or_no_protocol_at_all_still_passes() {
        for bytes in [&b"E\0\0\0\x20Mcut"[..], b"E", b"E\0\0\0\x01x", b"Ecould not fork\n\0"] {
            assert_eq!(through(&[bytes.to_vec()], 7).0, bytes);
        }
    }

    #[test]
    fn notices_leave_a_settled_session_settled() {
        let mut bytes = message(b'Z', b"I");
        bytes.extend(message(b'N', b"SNOTICE\0\0"));
        bytes.extend(message(b'A', b"1234c\0p\0"));
        bytes.extend(message(b'S', b"a\0b\0"));
        assert_eq!(through(&[bytes.clone()], 9).1, Session::Idle);
        bytes.extend(message(b'1', b""));
        assert_eq!(through(&[bytes], 9).1, Session::Unsettled);
    }
}
