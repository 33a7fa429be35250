//! A test double: takes an agent's messages in its place. Only a test puts one there.

use std::{
    any::Any,
    collections::{HashMap, VecDeque},
    fmt,
    ops::Deref,
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::message::Message;

/// So much of a message is told where another one was expected, in bytes.
const MAX_TOLD: usize = 200;

/// How a double answers `M`.
type Answers<M> = Arc<dyn Fn(&M) -> Result<<M as Message>::Reply> + Send + Sync>;

/// Keeps the messages of one agent, or of a topic, until a test looks at them.
pub(crate) struct Double {
    subject: String,
    state: Mutex<State>,
    arrival: Notify,
}

#[derive(Default)]
struct State {
    received: VecDeque<Entry>,
    /// The [`Answers`] of a message, by its name.
    answers: HashMap<&'static str, Box<dyn Any + Send>>,
    /// Nobody looks at what comes.
    closed: bool,
}

/// A [`Received`] message, whatever its type is.
struct Entry {
    name: &'static str,
    json: String,
    received: Box<dyn Any + Send>,
}

impl Double {
    pub(crate) fn new(subject: String) -> Self {
        Self { subject, state: Mutex::default(), arrival: Notify::new() }
    }

    /// For whom it stands.
    pub(crate) fn subject(&self) -> &str {
        &self.subject
    }

    /// Has every later `M` answered like this.
    pub(crate) fn answer<M: Message>(
        &self,
        answers: impl Fn(&M) -> Result<M::Reply> + Send + Sync + 'static,
    ) {
        let answers: Answers<M> = Arc::new(answers);
        self.state.lock().answers.insert(M::NAME, Box::new(answers));
    }

    /// Takes a message in, and waits for its answer. `None`: it is not `awaited`.
    pub(crate) async fn handle<M: Message>(&self, message: M, awaited: bool) -> Option<Result<M::Reply>> {
        if !awaited {
            self.put(message, None);
            return None;
        }
        if let Some(answer) = self.known_answer(&message) {
            self.put(message, None);
            return Some(answer);
        }
        let (reply, answer) = oneshot::channel();
        self.put(message, Some(reply));
        let unanswered = |_| Err(anyhow!("the probe of {} did not answer `{}`", self.subject, M::NAME));
        Some(answer.await.unwrap_or_else(unanswered))
    }

    /// Takes in a message that is not to be answered, or by `reply`.
    pub(crate) fn put<M: Message>(&self, message: M, reply: Option<oneshot::Sender<Result<M::Reply>>>) {
        let json = serde_json::to_string(&message).unwrap_or_default();
        let received = Box::new(Received { message, reply });
        let mut state = self.state.lock();
        if !state.closed {
            state.received.push_back(Entry { name: M::NAME, json, received });
            self.arrival.notify_one();
        }
    }

    fn known_answer<M: Message>(&self, message: &M) -> Option<Result<M::Reply>> {
        let answers =
            self.state.lock().answers.get(M::NAME).and_then(|a| a.downcast_ref::<Answers<M>>()).cloned();
        let unit = || (Box::new(()) as Box<dyn Any>).downcast::<M::Reply>().ok().map(|unit| Ok(*unit));
        answers.map(|answers| answers(message)).or_else(unit)
    }

    /// The next message, which is to be an `M`. `None`: there is none. The error: it is another, and stays.
    pub(crate) fn next<M: Message>(&self) -> Option<Result<Received<M>>> {
        let received = &mut self.state.lock().received;
        match received.pop_front_if(|entry| entry.received.is::<Received<M>>()) {
            Some(entry) => entry.received.downcast::<Received<M>>().ok().map(|received| Ok(*received)),
            None => received
                .front()
                .map(|other| Err(anyhow!("{}: `{}` was expected, and {other} came", self.subject, M::NAME))),
        }
    }

    /// What the next message is, in words.
    pub(crate) fn waiting(&self) -> Option<String> {
        self.state.lock().received.front().map(Entry::to_string)
    }

    /// Waits until another message comes, or has come since this was last waited for.
    pub(crate) async fn arrival(&self) {
        self.arrival.notified().await;
    }

    /// Forgets what has come and what will come: who waits for an answer that a test was to give gets none.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let forgotten = std::mem::take(&mut state.received);
        drop(state);
        drop(forgotten);
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = self.json.get(..self.json.floor_char_boundary(MAX_TOLD)).unwrap_or_default();
        let more = if told.len() < self.json.len() { "…" } else { "" };
        write!(f, "`{}` {told}{more}", self.name)
    }
}

/// A message that has come to a probe; derefs to it.
///
/// Where somebody waits for an answer that the probe does not know, it is to be given here; dropped without one, it
/// fails its sender's ask.
#[must_use = "dropped, it fails the ask of whoever waits for its answer"]
pub struct Received<M: Message> {
    message: M,
    reply: Option<oneshot::Sender<Result<M::Reply>>>,
}

impl<M: Message> Received<M> {
    /// Whether somebody waits for an answer from here: of an ask or a task that the probe has not answered by itself.
    pub fn is_awaited(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    /// Answers it, as a handler's reply would.
    ///
    /// # Errors
    /// Nobody waits for an answer: it was told or published, the probe has answered, or the time was up.
    pub fn reply(self, reply: M::Reply) -> Result<M> {
        self.answer(Ok(reply))
    }

    /// Answers it with an error, as a handler's would: [`Message::refuse`] makes a refusal.
    ///
    /// # Errors
    /// As [`Received::reply`].
    pub fn fail(self, error: anyhow::Error) -> Result<M> {
        self.answer(Err(error))
    }

    fn answer(self, answer: Result<M::Reply>) -> Result<M> {
        let nobody = || anyhow!("nobody waits for an answer to this `{}`", M::NAME);
        let reply = self.reply.with_context(nobody)?;
        reply.send(answer).map_err(|_| nobody())?;
        Ok(self.message)
    }

    /// The message itself.
    pub fn into_inner(self) -> M {
        self.message
    }
}

impl<M: Message> Deref for Received<M> {
    type Target = M;
    fn deref(&self) -> &M {
        &self.message
    }
}

/// As the message's own.
impl<M: Message + fmt::Debug> fmt::Debug for Received<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}
