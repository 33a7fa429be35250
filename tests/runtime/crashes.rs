//! What is known about crashes, and for how long.

use greenroom::{
    Persistence,
    model::{crash_group::CrashGroup, supervision::CrashKind},
    prelude::*,
    runtime::operator::CrashQuery,
};

use crate::{
    faulty::Faults,
    support::{World, soon, until},
};

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Fall {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Linger {}
message! { Fall -> (); Linger -> () }

/// Where both kinds fall.
#[inline(never)]
fn hole() {
    panic!("it is deep");
}

macro_rules! faller {
    ($agent:ident, $kind:literal, $steps:ident) => {
        #[derive(Default, Serialize, Deserialize)]
        struct $agent {}
        #[inline(never)]
        fn $steps() {
            hole();
        }
        impl Agent for $agent {
            const KIND: &'static str = $kind;
            type Messages = (Fall, Linger);
            fn policy() -> Policy {
                Policy::default()
                    .persistence(Persistence::Volatile)
                    .max_restarts(1_000_000, Duration::from_secs(60))
                    .backoff(Duration::ZERO, Duration::ZERO)
                    .turn_timeout(Duration::from_millis(20))
            }
        }
        impl Handler<Fall> for $agent {
            async fn handle(&mut self, _: Fall, _: &Turn<Self>) -> Result<()> {
                $steps();
                Ok(())
            }
        }
        impl Handler<Linger> for $agent {
            async fn handle(&mut self, _: Linger, _: &Turn<Self>) -> Result<()> {
                std::future::pending().await
            }
        }
    };
}
faller!(Left, "left", steps_of_the_left);
faller!(Right, "right", steps_of_the_right);

fn program() -> greenroom::Builder {
    Runtime::builder().agent::<Left>().agent::<Right>()
}

async fn groups(world: &World) -> Vec<CrashGroup> {
    soon(world.handle().operator().crash_groups(&CrashQuery::default())).await.unwrap().items
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_are_told_by_site_also_after_a_restart() {
    let mut world = World::start(program()).await;
    let operator = world.handle().operator().clone();
    let left = world.handle().agent::<Left>("a");
    for _ in 0..3 {
        soon(left.ask(Fall {})).await.unwrap_err();
    }
    let first = operator.crashes().pop().unwrap();
    soon(world.handle().agent::<Left>("b").ask(Fall {})).await.unwrap_err();
    soon(left.ask(Linger {})).await.unwrap_err();
    soon(world.handle().agent::<Right>("a").ask(Fall {})).await.unwrap_err();

    let before = groups(&world).await;
    let told: Vec<_> = before.iter().map(|g| (g.site.kind.as_str(), g.site.reason, g.count)).collect();
    assert_eq!(
        told,
        [("right", CrashKind::Panic, 1), ("left", CrashKind::Timeout, 1), ("left", CrashKind::Panic, 4)]
    );
    let falls = &before[2];
    assert!(falls.site.place.starts_with("tests/runtime/crashes.rs:"), "{falls:?}");
    assert_eq!(
        (falls.first.as_millisecond(), falls.report.subject.as_str()),
        (first.at.as_millisecond(), "left/b")
    );
    assert_eq!(falls.report.message_type.as_deref(), Some("Fall"));
    let shown = soon(operator.crash(&first.id)).await.unwrap();
    assert_eq!((&shown.report, shown.group.unwrap().count), (&first, 4), "one of the last is shown itself");
    drop((left, operator));
    world.end().await;

    world.start_again(program()).await;
    assert_eq!(groups(&world).await, before);
    let operator = world.handle().operator().clone();
    assert!(operator.crashes().is_empty(), "these were the node's own");
    for name in [falls.report.id.clone(), falls.id.to_string()] {
        let shown = soon(operator.crash(&name)).await.unwrap();
        assert_eq!((&shown.report, shown.group.unwrap().count), (&*falls.report, 4));
    }
    assert_eq!(soon(operator.crash(&first.id)).await.unwrap_err().code(), "not_found");
    // and it goes on from there
    soon(world.handle().agent::<Left>("c").ask(Fall {})).await.unwrap_err();
    assert_eq!(groups(&world).await[0].count, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_shares_a_site_has_a_backtrace_of_its_own() {
    let world = World::start(program()).await;
    let operator = world.handle().operator().clone();
    let (left, right) = (world.handle().agent::<Left>("a"), world.handle().agent::<Right>("a"));
    // A panic is not walked while names are looked up, for whichever node of this process.
    let traces = async || {
        let mut traces = Vec::new();
        for group in groups(&world).await {
            let shown = soon(operator.crash(&group.id.to_string())).await.unwrap();
            traces.extend(shown.backtrace.map(|trace| (group.site.kind, trace)));
        }
        traces
    };
    until("each site has its backtrace", || async {
        soon(left.ask(Fall {})).await.unwrap_err();
        soon(right.ask(Fall {})).await.unwrap_err();
        traces().await.len() == 2
    })
    .await;
    for (kind, trace) in traces().await {
        assert!(trace.contains("hole") && trace.contains(&format!("steps_of_the_{kind}")), "{kind}: {trace}");
        assert!(!trace.contains("panicking") && !trace.contains("tokio::runtime"), "{trace}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_wait_in_memory_for_a_store_that_is_down() {
    let faults = Faults::default();
    let world = World::start(faults.under(program())).await;
    let left = world.handle().agent::<Left>("a");
    soon(left.ask(Fall {})).await.unwrap_err();
    assert_eq!(groups(&world).await[0].count, 1);
    faults.fail(Some("sorry, too many clients already"));
    let operator = world.handle().operator().clone();
    for _ in 0..50 {
        // one that is known to be down may turn even these away
        let _ = soon(left.ask(Fall {})).await;
        let shown = soon(operator.crash(&operator.crashes()[0].id)).await.unwrap();
        assert!(shown.group.is_none(), "the crash itself is known");
    }
    let crashed = operator.crashes().len() as u64;
    assert!(crashed > 2, "{crashed}");
    assert_eq!(soon(operator.crash_groups(&CrashQuery::default())).await.unwrap_err().code(), "unavailable");
    faults.fail(None);
    until("they are written", || async { groups(&world).await[0].count == crashed }).await;
}

/// Nothing is asked for here: the keeper writes by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_well_loses_no_crash_and_one_that_is_killed_few() {
    let faults = Faults::default();
    let mut world = World::start(faults.under(program())).await;
    let left = world.handle().agent::<Left>("a");
    let stored = async || {
        let filter = greenroom::store::CrashFilter { limit: 10, ..Default::default() };
        faults.store().crash_groups(&filter).await.unwrap().first().map_or(0, |group| group.count)
    };
    soon(left.ask(Fall {})).await.unwrap_err();
    until("the first one is written at once", || async { stored().await == 1 }).await;
    for _ in 0..200 {
        soon(left.ask(Fall {})).await.unwrap_err();
    }
    drop(left);
    world.end().await;
    assert_eq!(stored().await, 201);
}
