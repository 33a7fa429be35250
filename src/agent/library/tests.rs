//! The crew in a world of its own: tasks run in any order, and turns are lost before they commit.

use std::{
    any::{Any, TypeId},
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
};

use futures_util::future::BoxFuture;
use proptest::prelude::*;
use serde_json::{json, value::RawValue};
use tokio_util::sync::CancellationToken;

use super::{phrase::Phrase, *};
use crate::{
    Agent, AskError, Call, Effect, Message, Query as _, TaskId, Tool, Turn,
    agent::{
        Door, Envelope as _, Ran,
        host::{Host, Submission, Submitted},
        lane::{Activator, Entrance, Lane, Name},
        topic::Publication,
    },
    model::{
        id::{AgentId, Target},
        task::{NewTask, TaskTerms},
    },
    tool::{
        CallMeta, ToolPort,
        fs::{FsList, FsRead, List, Read, Roots},
    },
};

struct Alone;

impl Host for Alone {
    fn directory(&self, _: TypeId) -> Option<&(dyn Any + Send + Sync)> {
        None
    }
    fn tool(&self, _: &str) -> Option<&dyn ToolPort> {
        None
    }
    fn resource(&self, _: TypeId) -> Option<&(dyn Any + Send + Sync)> {
        None
    }
    fn settings(&self, _: TypeId) -> Option<Arc<dyn Any + Send + Sync>> {
        None
    }
    fn submit(&self, _: Submission) -> BoxFuture<'static, Result<Submitted, AskError>> {
        Box::pin(async { Err(AskError::Unavailable(String::new())) })
    }
    fn terms(&self, _: &Target) -> TaskTerms {
        TaskTerms::default()
    }
    fn message_bytes(&self) -> usize {
        10 << 20
    }
    fn session_ttl(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
    fn reads(&self) -> Option<&dyn crate::agent::host::Reads> {
        None
    }
    fn blocking(&self, _: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, bool> {
        Box::pin(async { false })
    }
    fn tells_dropped(&self, _: &str, _: &str, _: &'static str, _: usize, _: &str) {}
    fn publish(&self, _: Arc<str>, _: Publication) {}
    fn broadcast(&self, _: &'static str, _: Publication) {}
}

impl<A: Agent> Activator<A> for Alone {
    fn activate(&self, _: Arc<Lane<A>>) {}
    fn host(&self) -> Option<Arc<dyn Host>> {
        None
    }
}

fn turn<A: Agent>(key: &str) -> Turn<A> {
    let name = Name { kind: A::KIND.into(), key: key.into(), id: AgentId::of(A::KIND, key) };
    Turn::new(Arc::new(Alone), Arc::new(Lane::new(name, 1, false, Entrance::Open, Arc::new(Alone))))
}

/// The store: agents' states, and tasks that are not finished.
struct World {
    roots: Roots,
    states: BTreeMap<String, String>,
    tasks: Vec<NewTask>,
}

impl World {
    fn new(dir: &Path) -> Self {
        Self { roots: Roots::new([dir]), states: BTreeMap::new(), tasks: Vec::new() }
    }

    fn read<A: Agent>(&self, key: &str) -> A {
        self.states
            .get(&format!("{}/{key}", A::KIND))
            .map_or_else(A::default, |text| serde_json::from_str(text).unwrap())
    }

    /// One turn; unless it is lost, all that it did is there afterwards, else nothing.
    async fn handle<A: Agent>(&mut self, key: &str, message: &str, body: &RawValue, lost: bool) {
        let (mut agent, mut turn) = (self.read::<A>(key), turn::<A>(key));
        let door = Door::<A>::of();
        let decode = &door.find(message).unwrap().decode;
        let mut envelope = decode(body, None, None).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(envelope.run(&mut agent, &turn, false).await, Ran::Done, "{message}");
        if lost {
            return;
        }
        let outbox = turn.take_outbox().unwrap_or_default();
        assert_eq!(outbox.fault, None);
        self.tasks.extend(outbox.tasks);
        let text = serde_json::to_string(&agent).unwrap();
        assert!(text.len() < 512 << 10, "a state grows");
        self.states.insert(format!("{}/{key}", A::KIND), text);
    }

    /// An attempt of a task; lost, it stays to be done.
    async fn attempt(&mut self, at: usize, lost: bool) {
        let task = self.tasks.swap_remove(at);
        match &task.target {
            Target::Agent { kind, key } if kind == "librarian" => {
                self.handle::<Librarian>(key, &task.message, &task.input, lost).await
            }
            Target::Agent { key, .. } => self.handle::<Shelf>(key, &task.message, &task.input, lost).await,
            Target::Tool(name) if !lost => {
                let done = match name.as_str() {
                    "fs.list" => outcome(&FsList::new(self.roots.clone()), &task).await,
                    _ => outcome(&FsRead::new(self.roots.clone()), &task).await,
                };
                let notify = task.notify.clone().unwrap();
                self.tasks.push(NewTask::new(notify.target, notify.message, done, 3));
            }
            Target::Tool(_) => {}
        }
        if lost {
            self.tasks.push(task);
        }
    }

    async fn ingest(&mut self, body: serde_json::Value) {
        let body = serde_json::value::to_raw_value(&body).unwrap();
        self.handle::<Librarian>("c", "Ingest", &body, false).await;
    }

    async fn until_idle(&mut self, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        while !self.tasks.is_empty() {
            assert_ne!(self.counts().await.pending, 0, "work is left");
            let at = random.usize(..self.tasks.len());
            self.attempt(at, random.u8(..4) == 0).await;
        }
    }

    async fn counts(&self) -> Counts {
        self.read::<Librarian>("c").query(Report {}, &turn("c")).await.unwrap()
    }

    /// What the shelves say of a phrase.
    async fn candidates(&self, phrase: &str) -> BTreeSet<String> {
        let mut paths = BTreeSet::new();
        for n in 0..self.counts().await.shelves {
            let shelf = self.read::<Shelf>(&format!("c-{n}"));
            paths.extend(shelf.query(Find { words: Phrase::new(phrase).words }, &turn("c")).await.unwrap());
        }
        paths
    }
}

/// A tool's task, run, as the message that brings its outcome back.
async fn outcome<T: Tool>(tool: &T, task: &NewTask) -> Box<RawValue> {
    assert_eq!(T::EFFECT, Effect::Pure);
    let input: T::Input = serde_json::from_str(task.input.get()).unwrap();
    let call = Call::new(Arc::new(Alone), "library", CallMeta::default(), CancellationToken::new());
    let outcome = match tool.run(input.clone(), &call).await {
        Ok(reply) => json!({ "state": "succeeded", "value": reply }),
        Err(e) => {
            let refused = e.downcast_ref::<crate::agent::Refused<<T::Input as Message>::Error>>().unwrap();
            json!({ "state": "refused", "value": refused.0 })
        }
    };
    serde_json::value::to_raw_value(&json!({ "task": TaskId::fresh(), "input": input, "outcome": outcome }))
        .unwrap()
}

fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn the_tools_names_are_the_wire_names() {
    assert_eq!((List::NAME, Read::NAME), (FsList::NAME, FsRead::NAME));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn counts_are_right_whatever_is_lost_on_the_way(
        files in 0usize..180,
        limit in prop::option::of(1u64..200),
        seed in any::<u64>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..files {
            let below = dir.path().join(format!("d{}", n % 7));
            fs::create_dir_all(&below).unwrap();
            let nul = if n % 10 == 3 { "\0" } else { "" };
            fs::write(below.join(format!("{:03}", n / 7)), format!("file number n{n} {nul}")).unwrap();
        }
        run(async {
            let mut world = World::new(dir.path());
            world.ingest(json!({ "path": "", "limit": limit })).await;
            world.until_idle(seed).await;
            // In the order of paths: the directories one after the other.
            let order = (0..7).flat_map(|d| (d..files).step_by(7));
            let taken: Vec<usize> = order.take(limit.unwrap_or(u64::MAX) as usize).collect();
            let texts: Vec<usize> = taken.iter().copied().filter(|n| n % 10 != 3).collect();
            let counts = world.counts().await;
            assert_eq!((counts.pending, counts.failed), (0, 0));
            assert_eq!(counts.files, texts.len() as u64);
            assert_eq!(counts.words, texts.len() as u64 * 3);
            assert_eq!(counts.done, taken.len() as u64);
            assert_eq!(counts.bytes, texts.iter().map(|n| format!("file number n{n} ").len() as u64).sum::<u64>());
            for n in texts.iter().take(5) {
                let found = world.candidates(&format!("number n{n} ")).await;
                assert_eq!(found, BTreeSet::from([format!("d{}/{:03}", n % 7, n / 7)]));
            }
        });
    }
}

#[test]
fn pages_follow_one_another_while_few_files_are_pending() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..1_203 {
        fs::write(dir.path().join(format!("{n:04}")), "one").unwrap();
    }
    run(async {
        let mut world = World::new(dir.path());
        world.ingest(json!({ "path": "." })).await;
        world.until_idle(7).await;
        let counts = world.counts().await;
        assert_eq!((counts.files, counts.pending), (1_203, 0));
        assert_eq!(counts.shelves, 8 + 8 + 4, "pages of 500 in shelves of 64");
        assert_eq!(world.candidates("one").await.len(), 1_203);
    });
}

#[test]
fn a_listing_that_is_refused_is_counted_and_may_be_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut world = World::new(dir.path());
        world.ingest(json!({ "path": "late" })).await;
        world.until_idle(1).await;
        let counts = world.counts().await;
        assert_eq!((counts.failed, counts.pending), (1, 0));
        assert!(counts.problem.unwrap().contains("late"));
        fs::create_dir(dir.path().join("late")).unwrap();
        fs::write(dir.path().join("late/a"), "a b").unwrap();
        world.ingest(json!({ "path": "late" })).await;
        world.until_idle(1).await;
        assert_eq!(world.counts().await.words, 2);
        let again = Ingest { path: "./late/".into(), limit: None };
        let refused = crate::Handler::check(&world.read::<Librarian>("c"), &again);
        assert_eq!(refused, Err(Taken::Overlaps { path: "late".into() }));
    });
}
