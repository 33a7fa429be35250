//! Periods: from one moment until another.

use jiff::Timestamp;
use uuid::Uuid;

use super::act;

/// A period of time, open on the side where it names no moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Period {
    /// Its first moment.
    pub since: Option<Timestamp>,
    /// The first moment that is past it.
    pub until: Option<Timestamp>,
}

impl Period {
    /// Whether a moment is within it.
    pub fn holds(&self, at: Timestamp) -> bool {
        self.since.is_none_or(|since| since <= at) && self.until.is_none_or(|until| at < until)
    }

    /// Where the ids of acts begin and end that were drawn within it: the first may be one of them,
    /// the second is past them.
    pub fn ids(&self) -> (Option<Uuid>, Option<Uuid>) {
        (self.since.map(act::first_at), self.until.map(act::first_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::act::Act;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_microsecond(micros).unwrap()
    }

    #[test]
    fn it_holds_its_first_moment_and_not_the_one_past_it() {
        let period = Period { since: Some(at(10)), until: Some(at(20)) };
        let held: Vec<i64> = (8..22).filter(|micros| period.holds(at(*micros))).collect();
        assert_eq!(held, (10..20).collect::<Vec<_>>());
        assert!(Period::default().holds(Timestamp::MIN) && Period::default().holds(Timestamp::MAX));
    }

    #[test]
    fn the_ids_of_a_period_are_those_of_what_was_done_in_it() {
        let noon = 1_800_000_000_000_000;
        let (since, until) = Period { since: Some(at(noon)), until: Some(at(noon + 2_500)) }.ids();
        let within = |micros: i64| {
            let id = Act::new(at(noon + micros), "agent.stop", "counter/a").id;
            since.is_some_and(|first| first <= id) && until.is_some_and(|past| id < past)
        };
        assert!([0, 1, 999, 1_000, 2_499].into_iter().all(within));
        assert!(![-1, -1_000, 2_500, 3_000, 1_000_000].into_iter().any(within));
        assert_eq!(Period::default().ids(), (None, None));
        let long_ago = Period { since: Some(Timestamp::MIN), until: Some(Timestamp::MIN) };
        assert!(long_ago.ids().1 < Some(Act::new(at(0), "agent.stop", "counter/a").id));
        let late = Period { since: Some(Timestamp::MAX), until: None }.ids().0;
        assert!(late > Some(Act::new(at(noon), "agent.stop", "counter/a").id));
    }
}
