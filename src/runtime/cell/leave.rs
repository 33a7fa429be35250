//! How an agent is unloaded: passivated, stopped, quarantined, or refused before it was read.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use super::{
    drive::{Unhooked, hook},
    runner::{Exit, Runner},
    window::fail,
};
use crate::{
    agent::{Agent, AskError, Envelope as _, lane::Entrance, turn::Passage},
    model::{
        event::{self, Event, Level},
        snapshot,
    },
    runtime::{inbox::Control, kind::cleared, metrics::QUARANTINED, orchestrator::Notice},
    store::StoredStatus,
};

impl<A: Agent> Runner<A> {
    /// Answers what waits with `error` and lets the lane go: the next message tries again.
    pub(super) fn turn_away(&mut self, error: AskError) -> Exit {
        loop {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            let _ = self.lane.poll_batch(&mut self.batch, &mut cx);
            fail(&self.lane, self.batch.drain(..), &error);
            if self.lane.detach() {
                self.detached = true;
                return Exit::Detached;
            }
        }
    }

    /// Answers those who wait while no turn may start. Tasks stay: they have time.
    pub(super) fn turn_askers_away(&mut self, cx: &mut std::task::Context<'_>) {
        while self.lane.poll_batch(&mut self.batch, cx) {}
        if self.batch.iter().any(|letter| !letter.letter().is_task()) {
            let batch = std::mem::take(&mut self.batch);
            let (tasks, askers): (VecDeque<_>, VecDeque<_>) =
                batch.into_iter().partition(|letter| letter.letter().is_task());
            self.batch = tasks;
            fail(&self.lane, askers, &self.node.trouble());
        }
    }

    /// Takes the agent out of service: its state cannot be read, and is kept as it is.
    pub(super) async fn quarantine(&mut self, why: String) -> Exit {
        if self.air.flight.is_some() {
            let outcome = self.outcome().await;
            if let Err(outcome) = self.air.land(outcome) {
                self.fail_all(&outcome);
            }
        }
        self.decided = self.lane.decided();
        let entries = std::mem::take(&mut self.window).entries;
        let text = quarantined_text(&self.subject(), &why);
        let name = &self.lane.name;
        self.kind.held.note(name.id);
        let kept = self
            .node
            .store
            .set_status(name.id, &name.kind, &name.key, self.epoch, StoredStatus::Quarantined, Some(&why))
            .await;
        let subject = self.subject();
        self.node.bonds.ended(&subject, &why);
        let event = Event::new(Level::Error, event::STATE_QUARANTINED, &*subject)
            .field("cause", why)
            .field_opt("not_kept", kept.err().map(|e| e.to_string()))
            .hint(format!("its state is kept as it is; repair it, then: greenroom agents release {subject}"));
        self.node.logger.emit(event);
        self.node.metrics.restart(A::KIND, QUARANTINED);
        fail(&self.lane, entries.into_iter().map(|e| e.letter), &AskError::WrongState(text.to_string()));
        Exit::Shut(text)
    }

    /// Stops the agent for good, once what ran is durable.
    pub(super) async fn stop(&mut self, why: String) -> Exit {
        while self.air.flight.is_some() || !self.window.is_empty() {
            if self.air.flight.is_none()
                && let Some(exit) = Box::pin(self.flush()).await
            {
                return exit;
            }
            if self.air.flight.is_some() {
                let outcome = self.outcome().await;
                if let Err(outcome) = self.air.land(outcome) {
                    self.fail_all(&outcome);
                }
            }
        }
        self.decided = self.lane.decided();
        let name = &self.lane.name;
        self.kind.held.note(name.id);
        let status = StoredStatus::Stopped;
        let kept =
            self.node.store.set_status(name.id, &name.kind, &name.key, self.epoch, status, Some(&why)).await;
        let subject = self.subject();
        self.node.bonds.ended(&subject, &why);
        let event = Event::new(Level::Error, event::AGENT_STOPPED, &*subject)
            .field("reason", why.clone())
            .field_opt("not_kept", kept.err().map(|e| e.to_string()))
            .hint(format!("its state is safe; when the cause is mended: greenroom agents restart {subject}"));
        self.node.logger.emit(event);
        self.node.notice(Notice::Stopped { subject: subject.clone(), reason: why.clone() });
        Exit::Shut(stopped_text(&subject, &why))
    }

    /// Shuts the lane and answers what waits.
    pub(super) fn shut(&mut self, why: &Arc<str>) {
        self.drop_agent();
        if let Some(handed_back) = self.lane.found(self.decided, Entrance::shut(why.clone())) {
            self.batch.extend(handed_back);
        }
        self.let_go();
    }

    /// Lets go of the lane as it is now, and answers what nobody will run.
    pub(super) fn let_go(&mut self) -> Exit {
        if self.inbox().clears.load(Ordering::Acquire) {
            let batch = std::mem::take(&mut self.batch);
            let (tasks, volatile) = batch.into_iter().partition(|l| l.letter().is_task());
            self.batch = tasks;
            let volatile: VecDeque<_> = volatile;
            fail(&self.lane, volatile, &cleared(&self.subject()));
        }
        self.lane.abandon(&mut self.batch);
        self.detached = true;
        let error = match self.lane.entrance() {
            Entrance::Shut(shut) => AskError::WrongState(shut.why.to_string()),
            Entrance::Open | Entrance::Paused => {
                AskError::WrongState(format!("{} is paused", self.subject()))
            }
            Entrance::Closing => AskError::Unavailable("the node is going down".to_owned()),
        };
        fail(&self.lane, self.batch.drain(..), &error);
        Exit::Detached
    }

    pub(super) async fn passivate(&mut self) -> Option<Exit> {
        self.inbox().done(Control::Passivate);
        let has_work = self.lane.depth() > 0 || (self.turn.has_timers() && !self.retire);
        if has_work && self.lane.entrance() == Entrance::Open {
            // Where there are too many, others are asked before it is asked again.
            self.note_use();
            return None;
        }
        self.retire = false;
        self.close().await;
        if self.lane.detach() {
            self.detached = true;
            // Under the epoch of the commit that wrote it, as its row has it: not of this activation.
            if let Some(image) = self.air.image.take()
                && let Ok((written, _)) = snapshot::open(&image)
            {
                self.node.cache_state(written.agent, written.epoch, written.version, &image);
            }
            if self.node.logger.wants(Level::Debug, event::AGENT_PASSIVATED) {
                self.node.logger.emit(Event::new(Level::Debug, event::AGENT_PASSIVATED, self.subject()));
            }
            return Some(Exit::Detached);
        }
        self.revive().await
    }

    /// Runs `on_stop` and drops the agent.
    pub(super) async fn close(&mut self) {
        self.report_turns();
        self.turn.begin(None, Passage::Hook, self.kind.policy.turn_timeout);
        if let Some(agent) = self.agent.as_mut().filter(|_| !self.turn.is_double) {
            let (turn, mut limit) = (&self.turn, self.kind.policy.turn_timeout);
            let stop_timeout = self.kind.policy.stop_timeout;
            if self.air.inbox.control() == Control::Renew || self.air.inbox.held.lock().part.is_some() {
                limit = limit.min(stop_timeout); // others wait for it
            }
            // what is not an `async fn` may do something before there is a future
            let stop = async { agent.on_stop(turn).await };
            if let Err(why) = hook(stop, turn, &self.air.inbox, limit, stop_timeout).await {
                let (problem, site) = match why {
                    Unhooked::Failed(problem, site) => (problem, site),
                    Unhooked::Left => (format!("cut short: it took longer than {stop_timeout:?}"), None),
                };
                let event = Event::new(Level::Warn, event::AGENT_STOPPED, self.subject());
                self.node.logger.emit(event.field("on_stop", problem).field_opt("site", site));
            }
        }
        let _ = self.turn.take_outbox();
        self.drop_agent();
    }
}

pub(in crate::runtime) fn stopped_text(subject: &str, why: &str) -> Arc<str> {
    format!("{subject} is stopped: {why}; when the cause is mended: greenroom agents restart {subject}")
        .into()
}

pub(super) fn quarantined_text(subject: &str, why: &str) -> Arc<str> {
    format!(
        "{subject} is quarantined: {why}; its state is kept; after repair: greenroom agents release {subject}"
    )
    .into()
}
