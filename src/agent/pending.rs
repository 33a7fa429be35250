//! A future that may be tuned before it is awaited.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;

use super::answer::AskError;

/// A future with options that can be set before it is awaited.
#[must_use = "nothing is sent until it is awaited"]
pub struct Pending<'c, T, E> {
    options: Options,
    stage: PendingStage<'c, T, E>,
}

type Start<'c, T, E> = Box<dyn FnOnce(Options) -> BoxFuture<'c, Result<T, E>> + Send + 'c>;

enum PendingStage<'c, T, E> {
    Tuning(Option<Start<'c, T, E>>),
    Running(BoxFuture<'c, Result<T, E>>),
}

#[derive(Default)]
pub(crate) struct Options {
    pub timeout: Option<Duration>,
    pub key: Option<String>,
}

impl<'c, T, E> Pending<'c, T, E> {
    pub(crate) fn new<F>(start: impl FnOnce(Options) -> F + Send + 'c) -> Self
    where
        F: Future<Output = Result<T, E>> + Send + 'c,
    {
        let start: Start<'c, T, E> = Box::new(move |options| Box::pin(start(options)));
        Self { options: Options::default(), stage: PendingStage::Tuning(Some(start)) }
    }

    /// Gives up after this time.
    pub fn timeout(mut self, d: Duration) -> Self {
        self.options.timeout = Some(d);
        self
    }

    /// Sets the idempotency key: 1 to 255 bytes, no control characters. For an `ask`, a repetition with the same
    /// key and request returns the first outcome; the key is scoped to the target and kept for
    /// `limits.idempotency_ttl`. A `call` hands it to the tool
    /// ([`Call::idempotency_key`](crate::Call::idempotency_key)), which is to recognise the repetition itself.
    ///
    /// Ignored where there is nothing to repeat: by `publish`, `broadcast`, `blocking` and `wait_for`.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.options.key = Some(key.into());
        self
    }
}

impl<T, E> Unpin for Pending<'_, T, E> {}

impl<T, E> Future for Pending<'_, T, E> {
    type Output = Result<T, E>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let this = &mut *self;
            match &mut this.stage {
                PendingStage::Running(future) => return future.as_mut().poll(cx),
                PendingStage::Tuning(start) => match start.take() {
                    Some(start) => {
                        this.stage = PendingStage::Running(start(std::mem::take(&mut this.options)))
                    }
                    None => return Poll::Pending,
                },
            }
        }
    }
}

/// What work comes to; [`AskError::Unknown`] where it takes longer than it may.
pub(crate) async fn within<T>(
    limit: Option<Duration>,
    work: impl Future<Output = Result<T, AskError>>,
) -> Result<T, AskError> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or(Err(AskError::Unknown)),
        None => work.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_takes_longer_than_it_may_is_of_unknown_outcome() {
        let never = std::future::pending::<Result<(), AskError>>;
        assert_eq!(within(Some(Duration::from_secs(1)), never()).await, Err(AskError::Unknown));
        assert_eq!(within(Some(Duration::from_secs(1)), async { Ok(1) }).await, Ok(1));
        assert_eq!(within(None, async { Ok(2) }).await, Ok(2));
    }
}
