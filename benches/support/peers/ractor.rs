//! A ractor actor.

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, registry, rpc::CallResult};

use super::{Counts, ENDED, Named};

/// The way to it.
pub type Door = ActorRef<Message>;

pub struct Counter;

pub enum Message {
    Tick(u64),
    Add(u64, RpcReplyPort<u64>),
    End,
}

impl Actor for Counter {
    type Msg = Message;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Message>, (): ()) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        sum: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Tick(n) => *sum = sum.wrapping_add(n),
            Message::Add(n, reply) => {
                *sum = sum.wrapping_add(n);
                let _ = reply.send(*sum);
            }
            Message::End => ENDED.add_permits(1),
        }
        Ok(())
    }
}

impl Counts for Door {
    const NAME: &'static str = "ractor";

    async fn tell(&self, n: u64) {
        let _ = self.cast(Message::Tick(n));
    }

    async fn ask(&self, n: u64) -> u64 {
        match self.call(|reply| Message::Add(n, reply), None).await {
            Ok(CallResult::Success(sum)) => sum,
            _ => 0,
        }
    }

    async fn end(&self) {
        let _ = self.cast(Message::End);
    }
}

impl Named for Door {
    async fn start(name: Option<&str>) -> anyhow::Result<Self> {
        let (counter, _) = Actor::spawn(name.map(str::to_owned), Counter, ()).await?;
        Ok(counter)
    }

    fn find(name: &str) -> Option<Self> {
        registry::where_is(name).map(Into::into)
    }

    fn stop(self) {
        ractor::ActorCell::stop(&self, None);
    }
}
