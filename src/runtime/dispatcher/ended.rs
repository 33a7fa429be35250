//! Tasks that have ended: told by their cells one by one, heard of many at a time.

use std::sync::Arc;

use actix::prelude::*;
use parking_lot::Mutex;

use super::Dispatcher;
use crate::{
    model::{
        id::Target,
        task::{Claimed, runs},
    },
    runtime::task_cell::Report,
};

/// How a running task left its cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Its end, or its retry, is recorded.
    Settled,
    /// It did not start, or nothing of it has happened: the claim goes back.
    Unsettled,
    /// It may have started, and is to start again: the claim goes back.
    BrokenOff,
    /// It has begun, must not begin again, and its end could not be recorded as the node goes down: the claim stays
    /// as it is.
    Unrecorded,
}

/// A task's cell has ended.
pub(crate) struct Ended {
    pub claim: Arc<Claimed>,
    pub how: How,
    /// What is to be told of it; `None`: it was, or there is nothing.
    pub report: Option<Report>,
}

/// Those of which the dispatcher has not heard. A message for each would cost more than what is done about it.
#[derive(Default)]
pub(crate) struct Endings(Mutex<Told>);

#[derive(Default)]
struct Told {
    ended: Vec<Ended>,
    /// A message is on its way.
    is_known: bool,
}

/// Some have ended.
#[derive(Message)]
#[rtype(result = "()")]
struct SomeEnded;

impl Endings {
    /// One has ended, and the dispatcher is told.
    pub(crate) fn tell(&self, dispatcher: &Addr<Dispatcher>, ended: Ended) {
        let mut told = self.0.lock();
        told.ended.push(ended);
        if !std::mem::replace(&mut told.is_known, true) {
            drop(told);
            dispatcher.do_send(SomeEnded);
        }
    }

    /// One has ended, and whoever says so is about to wake the dispatcher.
    pub(crate) fn put(&self, ended: Ended) {
        self.0.lock().ended.push(ended);
    }

    pub(super) fn take(&self) -> Vec<Ended> {
        std::mem::take(&mut *self.0.lock()).ended
    }
}

impl Handler<SomeEnded> for Dispatcher {
    type Result = ();
    fn handle(&mut self, _: SomeEnded, ctx: &mut Self::Context) {
        let ended = self.node.endings.take();
        if !ended.is_empty() {
            self.ended(ended, ctx);
        }
    }
}

impl Dispatcher {
    /// Lets claims go that have ended, and claims what there is room for now.
    pub(super) fn ended(&mut self, ended: Vec<Ended>, ctx: &mut Context<Self>) {
        let (mut settled, mut early) = (Vec::with_capacity(ended.len()), Vec::new());
        let (mut back, mut broken, mut unrecorded) = (Vec::new(), Vec::new(), Vec::new());
        for Ended { claim, how, report } in ended {
            report.into_iter().for_each(|report| report.tell(&self.node, &claim));
            self.running.remove(&claim.id);
            match how {
                How::Settled => {
                    if self.alone.runs == Some(claim.id) {
                        (self.alone.runs, self.ready) = (None, true);
                    }
                    early.extend(self.claims.end(claim.id));
                    settled.push(claim);
                }
                How::Unsettled => back.push(claim),
                How::BrokenOff => broken.push(claim),
                // nobody waits for it any more
                How::Unrecorded => unrecorded.push(claim),
            }
        }
        self.give_back(back, ctx);
        self.break_off(broken, ctx);
        for (target, n) in runs(settled.iter().chain(&unrecorded).map(|claim| &claim.target)) {
            self.shares.ended(target, n);
            match target {
                Target::Agent { .. } => self.agent_claims = self.agent_claims.saturating_sub(n),
                Target::Tool(_) => self.tool_claims = self.tool_claims.saturating_sub(n),
            }
        }
        self.offer();
        settled.iter().for_each(|claim| self.node.task_moved(claim.id));
        if !early.is_empty() {
            self.take_in(early, ctx);
        }
        if self.ready || self.suspects {
            self.claim(ctx);
        }
    }
}
