//! The lane: an agent's mailbox, and its identity.
//!
//! Cells attach to it and detach from it; a lane lives on across crashes and passivation, so a
//! handle stays valid and nothing that waits is lost. It goes when nobody holds it and a new one would
//! be the same. A cell detaches only when the lane is empty,
//! under its lock, so there is no race with a sender. The queue is swapped out whole, and the cell
//! is woken once a batch (after the lock is released).

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
};

use jiff::Timestamp;
use parking_lot::Mutex;

pub(crate) use super::queue::Entrance;
use super::{Agent, Envelope, host::Host, messages::EnvelopeOf, queue::Queue, table::Keyed};
use crate::{
    clock,
    model::{id::AgentId, supervision::Budget},
};

/// Who an agent is.
#[derive(Debug)]
pub(crate) struct Name {
    pub kind: Arc<str>,
    pub key: Arc<str>,
    pub id: AgentId,
}

impl Name {
    pub(crate) fn subject(&self) -> String {
        format!("{}/{}", self.kind, self.key)
    }
}

/// Starts a cell for a lane that has work and no cell.
pub(crate) trait Activator<A: Agent>: Send + Sync {
    fn activate(&self, lane: Arc<Lane<A>>);
    /// The runtime; `None`: the node has ended.
    fn host(&self) -> Option<Arc<dyn Host>>;
}

/// Why a letter was not taken; it comes back.
pub(crate) enum NotTaken {
    Full,
    Shut(Arc<str>),
    Closing,
}

/// How a letter comes in.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    /// It is an attempt of a task, which can wait in the store.
    pub is_task: bool,
    /// Handled before those that are not.
    pub urgent: bool,
}

/// A letter of the high lane.
fn hurried<E: Envelope<A>, A: Agent>(mut letter: E) -> E {
    letter.letter_mut().hurry();
    letter
}

/// An agent's mailbox. In this order: `urgent`, at which a cell looks after each turn, is far from what senders
/// write meanwhile, in this lane and in its neighbour in memory.
#[repr(C)]
pub struct Lane<A: Agent> {
    queue: Mutex<Queue<EnvelopeOf<A>>>,
    capacity: usize,
    /// A full mailbox gives the message back in place of making the sender wait.
    pub(super) rejects: bool,
    /// Something waits in the high lane.
    urgent: AtomicBool,
    pub(crate) name: Name,
    activator: Arc<dyn Activator<A>>,
}

impl<A: Agent> Keyed for Arc<Lane<A>> {
    #[inline]
    fn key(&self) -> &str {
        &self.name.key
    }
}

impl<A: Agent> Lane<A> {
    pub(crate) fn new(
        name: Name,
        capacity: usize,
        rejects: bool,
        entrance: Entrance,
        activator: Arc<dyn Activator<A>>,
    ) -> Self {
        let urgent = AtomicBool::new(false);
        Self {
            name,
            capacity: capacity.max(1),
            rejects,
            urgent,
            queue: Mutex::new(Queue::new(entrance)),
            activator,
        }
    }

    /// The runtime; `None`: the node has ended.
    pub(crate) fn host(&self) -> Option<Arc<dyn Host>> {
        self.activator.host()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn depth(&self) -> usize {
        let q = self.queue.lock();
        q.letters.len() + q.depth(true)
    }

    /// Whether an urgent letter waits.
    #[inline]
    pub(crate) fn has_urgent(&self) -> bool {
        self.urgent.load(Ordering::Relaxed)
    }

    /// Puts a letter in, and starts a cell where there is none.
    pub(crate) fn push(self: &Arc<Self>, letter: EnvelopeOf<A>) -> Result<(), (NotTaken, EnvelopeOf<A>)> {
        let meta = letter.letter().details().0;
        let manner = Manner { is_task: letter.letter().is_task(), urgent: meta.is_some_and(|m| m.urgent) };
        self.place(manner, letter, |letter| letter)
    }

    /// As [`Lane::push`], of a letter that is made from `parts` once it is taken: made where it is to
    /// lie, it need not be moved there. What is not taken comes back in parts.
    #[inline]
    pub(crate) fn place<P>(
        self: &Arc<Self>,
        manner: Manner,
        parts: P,
        make: impl FnOnce(P) -> EnvelopeOf<A>,
    ) -> Result<(), (NotTaken, P)> {
        let (wake, start) = {
            let mut q = self.queue.lock();
            if (!matches!(q.entrance, Entrance::Open) || q.depth(manner.urgent) >= self.capacity)
                && let Some(why) = self.refuses(&q, manner, 1)
            {
                return Err((why, parts));
            }
            // Most agents hold one at a time, and `extend` would begin with room for four.
            if q.letters.capacity() == 0 {
                q.letters.reserve_exact(1);
            }
            // `push_back` would make it first, to drop it if it cannot get room, and then move it.
            if manner.urgent {
                q.urgent.get_or_insert_default().push_back(hurried(make(parts)));
                self.urgent.store(true, Ordering::Relaxed);
            } else {
                q.letters.extend(std::iter::once_with(|| make(parts)));
            }
            q.taken()
        };
        self.rouse(wake, start);
        Ok(())
    }

    /// As [`Lane::place`], of as many letters of no task's as there is room for, in their order: one lock
    /// and one waking for all of them. What is not taken stays in `parts`.
    pub(crate) fn place_many<P>(
        self: &Arc<Self>,
        urgent: bool,
        parts: &mut VecDeque<P>,
        make: impl FnMut(P) -> EnvelopeOf<A>,
    ) -> Result<(), NotTaken> {
        if parts.is_empty() {
            return Ok(());
        }
        let (wake, start) = {
            let mut q = self.queue.lock();
            if let Some(why) = self.refuses(&q, Manner { is_task: false, urgent }, parts.len()) {
                return Err(why);
            }
            let room = self.capacity.saturating_sub(q.depth(urgent)).min(parts.len());
            let taken = parts.drain(..room).map(make);
            if urgent {
                q.urgent.get_or_insert_default().extend(taken.map(hurried));
                self.urgent.store(true, Ordering::Relaxed);
            } else {
                q.letters.extend(taken);
            }
            q.taken()
        };
        self.rouse(wake, start);
        if parts.is_empty() { Ok(()) } else { Err(NotTaken::Full) }
    }

    /// Wakes the cell, or starts one.
    #[inline]
    fn rouse(self: &Arc<Self>, wake: Option<Waker>, start: bool) {
        if let Some(waker) = wake {
            waker.wake();
        }
        if start {
            self.activator.activate(self.clone());
        }
    }

    #[cold]
    fn refuses(&self, q: &Queue<EnvelopeOf<A>>, manner: Manner, n: usize) -> Option<NotTaken> {
        match &q.entrance {
            // A task waits in the store.
            Entrance::Paused if manner.is_task => {
                Some(NotTaken::Shut(format!("{} is paused", self.name.subject()).into()))
            }
            Entrance::Open | Entrance::Paused if q.depth(manner.urgent) >= self.capacity => {
                Some(NotTaken::Full)
            }
            Entrance::Open | Entrance::Paused => None,
            Entrance::Shut(shut) => {
                // a task waits in the store
                if !manner.is_task {
                    shut.refuse(n, clock::now());
                }
                Some(NotTaken::Shut(shut.why.clone()))
            }
            Entrance::Closing => Some(NotTaken::Closing),
        }
    }

    /// Has a sender woken when there is room; `ticket` tells its place among those that wait, 0 none.
    #[cold]
    pub(super) fn wait_for_room(&self, urgent: bool, ticket: &mut u64, cx: &Context<'_>) {
        let mut q = self.queue.lock();
        if q.depth(urgent) < self.capacity {
            drop(q);
            cx.waker().wake_by_ref();
        } else {
            let before = q.senders.get_or_insert_default().enter(ticket, cx.waker());
            drop(q);
            drop(before);
        }
    }

    /// Forgets a sender that waited for room, and may wait still.
    #[cold]
    pub(super) fn leave(&self, ticket: u64) {
        let left = self.queue.lock().senders.as_mut().and_then(|senders| senders.leave(ticket));
        drop(left);
    }

    /// For the cell: takes the waiting letters, behind those that `batch` holds. `false`: there are
    /// none, and the waker is kept.
    pub(crate) fn poll_batch(&self, batch: &mut VecDeque<EnvelopeOf<A>>, cx: &mut Context<'_>) -> bool {
        let mut q = self.queue.lock();
        if q.is_empty() || q.entrance == Entrance::Paused {
            match &q.cell {
                Some(w) if w.will_wake(cx.waker()) => {}
                _ => q.cell = Some(cx.waker().clone()),
            }
            return false;
        }
        if batch.is_empty() {
            std::mem::swap(&mut q.letters, batch);
        } else {
            batch.append(&mut q.letters);
        }
        self.to_front(&mut q, batch);
        let woken = q.admit();
        drop(q);
        woken.wake();
        true
    }

    /// For the cell: takes what is urgent, and no more, before what `batch` holds; nothing while something
    /// urgent is in there still, which came before and counts to the bound.
    pub(crate) fn take_urgent(&self, batch: &mut VecDeque<EnvelopeOf<A>>) {
        if batch.iter().any(|letter| letter.letter().is_urgent()) {
            return;
        }
        let mut q = self.queue.lock();
        if q.entrance != Entrance::Paused {
            self.to_front(&mut q, batch);
            let woken = q.admit();
            drop(q);
            woken.wake();
        }
    }

    fn to_front(&self, q: &mut Queue<EnvelopeOf<A>>, batch: &mut VecDeque<EnvelopeOf<A>>) {
        if let Some(urgent) = &mut q.urgent {
            while let Some(letter) = urgent.pop_back() {
                batch.push_front(letter);
            }
        }
        self.urgent.store(false, Ordering::Relaxed);
    }

    fn take_all(&self, q: &mut Queue<EnvelopeOf<A>>) -> VecDeque<EnvelopeOf<A>> {
        self.urgent.store(false, Ordering::Relaxed);
        q.take_all()
    }

    /// Takes out what waits and is in no store: it will not run. Tasks stay.
    pub(crate) fn clear(&self) -> VecDeque<EnvelopeOf<A>> {
        let (cleared, woken) = {
            let mut q = self.queue.lock();
            let (tasks, cleared) = self.take_all(&mut q).into_iter().partition(|l| l.letter().is_task());
            q.letters = tasks;
            (cleared, q.admit())
        };
        woken.wake();
        cleared
    }

    /// For the cell: lets go of the lane if it is empty or paused. `false`: there is work, stay.
    pub(crate) fn detach(&self) -> bool {
        let mut q = self.queue.lock();
        if q.entrance != Entrance::Paused && !q.is_empty() {
            return false;
        }
        q.attached = false;
        q.cell = None;
        if q.is_empty() {
            q.letters.shrink_to_fit();
            q.urgent = None;
        }
        true
    }

    /// For a cell that goes: gives back what it had taken, in front, and starts another cell where
    /// there is work. What nobody will run is left in `batch`, to be answered.
    pub(crate) fn abandon(self: &Arc<Self>, batch: &mut VecDeque<EnvelopeOf<A>>) {
        let (woken, start) = {
            let mut q = self.queue.lock();
            batch.append(&mut self.take_all(&mut q));
            let runs = |letter: &EnvelopeOf<A>| match q.entrance {
                Entrance::Open => true,
                Entrance::Paused => !letter.letter().is_task(),
                Entrance::Shut(_) | Entrance::Closing => false,
            };
            let (back, rest): (VecDeque<_>, _) = std::mem::take(batch).into_iter().partition(runs);
            (q.letters, *batch) = (back, rest);
            q.cell = None;
            q.attached = q.entrance == Entrance::Open && !q.letters.is_empty();
            (q.admit(), q.attached)
        };
        woken.wake();
        if start {
            self.activator.activate(self.clone());
        }
    }

    /// How many messages were refused since it was shut, and when the last one was.
    pub(crate) fn refused(&self) -> Option<(u64, Timestamp)> {
        match &self.queue.lock().entrance {
            Entrance::Shut(shut) => shut.refused(),
            Entrance::Open | Entrance::Paused | Entrance::Closing => None,
        }
    }

    /// How often an operator has decided on the entrance.
    pub(crate) fn decided(&self) -> u64 {
        self.queue.lock().decided
    }

    /// Judges by the crashes that count against the agent. They do so wherever it is: leaving memory is no
    /// way to be forgiven.
    pub(crate) fn judge<T>(&self, by: impl FnOnce(&mut Budget) -> T) -> T {
        by(self.queue.lock().budget.get_or_insert_default())
    }

    /// Whether a new one would be the same: nothing waits or runs, it is open, and no crash counts. Nobody else
    /// holds it who could change that.
    pub(super) fn is_as_new(&mut self, counts: impl FnOnce(&mut Budget) -> bool) -> bool {
        let q = self.queue.get_mut();
        let is_idle = !q.attached && q.is_empty() && q.entrance == Entrance::Open;
        is_idle && !q.budget.as_mut().is_some_and(|budget| counts(budget))
    }

    /// Forgets its crashes.
    pub(crate) fn forgive(&self) {
        self.queue.lock().budget = None;
    }

    /// An operator's decision: as [`Lane::set_entrance`]. Whoever takes it back into service forgives it.
    pub(crate) fn decide(self: &Arc<Self>, entrance: Entrance) -> VecDeque<EnvelopeOf<A>> {
        self.queue.lock().decided += 1;
        if entrance == Entrance::Open {
            self.forgive();
        }
        self.set_entrance(entrance)
    }

    /// A cell's finding: as [`Lane::set_entrance`], unless an operator has `decided` since.
    pub(crate) fn found(
        self: &Arc<Self>,
        decided: u64,
        entrance: Entrance,
    ) -> Option<VecDeque<EnvelopeOf<A>>> {
        self.change(entrance, Some(decided))
    }

    /// For a cell that could not be started: closes the lane, and hands back what waited.
    pub(crate) fn orphaned(self: &Arc<Self>) -> VecDeque<EnvelopeOf<A>> {
        self.queue.lock().attached = false;
        self.set_entrance(Entrance::Closing)
    }

    /// Changes what senders meet; once it is closing that stays. Shutting hands back what waited,
    /// pausing the tasks of it, closing what no cell will answer; opening starts a cell where there
    /// is work.
    pub(crate) fn set_entrance(self: &Arc<Self>, entrance: Entrance) -> VecDeque<EnvelopeOf<A>> {
        self.change(entrance, None).unwrap_or_default()
    }

    fn change(self: &Arc<Self>, entrance: Entrance, decided: Option<u64>) -> Option<VecDeque<EnvelopeOf<A>>> {
        let (handed_back, woken, cell, start) = {
            let mut q = self.queue.lock();
            if decided.is_some_and(|seen| seen != q.decided) {
                return None;
            }
            let mut handed_back = VecDeque::new();
            match &entrance {
                Entrance::Shut(_) => handed_back = self.take_all(&mut q),
                Entrance::Closing if !q.attached => handed_back = self.take_all(&mut q),
                Entrance::Paused => {
                    for letter in self.take_all(&mut q) {
                        let to = if letter.letter().is_task() { &mut handed_back } else { &mut q.letters };
                        to.push_back(letter);
                    }
                }
                Entrance::Open | Entrance::Closing => {}
            }
            if q.entrance != Entrance::Closing {
                if let (Entrance::Shut(before), Entrance::Shut(now)) = (&q.entrance, &entrance) {
                    now.goes_on(before);
                }
                q.entrance = entrance;
            }
            let start = q.entrance == Entrance::Open && !q.attached && !q.is_empty();
            q.attached |= start;
            // There may be room now, or none any more.
            (handed_back, q.admit(), q.cell.take(), start)
        };
        woken.wake();
        if let Some(cell) = cell {
            cell.wake();
        }
        if start {
            self.activator.activate(self.clone());
        }
        Some(handed_back)
    }

    pub(crate) fn entrance(&self) -> Entrance {
        self.queue.lock().entrance.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use super::*;
    use crate::agent::{
        AgentRef, Handler, Turn,
        letter::{Letter, Meta, ReplyTo},
        sender::Sender,
    };

    #[derive(Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    struct Tick(u8);
    crate::message!(Tick -> ());

    #[derive(Default, serde::Serialize, serde::Deserialize)]
    struct Clock;
    impl Agent for Clock {
        const KIND: &'static str = "clock";
        type Messages = Tick;
    }
    impl Handler<Tick> for Clock {
        async fn handle(&mut self, _: Tick, _: &Turn<Self>) -> anyhow::Result<()> {
            Ok(())
        }
    }

    struct Nobody;
    impl Activator<Clock> for Nobody {
        fn activate(&self, _: Arc<Lane<Clock>>) {}
        fn host(&self) -> Option<Arc<dyn Host>> {
            None
        }
    }

    fn lane(capacity: usize) -> Arc<Lane<Clock>> {
        let name = Name { kind: "clock".into(), key: "a".into(), id: AgentId::of("clock", "a") };
        Arc::new(Lane::new(name, capacity, false, Entrance::Open, Arc::new(Nobody)))
    }

    fn letter(n: u8) -> Letter<Tick> {
        Letter::new(Tick(n), ReplyTo::Nobody, None)
    }

    fn task(n: u8) -> Letter<Tick> {
        let claim = crate::model::task::Claimed {
            id: crate::TaskId::fresh(),
            seq: 1,
            target: crate::model::id::Target::agent("clock", "a"),
            message: "Tick".into(),
            input: serde_json::value::RawValue::from_string("1".into()).unwrap(),
            priority: 0,
            attempt: 1,
            claim: crate::model::task::ClaimId(1),
            lost: 0,
            max_attempts: 1,
            timeout: None,
            notify: None,
            batch: None,
            due: None,
            expires_at: None,
        };
        let meta = Meta { claim: Some(Arc::new(claim)), ..Meta::default() };
        Letter::new(Tick(n), ReplyTo::Nobody, Some(Box::new(meta)))
    }

    fn take(lane: &Lane<Clock>, batch: &mut VecDeque<Letter<Tick>>) -> bool {
        lane.poll_batch(batch, &mut Context::from_waker(Waker::noop()))
    }

    fn numbers(batch: VecDeque<Letter<Tick>>) -> Vec<u8> {
        batch.into_iter().filter_map(|l| l.into_message().map(|t| t.0)).collect()
    }

    #[test]
    fn letters_that_a_cell_holds_stay_in_front_of_those_that_wait() {
        let (lane, mut batch) = (lane(8), VecDeque::new());
        assert!(lane.push(letter(1)).is_ok() && lane.push(letter(2)).is_ok());
        assert!(take(&lane, &mut batch));
        assert!(lane.push(letter(3)).is_ok());
        assert!(take(&lane, &mut batch));
        assert_eq!(lane.depth(), 0, "a letter left behind here would never be answered");
        assert_eq!(numbers(batch), [1, 2, 3]);
    }

    #[test]
    fn a_full_lane_gives_the_letter_back() {
        let lane = lane(1);
        assert!(lane.push(letter(1)).is_ok());
        let Err((NotTaken::Full, back)) = lane.push(letter(2)) else { panic!("it took a second one") };
        assert_eq!(back.into_message().map(|t| t.0), Some(2));
    }

    #[test]
    fn what_is_urgent_goes_before_what_waits_and_has_a_bound_of_its_own() {
        let (lane, mut batch) = (lane(2), VecDeque::new());
        let urgent = |n| lane.place(Manner { is_task: false, urgent: true }, letter(n), |l| l);
        assert!(lane.push(letter(1)).is_ok() && lane.push(letter(2)).is_ok());
        assert!(take(&lane, &mut batch));
        assert!(urgent(3).is_ok() && lane.push(letter(4)).is_ok() && urgent(5).is_ok());
        assert!(lane.has_urgent() && lane.depth() == 3);
        assert!(matches!(urgent(6), Err((NotTaken::Full, _))));
        lane.take_urgent(&mut batch);
        assert_eq!((lane.has_urgent(), lane.depth()), (false, 1), "the rest has its turn later");
        assert!(urgent(6).is_ok());
        lane.take_urgent(&mut batch);
        assert_eq!((lane.has_urgent(), lane.depth()), (true, 2), "those taken before have not begun yet");
        batch.drain(..2).for_each(drop);
        lane.take_urgent(&mut batch);
        assert!(!lane.has_urgent() && lane.depth() == 1);
        assert_eq!(numbers(batch), [6, 1, 2]);
    }

    #[test]
    fn an_urgent_letter_keeps_a_cell_and_is_handed_back_first() {
        let lane = lane(8);
        assert!(lane.push(letter(1)).is_ok());
        assert!(lane.place(Manner { is_task: false, urgent: true }, letter(2), |l| l).is_ok());
        assert!(!lane.detach());
        assert_eq!(numbers(lane.set_entrance(Entrance::shut("it is stopped"))), [2, 1]);
        assert!(!lane.has_urgent(), "its cell would look for it after each turn, for ever");
        assert!(lane.detach());
        let mut batch = VecDeque::new();
        lane.set_entrance(Entrance::Open);
        assert!(lane.place(Manner { is_task: false, urgent: true }, letter(3), |l| l).is_ok());
        lane.abandon(&mut batch);
        assert!(!lane.has_urgent() && lane.depth() == 1);
    }

    #[test]
    fn many_letters_are_taken_at_once_as_far_as_there_is_room() {
        let (lane, mut batch) = (lane(4), VecDeque::new());
        assert!(lane.push(letter(1)).is_ok());
        let mut many: VecDeque<u8> = (2..=6).collect();
        assert!(matches!(lane.place_many(false, &mut many, letter), Err(NotTaken::Full)));
        assert_eq!(many, [5, 6], "those come back, in their order");
        assert!(matches!(lane.place_many(false, &mut many, letter), Err(NotTaken::Full)));
        assert!(take(&lane, &mut batch));
        assert!(lane.place_many(false, &mut many, letter).is_ok());
        assert!(take(&lane, &mut batch));
        assert_eq!(numbers(batch), [1, 2, 3, 4, 5, 6]);
        lane.set_entrance(Entrance::shut("it is stopped"));
        assert!(lane.place_many(false, &mut many, letter).is_ok(), "nothing is always taken");
        many.push_back(7);
        many.push_back(8);
        assert!(matches!(lane.place_many(false, &mut many, letter), Err(NotTaken::Shut(_))));
        assert_eq!(lane.refused().map(|(n, _)| n), Some(2));
        assert_eq!(many, [7, 8]);
        lane.set_entrance(Entrance::Open);
        assert!(lane.push(letter(6)).is_ok() && lane.place_many(true, &mut many, letter).is_ok());
        assert!(lane.has_urgent());
        assert_eq!(numbers(lane.set_entrance(Entrance::shut("it is stopped"))), [7, 8, 6]);
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Bell(std::sync::atomic::AtomicUsize);
    impl std::task::Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }

    #[test]
    fn many_letters_wake_once_and_those_without_room_wait() {
        let (lane, mut batch) = (lane(3), VecDeque::new());
        let (cell, sender) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
        assert!(lane.push(letter(1)).is_ok());
        assert!(take(&lane, &mut batch));
        let waker = Waker::from(cell.clone());
        assert!(!lane.poll_batch(&mut batch, &mut Context::from_waker(&waker)));
        let waker = Waker::from(sender.clone());
        let mut cx = Context::from_waker(&waker);
        let mut many: VecDeque<u8> = (2..=8).collect();
        let mut many_to = Sender::new(&lane);
        assert!(many_to.poll_place_many(false, &mut many, letter, &mut cx).is_pending());
        assert_eq!((rings(&cell), rings(&sender), many.len()), (1, 0, 4));
        assert!(take(&lane, &mut batch));
        assert_eq!(rings(&sender), 1, "there is room again");
        assert!(many_to.poll_place_many(false, &mut many, letter, &mut cx).is_pending());
        assert!(take(&lane, &mut batch));
        assert!(many_to.poll_place_many(false, &mut many, letter, &mut cx).is_ready());
        assert!(take(&lane, &mut batch));
        assert_eq!(numbers(batch), [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    fn rings(bell: &Bell) -> usize {
        bell.0.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// How many wait for room.
    fn waiting(lane: &Lane<Clock>) -> usize {
        lane.queue.lock().senders.as_ref().map_or(0, |senders| senders.len())
    }

    /// A sender that waits for room, the letter that it has, and the bell that wakes it.
    struct Waits<'l> {
        to: Sender<Clock, &'l Arc<Lane<Clock>>>,
        letter: Option<Letter<Tick>>,
        bell: Arc<Bell>,
    }

    impl<'l> Waits<'l> {
        fn at(lane: &'l Arc<Lane<Clock>>, n: u8) -> Self {
            let mut waits = Self { to: Sender::new(lane), letter: Some(letter(n)), bell: Arc::default() };
            assert!(!waits.poll());
            waits
        }

        /// `false`: there is no room.
        fn poll(&mut self) -> bool {
            let waker = Waker::from(self.bell.clone());
            self.to.poll_place(false, &mut self.letter, |l| l, &mut Context::from_waker(&waker)).is_ready()
        }
    }

    #[test]
    fn a_sender_waits_in_one_place_however_often_it_is_polled_and_leaves_it_when_it_is_dropped() {
        let (lane, mut batch) = (lane(1), VecDeque::new());
        assert!(lane.push(letter(1)).is_ok());
        let mut first = Waits::at(&lane, 2);
        let second = Waits::at(&lane, 3);
        for _ in 0..100 {
            assert!(!first.poll());
        }
        assert_eq!(waiting(&lane), 2);
        let before = std::mem::take(&mut first.bell);
        assert!(!first.poll() && waiting(&lane) == 2, "another task polls it: the waker is another");
        assert_eq!(Arc::strong_count(&before), 1, "nobody rings the bell of the task before");
        drop(second);
        assert_eq!(waiting(&lane), 1);
        assert!(take(&lane, &mut batch));
        assert_eq!((rings(&before), rings(&first.bell), waiting(&lane)), (0, 1, 0));
        assert!(lane.push(letter(4)).is_ok());
        let third = Waits::at(&lane, 5);
        assert!(!first.poll() && waiting(&lane) == 2, "who was woken and found no room waits anew");
        drop(first);
        assert_eq!(waiting(&lane), 1, "it left its own place");
        assert!(take(&lane, &mut batch) && rings(&third.bell) == 1);
    }

    #[test]
    fn whatever_waits_for_room_waits_no_more_when_it_is_dropped() {
        let lane = lane(1);
        assert!(lane.push(letter(1)).is_ok());
        let clock = AgentRef { lane: Ok(lane.clone()), urgent: false };
        let mut cx = Context::from_waker(Waker::noop());
        let mut told = clock.tell(Tick(2));
        let mut asked = clock.ask(Tick(3));
        let mut many = clock.send_many([Tick(4), Tick(5)]);
        for _ in 0..3 {
            assert!(Pin::new(&mut told).poll(&mut cx).is_pending());
            assert!(Pin::new(&mut asked).poll(&mut cx).is_pending());
            assert!(Pin::new(&mut many).poll(&mut cx).is_pending());
        }
        assert_eq!(waiting(&lane), 3);
        drop(told);
        assert_eq!(waiting(&lane), 2);
        drop(asked);
        assert_eq!(waiting(&lane), 1);
        drop(many);
        assert_eq!((waiting(&lane), lane.depth()), (0, 1));
    }

    #[test]
    fn room_that_a_pause_or_a_leaving_cell_makes_wakes_those_who_wait_for_it() {
        let lane = lane(2);
        assert!(lane.push(task(1)).is_ok() && lane.push(task(2)).is_ok());
        let mut told = Waits::at(&lane, 3);
        assert_eq!(numbers(lane.set_entrance(Entrance::Paused)), [1, 2]);
        assert_eq!(rings(&told.bell), 1);
        assert!(told.poll(), "a paused agent takes what is told it, to the bound");
        assert!(lane.push(letter(4)).is_ok());
        lane.set_entrance(Entrance::Open);
        let mut told = Waits::at(&lane, 5);
        let mut batch = VecDeque::new();
        lane.queue.lock().entrance = Entrance::Paused;
        assert!(lane.queue.lock().letters.pop_front().is_some());
        lane.queue.lock().letters.push_back(task(6));
        lane.abandon(&mut batch);
        assert_eq!((numbers(batch), lane.depth(), rings(&told.bell)), (vec![6], 1, 1));
        assert!(told.poll());
    }

    /// A cell would have to fetch the flag anew after each turn while somebody sends.
    #[test]
    fn what_a_cell_looks_at_after_each_turn_is_in_no_cache_line_that_senders_write() {
        type Letters = Queue<EnvelopeOf<Clock>>;
        let inside = size_of::<Mutex<Letters>>() - size_of::<Letters>();
        let written = std::mem::offset_of!(Lane<Clock>, queue) + inside;
        let written = written + std::mem::offset_of!(Letters, cell) + size_of::<Option<Waker>>();
        let flag = std::mem::offset_of!(Lane<Clock>, urgent);
        assert!(flag >= written + 64, "{flag} {written}");
        assert!(size_of::<Lane<Clock>>() >= flag + 64, "{flag} of {}", size_of::<Lane<Clock>>());
    }

    #[test]
    fn what_a_sender_needs_to_wait_is_a_word() {
        assert_eq!(size_of::<Sender<Clock, &Arc<Lane<Clock>>>>(), 2 * size_of::<usize>());
        assert_eq!(size_of::<Option<Sender<Clock, Arc<Lane<Clock>>>>>(), 2 * size_of::<usize>());
    }

    #[test]
    fn a_lane_with_work_is_not_let_go() {
        let (lane, mut batch) = (lane(8), VecDeque::new());
        assert!(lane.push(letter(1)).is_ok());
        assert!(!lane.detach());
        assert!(take(&lane, &mut batch));
        assert!(lane.detach());
    }

    #[test]
    fn a_paused_lane_keeps_and_a_shut_one_hands_back() {
        let (lane, mut batch) = (lane(8), VecDeque::new());
        assert!(lane.set_entrance(Entrance::Paused).is_empty());
        assert!(lane.push(letter(1)).is_ok());
        assert!(!take(&lane, &mut batch));
        assert_eq!(numbers(lane.set_entrance(Entrance::shut("it is stopped"))), [1]);
        assert!(matches!(lane.push(letter(2)), Err((NotTaken::Shut(_), _))));
    }

    #[test]
    fn a_cell_does_not_undo_what_an_operator_has_decided_meanwhile() {
        let (lane, mut batch) = (lane(8), VecDeque::from([letter(1)]));
        let seen = lane.decided();
        lane.decide(Entrance::Open);
        assert!(lane.found(seen, Entrance::shut("it was stopped")).is_none());
        lane.abandon(&mut batch);
        assert_eq!((lane.entrance(), lane.depth(), batch.len()), (Entrance::Open, 1, 0));
        assert!(lane.found(lane.decided(), Entrance::shut("it is stopped")).is_some_and(|l| l.len() == 1));
        batch.push_back(letter(2));
        lane.abandon(&mut batch);
        assert_eq!((lane.depth(), numbers(batch)), (0, vec![2]), "nobody would run it: it is to be answered");
    }

    #[test]
    fn a_cleared_lane_hands_back_what_is_in_no_store_and_keeps_the_rest() {
        let (lane, mut batch) = (lane(2), VecDeque::new());
        let urgent = Manner { is_task: false, urgent: true };
        assert!(lane.push(letter(1)).is_ok() && lane.push(task(2)).is_ok());
        assert!(lane.place(urgent, letter(3), |l| l).is_ok());
        let sender = Arc::new(Bell::default());
        let waker = Waker::from(sender.clone());
        let mut waiting = Some(letter(4));
        let mut cx = Context::from_waker(&waker);
        let mut to = Sender::new(&lane);
        assert!(to.poll_place(false, &mut waiting, |l| l, &mut cx).is_pending());
        assert_eq!(numbers(lane.clear()), [3, 1]);
        assert_eq!(sender.0.load(std::sync::atomic::Ordering::SeqCst), 1, "there is room again");
        assert!(!lane.has_urgent() && take(&lane, &mut batch));
        assert_eq!(numbers(batch), [2]);
    }

    #[test]
    fn a_closed_lane_stays_closed_and_keeps_nothing_that_nobody_answers() {
        let lane = lane(8);
        lane.set_entrance(Entrance::Paused);
        assert!(lane.push(letter(1)).is_ok());
        assert_eq!(numbers(lane.set_entrance(Entrance::Closing)), [1]);
        lane.decide(Entrance::Open);
        assert!(matches!(lane.push(letter(2)), Err((NotTaken::Closing, _))));
    }
}
