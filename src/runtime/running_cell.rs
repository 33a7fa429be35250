//! A running cell, as its kind knows it.

use std::sync::{Arc, atomic::Ordering};

use actix::Addr;

use super::{cell::Cell, inbox::Inbox, millis, views::MailboxInfo};
use crate::agent::{
    Agent,
    lane::{Entrance, Lane},
    table::Keyed,
};

/// What is seen of a running agent.
pub(crate) struct LiveInfo {
    pub status: &'static str,
    pub mailbox: MailboxInfo,
    pub restarts: u64,
    pub version: i64,
    /// The message that it is at, and for how many milliseconds.
    pub current: Option<(&'static str, u64)>,
}

/// A running cell, for control.
pub(crate) struct Live<A: Agent> {
    pub lane: Arc<Lane<A>>,
    pub inbox: Arc<Inbox>,
    pub addr: Addr<Cell<A>>,
}

impl<A: Agent> Clone for Live<A> {
    fn clone(&self) -> Self {
        Self { lane: self.lane.clone(), inbox: self.inbox.clone(), addr: self.addr.clone() }
    }
}

impl<A: Agent> Keyed for Live<A> {
    fn key(&self) -> &str {
        &self.lane.name.key
    }
}

impl<A: Agent> Live<A> {
    /// How it is, in a word.
    pub(crate) fn status(&self) -> &'static str {
        match self.lane.entrance() {
            Entrance::Paused => "paused",
            _ => self.inbox.phase().name(),
        }
    }

    pub(crate) fn info(&self) -> LiveInfo {
        let held = self.inbox.held.lock();
        let current = held.current.as_ref().map(|at| (at.message, millis(at.since.elapsed())));
        LiveInfo {
            status: self.status(),
            mailbox: mailbox(&self.lane),
            restarts: u64::from(self.inbox.restarts.load(Ordering::Relaxed)),
            version: self.inbox.version.load(Ordering::Relaxed),
            current,
        }
    }
}

/// What waits in a lane.
pub(crate) fn mailbox<A: Agent>(lane: &Lane<A>) -> MailboxInfo {
    let (refused, refused_at) = lane.refused().unzip();
    let refused = refused.unwrap_or_default();
    MailboxInfo { depth: lane.depth(), capacity: lane.capacity(), refused, refused_at }
}
