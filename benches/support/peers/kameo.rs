//! A kameo actor, with an unbounded mailbox: that is its fastest.

use std::convert::Infallible;

use kameo::{mailbox, prelude::*, registry::ACTOR_REGISTRY};

use super::{Counts, ENDED, Named};

/// The way to it.
pub type Door = ActorRef<Counter>;

#[derive(Default)]
pub struct Counter {
    sum: u64,
}

impl Actor for Counter {
    type Args = ();
    type Error = Infallible;
    async fn on_start((): (), _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Self::default())
    }
}

struct Tick(u64);
struct Add(u64);
struct End;

impl Message<Tick> for Counter {
    type Reply = ();
    async fn handle(&mut self, tick: Tick, _: &mut Context<Self, ()>) {
        self.sum = self.sum.wrapping_add(tick.0);
    }
}

impl Message<Add> for Counter {
    type Reply = u64;
    async fn handle(&mut self, add: Add, _: &mut Context<Self, u64>) -> u64 {
        self.sum = self.sum.wrapping_add(add.0);
        self.sum
    }
}

impl Message<End> for Counter {
    type Reply = ();
    async fn handle(&mut self, _: End, _: &mut Context<Self, ()>) {
        ENDED.add_permits(1);
    }
}

impl Counts for Door {
    const NAME: &'static str = "kameo";

    async fn tell(&self, n: u64) {
        let _ = ActorRef::tell(self, Tick(n)).try_send();
    }

    async fn ask(&self, n: u64) -> u64 {
        ActorRef::ask(self, Add(n)).send().await.unwrap_or_default()
    }

    async fn end(&self) {
        let _ = ActorRef::tell(self, End).try_send();
    }
}

impl Named for Door {
    async fn start(name: Option<&str>) -> anyhow::Result<Self> {
        let counter = Counter::spawn_with_mailbox((), mailbox::unbounded());
        if let Some(name) = name {
            counter.register(name.to_owned())?;
        }
        Ok(counter)
    }

    fn find(name: &str) -> Option<Self> {
        Self::lookup(name).ok().flatten()
    }

    fn stop(self) {
        if let Ok(mut registry) = ACTOR_REGISTRY.lock() {
            registry.remove_by_id(&self.id());
        }
        self.kill();
    }
}
