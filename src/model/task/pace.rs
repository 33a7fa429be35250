//! Bounds on concurrent tasks, and on the rate at which they start.

use std::{collections::VecDeque, fmt, str::FromStr, time::Duration};

use crate::model::units::{parse_duration, print_duration};

/// So many within a time, written as `100/1s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many may begin …
    pub n: u32,
    /// … in any window of this length.
    pub within: Duration,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no rate: write how many within what time, such as 100/1s");
        let (n, within) = text.split_once('/').ok_or_else(wrong)?;
        let n = n.trim().parse().map_err(|_| wrong())?;
        let within = parse_duration(within.trim()).map_err(|e| e.to_string())?;
        if within.is_zero() { Err(wrong()) } else { Ok(Self { n, within }) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.n, print_duration(self.within))
    }
}

impl serde::Serialize for Rate {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Rate {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What bounds the tasks of a kind or a tool on one node; what is not set is not bounded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// How many may be under way at once.
    pub concurrency: Option<usize>,
    /// How many may begin within a time.
    pub rate: Option<Rate>,
}

impl Bounds {
    /// These, with what else was set on top; 0 lifts a bound.
    #[must_use]
    pub fn with(self, concurrency: Option<u32>, rate: Option<Rate>) -> Self {
        Self {
            concurrency: match concurrency {
                Some(n) => Some(n as usize).filter(|n| *n > 0),
                None => self.concurrency,
            },
            rate: match rate {
                Some(rate) => Some(rate).filter(|rate| rate.n > 0),
                None => self.rate,
            },
        }
    }

    /// How many more may be under way beside so many.
    pub fn room(&self, held: usize) -> usize {
        self.concurrency.map_or(usize::MAX, |n| n.saturating_sub(held))
    }
}

/// A rate, and when those began that it still counts. Moments are since any one beginning.
#[derive(Debug)]
pub struct Pace {
    rate: Rate,
    begun: VecDeque<Duration>,
}

impl Pace {
    /// Nothing has begun.
    pub fn new(rate: Rate) -> Self {
        Self { rate, begun: VecDeque::new() }
    }

    /// One begins.
    pub fn begin(&mut self, now: Duration) {
        self.begun.push_back(now);
    }

    /// How many may begin now.
    pub fn room(&mut self, now: Duration) -> usize {
        while self.begun.front().is_some_and(|at| now.saturating_sub(*at) >= self.rate.within) {
            self.begun.pop_front();
        }
        (self.rate.n.max(1) as usize).saturating_sub(self.begun.len())
    }

    /// After how long the next one may begin; `None`: one may now.
    pub fn opens_in(&mut self, now: Duration) -> Option<Duration> {
        if self.room(now) > 0 {
            return None;
        }
        self.begun.front().map(|at| (*at + self.rate.within).saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rate_reads_as_it_is_written() {
        let rate: Rate = "100/1s".parse().unwrap();
        assert_eq!(rate, Rate { n: 100, within: Duration::from_secs(1) });
        assert_eq!(rate.to_string(), "100/1s");
        for wrong in ["100", "x/1s", "1/0s", "1/x", "-1/1s"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_set_above_counts_and_nothing_lifts_a_bound() {
        let rate = Rate { n: 3, within: Duration::from_secs(1) };
        let code = Bounds { concurrency: Some(2), rate: Some(rate) };
        assert_eq!(code.with(None, None), code);
        assert_eq!(code.with(Some(5), None).concurrency, Some(5));
        assert_eq!(code.with(Some(0), Some(Rate { n: 0, ..rate })), Bounds::default());
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_the_rate(
            n in 1u32..5, waits in prop::collection::vec(0u64..400, 1..80),
        ) {
            let within = Duration::from_millis(1_000);
            let (mut pace, mut now, mut begun) = (Pace::new(Rate { n, within }), Duration::ZERO, Vec::new());
            for wait in waits {
                now += Duration::from_millis(wait);
                match pace.opens_in(now) {
                    None => {
                        pace.begin(now);
                        begun.push(now);
                    }
                    Some(wait) => {
                        prop_assert!(wait > Duration::ZERO && wait <= within);
                        now += wait;
                        prop_assert_eq!(pace.opens_in(now), None, "it opens when it says");
                        pace.begin(now);
                        begun.push(now);
                    }
                }
            }
            for (i, at) in begun.iter().enumerate() {
                let beside = begun.iter().skip(i).take_while(|b| **b - *at < within).count();
                prop_assert!(beside <= n as usize);
            }
        }
    }
}
