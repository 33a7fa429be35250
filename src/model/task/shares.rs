//! Fairness: in which order kinds of agents and tools are served, and how many slots each gets.
//!
//! A **queue** is all tasks for one kind, or for one tool; its name is the kind, or `tool:NAME`. Priority
//! orders the tasks of a queue. Queues take turns: a kind with 100,000 ready tasks does not delay the single task
//! of another.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use super::{Bounds, Pace};
use crate::model::id::Target;

/// What a claim is told of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// At most so many of it.
    pub at_most: usize,
}

/// The queue of a target.
pub fn queue_of(target: &Target) -> String {
    match target {
        Target::Agent { kind, .. } => kind.clone(),
        Target::Tool(name) => format!("tool:{name}"),
    }
}

/// Targets of which so many follow each other: what is done for each queue is done once for each run.
pub fn runs<'t>(targets: impl Iterator<Item = &'t Target>) -> Vec<(&'t Target, usize)> {
    let mut runs: Vec<(&Target, usize)> = Vec::new();
    for target in targets {
        match runs.last_mut() {
            Some((last, n)) if *last == target => *n += 1,
            _ => runs.push((target, 1)),
        }
    }
    runs
}

/// Shares `room` out among queues, each with the most that it may have, in this order: each is given an
/// equal part of what is left, at least one, round by round, until nothing is left or none takes more.
/// `take` says how many a queue took; one that took less than it was given has no more.
///
/// # Errors
/// What `take` answers; what was taken before stays taken.
pub fn share_out<E>(
    room: usize,
    queues: Vec<Queue>,
    mut take: impl FnMut(&str, usize) -> Result<usize, E>,
) -> Result<(), E> {
    let (mut left, mut open) = (room, queues);
    open.retain(|queue| queue.at_most > 0);
    while left > 0 && !open.is_empty() {
        let mut others = open.len();
        let mut more = Vec::with_capacity(others);
        for queue in open {
            let part = left.div_ceil(others.max(1)).min(queue.at_most);
            others -= 1;
            if part == 0 {
                break;
            }
            let taken = take(&queue.name, part)?;
            left = left.saturating_sub(taken);
            let at_most = queue.at_most.saturating_sub(taken);
            if taken >= part && at_most > 0 {
                more.push(Queue { at_most, ..queue });
            }
        }
        open = more;
    }
    Ok(())
}

/// The queues that are ready, in their turn and with their bounds. Those of which nothing is told are left to others,
/// unless nothing is told of any.
pub fn in_turn(ready: BTreeSet<String>, told: &[Queue]) -> Vec<Queue> {
    if told.is_empty() {
        return ready.into_iter().map(|name| Queue { name, at_most: usize::MAX }).collect();
    }
    told.iter().filter(|queue| ready.contains(&queue.name)).cloned().collect()
}

/// At most so many tasks are claimed at once for one agent: as many as one of its commits covers, so that it does not
/// wait for claims; and few, since what is claimed goes before all that comes later, whatever its priority is.
const MAX_EACH: usize = 128;
/// One agent may have such a part of the room.
const PART_EACH: usize = 16;

/// How many tasks one agent may have of so much room: the less there is, the fewer, so that busy agents leave some
/// to those that come later.
pub fn each_of(room: usize) -> usize {
    (room / PART_EACH).clamp(1, MAX_EACH)
}

/// What a node holds of each queue and of each agent, and whose turn it is.
///
/// An agent handles one message at a time: what waits in its lane takes no further place of its kind.
#[derive(Debug, Default)]
pub struct Shares {
    queues: BTreeMap<String, Share>,
    /// Claims by agent.
    agents: HashMap<String, usize>,
    /// Claims so far.
    turns: u64,
}

#[derive(Debug)]
struct Share {
    bounds: Bounds,
    pace: Option<Pace>,
    /// Agents that have claims; for a tool, claims.
    held: usize,
    /// In which turn it was served last.
    last: u64,
    is_tool: bool,
}

impl Shares {
    /// Makes a queue known.
    pub fn know(&mut self, name: String, bounds: Bounds) {
        let pace = bounds.rate.map(Pace::new);
        let is_tool = name.starts_with("tool:");
        self.queues.insert(name, Share { bounds, pace, held: 0, last: 0, is_tool });
    }

    /// So many of a target's tasks were claimed.
    pub fn claimed(&mut self, target: &Target, n: usize, now: Duration) {
        self.turns += 1;
        let places = match target {
            Target::Tool(_) => n,
            Target::Agent { .. } => {
                let held = self.agents.entry(target.to_string()).or_default();
                *held += n;
                usize::from(*held == n)
            }
        };
        if let Some(share) = self.queues.get_mut(&queue_of(target)) {
            share.held += places;
            share.last = self.turns;
            if let Some(pace) = &mut share.pace {
                (0..n).for_each(|_| pace.begin(now));
            }
        }
    }

    /// So many of a target's claims have ended.
    pub fn ended(&mut self, target: &Target, n: usize) {
        let places = match target {
            Target::Tool(_) => n,
            Target::Agent { .. } => {
                let agent = target.to_string();
                let Some(held) = self.agents.get_mut(&agent) else { return };
                *held = held.saturating_sub(n);
                let is_over = *held == 0;
                if is_over {
                    self.agents.remove(&agent);
                }
                usize::from(is_over)
            }
        };
        if let Some(share) = self.queues.get_mut(&queue_of(target)) {
            share.held = share.held.saturating_sub(places);
        }
    }

    /// The agents that have so many claims, or more.
    pub fn holders(&self, n: usize) -> Vec<String> {
        self.agents.iter().filter(|(_, held)| **held >= n).map(|(agent, _)| agent.clone()).collect()
    }

    /// Whether another one of a queue whose concurrency is bounded may begin.
    pub fn has_places(&mut self, name: &str, now: Duration) -> bool {
        let Some(share) = self.queues.get_mut(name) else { return false };
        share.bounds.concurrency.is_some()
            && share.bounds.room(share.held) > 0
            && share.pace.as_mut().is_none_or(|pace| pace.room(now) > 0)
    }

    /// What a claim is told of them: the next in turn first, that is, who holds the least, and of those who
    /// hold alike whoever was served the longest ago. `agents` is the room left for all agents' tasks: a kind
    /// leaves as much of it free as it has agents at work, so that one whose agents take long leaves room for the
    /// others.
    pub fn turns(&mut self, agents: usize, now: Duration) -> Vec<Queue> {
        let mut all: Vec<(usize, u64, Queue)> = Vec::with_capacity(self.queues.len());
        for (name, share) in &mut self.queues {
            let mut at_most = match share.is_tool {
                true => usize::MAX,
                false => agents.saturating_sub(share.held).div_ceil(2),
            };
            at_most = at_most.min(share.bounds.room(share.held));
            if let Some(pace) = &mut share.pace {
                at_most = at_most.min(pace.room(now));
            }
            all.push((share.held, share.last, Queue { name: name.clone(), at_most }));
        }
        all.sort_by_key(|(held, last, _)| (*held, *last));
        all.into_iter().map(|(.., queue)| queue).collect()
    }

    /// Whether a task of this queue may begin when nothing else runs: it is known, and its rate lets it.
    pub fn may_begin(&mut self, name: &str, now: Duration) -> bool {
        let share = self.queues.get_mut(name);
        share.is_some_and(|share| share.pace.as_mut().is_none_or(|pace| pace.room(now) > 0))
    }

    /// When the first queue that its rate holds up has room again.
    pub fn opens_in(&mut self, now: Duration) -> Option<Duration> {
        self.queues.values_mut().filter_map(|share| share.pace.as_mut()?.opens_in(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::task::Rate;

    fn queue(name: &str, at_most: usize) -> Queue {
        Queue { name: name.to_owned(), at_most }
    }

    /// What each queue gets of this room, where it has so many.
    fn shared(room: usize, has: &[(&str, usize, usize)]) -> BTreeMap<String, usize> {
        let queues = has.iter().map(|(name, _, at_most)| queue(name, *at_most)).collect();
        let mut left: BTreeMap<&str, usize> = has.iter().map(|(name, n, _)| (*name, *n)).collect();
        let mut got = BTreeMap::new();
        share_out::<()>(room, queues, |name, n| {
            let there = left.get_mut(name).unwrap();
            let taken = n.min(*there);
            *there -= taken;
            *got.entry(name.to_owned()).or_default() += taken;
            Ok(taken)
        })
        .unwrap();
        got
    }

    fn got(list: &[(&str, usize)]) -> BTreeMap<String, usize> {
        list.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
    }

    const ANY: usize = usize::MAX;

    #[test]
    fn a_long_queue_leaves_the_others_their_part() {
        assert_eq!(
            shared(256, &[("many", 100_000, ANY), ("one", 1, ANY)]),
            got(&[("many", 255), ("one", 1)])
        );
        assert_eq!(
            shared(9, &[("a", 100, ANY), ("b", 100, ANY), ("c", 1, ANY)]),
            got(&[("a", 4), ("b", 4), ("c", 1)])
        );
        assert_eq!(shared(2, &[("a", 9, ANY), ("b", 9, ANY), ("c", 9, ANY)]), got(&[("a", 1), ("b", 1)]));
        assert_eq!(shared(9, &[("a", 100, 2), ("b", 100, ANY), ("c", 9, 0)]), got(&[("a", 2), ("b", 7)]));
    }

    proptest! {
        #[test]
        fn all_the_room_is_used_and_each_gets_its_part_of_it(
            room in 0usize..300,
            has in prop::collection::vec((0usize..200, 0usize..200), 1..8),
        ) {
            let names: Vec<String> = (0..has.len()).map(|n| n.to_string()).collect();
            let has: Vec<_> = names.iter().zip(&has).map(|(name, (n, most))| (name.as_str(), *n, *most)).collect();
            let got = shared(room, &has);
            let wants: usize = has.iter().map(|(_, n, most)| n.min(most)).sum();
            prop_assert_eq!(got.values().sum::<usize>(), room.min(wants));
            for (name, n, most) in &has {
                let mine = got.get(*name).copied().unwrap_or(0);
                prop_assert!(mine <= *n.min(most));
                let part = room / has.iter().filter(|(.., most)| *most > 0).count().max(1);
                prop_assert!(mine >= part.min(*n.min(most)), "{got:?} of {room}: {has:?}");
            }
        }
    }

    #[test]
    fn who_holds_the_least_is_next_and_then_whoever_was_served_the_longest_ago() {
        let (mut shares, now) = (Shares::default(), Duration::ZERO);
        for name in ["a", "b", "c"] {
            shares.know(name.to_owned(), Bounds::default());
        }
        let order = |shares: &mut Shares| -> Vec<String> {
            shares.turns(100, now).into_iter().map(|queue| queue.name).collect()
        };
        let agent = |kind: &str| Target::agent(kind, "x");
        shares.claimed(&agent("a"), 1, now);
        shares.claimed(&agent("b"), 1, now);
        assert_eq!(order(&mut shares), ["c", "a", "b"]);
        shares.ended(&agent("b"), 1);
        assert_eq!(order(&mut shares), ["c", "b", "a"]);
        shares.ended(&agent("a"), 1);
        assert_eq!(order(&mut shares), ["c", "a", "b"], "with nothing held, they take turns");
    }

    #[test]
    fn a_kind_holds_no_more_than_it_leaves_free() {
        let (mut shares, now) = (Shares::default(), Duration::ZERO);
        shares.know("slow".to_owned(), Bounds::default());
        let mut held = 0;
        loop {
            let at_most = shares.turns(100 - held, now)[0].at_most;
            if at_most == 0 {
                break;
            }
            (held..held + at_most)
                .for_each(|n| shares.claimed(&Target::agent("slow", n.to_string()), 1, now));
            held += at_most;
        }
        assert_eq!(held, 50);
    }

    #[test]
    fn what_waits_in_the_lane_of_an_agent_takes_no_further_place() {
        let (mut shares, now) = (Shares::default(), Duration::ZERO);
        shares.know("a".to_owned(), Bounds { concurrency: Some(2), rate: None });
        let (hot, other) = (Target::agent("a", "hot"), Target::agent("a", "other"));
        let room = |shares: &mut Shares| shares.turns(100, now)[0].at_most;
        shares.claimed(&hot, 40, now);
        shares.claimed(&hot, 20, now);
        assert!(room(&mut shares) == 1 && shares.has_places("a", now), "it runs one of them");
        assert_eq!((shares.holders(60), shares.holders(61)), (vec!["a/hot".to_owned()], vec![]));
        shares.claimed(&other, 1, now);
        assert!(room(&mut shares) == 0 && !shares.has_places("a", now));
        shares.ended(&hot, 59);
        assert_eq!(room(&mut shares), 0);
        shares.ended(&hot, 1);
        assert_eq!((room(&mut shares), shares.holders(1)), (1, vec!["a/other".to_owned()]));
    }

    #[test]
    fn busy_agents_leave_room_to_those_that_come_later() {
        let mut free = 2_048;
        for _ in 0..60 {
            free -= each_of(free);
        }
        assert!(free > 30, "after sixty of them, {free}");
        assert_eq!((each_of(2_048), each_of(100_000), each_of(0)), (128, 128, 1));
    }

    #[test]
    fn bounds_leave_what_cannot_begin_where_it_is() {
        let (mut shares, now) = (Shares::default(), Duration::ZERO);
        let tool = Target::Tool("a".to_owned());
        let rate = Some(Rate { n: 3, within: Duration::from_secs(1) });
        shares.know("tool:a".to_owned(), Bounds { concurrency: Some(2), rate });
        let room = |shares: &mut Shares, now| shares.turns(0, now)[0].at_most;
        assert_eq!(room(&mut shares, now), 2);
        shares.claimed(&tool, 1, now);
        shares.claimed(&tool, 1, now);
        assert_eq!((room(&mut shares, now), shares.opens_in(now)), (0, None));
        shares.ended(&tool, 1);
        shares.ended(&tool, 1);
        assert_eq!(room(&mut shares, now), 1, "the third of this second");
        shares.claimed(&tool, 1, now);
        assert_eq!(room(&mut shares, now), 0);
        assert!(!shares.may_begin("tool:a", now) && !shares.may_begin("tool:b", now), "nobody here has b");
        assert_eq!(shares.opens_in(now), Some(Duration::from_secs(1)));
        assert!(shares.may_begin("tool:a", Duration::from_secs(1)));
        assert_eq!(room(&mut shares, Duration::from_secs(1)), 1, "one is held, and two may run");
    }

    #[test]
    fn a_queue_of_which_nothing_is_told_is_left_to_others() {
        let ready = ["a", "b", "z"].map(str::to_owned).into();
        let told = [queue("b", 2), queue("c", 9), queue("a", 0)];
        assert_eq!(in_turn(ready, &told), [queue("b", 2), queue("a", 0)], "nobody here has `z`");
        let ready = ["z"].map(str::to_owned).into();
        assert_eq!(in_turn(ready, &[]), [queue("z", usize::MAX)], "nothing is told of any");
    }
}
