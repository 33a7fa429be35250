//! Death watch and children: whoever watches is told of each end, once; children end with their parents.

use std::collections::BTreeSet;

use diesel::{Connection as _, RunQueryDsl as _, SqliteConnection, connection::SimpleConnection as _};
use greenroom::{Persistence, Restart, model::id::AgentId, prelude::*, runtime::views::Action};

use crate::{
    faulty::Faults,
    postgres::Database,
    support::{Gate, World, soon, status, until},
};

/// Watches these, and ends as it is told.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Guard {
    whom: Vec<String>,
    fails: bool,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Unguard {
    whom: String,
}
/// What it was told, in order.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Told {}
/// Leaves memory.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Retire {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Get {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Add {
    n: i64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Crash {}
/// Waits at the gate.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Hold {}
/// Makes `frail/KEY` its child, submits to it so much, and ends as it is told.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Bear {
    child: String,
    n: i64,
    fails: bool,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Disown {
    child: String,
}
/// Makes another one its child.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Adopt {
    who: String,
}
message! {
    Guard -> (); Unguard -> (); Told -> Vec<(String, String)>; Retire -> (); Get -> i64; Add -> i64; Crash -> ();
    Hold -> (); Bear -> (); Disown -> (); Adopt -> ()
}

/// Watches others.
macro_rules! watcher {
    ($agent:ident, $kind:literal, $policy:expr) => {
        #[derive(Default, Serialize, Deserialize)]
        struct $agent {
            told: Vec<(String, String)>,
        }
        impl Agent for $agent {
            const KIND: &'static str = $kind;
            type Messages = (Guard, Unguard, Told, Retire, Hold, Terminated);
            fn policy() -> Policy {
                $policy
            }
        }
        impl Handler<Guard> for $agent {
            async fn handle(&mut self, guard: Guard, turn: &Turn<Self>) -> Result<()> {
                guard.whom.iter().for_each(|who| turn.watch(who));
                ensure!(!guard.fails, "no");
                Ok(())
            }
        }
        impl Handler<Unguard> for $agent {
            async fn handle(&mut self, unguard: Unguard, turn: &Turn<Self>) -> Result<()> {
                turn.unwatch(unguard.whom);
                Ok(())
            }
        }
        impl Handler<Terminated> for $agent {
            async fn handle(&mut self, end: Terminated, _: &Turn<Self>) -> Result<()> {
                self.told.push((end.id, end.reason));
                Ok(())
            }
        }
        impl Query<Told> for $agent {
            async fn query(&self, _: Told, _: &Turn<Self>) -> Result<Vec<(String, String)>> {
                Ok(self.told.clone())
            }
        }
        impl Handler<Retire> for $agent {
            async fn handle(&mut self, _: Retire, turn: &Turn<Self>) -> Result<()> {
                turn.retire();
                Ok(())
            }
        }
        impl Handler<Hold> for $agent {
            async fn handle(&mut self, _: Hold, turn: &Turn<Self>) -> Result<()> {
                turn.resource::<Gate>().wait().await;
                Ok(())
            }
        }
    };
}

watcher!(Guardian, "guardian", Policy::default());
watcher!(Ghost, "ghost", Policy::default().persistence(Persistence::Volatile));
watcher!(Narrow, "narrow", Policy::default().mailbox(1));

/// Lives, crashes, ends, and has children.
macro_rules! mortal {
    ($agent:ident, $kind:literal, $policy:expr) => {
        #[derive(Default, Serialize, Deserialize)]
        struct $agent {
            total: i64,
        }
        impl Agent for $agent {
            const KIND: &'static str = $kind;
            type Messages = (Get, Add, Crash, Retire, Bear, Disown, Adopt);
            fn policy() -> Policy {
                $policy.backoff(Duration::ZERO, Duration::ZERO)
            }
        }
        impl Query<Get> for $agent {
            async fn query(&self, _: Get, _: &Turn<Self>) -> Result<i64> {
                Ok(self.total)
            }
        }
        impl Handler<Add> for $agent {
            async fn handle(&mut self, add: Add, _: &Turn<Self>) -> Result<i64> {
                self.total += add.n;
                Ok(self.total)
            }
        }
        impl Handler<Crash> for $agent {
            async fn handle(&mut self, _: Crash, _: &Turn<Self>) -> Result<()> {
                panic!("as told")
            }
        }
        impl Handler<Retire> for $agent {
            async fn handle(&mut self, _: Retire, turn: &Turn<Self>) -> Result<()> {
                turn.retire();
                Ok(())
            }
        }
        impl Handler<Bear> for $agent {
            async fn handle(&mut self, bear: Bear, turn: &Turn<Self>) -> Result<()> {
                turn.child::<Frail>(bear.child).submit(Add { n: bear.n });
                ensure!(!bear.fails, "no");
                Ok(())
            }
        }
        impl Handler<Disown> for $agent {
            async fn handle(&mut self, disown: Disown, turn: &Turn<Self>) -> Result<()> {
                turn.disown::<Frail>(&disown.child);
                Ok(())
            }
        }
        impl Handler<Adopt> for $agent {
            async fn handle(&mut self, adopt: Adopt, turn: &Turn<Self>) -> Result<()> {
                match adopt.who.split_once('/') {
                    Some(("frail", key)) => drop(turn.child::<Frail>(key)),
                    Some(("stranger", key)) => drop(turn.child::<Stranger>(key)),
                    _ => bail!("who is that"),
                }
                Ok(())
            }
        }
    };
}

mortal!(Frail, "frail", Policy::default().max_restarts(1, Duration::from_secs(3_600)));
mortal!(Single, "single", Policy::default().restart(Restart::Temporary));
mortal!(Stranger, "stranger", Policy::default()); // no program knows it

fn program(gate: &Gate) -> greenroom::Builder {
    let program = Runtime::builder().agent::<Guardian>().agent::<Ghost>().agent::<Narrow>();
    program.agent::<Frail>().agent::<Single>().resource(gate.clone())
}

/// A node on SQLite, and one on Postgres.
async fn on_both(test: impl AsyncFn(&mut World, &dyn Fn() -> greenroom::Builder)) {
    let on_sqlite = || program(&Gate::default());
    test(&mut World::start(on_sqlite()).await, &on_sqlite).await;
    let database = Database::new();
    let on_postgres = || program(&Gate::default()).set("store.url", &database.url());
    let mut world = World::start(on_postgres()).await;
    test(&mut world, &on_postgres).await;
    world.end().await;
}

const BY_OPERATOR: &str = "stopped by an operator";

impl World {
    /// `guardian/w` watches these.
    async fn guards(&self, whom: &[&str]) {
        let whom = whom.iter().map(|who| (*who).to_owned()).collect();
        soon(self.handle().agent::<Guardian>("w").ask(Guard { whom, fails: false })).await.unwrap();
    }

    async fn told(&self) -> Vec<(String, String)> {
        soon(self.handle().agent::<Guardian>("w").ask(Told {})).await.unwrap()
    }

    /// Waits until `guardian/w` was told of so many ends, and tells which.
    async fn hears_of(&self, n: usize) -> Vec<(String, String)> {
        until("it is told of that many ends", || async { self.told().await.len() >= n }).await;
        self.told().await
    }

    /// The ends that `guardian/w` was told of, when one that comes after all others has come: ends are told
    /// in their order.
    async fn told_by_now(&self, fence: &str) -> Vec<(String, String)> {
        self.guards(&[&format!("frail/{fence}")]).await;
        self.act("frail", fence, Action::Stop).await;
        until("it is told of the fence", || async {
            self.told().await.iter().any(|(id, _)| id.ends_with(fence))
        })
        .await;
        self.told().await.into_iter().filter(|(id, _)| !id.ends_with(fence)).collect()
    }

    async fn act(&self, kind: &str, key: &str, action: Action) {
        soon(self.handle().operator().act(kind, key, action)).await.unwrap();
    }

    /// `frail/KEY` bears `frail/CHILD`, which counts to `n`.
    async fn bears(&self, key: &str, child: &str, n: i64) {
        let bear = Bear { child: child.into(), n, fails: false };
        soon(self.handle().agent::<Frail>(key).ask(bear)).await.unwrap();
        self.counts(child, n).await;
    }

    async fn counts(&self, key: &str, n: i64) {
        let frail = self.handle().agent::<Frail>(key);
        until("it counts that far", || async { frail.ask(Get {}).await.is_ok_and(|total| total == n) }).await;
    }

    /// The children of `frail/KEY`, as operators see them.
    async fn children(&self, key: &str) -> Vec<String> {
        self.handle().operator().agent("frail", key).await.unwrap().children
    }

    /// Waits until `frail/KEY` is so.
    async fn becomes(&self, key: &str, what: &str) {
        let handle = self.handle();
        until(what, || async { status(&handle, "frail", key).await == what }).await;
    }
}

/// Has `frail/KEY` stopped (2) or quarantined (3) in the store of a node that is down.
fn over(world: &World, key: &str, status: u8) {
    let path = world.dir().join("greenroom.db");
    let mut store = SqliteConnection::establish(&path.to_string_lossy()).unwrap();
    store.batch_execute("PRAGMA busy_timeout = 10000").unwrap();
    let end = format!("UPDATE greenroom_agents SET status = {status}, reason = 'over' WHERE key = '{key}'");
    assert_eq!(diesel::sql_query(end).execute(&mut store).unwrap(), 1);
}

fn of(ends: &[(&str, &str)]) -> Vec<(String, String)> {
    ends.iter().map(|(id, reason)| ((*id).to_owned(), (*reason).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_watches_is_told_once_of_an_end_and_why() {
    on_both(async |world, _| {
        let handle = world.handle();
        world.guards(&["frail/crashes", "frail/stops", "frail/unreadable", "single/a", "frail/lives"]).await;
        world.guards(&["frail/crashes"]).await; // twice is as once
        let (frail, single) = (handle.agent::<Frail>("crashes"), handle.agent::<Single>("a"));
        soon(handle.agent::<Frail>("unreadable").ask(Get {})).await.unwrap();
        for _ in 0..2 {
            soon(frail.ask(Crash {})).await.unwrap_err();
        }
        let reason = world.hears_of(1).await.remove(0).1;
        assert_eq!(world.told().await[0].0, "frail/crashes");
        assert!(reason.contains("more than 1 times"), "{reason}");
        world.act("frail", "stops", Action::Stop).await;
        assert_eq!(world.hears_of(2).await[1], ("frail/stops".to_owned(), BY_OPERATOR.to_owned()));
        world.act("frail", "unreadable", Action::Quarantine).await;
        let quarantined = ("frail/unreadable".to_owned(), "quarantined by an operator".to_owned());
        assert_eq!(world.hears_of(3).await[2], quarantined);
        soon(single.ask(Crash {})).await.unwrap_err();
        assert_eq!(world.hears_of(4).await[3], ("single/a".to_owned(), "it crashed: as told".to_owned()));

        // A watch tells once.
        world.act("frail", "stops", Action::Restart).await;
        world.act("frail", "stops", Action::Stop).await;
        soon(single.ask(Crash {})).await.unwrap_err();
        assert_eq!(world.told_by_now("fence").await.len(), 4);
        world.act("frail", "lives", Action::Stop).await;
        assert_eq!(world.hears_of(6).await[5].0, "frail/lives");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_has_ended_already_is_told_of_at_once_and_each_time() {
    on_both(async |world, again| {
        world.act("frail", "a", Action::Stop).await;
        world.guards(&["frail/a"]).await;
        assert_eq!(world.hears_of(1).await, of(&[("frail/a", BY_OPERATOR)]));
        world.end().await;
        world.start_again(again()).await;
        world.guards(&["frail/a"]).await;
        assert_eq!(world.hears_of(2).await[1], ("frail/a".to_owned(), BY_OPERATOR.to_owned()));
        // One that is back has not ended.
        world.act("frail", "a", Action::Restart).await;
        world.guards(&["frail/a"]).await;
        assert_eq!(world.told_by_now("fence").await.len(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_outlives_the_node_and_tells_also_what_the_last_one_left_untold() {
    let mut world = World::start(program(&Gate::default())).await;
    soon(world.handle().agent::<Frail>("b").ask(Add { n: 1 })).await.unwrap();
    soon(world.handle().agent::<Frail>("c").ask(Add { n: 1 })).await.unwrap();
    world.guards(&["frail/a", "frail/b", "frail/c"]).await;
    world.end().await;
    world.start_again(program(&Gate::default())).await;
    world.act("frail", "a", Action::Stop).await;
    assert_eq!(world.hears_of(1).await, of(&[("frail/a", BY_OPERATOR)]));
    world.end().await;
    // As if the process had died when the end was durable, and nobody was told yet.
    let path = world.dir().join("greenroom.db");
    let mut store = SqliteConnection::establish(&path.to_string_lossy()).unwrap();
    for (key, status) in [("b", 2), ("c", 3)] {
        let end =
            format!("UPDATE greenroom_agents SET status = {status}, reason = 'over' WHERE key = '{key}'");
        assert_eq!(diesel::sql_query(end).execute(&mut store).unwrap(), 1);
    }
    drop(store);
    world.start_again(program(&Gate::default())).await;
    let told: BTreeSet<_> = world.hears_of(3).await.into_iter().skip(1).collect();
    assert_eq!(told, of(&[("frail/b", "over"), ("frail/c", "over")]).into_iter().collect());
    assert_eq!(world.told_by_now("fence").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_of_what_is_no_end() {
    let mut world = World::start(program(&Gate::default())).await;
    let handle = world.handle();
    world.guards(&["frail/a", "single/a"]).await;
    let (frail, single) = (handle.agent::<Frail>("a"), handle.agent::<Single>("a"));
    soon(frail.ask(Crash {})).await.unwrap_err(); // and is restored
    assert_eq!(soon(frail.ask(Add { n: 1 })).await.unwrap(), 1);
    soon(single.ask(Add { n: 1 })).await.unwrap();
    soon(frail.ask(Retire {})).await.unwrap();
    soon(single.ask(Retire {})).await.unwrap();
    world.becomes("a", "passivated").await;
    world.act("frail", "a", Action::Pause).await;
    world.act("frail", "a", Action::Resume).await;
    world.act("frail", "a", Action::Restart).await;
    drop((frail, single, handle));
    world.end().await;
    world.start_again(program(&Gate::default())).await;
    assert_eq!(world.told_by_now("fence").await, []);
    // Its watch is still there.
    world.act("frail", "a", Action::Stop).await;
    assert_eq!(world.hears_of(2).await[1], ("frail/a".to_owned(), BY_OPERATOR.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_is_told_whatever_it_is_at() {
    let gate = Gate::default();
    let world = World::start(program(&gate)).await;
    let handle = world.handle();
    let guard = || Guard { whom: vec!["frail/a".into()], fails: false };
    // One has left memory, one keeps no state, one is stopped, of one the mailbox is full.
    world.guards(&["frail/a"]).await;
    soon(handle.agent::<Guardian>("w").ask(Retire {})).await.unwrap();
    let (ghost, stopped) = (handle.agent::<Ghost>("a"), handle.agent::<Guardian>("stopped"));
    let narrow = handle.agent::<Narrow>("a");
    soon(ghost.ask(guard())).await.unwrap();
    soon(stopped.ask(guard())).await.unwrap();
    soon(narrow.ask(guard())).await.unwrap();
    world.act("guardian", "stopped", Action::Stop).await;
    let held = tokio::spawn(narrow.ask(Hold {}).into_future());
    gate.arrival().await;
    while narrow.try_tell(Retire {}).is_ok() {}
    until("it has left memory", || async { status(&handle, "guardian", "w").await == "passivated" }).await;

    world.act("frail", "a", Action::Stop).await;
    until("it is woken", || async { status(&handle, "guardian", "w").await != "passivated" }).await;
    let told = of(&[("frail/a", BY_OPERATOR)]);
    assert_eq!(world.hears_of(1).await, told);
    until("it is told", || async { ghost.ask(Told {}).await.unwrap() == told }).await;
    gate.open(1);
    soon(held).await.unwrap().unwrap();
    until("it is told", || async { narrow.ask(Told {}).await.is_ok_and(|heard| heard == told) }).await;
    world.act("guardian", "stopped", Action::Restart).await;
    until("it is told", || async { stopped.ask(Told {}).await.unwrap() == told }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_made_and_ended_with_its_turn_or_not_at_all() {
    on_both(async |world, _| {
        let watcher = world.handle().agent::<Guardian>("w");
        world.guards(&["frail/a", "frail/b"]).await;
        soon(watcher.ask(Unguard { whom: "frail/a".into() })).await.unwrap();
        soon(watcher.ask(Unguard { whom: "frail/never".into() })).await.unwrap();
        soon(watcher.ask(Guard { whom: vec!["frail/c".into()], fails: true })).await.unwrap_err();
        for who in ["frail", "tool:fs.read", "Frail/a", "frail/", "frail/a/b"] {
            let error = watcher.ask(Guard { whom: vec![who.into()], fails: false }).await.unwrap_err();
            assert!(error.to_string().contains("cannot watch"), "{error}");
        }
        for key in ["a", "b", "c"] {
            world.act("frail", key, Action::Stop).await;
        }
        assert_eq!(world.told_by_now("fence").await, of(&[("frail/b", BY_OPERATOR)]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_that_meet_a_store_in_trouble_are_told_once_when_it_is_well() {
    let faults = Faults::default();
    let world = World::start(faults.under(program(&Gate::default()))).await;
    for n in 0..20 {
        faults.lose_replies(1);
        world.guards(&[&format!("frail/{n}")]).await;
        faults.lose_replies(1);
        world.act("frail", &n.to_string(), Action::Stop).await;
    }
    let told: BTreeSet<_> = world.hears_of(20).await.into_iter().collect();
    assert_eq!(told.len(), 20);
    assert_eq!(world.told_by_now("fence").await.len(), 20);
    // The end itself cannot be told, and not even kept.
    world.guards(&["frail/a"]).await;
    let frail = world.handle().agent::<Frail>("a");
    soon(frail.ask(Crash {})).await.unwrap_err();
    assert_eq!(soon(frail.ask(Get {})).await.unwrap(), 0);
    faults.fail(Some("not now"));
    let crash = tokio::spawn(frail.ask(Crash {}).into_future());
    until("it is known", || async { world.handle().operator().ready().await.is_err() }).await;
    faults.fail(None);
    let _ = soon(crash).await;
    until("it has ended", || async {
        let _ = frail.ask(Crash {}).await;
        frail.ask(Get {}).await.is_err_and(|e| e.code() == "wrong_state")
    })
    .await;
    let told = world.hears_of(22).await;
    assert_eq!(told.iter().filter(|(id, _)| id == "frail/a").count(), 1);
}

/// Ends and watches meet in every order.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_races_with_a_watch_is_told_once() {
    on_both(async |world, _| {
        let (handle, all) = (world.handle(), 40);
        for n in 0..all {
            let key = format!("r{n}");
            let whom = vec![format!("frail/{key}")];
            let (watcher, operator) = (handle.agent::<Guardian>("w"), handle.operator());
            let (watch, stop) = soon(async {
                tokio::join!(
                    watcher.ask(Guard { whom, fails: false }).into_future(),
                    operator.act("frail", &key, Action::Stop)
                )
            })
            .await;
            watch.unwrap();
            stop.unwrap();
        }
        world.hears_of(all).await;
        let told = world.told_by_now("fence").await;
        let once: BTreeSet<_> = told.iter().map(|(id, _)| id.clone()).collect();
        assert_eq!((told.len(), once.len()), (all, all));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_watchers_are_told_before_the_agent_is_back() {
    let world = World::start(program(&Gate::default())).await;
    let handle = world.handle();
    let watchers: Vec<_> = (0..300).map(|n| handle.agent::<Guardian>(n.to_string())).collect();
    let guard = || Guard { whom: vec!["frail/a".into()], fails: false };
    for answer in soon(futures_util::future::join_all(watchers.iter().map(|w| w.ask(guard())))).await {
        answer.unwrap();
    }
    world.act("frail", "a", Action::Stop).await;
    world.act("frail", "a", Action::Restart).await;
    world.guards(&["frail/a"]).await;
    for watcher in &watchers {
        until("it is told", || async { !watcher.ask(Told {}).await.unwrap().is_empty() }).await;
        assert_eq!(soon(watcher.ask(Told {})).await.unwrap(), of(&[("frail/a", BY_OPERATOR)]));
    }
    assert_eq!(world.told_by_now("fence").await, [], "it watches one that lives");
}

#[tokio::test(flavor = "multi_thread")]
async fn children_end_with_their_parent_and_theirs_with_them() {
    on_both(async |world, again| {
        world.bears("p", "c", 1).await;
        world.bears("p", "disowned", 1).await;
        world.bears("c", "grandchild", 1).await;
        world.bears("p", "ended", 1).await;
        let error =
            soon(world.handle().agent::<Frail>("p").ask(Bear { child: "no".into(), n: 1, fails: true }));
        error.await.unwrap_err();
        let error = soon(world.handle().agent::<Frail>("p").ask(Adopt { who: "stranger/x".into() })).await;
        assert!(error.unwrap_err().to_string().contains("cannot have stranger/x for a child"));
        soon(world.handle().agent::<Frail>("p").ask(Disown { child: "disowned".into() })).await.unwrap();
        world.act("frail", "ended", Action::Stop).await;
        assert_eq!(world.children("p").await, ["frail/c", "frail/ended"]);
        world.end().await;
        world.start_again(again()).await;
        world.guards(&["frail/p", "frail/c", "frail/grandchild"]).await;
        world.act("frail", "p", Action::Stop).await;
        let told: BTreeSet<_> = world.hears_of(3).await.into_iter().collect();
        let ends = of(&[
            ("frail/p", BY_OPERATOR),
            ("frail/c", "its parent frail/p has ended"),
            ("frail/grandchild", "its parent frail/c has ended"),
        ]);
        assert_eq!(told, ends.into_iter().collect());
        for key in ["c", "grandchild", "ended"] {
            world.becomes(key, "stopped").await;
        }
        let info = world.handle().operator().agent("frail", "ended").await.unwrap();
        assert_eq!(info.reason.as_deref(), Some(BY_OPERATOR), "it had ended by itself");
        let refused = world.handle().agent::<Frail>("c").ask(Get {}).await.unwrap_err();
        assert!(refused.to_string().contains("its parent frail/p has ended"), "{refused}");
        world.counts("disowned", 1).await;
        assert_eq!(status(&world.handle(), "frail", "no").await, "unknown");

        // The parent is back: those whom it bears again are, and no one else is.
        world.act("frail", "p", Action::Restart).await;
        let bear = |child: &str| Bear { child: child.into(), n: 2, fails: false };
        soon(world.handle().agent::<Frail>("p").ask(bear("c"))).await.unwrap();
        world.counts("c", 3).await;
        soon(world.handle().agent::<Frail>("p").ask(bear("ended"))).await.unwrap();
        soon(world.handle().agent::<Frail>("p").ask(bear("new"))).await.unwrap();
        world.counts("new", 2).await;
        assert_eq!(status(&world.handle(), "frail", "ended").await, "stopped");
        assert_eq!(status(&world.handle(), "frail", "grandchild").await, "stopped");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_was_borne_again_is_back_although_the_node_ended_before_it_was_brought() {
    let mut world = World::start(program(&Gate::default())).await;
    world.bears("p", "c", 1).await;
    world.act("frail", "p", Action::Stop).await;
    world.becomes("c", "stopped").await;
    world.act("frail", "p", Action::Restart).await;
    world.counts("p", 0).await;
    world.end().await;
    let path = world.dir().join("greenroom.db");
    let mut store = SqliteConnection::establish(&path.to_string_lossy()).unwrap();
    let bond = "INSERT INTO greenroom_subscriptions SELECT '@child/frail/p', id, kind, key, 'child', 0 \
                FROM greenroom_agents WHERE kind = 'frail' AND key = 'c'";
    assert_eq!(diesel::sql_query(bond).execute(&mut store).unwrap(), 1);
    drop(store);
    world.start_again(program(&Gate::default())).await;
    world.counts("c", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_ends_with_its_parent_however_that_ends() {
    let mut world = World::start(program(&Gate::default())).await;
    let handle = world.handle();
    for key in ["crashes", "unreadable", "left"] {
        world.bears(key, &format!("of_{key}"), 1).await;
    }
    let single = handle.agent::<Single>("p");
    soon(single.ask(Bear { child: "of_single".into(), n: 1, fails: false })).await.unwrap();
    world.counts("of_single", 1).await;
    for _ in 0..2 {
        soon(handle.agent::<Frail>("crashes").ask(Crash {})).await.unwrap_err();
    }
    world.becomes("of_crashes", "stopped").await;
    world.act("frail", "unreadable", Action::Quarantine).await;
    world.becomes("of_unreadable", "stopped").await;
    assert_eq!(soon(single.ask(Crash {})).await.unwrap_err().code(), "handler_crashed");
    world.becomes("of_single", "stopped").await;
    // It begins anew, and so does its child.
    soon(single.ask(Bear { child: "of_single".into(), n: 1, fails: false })).await.unwrap();
    world.counts("of_single", 2).await;
    // However often, and however fast.
    for _ in 0..15 {
        assert_eq!(soon(single.ask(Crash {})).await.unwrap_err().code(), "handler_crashed");
        soon(single.ask(Bear { child: "of_single".into(), n: 1, fails: false })).await.unwrap();
    }
    world.counts("of_single", 17).await;
    // Its bond goes and comes with each of these ends: when all are looked after, it is there.
    let children = async || handle.operator().agent("single", "p").await.unwrap().children;
    until("it is its child", || async { children().await == ["frail/of_single"] }).await;
    assert_eq!(soon(single.ask(Crash {})).await.unwrap_err().code(), "handler_crashed");
    world.becomes("of_single", "stopped").await;
    // Restored is not ended.
    soon(handle.agent::<Frail>("left").ask(Crash {})).await.unwrap_err();
    drop((handle, single));
    world.end().await;
    over(&world, "left", 2);
    world.start_again(program(&Gate::default())).await;
    world.becomes("of_left", "stopped").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_borne_by_one_that_has_ended_is_stopped_and_one_of_itself_is_harmless() {
    let world = World::start(program(&Gate::default())).await;
    let handle = world.handle();
    let adopt = |who: &str| Adopt { who: who.into() };
    // Each other's, and its own.
    soon(handle.agent::<Frail>("a").ask(adopt("frail/b"))).await.unwrap();
    soon(handle.agent::<Frail>("b").ask(adopt("frail/a"))).await.unwrap();
    soon(handle.agent::<Frail>("b").ask(adopt("frail/b"))).await.unwrap();
    world.guards(&["frail/a", "frail/b"]).await;
    world.act("frail", "b", Action::Stop).await;
    let told = world.hears_of(2).await;
    assert_eq!(told, of(&[("frail/b", BY_OPERATOR), ("frail/a", "its parent frail/b has ended")]));
    assert_eq!(world.told_by_now("fence").await.len(), 2);
    // A parent and its child that end at once, and a child that comes while its parent ends.
    for n in 0..20 {
        let (parent, child) = (format!("p{n}"), format!("c{n}"));
        let (operator, who) = (handle.operator(), format!("frail/{child}"));
        let (_, stop, also) = soon(async {
            tokio::join!(
                handle.agent::<Frail>(&*parent).ask(adopt(&who)).into_future(),
                operator.act("frail", &parent, Action::Stop),
                async { if n % 2 == 0 { operator.act("frail", &child, Action::Stop).await } else { Ok(()) } },
            )
        })
        .await;
        stop.unwrap();
        also.unwrap();
    }
    world.told_by_now("after").await;
    for n in 0..20 {
        let known = status(&handle, "frail", &format!("c{n}")).await;
        assert!(known == "stopped" || known == "unknown", "{n}: {known}");
        assert_eq!(world.children(&format!("p{n}")).await, [""; 0], "{n}");
    }
}

/// Two nodes on one database. The second is given a half of what there is; the parent and what is watched
/// live on the first, the children and the watcher on the second, and the other way round.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_told_and_children_are_stopped_from_node_to_node() {
    let database = Database::new();
    let node = || program(&Gate::default()).set("store.url", &database.url()).set("node.lease", "3s");
    let (mut first, second) = (World::start(node()).await, World::start(node()).await);
    let nodes = second.handle().operator().nodes().await.unwrap();
    let id = &nodes.iter().find(|node| node.this).unwrap().id;
    database.psql(&format!(
        "UPDATE greenroom_partitions SET node = '{id}', epoch = nextval('greenroom_epoch') WHERE id >= 32"
    ));
    let key = |kind: &str, here: bool, n: usize| {
        let keys = (0..).map(|n| format!("k{n}"));
        keys.filter(|key| (AgentId::of(kind, key).partition() < 32) == here).nth(n).unwrap()
    };
    for (n, here) in [true, false].into_iter().enumerate() {
        let (near, far) = if here { (&first, &second) } else { (&second, &first) };
        let (parent, child, watcher) =
            (key("frail", here, n), key("frail", !here, n), key("guardian", !here, n));
        let adopt = || Adopt { who: format!("frail/{child}") };
        let (parent_there, child_there) =
            (near.handle().agent::<Frail>(&*parent), far.handle().agent::<Frail>(&*child));
        until("each has its half", || async {
            parent_there.ask(Get {}).await.is_ok() && child_there.ask(Get {}).await.is_ok()
        })
        .await;
        soon(parent_there.ask(adopt())).await.unwrap();
        let guard = || Guard { whom: vec![format!("frail/{parent}")], fails: false };
        let guardian = far.handle().agent::<Guardian>(watcher);
        soon(guardian.ask(guard())).await.unwrap();
        near.act("frail", &parent, Action::Stop).await;
        let (handle, told) = (far.handle(), of(&[(&format!("frail/{parent}"), BY_OPERATOR)]));
        until("the watcher is told", || async { guardian.ask(Told {}).await.unwrap() == told }).await;
        until("the child is stopped", || async { status(&handle, "frail", &child).await == "stopped" }).await;
        until("it is let go", || async { near.children(&parent).await.is_empty() }).await;
        // One that has ended already.
        soon(guardian.ask(guard())).await.unwrap();
        until("the watcher is told", || async { guardian.ask(Told {}).await.unwrap().len() == 2 }).await;
        // And the parent that is back takes it along.
        near.act("frail", &parent, Action::Restart).await;
        soon(parent_there.ask(adopt())).await.unwrap();
        until("the child is back", || async { status(&handle, "frail", &child).await != "stopped" }).await;
    }
    first.end().await;
}
