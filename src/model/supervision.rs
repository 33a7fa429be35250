//! The only place that decides about restarts: whether, when, and when to give up. Actors report crashes and carry
//! out the decision; no other code predicts it.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    event::{self, Event, Level},
    group::Strategy,
    units,
};

/// How many spans a window is cut into when its restarts are too many to remember one by one.
const SPANS: u32 = 64;

/// Whether an agent is started again by itself after a crash.
///
/// An end in good order needs no restart: an agent that has retired, or was passivated, comes back with its next
/// message whatever is set here. So `Permanent` and `Transient` are the same for an agent; both names of
/// [OTP](https://www.erlang.org/doc/system/sup_princ.html) are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// It is started again, within its intensity.
    #[default]
    Permanent,
    /// As `Permanent`.
    Transient,
    /// It is not: its crash is its end, of which its watchers hear, and it leaves memory with its timers. Its next
    /// message, which may wait already, starts it anew from what it has committed, without a back-off, however
    /// often that happens: each crash has answered a message. Where it cannot start, it is stopped.
    Temporary,
}

/// How often and how fast something may be restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// At most so many restarts …
    pub max_restarts: u32,
    /// … in any window of this length.
    pub within: Duration,
    /// The wait before the first restart of a streak.
    pub backoff_min: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
    /// What may be restarted at all.
    pub restart: Restart,
}

impl Default for RestartPolicy {
    /// Ten restarts a minute, 5 to 100 ms apart. The message that crashed a turn has been answered
    /// and does not come back, so the wait only keeps a failing start from spinning.
    fn default() -> Self {
        Self {
            max_restarts: 10,
            within: Duration::from_secs(60),
            backoff_min: Duration::from_millis(5),
            backoff_max: Duration::from_millis(100),
            restart: Restart::Permanent,
        }
    }
}

/// Restarts of one span: between the first and the last of it.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: Duration,
    last: Duration,
    count: u32,
}

/// The restarts that still count against a policy's window.
///
/// Bounded whatever the policy allows: up to 64 restarts a window are remembered exactly; above
/// that, restarts within a 64th of the window share an entry that expires with its *last* one.
/// Never more than `max_restarts` fall into any window; a restart may be held against its agent
/// up to 1/64 of the window too long.
#[derive(Debug, Clone, Default)]
pub struct Budget {
    spans: VecDeque<Span>,
    used: u32,
}

impl Budget {
    /// A budget of which nothing is used.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many restarts counted when [`decide`] was last asked.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Whether no restart counts any more at `now`.
    pub fn is_unused(&mut self, within: Duration, now: Duration) -> bool {
        self.expire(within, now);
        self.used == 0
    }

    /// Forgets everything: an operator has restarted it.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Forgets what lies a window or longer before `now`.
    fn expire(&mut self, within: Duration, now: Duration) {
        while let Some(span) = self.spans.front() {
            if now.saturating_sub(span.last) < within {
                break;
            }
            self.used = self.used.saturating_sub(span.count);
            self.spans.pop_front();
        }
    }

    /// Counts a restart at `now`.
    fn note(&mut self, policy: &RestartPolicy, now: Duration) {
        let exact = policy.max_restarts <= SPANS;
        let width = if exact { Duration::ZERO } else { policy.within / SPANS };
        self.used = self.used.saturating_add(1);
        if let Some(span) = self.spans.back_mut() {
            // A clock that went back must not make restarts expire out of order.
            let now = now.max(span.last);
            if now.saturating_sub(span.first) <= width {
                span.last = now;
                span.count = span.count.saturating_add(1);
                return;
            }
            self.spans.push_back(Span { first: now, last: now, count: 1 });
            return;
        }
        self.spans.push_back(Span { first: now, last: now, count: 1 });
    }
}

/// What happens to what has crashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Decision {
    /// It is started again.
    Restart {
        /// Which restart of the window this is, from 1.
        attempt: u32,
        /// How long to wait first.
        #[serde(rename = "delay_ms", with = "units::millis")]
        #[schemars(with = "u64")]
        delay: Duration,
    },
    /// It has used up its restarts: stop it, and escalate.
    Exceeded {
        /// How many restarts the window holds.
        attempts: u32,
    },
    /// Its policy is not to be restarted.
    Leave,
}

/// The command that has something work again which supervision has stopped.
pub fn restart_command(subject: &str) -> String {
    let command = if subject.starts_with("tool:") { "kinds resume" } else { "agents restart" };
    format!("greenroom {command} {subject}")
}

/// Decides what happens after a crash, and counts it.
///
/// `streak` is the number of crashes since the last successful turn, this one included. `now` is
/// any clock that does not go back; `jitter` (0.5 to 1.0, anything else is brought there) spreads
/// neighbours that crashed together.
pub fn decide(
    policy: &RestartPolicy,
    budget: &mut Budget,
    streak: u32,
    now: Duration,
    jitter: f64,
) -> Decision {
    if policy.restart == Restart::Temporary {
        return Decision::Leave;
    }
    budget.expire(policy.within, now);
    if budget.used >= policy.max_restarts {
        return Decision::Exceeded { attempts: budget.used };
    }
    budget.note(policy, now);
    Decision::Restart { attempt: budget.used, delay: delay(policy, streak, jitter) }
}

/// `backoff_min * 2^(streak - 1)`, at most `backoff_max`, times the jitter.
fn delay(policy: &RestartPolicy, streak: u32, jitter: f64) -> Duration {
    let factor = 1u32.checked_shl(streak.saturating_sub(1)).unwrap_or(u32::MAX);
    let full = policy.backoff_min.checked_mul(factor).unwrap_or(policy.backoff_max).min(policy.backoff_max);
    let jitter = if jitter.is_finite() { jitter.clamp(0.5, 1.0) } else { 1.0 };
    // In whole numbers, so that no rounding leads past the bounds: the cast is of 0.5 to 1 million.
    let nanos = full.as_nanos() * u128::from((jitter * 1e6) as u32) / 1_000_000;
    u64::try_from(nanos).map_or(full, Duration::from_nanos)
}

/// In which way it crashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CrashKind {
    /// The code panicked.
    Panic,
    /// A turn ran past its deadline.
    Timeout,
    /// It could not start.
    Start,
    /// Its state could not be written, or not read back.
    State,
}

impl CrashKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Panic, Self::Timeout, Self::Start, Self::State];

    /// The name on every surface, also the metrics' `reason` label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Timeout => "timeout",
            Self::Start => "start",
            Self::State => "state",
        }
    }
}

/// Why it crashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CrashReason {
    /// In which way.
    pub kind: CrashKind,
    /// The panic's message, or what else is known. Never a message's body.
    pub message: String,
    /// Where: `src/tally.rs:12`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
}

/// All that is known about one crash: the log, the crash list and the console tell it from here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CrashReport {
    /// Its id, by which callers and operators refer to it.
    pub id: String,
    /// When.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub at: Timestamp,
    /// What crashed: `kind/key`, `tool:NAME`.
    pub subject: String,
    /// Why.
    pub reason: CrashReason,
    /// The wire name of the message that it was handling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_type: Option<String>,
    /// That message's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// That message's size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_bytes: Option<u64>,
    /// How many crashes in a row this is, without a successful turn in between; from 1.
    pub repeat: u32,
    /// The version to which its state goes back; 0 or absent when it had none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// What was lost, where it is not "nothing" (`relaxed` and `volatile` agents).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
    /// The group that it is supervised in, and its strategy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<(String, Strategy)>,
    /// What happens next.
    pub decision: Decision,
    /// The policy's bound on restarts …
    pub max_restarts: u32,
    /// … and its window.
    #[serde(rename = "within_ms", with = "units::millis")]
    #[schemars(with = "u64")]
    pub within: Duration,
}

impl CrashReport {
    /// What was lost, in words.
    pub fn lost(&self) -> String {
        match (&self.lost, self.version) {
            (Some(lost), _) => lost.clone(),
            (None, Some(version)) if version > 0 => format!("nothing: state restored at version {version}"),
            (None, _) => "nothing: it had not committed yet, and starts afresh".to_owned(),
        }
    }

    /// The `agent.crashed` event with the contract's fields.
    pub fn event(&self) -> Event {
        let mut reason = serde_json::Map::new();
        reason.insert("kind".to_owned(), self.reason.kind.name().into());
        reason.insert("message".to_owned(), self.reason.message.clone().into());
        if let Some(site) = &self.reason.site {
            reason.insert("site".to_owned(), site.clone().into());
        }
        Event::at(self.at, Level::Error, event::AGENT_CRASHED, self.subject.clone())
            .field("crash_id", self.id.clone())
            .field("reason", reason)
            .field_opt("message_type", self.message_type.clone())
            .field_opt("message_id", self.message_id.clone())
            .field_opt("message_bytes", self.message_bytes)
            .field("repeat", self.repeat)
            .field_opt("version", self.version)
            .field("lost", self.lost())
            .hint(format!("greenroom crashes show {}", self.id))
    }

    /// The event that tells the decision: `restart.planned` or `restart.exceeded`.
    pub fn decision_event(&self) -> Option<Event> {
        let strategy = self.group.as_ref().map_or(Strategy::OneForOne, |(_, strategy)| *strategy);
        let escalated_to =
            self.group.as_ref().map_or_else(|| "operator".to_owned(), |(name, _)| format!("group:{name}"));
        let within_ms = u64::try_from(self.within.as_millis()).unwrap_or(u64::MAX);
        match self.decision {
            Decision::Restart { attempt, delay } => Some(
                Event::at(self.at, Level::Info, event::RESTART_PLANNED, self.subject.clone())
                    .field("strategy", strategy.name())
                    .field("attempt", attempt)
                    .field("max", self.max_restarts)
                    .field("within_ms", within_ms)
                    .field("delay_ms", u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
            ),
            Decision::Exceeded { attempts } => Some(
                Event::at(self.at, Level::Error, event::RESTART_EXCEEDED, self.subject.clone())
                    .field("attempts", attempts)
                    .field("max", self.max_restarts)
                    .field("within_ms", within_ms)
                    .field("escalated_to", escalated_to)
                    .hint(restart_command(&self.subject)),
            ),
            Decision::Leave => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(max_restarts: u32, within_ms: u64) -> RestartPolicy {
        RestartPolicy { max_restarts, within: Duration::from_millis(within_ms), ..RestartPolicy::default() }
    }

    #[test]
    fn the_eleventh_crash_of_a_minute_is_one_too_many() {
        let (policy, mut budget) = (RestartPolicy::default(), Budget::new());
        for n in 1..=10 {
            let at = Duration::from_secs(u64::from(n));
            assert!(matches!(decide(&policy, &mut budget, 1, at, 1.0),
                Decision::Restart { attempt, .. } if attempt == n));
        }
        let at = Duration::from_secs(11);
        assert_eq!(decide(&policy, &mut budget, 1, at, 1.0), Decision::Exceeded { attempts: 10 });
        // The first restart, at second 1, is out of the window at second 61.
        assert!(matches!(
            decide(&policy, &mut budget, 1, Duration::from_secs(61), 1.0),
            Decision::Restart { attempt: 10, .. }
        ));
        budget.reset();
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn temporary_ones_are_left_and_zero_means_never() {
        let mut budget = Budget::new();
        let temporary = RestartPolicy { restart: Restart::Temporary, ..RestartPolicy::default() };
        assert_eq!(decide(&temporary, &mut budget, 1, Duration::ZERO, 1.0), Decision::Leave);
        assert_eq!(
            decide(&policy(0, 1000), &mut budget, 1, Duration::ZERO, 1.0),
            Decision::Exceeded { attempts: 0 }
        );
        let transient = RestartPolicy { restart: Restart::Transient, ..RestartPolicy::default() };
        let both = [transient, RestartPolicy::default()];
        let [one, other] = both.map(|policy| decide(&policy, &mut Budget::new(), 1, Duration::ZERO, 1.0));
        assert_eq!(one, other);
    }

    #[test]
    fn a_million_restarts_take_little_memory() {
        let (policy, mut budget) = (policy(1_000_000, 60_000), Budget::new());
        for n in 0..1_000_000u64 {
            let decision = decide(&policy, &mut budget, 1, Duration::from_micros(n * 59), 1.0);
            assert!(matches!(decision, Decision::Restart { .. }));
        }
        assert!(budget.spans.len() <= SPANS as usize + 2, "{}", budget.spans.len());
        let at = Duration::from_micros(1_000_000 * 59);
        assert_eq!(decide(&policy, &mut budget, 1, at, 1.0), Decision::Exceeded { attempts: 1_000_000 });
    }

    #[test]
    fn back_off_doubles_and_is_capped() {
        let policy = RestartPolicy::default();
        let ms: Vec<u128> = [0, 1, 2, 3, 5, 6, 40, u32::MAX]
            .into_iter()
            .map(|streak| delay(&policy, streak, 1.0).as_millis())
            .collect();
        assert_eq!(ms, [5, 5, 10, 20, 80, 100, 100, 100]);
        assert_eq!(delay(&policy, 1, f64::NAN), Duration::from_millis(5));
    }

    proptest! {
        #[test]
        fn no_window_ever_holds_more_than_allowed(
            max in prop_oneof![0u32..8, 60u32..70, 100u32..200],
            within_ms in 1u64..2_000,
            steps in prop::collection::vec(0u64..40, 1..600),
        ) {
            let (policy, mut budget) = (policy(max, within_ms), Budget::new());
            let mut now = Duration::ZERO;
            let mut restarts: Vec<Duration> = Vec::new();
            for step in steps {
                now += Duration::from_millis(step);
                let in_window = restarts.iter().filter(|t| now - **t < policy.within).count();
                match decide(&policy, &mut budget, 1, now, 1.0) {
                    Decision::Restart { attempt, .. } => {
                        restarts.push(now);
                        prop_assert!(in_window < max as usize, "{in_window} already in the window");
                        prop_assert!(attempt as usize > in_window && attempt <= max);
                    }
                    Decision::Exceeded { attempts } => {
                        prop_assert!(attempts >= max);
                        let lenient = policy.within + policy.within / SPANS;
                        let near = restarts.iter().filter(|t| now - **t <= lenient).count();
                        prop_assert!(near >= max as usize, "refused with {near} of {max} near");
                    }
                    Decision::Leave => prop_assert!(false),
                }
                prop_assert!(budget.spans.len() <= SPANS as usize + 2);
            }
        }

        #[test]
        fn delays_stay_in_bounds_and_never_shrink_with_the_streak(
            min in 1u64..1_000, extra in 0u64..100_000, streak in 0u32..80, jitter in 0.0f64..2.0,
        ) {
            let policy = RestartPolicy {
                backoff_min: Duration::from_millis(min),
                backoff_max: Duration::from_millis(min + extra),
                ..RestartPolicy::default()
            };
            let (this, next) = (delay(&policy, streak, jitter), delay(&policy, streak + 1, jitter));
            prop_assert!(this >= policy.backoff_min / 2 && this <= policy.backoff_max);
            prop_assert!(this <= next);
        }
    }
}
