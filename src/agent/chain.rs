//! Who waits for whom: a turn that would wait for itself is refused.

use std::sync::{Arc, Weak};

/// Those who wait for a piece of work, outermost first, each for the next one, as long as they do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chain(Vec<Weak<str>>);

/// That somebody waits: until this is dropped.
pub(crate) struct Waiting {
    _who: Arc<str>,
}

impl Chain {
    /// This chain with one more at its end, who waits as long as the second value lives.
    pub(crate) fn and(&self, who: &str) -> (Self, Waiting) {
        let who: Arc<str> = who.into();
        let links = self.0.iter().cloned().chain([Arc::downgrade(&who)]).collect();
        (Self(links), Waiting { _who: who })
    }

    /// Whether `callee` may be asked. The error: it waits for this, in a circle that is shown.
    pub(crate) fn admits(&self, callee: &str) -> Result<(), Vec<String>> {
        self.admits_beside(callee, 1)
    }

    /// The same of a callee of which so many may run at once: whether there is a place left for this beside those that
    /// wait for it.
    pub(crate) fn admits_beside(&self, callee: &str, places: usize) -> Result<(), Vec<String>> {
        // Where somebody has given up, those before wait for nobody behind.
        let mut waiting: Vec<String> =
            self.0.iter().rev().map_while(Weak::upgrade).map(|who| (*who).to_owned()).collect();
        if waiting.iter().filter(|who| *who == callee).count() < places {
            return Ok(());
        }
        waiting.reverse();
        waiting.push(callee.to_owned());
        Err(waiting)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_cannot_be_asked_until_somebody_on_the_way_gives_up() {
        let (chain, a) = Chain::default().and("a");
        let (chain, b) = chain.and("b");
        let (chain, _c) = chain.and("c");
        assert_eq!(chain.admits("d"), Ok(()));
        assert_eq!(chain.admits("a"), Err(["a", "b", "c", "a"].map(str::to_owned).into()));
        drop(b);
        assert_eq!(chain.admits("a"), Ok(()), "it waits for b, which does not wait for c any more");
        assert!(chain.admits("c").is_err());
        drop(a);
        assert_eq!(chain.admits("a"), Ok(()));
    }

    #[test]
    fn what_runs_beside_itself_may_be_asked_until_all_its_places_wait() {
        let (chain, _first) = Chain::default().and("t");
        assert_eq!(chain.admits_beside("t", 2), Ok(()));
        let (chain, second) = chain.and("t");
        assert_eq!(chain.admits_beside("t", 2), Err(["t", "t", "t"].map(str::to_owned).into()));
        drop(second);
        assert_eq!(chain.admits_beside("t", 2), Ok(()));
    }
}
