//! Errors that control whether and when a task is retried.

use std::{error::Error, fmt, time::Duration};

use crate::{model::task::Advice, tool::NoSignal};

/// Wrap an error in this to control when its task is retried, or that it is not.
///
/// Propagate it with `?` from a handler or a tool; adding context keeps the advice. Without it, the delay is
/// that of the kind or tool ([`Policy`](crate::Policy), [`Limits`](crate::Limits)). It does not add attempts.
/// Outside a task (an `ask`) it is an ordinary error. Displays as the wrapped error.
///
/// ```
/// # use greenroom::{Retry, prelude::*};
/// fn charged(status: u16) -> Result<()> {
///     match status {
///         200 => Ok(()),
///         429 => Err(Retry::after(Duration::from_secs(30), anyhow!("the bank is busy")).into()),
///         400 => Err(Retry::never(anyhow!("the card is no card")).into()),
///         other => bail!("the bank answered {other}"), // tried again as usual
///     }
/// }
/// # assert!(charged(400).is_err_and(|e| e.to_string() == "the card is no card"));
/// ```
pub struct Retry {
    advice: Advice,
    error: anyhow::Error,
}

impl Retry {
    /// The task is retried no earlier than `delay` from now, if it has attempts left.
    pub fn after(delay: Duration, error: impl Into<anyhow::Error>) -> Self {
        Self { advice: Advice::After(delay), error: error.into() }
    }

    /// The task fails at once and becomes a dead letter.
    pub fn never(error: impl Into<anyhow::Error>) -> Self {
        Self { advice: Advice::Never, error: error.into() }
    }

    /// The outermost advice in an error, if any. [`NoSignal`] is final: a rerun would find the same recorded end.
    pub(crate) fn advice(error: &anyhow::Error) -> Option<Advice> {
        error.chain().find_map(|cause| match cause.downcast_ref::<Self>() {
            Some(retry) => Some(retry.advice),
            None => cause.is::<NoSignal>().then_some(Advice::Never),
        })
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for Retry {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;
    use crate::agent::Fault;

    #[test]
    fn advice_is_found_below_what_was_added_and_reads_as_its_error() {
        let busy = || anyhow!("connection reset").context("the bank is busy");
        let deep: anyhow::Error = Retry::after(Duration::from_secs(3), busy()).into();
        let error = Err::<(), _>(deep).context("charging").unwrap_err();
        assert_eq!(Retry::advice(&error), Some(Advice::After(Duration::from_secs(3))));
        let fault = Fault::from(&error);
        assert_eq!(fault.message, "charging");
        assert_eq!(fault.chain, ["the bank is busy", "connection reset"]);
        assert_eq!(Retry::advice(&busy()), None);
    }

    #[test]
    fn the_outermost_advice_counts() {
        let inner: anyhow::Error = Retry::after(Duration::from_secs(3), anyhow!("busy")).into();
        assert_eq!(Retry::advice(&Retry::never(inner).into()), Some(Advice::Never));
    }
}
