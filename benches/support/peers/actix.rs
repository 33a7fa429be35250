//! A plain actix actor.

use actix::prelude::*;

use super::{Counts, ENDED};

#[derive(Message)]
#[rtype(result = "()")]
struct Tick(u64);

#[derive(Message)]
#[rtype(result = "u64")]
struct Add(u64);

#[derive(Message)]
#[rtype(result = "()")]
struct End;

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

impl Handler<End> for Plain {
    type Result = ();
    fn handle(&mut self, _: End, _: &mut Self::Context) {
        ENDED.add_permits(1);
    }
}

impl Counts for Addr<Plain> {
    const NAME: &'static str = "actix";
    const LOCAL: bool = true;

    async fn tell(&self, n: u64) {
        self.do_send(Tick(n));
    }

    async fn ask(&self, n: u64) -> u64 {
        self.send(Add(n)).await.unwrap_or_default()
    }

    async fn end(&self) {
        self.do_send(End);
    }
}
