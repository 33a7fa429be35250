//! Who owns an agent: what a node does whose lease is in doubt, has ended, or has gone to another.

use std::sync::Arc;

use greenroom::{
    model::{
        id::AgentId,
        snapshot::{self, Codec, Header},
    },
    prelude::*,
    runtime::operator::{AgentQuery, OperatorError, SendOptions},
    store::{Member, StateWrite, Unit, Verdict},
};
use proptest::prelude::*;
use uuid::Uuid;

use crate::{
    faulty::Faults,
    support::{Gate, World, soon, until},
};

const OTHER: &str = "http://10.0.0.2:7710";

#[derive(Default, Serialize, Deserialize)]
struct Till {
    sum: i64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Add {
    n: i64,
}
message!(Add -> i64);

impl Agent for Till {
    const KIND: &'static str = "till";
    type Messages = Add;
    async fn on_start(&mut self, turn: &Turn<Self>) -> Result<()> {
        turn.resource::<Gate>().note(format!("{} starts", turn.key()));
        Ok(())
    }
}
impl Handler<Add> for Till {
    async fn handle(&mut self, add: Add, _: &Turn<Self>) -> Result<i64> {
        self.sum += add.n;
        Ok(self.sum)
    }
}

async fn world(lease: &str) -> (World, Faults, Gate) {
    let (faults, gate) = (Faults::default(), Gate::default());
    let program = Runtime::builder().agent::<Till>().resource(gate.clone()).set("node.lease", lease);
    (World::start(faults.under(program)).await, faults, gate)
}

/// The ask through the operators' door, which knows the owner.
async fn owner(world: &World, key: &str) -> Option<Option<String>> {
    let asked =
        world.handle().operator().ask("till", key, "Add", br#"{"n":1000}"#, SendOptions::default()).await;
    match asked {
        Err(OperatorError::Elsewhere { owner, .. }) => Some(owner),
        _ => None,
    }
}

fn partition(key: &str) -> i16 {
    AgentId::of("till", key).partition()
}

/// A key of another partition than `key`'s.
fn neighbour(key: &str) -> String {
    (0..).map(|n| format!("n{n}")).find(|n| partition(n) != partition(key)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_commit_is_refused_and_its_agent_let_go_to_the_owner() {
    let (world, faults, _) = world("30s").await; // far from any renewal: the refusal itself tells
    let (handle, other) = (world.handle(), neighbour("a"));
    let agent = handle.agent::<Till>("a");
    assert_eq!(soon(agent.ask(Add { n: 1 })).await.unwrap(), 1);
    assert_eq!(soon(handle.agent::<Till>(&*other).ask(Add { n: 1 })).await.unwrap(), 1);

    faults.revoke(partition("a"), OTHER);
    assert!(matches!(soon(agent.ask(Add { n: 100 })).await, Err(AskError::Unavailable(_))));
    until("the owner is known", || async { owner(&world, "a").await == Some(Some(OTHER.to_owned())) }).await;
    let Err(AskError::Unavailable(why)) = soon(agent.ask(Add { n: 100 })).await else {
        panic!("it is not ours")
    };
    assert!(why.contains(OTHER), "{why}");
    let commits = faults.commits();
    for _ in 0..20 {
        soon(agent.ask(Add { n: 100 })).await.unwrap_err();
    }
    assert_eq!(faults.commits(), commits, "what is not ours is not even tried");
    assert_eq!(soon(handle.agent::<Till>(&*other).ask(Add { n: 1 })).await.unwrap(), 2);
    let seen = handle.operator().agent("till", "a").await.unwrap();
    let node = Uuid::from_u128(1).to_string();
    assert_eq!((seen.status, seen.node), ("elsewhere".to_owned(), node), "what it does is not known here");
    let query = AgentQuery { status: Some("elsewhere".to_owned()), ..AgentQuery::default() };
    let listed = handle.operator().agents(&query).await.unwrap();
    assert_eq!(listed.items.iter().map(|agent| &*agent.key).collect::<Vec<_>>(), ["a"]);
    let never = (0..).map(|n| format!("never{n}")).find(|n| partition(n) == partition("a")).unwrap();
    let unknown = handle.operator().agent("till", &never).await.unwrap_err();
    assert!(matches!(unknown, OperatorError::Elsewhere { owner: Some(url), .. } if url == OTHER));
    let nodes = handle.operator().nodes().await.unwrap();
    assert_eq!(nodes.iter().filter(|n| n.this).map(|n| n.partitions.len()).sum::<usize>(), 63);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_comes_back_is_served_again() {
    let (world, faults, _) = world("3s").await;
    let agent = world.handle().agent::<Till>("a");
    assert_eq!(soon(agent.ask(Add { n: 1 })).await.unwrap(), 1);
    faults.revoke(partition("a"), OTHER);
    until("a renewal tells", || async { owner(&world, "a").await.is_some() }).await;
    let task = soon(agent.submit(Add { n: 1 })).await.unwrap(); // any node accepts it
    faults.restore(partition("a"));
    until("it is ours", || async { agent.ask(Add { n: 0 }).await.is_ok() }).await;
    soon(world.handle().wait::<Add>(task)).await.unwrap();
    assert_eq!(soon(agent.ask(Add { n: 1 })).await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_in_doubt_starts_no_turn_and_goes_on_without_restoring() {
    let (world, faults, gate) = world("3s").await;
    let agent = world.handle().agent::<Till>("a");
    assert_eq!(soon(agent.ask(Add { n: 1 })).await.unwrap(), 1);
    let restored = gate.count("a starts");
    faults.no_renewals(true);
    until("no turn is started", || async {
        matches!(agent.ask(Add { n: 0 }).await, Err(AskError::Unavailable(_)))
    })
    .await;
    let ready = world.handle().operator().ready().await.unwrap_err();
    assert!(ready.iter().any(|r| r.code == "lease_in_doubt" || r.code == "store_down"), "{ready:?}");
    let commits = faults.commits();
    for _ in 0..20 {
        soon(agent.ask(Add { n: 100 })).await.unwrap_err();
    }
    assert_eq!(faults.commits(), commits);
    faults.no_renewals(false);
    until("turns run again", || async { agent.ask(Add { n: 0 }).await.is_ok() }).await;
    assert_eq!(soon(agent.ask(Add { n: 1 })).await.unwrap(), 2);
    assert_eq!(gate.count("a starts"), restored, "its epoch is what it was");
}

/// Another node takes everything over and moves the agent on, as if this one had been stopped. Where
/// this one joins anew before that, again.
async fn take_over(faults: &Faults, key: &str, n: i64) -> i64 {
    loop {
        if let Some(sum) = try_to_take_over(faults, key, n).await {
            return sum;
        }
    }
}

async fn try_to_take_over(faults: &Faults, key: &str, n: i64) -> Option<i64> {
    let (store, id) = (faults.store(), AgentId::of("till", key));
    let member = Member {
        boot: Uuid::now_v7(),
        instance: Uuid::now_v7(),
        name: "other".to_owned(),
        url: None,
        lease: Duration::from_secs(30),
        max_lost: 3,
    };
    let epoch = store.join(&member).await.unwrap().epochs[usize::try_from(id.partition()).unwrap()];
    let row = store.load(&[id]).await.unwrap().pop().flatten();
    let (sum, base_version) = row.map_or((0, 0), |row| {
        let (_, body) = snapshot::open(&row.bytes).unwrap();
        (serde_json::from_slice::<Till>(body).unwrap().sum, row.version)
    });
    let header = Header {
        codec: Codec::Json,
        agent: id,
        version: base_version + 1,
        epoch,
        schema_version: Till::VERSION,
    };
    let mut bytes = Vec::new();
    snapshot::begin(&header, &mut bytes);
    serde_json::to_writer(&mut bytes, &Till { sum: sum + n }).unwrap();
    snapshot::seal(&mut bytes).unwrap();
    let state = StateWrite {
        id,
        kind: "till".into(),
        key: key.into(),
        epoch,
        base_version,
        schema_version: Till::VERSION,
        bytes: Arc::new(bytes),
        keeps_base: false,
    };
    let unit = Unit { owner: Some((id.partition(), epoch)), state: Some(state), ..Unit::default() };
    let verdicts = store.commit(member.boot, &[unit]).await.unwrap();
    (verdicts == [Verdict::Durable]).then_some(sum + n)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_commits_nothing_and_joins_anew() {
    let (world, faults, _) = world("30s").await;
    let agent = world.handle().agent::<Till>("a");
    assert_eq!(soon(agent.ask(Add { n: 1 })).await.unwrap(), 1);
    assert_eq!(take_over(&faults, "a", 10).await, 11);
    assert!(matches!(soon(agent.ask(Add { n: 1000 })).await, Err(AskError::Unavailable(_))));
    until("it has joined anew", || async { agent.ask(Add { n: 0 }).await.is_ok() }).await;
    assert_eq!(soon(agent.ask(Add { n: 1 })).await.unwrap(), 12, "it goes on from what the other wrote");
    assert!(world.handle().operator().crashes().is_empty(), "a takeover is nobody's crash");
}

#[derive(Debug, Clone)]
enum Step {
    /// So many asks at once.
    Burst(usize),
    TakeOver,
    LoseReplies(usize),
    /// The store fails while so many asks are under way.
    Blip(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1usize..20).prop_map(Step::Burst),
        2 => Just(Step::TakeOver),
        2 => (1usize..4).prop_map(Step::LoseReplies),
        1 => (1usize..20).prop_map(Step::Blip),
    ];
    prop::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default() })]

    /// What was acknowledged, by whichever node, is the state; what was refused never happened.
    #[test]
    fn zombies_lost_replies_and_blips_change_nothing_that_was_said(steps in steps()) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let (world, faults, _) = world("30s").await;
            let agent = world.handle().agent::<Till>("a");
            // A try whose reply was lost may have been moved on by another node: then nobody knows.
            let (mut sum, mut unknown) = (0, 0);
            for step in steps {
                let asks = match step {
                    Step::Burst(n) | Step::Blip(n) => n,
                    Step::LoseReplies(n) => {
                        faults.lose_replies(n);
                        continue;
                    }
                    Step::TakeOver => {
                        let now = take_over(&faults, "a", 7).await;
                        prop_assert!((sum + 7..=sum + 7 + unknown).contains(&now), "{sum} {unknown} {now}");
                        (sum, unknown) = (now, 0);
                        continue;
                    }
                };
                if matches!(step, Step::Blip(_)) {
                    faults.fail(Some("connection reset by peer"));
                }
                let asks: Vec<_> = (0..asks).map(|_| tokio::spawn(agent.ask(Add { n: 1 }))).collect();
                tokio::task::yield_now().await;
                faults.fail(None);
                for ask in asks {
                    match soon(ask).await.unwrap() {
                        Ok(_) => sum += 1,
                        Err(AskError::Unavailable(_)) => {}
                        Err(AskError::Unknown) => unknown += 1,
                        Err(other) => prop_assert!(false, "{other:?}"),
                    }
                }
            }
            // A turn that changes nothing commits nothing, and would not see that it was fenced.
            let now = loop {
                match soon(agent.ask(Add { n: 1 })).await {
                    Ok(now) => break now - 1,
                    Err(AskError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                    Err(AskError::Unknown) => unknown += 1,
                    Err(other) => prop_assert!(false, "{other:?}"),
                }
            };
            prop_assert!((sum..=sum + unknown).contains(&now), "{sum} {unknown} {now}");
            Ok(())
        })?;
    }
}
