//! The peer in memory: the same counter as a plain actix actor.

use actix::prelude::*;

#[derive(Message)]
#[rtype(result = "()")]
pub struct Tick(pub u64);

#[derive(Message)]
#[rtype(result = "u64")]
pub struct Add(pub u64);

#[derive(Default)]
pub struct Plain {
    sum: u64,
}

impl Actor for Plain {
    type Context = Context<Self>;
}

impl Handler<Tick> for Plain {
    type Result = ();
    fn handle(&mut self, tick: Tick, _: &mut Self::Context) {
        self.sum = self.sum.wrapping_add(tick.0);
    }
}

impl Handler<Add> for Plain {
    type Result = u64;
    fn handle(&mut self, add: Add, _: &mut Self::Context) -> u64 {
        self.sum = self.sum.wrapping_add(add.0);
        self.sum
    }
}
