//! Tasks that start with their submission: claimed in the commit that accepts them, where tools have free slots
//! and nothing waits. That saves a separate claim, and its round trip to the store.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering},
};

use actix::prelude::*;
use parking_lot::Mutex;

use super::{Dispatcher, reconcile::LATER};
use crate::{
    model::{
        id::{Target, TaskId},
        task::Bounds,
    },
    runtime::{node::Node, persistence::Newborn},
    store::Unit,
};

/// At most so many at once.
const MAX_BATCH: usize = 64;
/// Of so many free slots one is kept for them; the others are for what waits.
const ONE_IN: usize = 4;

/// The room for newborns, and those on their way.
#[derive(Default)]
pub(crate) struct Newborns {
    room: Mutex<Room>,
    /// No tool's task begins here now.
    full: AtomicBool,
}

#[derive(Default)]
struct Room {
    open: usize,
    /// Submitted, and not heard of yet.
    coming: HashSet<TaskId>,
}

impl Newborns {
    /// Whether one more may come; it is expected from now on.
    fn admit(&self, id: TaskId) -> bool {
        let mut room = self.room.lock();
        let Some(open) = room.open.checked_sub(1) else { return false };
        room.open = open;
        room.coming.insert(id)
    }

    /// There is room for so many; tells how many slots are to be kept free for them.
    fn offer(&self, places: usize) -> usize {
        let mut room = self.room.lock();
        room.open = places.saturating_sub(room.coming.len());
        room.open + room.coming.len()
    }

    fn came(&self, id: TaskId) {
        self.room.lock().coming.remove(&id);
    }

    /// Whether no task could begin when that was last looked at.
    fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// How many are on their way.
    pub(super) fn coming(&self) -> usize {
        self.room.lock().coming.len()
    }

    /// Whether it is on its way.
    pub(super) fn expects(&self, id: TaskId) -> bool {
        self.room.lock().coming.contains(&id)
    }
}

impl Node {
    /// Whether the task that the unit submits may begin with it. Then it is expected.
    pub(crate) fn may_begin(&self, unit: &Unit) -> bool {
        let ([task], true) = (&*unit.accepted, self.store.begins()) else { return false };
        let Target::Tool(name) = &task.target else { return false };
        let is_unbound = |name: &str| {
            let tool = self.tools.get(name);
            tool.is_some_and(|tool| tool.bounds() == Bounds::default() && tool.stopped().is_none())
        };
        unit.is_submission_alone()
            && task.run_at.is_none()
            && task.expires_at.is_none()
            && is_unbound(name)
            && !self.draining.is_on()
            && !self.is_troubled(false)
            && self.newborns.admit(task.id)
    }

    /// Whether a tool's next task has a slot here, as far as its own bounds let it begin.
    pub(crate) fn has_room_for(&self, tool: &str) -> bool {
        let serves = self.tools.get(tool).is_some_and(|tool| tool.stopped().is_none());
        serves && !self.newborns.is_full() && !self.draining.is_on()
    }

    /// Tells the dispatcher what became of a task that was to begin with its submission.
    pub(crate) fn begun(&self, newborn: Newborn) {
        match self.actors() {
            Some(actors) => actors.dispatcher.do_send(newborn),
            None => self.newborns.came(newborn.id),
        }
    }
}

impl Message for Newborn {
    type Result = ();
}

impl Dispatcher {
    /// Keeps some slots for newborns while nothing waits; tells how many.
    pub(super) fn offer(&self) -> usize {
        let free = self.free_slots();
        let is_alone = self.suspects || self.alone.runs.is_some();
        self.node.newborns.full.store(free == 0 || is_alone || self.draining, Ordering::Relaxed);
        let is_quiet = self.drained && !is_alone && !self.draining;
        let places =
            if is_quiet { (free / ONE_IN).min(MAX_BATCH).min(free.saturating_sub(self.asked)) } else { 0 };
        self.node.newborns.offer(places)
    }

    /// Slots that no claim of a tool's task holds.
    pub(super) fn free_slots(&self) -> usize {
        (self.node.settings.load().tasks.slots as usize).saturating_sub(self.tool_claims)
    }
}

impl Handler<Newborn> for Dispatcher {
    type Result = ();
    fn handle(&mut self, newborn: Newborn, ctx: &mut Self::Context) {
        self.node.newborns.came(newborn.id);
        match newborn.claim {
            Some(claim) => self.take_in(vec![(*claim).into()], ctx),
            // It may be claimed, although nobody was told.
            None if newborn.in_doubt => drop(ctx.run_later(LATER, Self::reconcile)),
            None => {}
        }
        self.offer();
        if self.suspects {
            self.claim(ctx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_come_than_there_are_places_for() {
        let (newborns, ids) = (Newborns::default(), [TaskId::fresh(), TaskId::fresh(), TaskId::fresh()]);
        assert!(!newborns.admit(ids[0]), "nobody has offered any");
        assert_eq!(newborns.offer(2), 2);
        assert!(newborns.admit(ids[0]) && newborns.admit(ids[1]) && !newborns.admit(ids[2]));
        assert_eq!(newborns.offer(2), 2, "those on their way take them");
        assert!(!newborns.admit(ids[2]) && newborns.expects(ids[1]));
        assert_eq!(newborns.offer(0), 2, "what is on its way comes, whatever is offered now");
        newborns.came(ids[0]);
        assert!(!newborns.admit(ids[2]), "its place is its slot now");
        assert_eq!((newborns.coming(), newborns.offer(2)), (1, 2));
        assert!(newborns.admit(ids[2]));
    }
}
