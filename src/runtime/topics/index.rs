//! The subscribers of the topics that this node has needed so far, and the publications that wait for them.
//!
//! ```text
//!            first use, or old                    read
//! unknown ─────────────────────► being read ─────────────► known ── told of a change, or old ──► being read …
//!                                (publications wait)       (handed out at once)
//! ```
//!
//! This module only decides; [`super`] reads the store and delivers. `now` is an argument.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::audience::Audience;
use crate::{agent::topic::Publication, model::topic::SubscriptionWrite};

/// Up to so many are told at once by whoever publishes; more by a courier, with pauses for others.
const INLINE_LIMIT: usize = 512;
/// The same where a turn publishes: what it sends may leave on the store's writer, which has others' commits
/// to write. As many tells of a turn leave there too.
const AT_ONCE_IN_TURN: usize = 16;
/// At most so many publications wait for one courier, …
const MAX_WAITING: usize = 1_024;
/// … and for those of all topics.
const MAX_WAITING_IN_ALL: usize = 100_000;
/// What is kept of all topics: subscribers, and for each topic …
const MAX_WEIGHT: usize = 1_000_000;
/// … so many more.
const OWN_WEIGHT: usize = 4;
/// What has just been read is good enough, whatever others are said to have changed: a topic that changes
/// all the time is not read all the time.
const MIN_AGE: Duration = Duration::from_millis(250);
/// When what was read is read again, where other nodes tell what they change …
const MAX_AGE_TOLD: Duration = Duration::from_secs(30);
/// … and where they do not.
const MAX_AGE: Duration = Duration::from_secs(1);

/// Publications that wait for a courier, in their order.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Publication>,
    /// One is on its way, and goes on until nothing waits.
    courier: bool,
}

impl Queue {
    /// Lets it wait; `true`: a courier is to be sent for it.
    fn push(&mut self, publication: Publication) -> Way {
        if self.waiting.len() >= MAX_WAITING {
            return Way::Full(publication);
        }
        self.waiting.push_back(publication);
        if std::mem::replace(&mut self.courier, true) { Way::Waits } else { Way::Courier }
    }

    /// For the courier: what is next. `None`: its way has ended.
    fn pop(&mut self) -> Option<Publication> {
        let next = self.waiting.pop_front();
        self.courier = next.is_some();
        next
    }
}

/// What becomes of a publication.
pub(super) enum Way {
    /// Whoever publishes hands it out to these.
    Now(Publication, Arc<Audience>),
    /// It waits, and a courier is to be sent.
    Courier,
    /// It waits for a courier that is on its way.
    Waits,
    /// There is no room for it to wait.
    Full(Publication),
}

/// What a topic's courier does next.
pub(super) enum Step {
    /// Read who is subscribed.
    Read,
    /// Hand this out.
    HandOut(Publication, Arc<Audience>),
    /// Nothing waits any more.
    End,
}

#[derive(Default)]
struct Topic {
    audience: Arc<Audience>,
    /// When it was last read; never, where it is `None`.
    read_at: Option<Instant>,
    /// Another node is said to have changed something since it was asked for.
    stale: bool,
    /// What this node has committed since its courier was last told what to do: what it reads may be older,
    /// and what it hands out is not copied for each of them.
    meanwhile: Vec<SubscriptionWrite>,
    queue: Queue,
    /// The number of its last use.
    used: u64,
}

impl Topic {
    fn is_fresh(&self, max_age: Duration, now: Instant) -> bool {
        self.read_at.is_some_and(|at| {
            let age = now.saturating_duration_since(at);
            age < MIN_AGE || (!self.stale && age < max_age)
        })
    }

    /// Takes in what was committed while its courier was on its way: nobody else holds a large audience.
    fn catch_up(&mut self) {
        let writes = std::mem::take(&mut self.meanwhile);
        if self.read_at.is_some() && !writes.is_empty() {
            let audience = Arc::make_mut(&mut self.audience);
            writes.iter().for_each(|write| audience.apply(write));
        }
    }

    fn weight(&self) -> usize {
        OWN_WEIGHT + self.audience.len()
    }
}

/// Up to how many are told at once.
fn at_once(publication: &Publication) -> usize {
    // From outside of any turn somebody waits for it.
    if publication.done.is_some() { INLINE_LIMIT } else { AT_ONCE_IN_TURN }
}

/// The topics that this node has published to, and the kinds that it has told as a whole.
pub(super) struct Index {
    topics: HashMap<Arc<str>, Topic>,
    kinds: HashMap<&'static str, Queue>,
    weight: usize,
    max_weight: usize,
    /// Publications to topics that wait.
    waiting: usize,
    max_waiting: usize,
    /// Audiences that are of no use any more: to be dropped by a courier, in its own time.
    spent: Vec<Arc<Audience>>,
    max_age: Duration,
    uses: u64,
}

impl Index {
    /// `alone`: nobody else changes anything.
    pub(super) fn new(alone: bool) -> Self {
        let max_age = if alone { MAX_AGE_TOLD } else { MAX_AGE };
        Self {
            topics: HashMap::new(),
            kinds: HashMap::new(),
            weight: 0,
            max_weight: MAX_WEIGHT,
            waiting: 0,
            max_waiting: MAX_WAITING_IN_ALL,
            spent: Vec::new(),
            max_age,
            uses: 0,
        }
    }

    /// A publication to a topic.
    pub(super) fn post(&mut self, name: &Arc<str>, publication: Publication, now: Instant) -> Way {
        self.uses += 1;
        let is_full = self.waiting >= self.max_waiting;
        if let Some(topic) = self.topics.get_mut(name) {
            topic.used = self.uses;
            let few = topic.audience.len() <= at_once(&publication);
            if few && !topic.queue.courier && topic.is_fresh(self.max_age, now) {
                return Way::Now(publication, topic.audience.clone());
            }
        }
        if is_full {
            return Way::Full(publication);
        }
        let is_new = !self.topics.contains_key(name);
        let topic = self.topics.entry(name.clone()).or_default();
        topic.used = self.uses;
        let way = topic.queue.push(publication);
        self.waiting += usize::from(!matches!(way, Way::Full(_)));
        if is_new {
            self.weight += topic.weight();
            self.shed();
        }
        way
    }

    /// What the courier of a topic does next.
    pub(super) fn next(&mut self, name: &str, now: Instant) -> Step {
        let Some(topic) = self.topics.get_mut(name) else { return Step::End };
        self.weight -= topic.weight();
        topic.catch_up();
        self.weight += topic.weight();
        if !topic.queue.waiting.is_empty() && !topic.is_fresh(self.max_age, now) {
            topic.stale = false;
            return Step::Read;
        }
        match topic.queue.pop() {
            Some(publication) => {
                self.waiting -= 1;
                Step::HandOut(publication, topic.audience.clone())
            }
            None => Step::End,
        }
    }

    /// For a courier, once nobody waits for the index: what it drops.
    pub(super) fn take_spent(&mut self) -> Vec<Arc<Audience>> {
        std::mem::take(&mut self.spent)
    }

    /// Takes in what the store answered to [`Step::Read`].
    pub(super) fn read(&mut self, name: &str, mut audience: Audience, now: Instant) {
        let Some(topic) = self.topics.get_mut(name) else { return };
        std::mem::take(&mut topic.meanwhile).iter().for_each(|write| audience.apply(write));
        self.weight -= topic.weight();
        topic.read_at = Some(now);
        self.spent.push(std::mem::replace(&mut topic.audience, Arc::new(audience)));
        self.weight += topic.weight();
        self.shed();
    }

    /// The store did not answer: what was read before serves a little longer. Where nothing was, what
    /// waits comes back, for nobody can be told.
    pub(super) fn unread(&mut self, name: &str, now: Instant) -> VecDeque<Publication> {
        let Some(topic) = self.topics.get_mut(name) else { return VecDeque::new() };
        topic.stale = true;
        match &mut topic.read_at {
            Some(at) => {
                *at = now;
                VecDeque::new()
            }
            None => {
                let left = std::mem::take(&mut topic.queue.waiting);
                self.waiting -= left.len();
                left
            }
        }
    }

    /// Takes in what this node has committed.
    pub(super) fn committed(&mut self, write: &SubscriptionWrite) {
        let Some(topic) = self.topics.get_mut(&write.topic) else { return };
        if topic.queue.courier {
            topic.meanwhile.push(write.clone());
        } else if topic.read_at.is_some() {
            self.weight -= topic.weight();
            Arc::make_mut(&mut topic.audience).apply(write);
            self.weight += topic.weight();
        }
    }

    /// Another node has changed this topic.
    pub(super) fn changed(&mut self, name: &str) {
        if let Some(topic) = self.topics.get_mut(name) {
            topic.stale = true;
        }
    }

    /// Other nodes tell what they change from now on, or do not any more.
    pub(super) fn told(&mut self, told: bool) {
        self.max_age = if told { MAX_AGE_TOLD } else { MAX_AGE };
        if told {
            self.doubt();
        }
    }

    /// Other nodes may have changed any topic.
    pub(super) fn doubt(&mut self) {
        self.topics.values_mut().for_each(|topic| topic.stale = true);
    }

    /// A publication to the `n` running agents of a kind.
    pub(super) fn post_to_kind(&mut self, kind: &'static str, n: usize, publication: Publication) -> Way {
        let queue = self.kinds.entry(kind).or_default();
        if n <= at_once(&publication) && !queue.courier {
            return Way::Now(publication, Arc::default());
        }
        queue.push(publication)
    }

    /// What the courier of a kind hands out next.
    pub(super) fn next_to_kind(&mut self, kind: &'static str) -> Option<Publication> {
        self.kinds.get_mut(kind)?.pop()
    }

    /// Forgets the half that has been used least lately, where there is too much.
    fn shed(&mut self) {
        while self.weight > self.max_weight {
            let idle = self.topics.values().filter(|topic| !topic.queue.courier);
            let mut uses: Vec<u64> = idle.map(|topic| topic.used).collect();
            let middle = uses.len() / 2;
            let Some((_, middle, _)) = (!uses.is_empty()).then(|| uses.select_nth_unstable(middle)) else {
                return;
            };
            let middle = *middle;
            self.topics.retain(|_, topic| {
                let stays = topic.queue.courier || topic.used > middle;
                if !stays {
                    self.weight -= topic.weight();
                    self.spent.push(std::mem::take(&mut topic.audience));
                }
                stays
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::slot::slot,
        model::{id::AgentId, topic::Subscriber},
    };

    /// As a turn publishes it.
    fn publication() -> Publication {
        Publication { name: "Price", body: Box::new(()), done: None }
    }

    /// As it is published from outside.
    fn awaited() -> Publication {
        Publication { done: Some(slot().0), ..publication() }
    }

    fn subscriber(key: &str) -> Subscriber {
        let (kind, key, message): (Arc<str>, Arc<str>, Arc<str>) =
            ("desk".into(), key.into(), "Price".into());
        Subscriber { agent: AgentId::of(&kind, &key), kind, key, message }
    }

    fn write(topic: &str, key: &str, subscribed: bool) -> SubscriptionWrite {
        SubscriptionWrite { topic: topic.into(), subscriber: subscriber(key), subscribed }
    }

    fn keys(audience: &Audience) -> Vec<&str> {
        let members = audience.groups().iter().flat_map(|group| group.members.values());
        let mut keys: Vec<&str> = members.map(|key| &**key).collect();
        keys.sort_unstable();
        keys
    }

    fn audience(subscribers: &[&str]) -> Audience {
        Audience::of((subscribers.iter().map(|key| subscriber(key)).collect(), 0))
    }

    /// An index whose one topic `t` has just been read, with these subscribers.
    fn known(alone: bool, subscribers: &[&str], now: Instant) -> Index {
        let mut index = Index::new(alone);
        assert!(matches!(index.post(&"t".into(), publication(), now), Way::Courier));
        read(&mut index, "t", subscribers, now);
        assert!(matches!(index.next("t", now), Step::HandOut(..)));
        assert!(matches!(index.next("t", now), Step::End));
        index
    }

    fn read(index: &mut Index, topic: &str, subscribers: &[&str], now: Instant) {
        assert!(matches!(index.next(topic, now), Step::Read));
        index.read(topic, audience(subscribers), now);
    }

    /// Who is told at once; `None`: they are to be read first.
    fn told(index: &mut Index, now: Instant) -> Option<Vec<String>> {
        match index.post(&"t".into(), publication(), now) {
            Way::Now(_, audience) => Some(keys(&audience).into_iter().map(str::to_owned).collect()),
            _ => None,
        }
    }

    #[test]
    fn what_is_published_while_a_topic_is_read_waits_in_its_order() {
        let (mut index, now, topic) = (Index::new(true), Instant::now(), Arc::from("t"));
        let named = |name| Publication { name, ..publication() };
        assert!(matches!(index.post(&topic, named("1"), now), Way::Courier));
        assert!(matches!(index.next("t", now), Step::Read));
        assert!(matches!(index.post(&topic, named("2"), now), Way::Waits));
        index.read("t", audience(&["a"]), now);
        assert!(matches!(index.post(&topic, named("3"), now), Way::Waits), "it must not overtake the others");
        for name in ["1", "2", "3"] {
            assert!(matches!(index.next("t", now), Step::HandOut(p, a) if p.name == name && a.len() == 1));
        }
        assert!(matches!(index.next("t", now), Step::End));
        assert!(matches!(index.post(&topic, named("4"), now), Way::Now(..)));
    }

    #[test]
    fn no_more_wait_than_there_is_room_for() {
        let (mut index, now, topic) = (Index::new(true), Instant::now(), Arc::from("t"));
        assert!(matches!(index.post(&topic, publication(), now), Way::Courier));
        for _ in 1..MAX_WAITING {
            assert!(matches!(index.post(&topic, publication(), now), Way::Waits));
        }
        assert!(matches!(index.post(&topic, publication(), now), Way::Full(_)));
        assert!(matches!(index.next("t", now), Step::Read));
        assert_eq!(index.unread("t", now).len(), MAX_WAITING, "nobody knows whom to tell");
        assert!(matches!(index.next("t", now), Step::End));
        assert!(matches!(index.post(&topic, publication(), now), Way::Courier));
    }

    #[test]
    fn no_more_wait_for_all_topics_than_there_is_room_for() {
        let mut index = Index { max_waiting: 3, ..Index::new(true) };
        let (now, topics) = (Instant::now(), ["a", "b", "c", "d"].map(Arc::from));
        for topic in &topics[..3] {
            assert!(matches!(index.post(topic, publication(), now), Way::Courier));
        }
        for topic in &topics {
            assert!(matches!(index.post(topic, publication(), now), Way::Full(_)));
        }
        read(&mut index, "a", &[], now);
        assert!(matches!(index.next("a", now), Step::HandOut(..)));
        assert!(matches!(index.post(&topics[3], publication(), now), Way::Courier));
        assert!(matches!(index.post(&topics[1], publication(), now), Way::Full(_)));
        assert!(matches!(index.next("b", now), Step::Read));
        assert_eq!(index.unread("b", now).len(), 1);
        assert!(matches!(index.post(&topics[2], publication(), now), Way::Waits));
    }

    #[test]
    fn what_this_node_commits_counts_at_once_and_also_while_a_topic_is_read() {
        let now = Instant::now();
        let mut index = known(true, &["a", "b"], now);
        index.committed(&write("t", "c", true));
        index.committed(&write("t", "a", false));
        index.committed(&write("other", "d", true));
        assert_eq!(told(&mut index, now).unwrap(), ["b", "c"]);
        let later = now + MAX_AGE_TOLD;
        assert_eq!(told(&mut index, later), None);
        assert!(matches!(index.next("t", later), Step::Read));
        index.committed(&write("t", "e", true));
        index.committed(&write("t", "b", false));
        // what the store answers is older than these
        index.read("t", audience(&["b", "c"]), later);
        assert!(matches!(index.next("t", later), Step::HandOut(_, a) if keys(&a) == ["c", "e"]));
    }

    #[test]
    fn what_other_nodes_change_is_read_again() {
        let now = Instant::now();
        for (hints, age) in [(true, MAX_AGE_TOLD), (false, MAX_AGE)] {
            let mut index = known(false, &["a"], now);
            index.told(hints);
            let at = now + MIN_AGE;
            if hints {
                // what was missed before
                assert_eq!(told(&mut index, at), None);
                read(&mut index, "t", &["a", "b"], at);
                while !matches!(index.next("t", at), Step::End) {}
            }
            assert!(told(&mut index, at).is_some());
            assert!(told(&mut index, now + age - Duration::from_millis(1)).is_some());
            assert_eq!(told(&mut index, at + age), None, "it is old");
        }
        let mut index = known(false, &["a"], now);
        index.changed("t");
        assert!(told(&mut index, now).is_some(), "it has just been read");
        assert_eq!(told(&mut index, now + MIN_AGE), None);
        // told of another change while it is read: what comes may be older
        assert!(matches!(index.next("t", now + MIN_AGE), Step::Read));
        index.changed("t");
        index.read("t", audience(&[]), now + MIN_AGE);
        while !matches!(index.next("t", now + MIN_AGE), Step::End) {}
        assert_eq!(told(&mut index, now + MIN_AGE * 2), None);
    }

    #[test]
    fn where_the_store_does_not_answer_those_known_are_told() {
        let now = Instant::now();
        let mut index = known(true, &["a"], now);
        let later = now + MAX_AGE_TOLD;
        assert_eq!(told(&mut index, later), None);
        assert!(matches!(index.next("t", later), Step::Read));
        assert!(index.unread("t", later).is_empty());
        assert!(matches!(index.next("t", later), Step::HandOut(_, a) if keys(&a) == ["a"]));
        assert!(matches!(index.next("t", later + MIN_AGE), Step::End));
        assert_eq!(told(&mut index, later + MIN_AGE), None, "it is asked again");
    }

    fn many(n: usize) -> (Index, Instant) {
        let (now, names) = (Instant::now(), (0..n).map(|n| n.to_string()).collect::<Vec<_>>());
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        (known(true, &names, now), now)
    }

    #[test]
    fn a_large_audience_is_left_to_a_courier() {
        let (mut index, now) = many(INLINE_LIMIT + 1);
        assert!(matches!(index.post(&"t".into(), awaited(), now), Way::Courier));
        index.committed(&write("t", "0", false));
        assert!(matches!(index.next("t", now), Step::HandOut(_, a) if a.len() == INLINE_LIMIT));
        assert!(matches!(index.post_to_kind("desk", INLINE_LIMIT, awaited()), Way::Now(..)));
        assert!(matches!(index.post_to_kind("desk", INLINE_LIMIT + 1, awaited()), Way::Courier));
        assert!(matches!(index.post_to_kind("desk", 1, awaited()), Way::Waits), "it must not overtake");
        assert!(index.next_to_kind("desk").is_some() && index.next_to_kind("desk").is_some());
        assert!(index.next_to_kind("desk").is_none());
        assert!(matches!(index.post_to_kind("desk", 1, awaited()), Way::Now(..)));
    }

    #[test]
    fn what_a_turn_publishes_is_handed_out_at_once_to_few_alone() {
        let (mut index, now) = many(AT_ONCE_IN_TURN);
        assert!(matches!(index.post(&"t".into(), publication(), now), Way::Now(..)));
        index.committed(&write("t", "one more", true));
        assert!(matches!(index.post(&"t".into(), awaited(), now), Way::Now(..)));
        assert!(matches!(index.post(&"t".into(), publication(), now), Way::Courier));
        assert!(matches!(index.post_to_kind("desk", AT_ONCE_IN_TURN, publication()), Way::Now(..)));
        assert!(matches!(index.post_to_kind("desk", AT_ONCE_IN_TURN + 1, publication()), Way::Courier));
    }

    #[test]
    fn an_audience_that_is_handed_out_to_is_not_copied_for_what_is_committed_meanwhile() {
        let (mut index, now) = many(INLINE_LIMIT + 1);
        assert!(matches!(index.post(&"t".into(), publication(), now), Way::Courier));
        let Step::HandOut(_, told) = index.next("t", now) else { panic!("nothing is handed out") };
        let place = Arc::as_ptr(&told);
        index.committed(&write("t", "0", false));
        index.committed(&write("t", "new", true));
        assert!(matches!(index.post(&"t".into(), publication(), now), Way::Waits));
        drop(told);
        let Step::HandOut(_, told) = index.next("t", now) else { panic!("nothing is handed out") };
        assert_eq!((Arc::as_ptr(&told), told.len()), (place, INLINE_LIMIT + 1));
        assert!(keys(&told).contains(&"new") && !keys(&told).contains(&"0"));
        assert_eq!(index.weight, OWN_WEIGHT + told.len());
    }

    #[test]
    fn topics_that_nobody_uses_are_forgotten_when_there_are_too_many() {
        let now = Instant::now();
        let mut index = Index { max_weight: 100, ..Index::new(true) };
        for n in 0..1_000 {
            let name: Arc<str> = n.to_string().into();
            assert!(matches!(index.post(&name, publication(), now), Way::Courier));
            read(&mut index, &name, &["a", "b"], now);
            while !matches!(index.next(&name, now), Step::End) {}
            index.take_spent();
            assert!(index.weight <= index.max_weight, "{}", index.weight);
            assert!(matches!(index.post(&name, publication(), now), Way::Now(..)), "the newest stays");
        }
        let weight: usize = index.topics.values().map(Topic::weight).sum();
        assert_eq!(index.weight, weight);
        assert!(index.topics.len() >= 5);
    }

    #[test]
    fn an_agent_takes_one_message_from_a_topic() {
        let mut audience = audience(&["a", "b"]);
        let mut other = write("t", "a", true);
        other.subscriber.message = "Quote".into();
        audience.apply(&other);
        assert_eq!((audience.len(), audience.groups().len()), (2, 2));
        audience.apply(&write("t", "a", false));
        audience.apply(&write("t", "b", false));
        assert!(audience.groups().is_empty());
    }
}
