//! Bonds that a turn makes and ends: whose end its agent is told of, and who ends with it.

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
    /// Watches over another agent, from this turn's commit on: when it ends, this agent gets a
    /// [`Terminated`], once. `who` is an [`Address`](crate::Address) or the text `kind/key`.
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
    /// An agent **ends** when it is stopped (past its restarts, or by an operator, or with its parent), when
    /// it is quarantined, and when it crashes although its kind is [`Temporary`](crate::Restart::Temporary).
    /// Passivation, a crash after which it is restored, a pause and the end of a node are no ends. A turn
    /// that is under way when an operator stops its agent may commit after its watchers were told.
    ///
    /// A **watch** is durable: a row, written in the commit of the turn that watches. It outlives crashes,
    /// passivation and restarts of either agent and of the node, and has done its service when it has told
    /// once; who wants to know of the next end watches again. Watching twice is as watching once. One that
    /// has ended already is told of at once, and so each time that it is watched again. A turn may begin and
    /// end 1,000 bonds and subscriptions.
    ///
    /// **Delivery** is a task: accepted in the commit that takes the watch away, exactly once or a dead
    /// letter, whatever the mailbox and wherever the watcher lives; it wakes one that has left memory, and
    /// waits for one that is paused or stopped. Only the crash of a temporary agent is told of by this
    /// process alone: where that dies within the same moment, nobody is.
    ///
    /// The turn fails where `who` is not `kind/key`; whether there is such a kind is not asked, for another
    /// program may serve it.
    pub fn watch<I>(&self, who: impl fmt::Display)
    where
        A: Accepts<Terminated, I>,
    {
        self.write_watch(&who.to_string(), true);
    }

    /// Ends a watch with this turn's commit, where there is one. A `Terminated` that is on its way by then
    /// still comes.
    pub fn unwatch(&self, who: impl fmt::Display) {
        self.write_watch(&who.to_string(), false);
    }

    /// Another agent, bound to this one's life from this turn's commit on: when this one ends (as
    /// [`Turn::watch`] tells it), that one is stopped, and so are its own children. Its end is told to its
    /// parent only where that watches it.
    ///
    /// The bond is a row, as a watch is, and lasts until the parent has ended or [disowns](Turn::disown) the
    /// child; making it again changes nothing. It costs a look at the child each time: make it once, and
    /// speak through [`Turn::agent`] after that. A parent that is back, restarted by an operator or a
    /// temporary one that begins anew, brings a child back that its end had stopped by making the bond
    /// again; what is submitted to the child in the same turn waits for that, what is told may come too
    /// early. A child of several parents ends with the first. Where two are each other's children, both end.
    ///
    /// A child that another node serves is stopped there, as soon as that node hears of its parent's end; of
    /// the crash of a temporary parent only its own node hears.
    ///
    /// The turn fails where the kind is not registered, or the key is none.
    pub fn child<B: Agent>(&self, key: impl Into<String>) -> Peer<'_, A, B> {
        let peer = self.agent::<B>(key);
        self.write_child::<B>(&peer.key, true);
        peer
    }

    /// Lets go of a child with this turn's commit: it lives on by itself.
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
