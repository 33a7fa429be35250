//! Tells that were taken, and will not be handled: they are counted, since nobody waits for an answer.

use crate::agent::{Agent, AskError, Envelope as _, lane::Lane, messages::EnvelopeOf};

/// Counts the tells among letters that are about to be answered with `error`.
pub(super) fn count<'l, A: Agent>(
    lane: &Lane<A>,
    letters: impl IntoIterator<Item = &'l EnvelopeOf<A>>,
    error: &AskError,
) where
    EnvelopeOf<A>: 'l,
{
    if matches!(error, AskError::Unknown) {
        return; // they may have been handled
    }
    let mut lost: Vec<(&'static str, usize)> = Vec::new();
    for letter in letters.into_iter().map(|letter| letter.letter()).filter(|letter| letter.is_tell()) {
        match lost.iter_mut().find(|(name, _)| *name == letter.name()) {
            Some((_, n)) => *n += 1,
            None => lost.push((letter.name(), 1)),
        }
    }
    let Some(host) = lane.host().filter(|_| !lost.is_empty()) else { return };
    for (message, n) in lost {
        host.tells_dropped(&lane.name.kind, &lane.name.key, message, n, &error.to_string());
    }
}
