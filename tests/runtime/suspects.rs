//! Tasks that were lost twice: they run alone, and still come to their end.

use std::time::Duration;

use greenroom::{
    model::{
        id::Target,
        task::{Claimed, NewTask},
    },
    prelude::*,
    store::{self, ClaimRequest, Member, Store, StoreOptions, Unit},
};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::support::{Gate, World, outcome, task_in};

#[derive(Default, Serialize, Deserialize)]
struct Novice {}
/// Fails once.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Try {}
message!(Try -> ());

impl Agent for Novice {
    const KIND: &'static str = "novice";
    type Messages = Try;
}
impl Handler<Try> for Novice {
    async fn handle(&mut self, _: Try, turn: &Turn<Self>) -> Result<()> {
        let gate = turn.resource::<Gate>();
        gate.note("tried");
        if gate.count("tried") == 1 {
            bail!("not the first time");
        }
        Ok(())
    }
}

/// A boot that claims what is ready, and is not heard of again.
async fn claims_and_dies(store: &dyn Store) -> Vec<Claimed> {
    let (boot, instance) = (Uuid::now_v7(), Uuid::now_v7());
    let lease = Duration::from_secs(30);
    let member = Member { boot, instance, name: "dead".to_owned(), url: None, lease, max_lost: 3 };
    store.join(&member).await.unwrap();
    let request = ClaimRequest { agents: 9, ..ClaimRequest::default() };
    store.claim(boot, &request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_was_lost_twice_and_then_fails_is_tried_again() {
    let gate = Gate::default();
    let program = || Runtime::builder().agent::<Novice>().resource(gate.clone());
    let mut world = World::start(program()).await;
    world.end().await;
    let url = format!("sqlite://{}", world.dir().join("greenroom.db").display());
    let store = store::open(&url, &StoreOptions::default()).await.unwrap();
    let input = RawValue::from_string("{}".to_owned()).unwrap();
    let task = NewTask::new(Target::agent("novice", "a"), "Try", input, 5);
    let id = task.id;
    let unit = Unit { accepted: vec![task], ..Unit::default() };
    store.commit(Uuid::now_v7(), &[unit]).await.unwrap();
    for _ in 0..2 {
        assert_eq!(claims_and_dies(store.as_ref()).await.len(), 1);
    }
    drop(store);
    world.start_again(program()).await;
    assert_eq!(outcome::<Try>(&world.handle(), id).await, Outcome::Succeeded(()));
    let ended = task_in(&world.handle(), id, "succeeded").await;
    assert_eq!((ended.attempt, ended.lost), (4, 2));
}
