//! Random interleavings on one agent, against a model of what was acknowledged.

use futures_util::future::join_all;
use greenroom::{Persistence, prelude::*};
use proptest::prelude::*;

use crate::support::{World, soon};

#[derive(Default, Serialize, Deserialize)]
struct Till {
    sum: i64,
    turns: u64,
}
#[derive(Default, Serialize, Deserialize)]
struct LazyTill {
    sum: i64,
    turns: u64,
}
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Do {
    n: i64,
    end: End,
}
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
enum End {
    Add,
    Key,
    Fail,
    Crash,
    Refuse,
    Retire,
    TooLarge,
    Ask,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Get {}
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("no")]
struct No;
message! { Do -> i64 | No; Get -> (i64, u64) }

macro_rules! till {
    ($agent:ident, $kind:literal, $persistence:expr) => {
        impl Agent for $agent {
            const KIND: &'static str = $kind;
            type Messages = (Do, Get);
            fn policy() -> Policy {
                Policy::default()
                    .persistence($persistence)
                    .max_restarts(100_000, Duration::from_secs(60))
                    .backoff(Duration::ZERO, Duration::ZERO)
                    .mailbox(10_000)
            }
        }
        impl Query<Get> for $agent {
            async fn query(&self, _: Get, _: &Turn<Self>) -> Result<(i64, u64)> {
                Ok((self.sum, self.turns))
            }
        }
        impl Handler<Do> for $agent {
            fn check(&self, act: &Do) -> Result<(), No> {
                if act.end == End::Refuse { Err(No) } else { Ok(()) }
            }
            async fn handle(&mut self, act: Do, turn: &Turn<Self>) -> Result<i64> {
                self.sum += act.n;
                self.turns += 1;
                match act.end {
                    End::Fail => bail!("no"),
                    End::Crash => panic!("as told"),
                    End::Refuse => unreachable!(),
                    End::Retire => turn.retire(),
                    // Past the limit, in the sum's own digits: the state itself is what is too large.
                    End::TooLarge => self.turns = u64::MAX,
                    End::Ask => {
                        turn.agent::<$agent>("peer").ask(Do { n: act.n, end: End::Add }).await?;
                    }
                    End::Add | End::Key => {}
                }
                Ok(self.sum)
            }
        }
    };
}
till!(Till, "till", Persistence::EveryTurn);
till!(LazyTill, "lazy_till", Persistence::Relaxed { turns: 20, every: Duration::from_secs(1) });

fn acts(too_large: u32) -> impl Strategy<Value = Vec<(Do, bool)>> {
    let end = prop_oneof![
        8 => Just(End::Add),
        2 => Just(End::Key),
        1 => Just(End::Fail),
        1 => Just(End::Crash),
        1 => Just(End::Refuse),
        1 => Just(End::Retire),
        too_large => Just(End::TooLarge),
        1 => Just(End::Ask),
    ];
    prop::collection::vec(((-100i64..100, end).prop_map(|(n, end)| Do { n, end }), any::<bool>()), 1..150)
}

macro_rules! run {
    ($agent:ident, $acts:expr) => {{
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let limit = "36B"; // room for the sums, not for a turn count of 20 digits
            let program = || Runtime::builder().agent::<$agent>().set("limits.state_bytes", limit);
            let mut world = World::start(program()).await;
            let agent = world.handle().agent::<$agent>("a");
            let (mut sum, mut turns, mut peers, mut keys) = (0, 0, 0, 0);
            // Bursts: what is marked is sent together with what comes after it.
            let mut burst: Vec<Do> = Vec::new();
            let count = $acts.len();
            for (at, (act, together)) in $acts.into_iter().enumerate() {
                burst.push(act);
                if together && at + 1 < count {
                    continue;
                }
                let asks = burst.iter().map(|act| {
                    let ask = agent.ask(act.clone());
                    if act.end == End::Key {
                        keys += 1;
                        ask.idempotency_key(format!("k{keys}"))
                    } else {
                        ask
                    }
                });
                let (answers, seen) = soon(async { tokio::join!(join_all(asks), agent.ask(Get {})) }).await;
                for (act, answer) in burst.drain(..).zip(answers) {
                    let good = matches!(act.end, End::Add | End::Key | End::Retire | End::Ask);
                    prop_assert_eq!(answer.is_ok(), good, "{:?}: {:?}", act, answer);
                    if good {
                        sum += act.n;
                        turns += 1;
                        prop_assert_eq!(answer.unwrap(), sum, "{:?}", act);
                        peers += if act.end == End::Ask { act.n } else { 0 };
                    }
                }
                prop_assert_eq!(seen, Ok((sum, turns)));
            }
            drop(agent);
            world.end().await;
            world.start_again(program()).await;
            let now = soon(world.handle().agent::<$agent>("a").ask(Get {})).await.unwrap();
            prop_assert_eq!(now, (sum, turns));
            prop_assert_eq!(soon(world.handle().agent::<$agent>("peer").ask(Get {})).await.unwrap().0, peers);
            Ok(())
        })
    }};
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_agent_is_the_sum_of_what_it_acknowledged(acts in acts(1)) {
        run!(Till, acts)?;
    }

    #[test]
    // A relaxed turn is answered before anybody knows that it makes the state too large.
    fn a_relaxed_agent_that_does_not_die_is_too(acts in acts(0)) {
        run!(LazyTill, acts)?;
    }
}
