//! The bonds that a turn makes and ends: watches, and children.

use std::{fmt, sync::Arc};

use super::{Peer, Turn};
use crate::{
    agent::{Agent, bond::Terminated, host::directory, message::Message, messages::Accepts},
    model::{
        bond::Bond,
        id::{AgentId, Target, check_key},
        topic::{Subscriber, SubscriptionWrite},
    },
};

/// What the row of a child says in the place of a message.
const CHILD: &str = "child";

impl<A: Agent> Turn<A> {
    /// Watches another agent from this turn's commit on: when it ends, this agent gets one [`Terminated`].
    /// `who` is an [`Address`](crate::Address) or the text `kind/key`.
    ///
    /// ```
    /// # use greenroom::{prelude::*, Terminated};
    /// # #[derive(Default, Serialize, Deserialize)] struct Worker {}
    /// # #[derive(Clone, Serialize, Deserialize, JsonSchema)] struct Work {}
    /// # impl Agent for Worker { const KIND: &'static str = "worker"; type Messages = Work; }
    /// # impl Handler<Work> for Worker {
    /// #     async fn handle(&mut self, _: Work, _: &Turn<Self>) -> Result<()> { Ok(()) }
    /// # }
    /// #[derive(Default, Serialize, Deserialize)]
    /// struct Foreman {
    ///     gone: Vec<String>,
    /// }
    /// # #[derive(Clone, Serialize, Deserialize, JsonSchema)] struct Hire { name: String }
    /// # message! { Work -> (); Hire -> () }
    /// # impl Agent for Foreman { const KIND: &'static str = "foreman"; type Messages = (Hire, Terminated); }
    /// impl Handler<Hire> for Foreman {
    ///     async fn handle(&mut self, hire: Hire, turn: &Turn<Self>) -> Result<()> {
    ///         let worker = turn.child::<Worker>(hire.name); // stopped when the foreman is
    ///         worker.submit(Work {});
    ///         turn.watch(worker.address());
    ///         Ok(())
    ///     }
    /// }
    /// impl Handler<Terminated> for Foreman {
    ///     async fn handle(&mut self, end: Terminated, _: &Turn<Self>) -> Result<()> {
    ///         self.gone.push(end.id); // "worker/…"
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// An agent **ends** when it is stopped (past its restarts, by an operator, or with its parent), when it is
    /// quarantined, and when it crashes and its kind is [`Temporary`](crate::Restart::Temporary). Passivation,
    /// a crash with a restart, a pause and the end of a node do not count as ends. A turn that is running when
    /// an operator stops its agent may commit after the watchers were notified.
    ///
    /// A **watch** is durable: a row, written in the commit of the turn that watches. It survives crashes,
    /// passivation and restarts of either agent and of the node, and ends with its notification; to hear of
    /// the next end, watch again. Watching twice has no further effect. An agent that has already ended is
    /// reported at once, each time that it is watched. A turn may begin and end up to 1,000 bonds and
    /// subscriptions.
    ///
    /// The **notification** is a task, accepted in the commit that removes the watch: it arrives exactly once
    /// or becomes a dead letter, whatever the state of the mailbox and on whichever node the watcher runs. It
    /// wakes a watcher that is not in memory, and waits for one that is paused or stopped. The exception is
    /// the crash of a temporary agent, which only this process knows of: if it dies at that moment, watchers
    /// are not notified.
    ///
    /// The turn fails if `who` is not `kind/key`. The kind need not be registered: another program may serve
    /// it.
    pub fn watch<I>(&self, who: impl fmt::Display)
    where
        A: Accepts<Terminated, I>,
    {
        self.write_watch(&who.to_string(), true);
    }

    /// Ends a watch, if there is one, with this turn's commit. A `Terminated` already on its way still arrives.
    pub fn unwatch(&self, who: impl fmt::Display) {
        self.write_watch(&who.to_string(), false);
    }

    /// Makes another agent a child of this one, from this turn's commit on: when this one ends (as defined at
    /// [`Turn::watch`]), the child is stopped, and so are its own children. The parent is notified of a
    /// child's end only if it watches the child.
    ///
    /// The bond is a row, like a watch, and lasts until the parent has ended or [disowns](Turn::disown) the
    /// child; making it again changes nothing. Each call reads the child's row: call this once, and use
    /// [`Turn::agent`] after that. A parent that runs again, restarted by an operator or a temporary one that
    /// starts anew, revives a child that its end had stopped by making the bond again; tasks submitted to the
    /// child in the same turn wait for that, tells may arrive too early. A child of several parents ends with
    /// the first of them. If two agents are each other's children, both end.
    ///
    /// A child on another node is stopped as soon as that node hears of its parent's end. The crash of a
    /// temporary parent is known to its own node only.
    ///
    /// The turn fails if the kind is not registered or the key is invalid.
    pub fn child<B: Agent>(&self, key: impl Into<String>) -> Peer<'_, A, B> {
        let peer = self.agent::<B>(key);
        self.write_child::<B>(&peer.key, true);
        peer
    }

    /// Ends the bond with a child with this turn's commit: the child is no longer stopped with this agent.
    pub fn disown<B: Agent>(&self, key: &str) {
        self.write_child::<B>(key, false);
    }

    fn write_watch(&self, who: &str, subscribed: bool) {
        let me = self.name();
        let (kind, key, message) = (me.kind.clone(), me.key.clone(), Terminated::NAME.into());
        let mut outbox = self.outbox();
        match who.parse() {
            Ok(Target::Agent { .. }) => outbox.write_subscription(SubscriptionWrite {
                topic: Bond::Watch.topic(who),
                subscriber: Subscriber { agent: me.id, kind, key, message },
                subscribed,
            }),
            Ok(Target::Tool(_)) => outbox.refuse(format!("cannot watch {who}: tools do not end")),
            Err(e) => outbox.refuse(format!("cannot watch it: {e}")),
        }
    }

    fn write_child<B: Agent>(&self, key: &str, subscribed: bool) {
        let known = directory::<B>(&*self.host).map_err(|e| e.to_string());
        if let Err(e) = known.and_then(|_| check_key(key).map_err(|e| e.to_string())) {
            return self.outbox().refuse(format!("cannot have {}/{key} for a child: {e}", B::KIND));
        }
        let (kind, key): (Arc<str>, Arc<str>) = (B::KIND.into(), key.into());
        let subscriber = Subscriber { agent: AgentId::of(&kind, &key), kind, key, message: CHILD.into() };
        let topic = Bond::Child.topic(&self.name().subject());
        self.outbox().write_subscription(SubscriptionWrite { topic, subscriber, subscribed });
    }
}
