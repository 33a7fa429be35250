//! A running cell, as its kind knows it.

use std::sync::Arc;

use actix::Addr;

use super::{cell::Cell, inbox::Inbox};
use crate::agent::{Agent, lane::Lane, table::Keyed};

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
