//! Probes: what a scenario puts in the place of an agent, or among a topic's subscribers, to look at what comes.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use anyhow::{Result, anyhow, bail};

pub use crate::agent::double::Received;
use crate::{Handler, Message, agent::double::Double};

/// How long a message may take to come, of the kit's time.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Stands in for one agent until its scenario ends: [`Kit::probe`](super::Kit::probe) makes one.
///
/// The agent's handlers, `check` and hooks do not run, and its state is neither read nor written. What its mailbox
/// takes in is kept here, in its order, until it is [expected](Self::expect):
///
/// - a **tell**, what a timer, a broadcast or a topic brings: once for each that comes;
/// - an **ask**: answered as [`answer`](Self::answer) says; by itself, if its reply is `()`; otherwise its sender
///   waits, as long as it would for a handler, for [`Received::reply`] or [`Received::fail`];
/// - a **task**, also one of a schedule: the same, and the answer ends its attempt, so that a failure is retried.
///
/// A probe's turns have no crash points, so that what was committed with a turn of another agent comes once,
/// wherever that one is interrupted. A turn that runs again asks again, and a failed task is tried again: then the
/// probe sees both.
///
/// A probe that is dropped keeps standing in: it forgets what it has and what will come, and no longer waits for
/// answers of the scenario. That something came which nobody expected does not fail a scenario; where it must not,
/// end with [`expect_none`](Self::expect_none).
pub struct Probe<A> {
    double: Arc<Double>,
    _agent: PhantomData<fn() -> A>,
}

impl<A> Probe<A> {
    pub(super) fn new(double: Arc<Double>) -> Self {
        Self { double, _agent: PhantomData }
    }

    /// Has each `M` that comes from now on answered like this, where an answer is awaited. An error is what a
    /// handler's would be; a panic is a crash.
    pub fn answer<M: Message>(&self, answer: impl Fn(&M) -> Result<M::Reply> + Send + Sync + 'static)
    where
        A: Handler<M>,
    {
        self.double.answer(answer);
    }

    /// Takes the next message, which must be an `M`. Waits for it up to a minute of the kit's time.
    ///
    /// # Errors
    /// Another message came, which stays the next one; or none.
    pub async fn expect<M: Message>(&mut self) -> Result<Received<M>>
    where
        A: Handler<M>,
    {
        self.expect_within(TIMEOUT).await
    }

    /// As [`Probe::expect`], waiting up to `limit` of the kit's time.
    ///
    /// # Errors
    /// As [`Probe::expect`].
    pub async fn expect_within<M: Message>(&mut self, limit: Duration) -> Result<Received<M>>
    where
        A: Handler<M>,
    {
        expect(&self.double, limit).await
    }

    /// Lets that much of the kit's time pass, in which nothing may come, and nothing may be there already.
    ///
    /// # Errors
    /// What came, which stays the next one.
    pub async fn expect_none(&mut self, within: Duration) -> Result<()> {
        expect_none(&self.double, within).await
    }
}

impl<A> Drop for Probe<A> {
    fn drop(&mut self) {
        self.double.close();
    }
}

/// Sees what is published to one topic: [`Kit::topic_probe`](super::Kit::topic_probe) makes one.
///
/// It gets each message once its publisher's turn is durable, beside the subscribers and whether there are any or not,
/// and keeps it in its order. Dropped, it sees no more; that something came which nobody expected does not fail a
/// scenario.
pub struct TopicProbe<M> {
    double: Arc<Double>,
    _message: PhantomData<fn() -> M>,
}

impl<M: Message> TopicProbe<M> {
    pub(super) fn new(double: Arc<Double>) -> Self {
        Self { double, _message: PhantomData }
    }

    /// Takes the next message. Waits for it up to a minute of the kit's time.
    ///
    /// # Errors
    /// None came.
    pub async fn expect(&mut self) -> Result<M> {
        expect(&self.double, TIMEOUT).await.map(Received::into_inner)
    }

    /// Lets that much of the kit's time pass, in which nothing may come, and nothing may be there already.
    ///
    /// # Errors
    /// What came, which stays the next one.
    pub async fn expect_none(&mut self, within: Duration) -> Result<()> {
        expect_none(&self.double, within).await
    }
}

impl<M> Drop for TopicProbe<M> {
    fn drop(&mut self) {
        self.double.close();
    }
}

async fn expect<M: Message>(double: &Double, limit: Duration) -> Result<Received<M>> {
    let waiting = async {
        loop {
            match double.next::<M>() {
                Some(next) => return next,
                None => double.arrival().await,
            }
        }
    };
    let nothing =
        |_| anyhow!("{}: `{}` was expected, and nothing came within {limit:?}", double.subject(), M::NAME);
    tokio::time::timeout(limit, waiting).await.map_err(nothing)?
}

async fn expect_none(double: &Double, within: Duration) -> Result<()> {
    let something = async {
        loop {
            match double.waiting() {
                Some(what) => return what,
                None => double.arrival().await,
            }
        }
    };
    match tokio::time::timeout(within, something).await {
        Ok(what) => bail!("{}: nothing was expected, and {what} came", double.subject()),
        Err(_) => Ok(()),
    }
}
