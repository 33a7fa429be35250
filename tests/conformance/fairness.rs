//! Who is claimed first: every kind and every tool has its part of the room.

use std::collections::BTreeMap;

use greenroom::{
    model::{
        id::Target,
        task::{Claimed, NewTask, Queue, queue_of},
    },
    store::ClaimRequest,
};

use jiff::{Timestamp, ToSpan};

use crate::support::*;

fn task_for(target: Target) -> NewTask {
    NewTask::new(target, "Add", json("{}"), 5)
}

fn tool(name: &str) -> NewTask {
    NewTask::new(Target::Tool(name.into()), "", json("{}"), 5)
}

fn queue(name: &str, at_most: usize) -> Queue {
    Queue { name: name.into(), at_most }
}

/// How many were claimed of each queue.
fn counted(claimed: &[Claimed]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    claimed.iter().for_each(|claim| *counts.entry(queue_of(&claim.target)).or_default() += 1);
    counts
}

fn counts(list: &[(&str, usize)]) -> BTreeMap<String, usize> {
    list.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
}

/// So many tasks for each of these kinds, accepted one kind after the other.
async fn accept(w: &World, kinds: &[(&str, usize)]) {
    let tasks = kinds.iter().flat_map(|(kind, n)| {
        (0..*n).map(move |i| match kind.strip_prefix("tool:") {
            Some(name) => tool(name),
            None => task_for(Target::agent(*kind, i.to_string())),
        })
    });
    w.must(accepting(tasks)).await;
}

rules! {
    async fn the_queues_with_ready_tasks_are_told_with_their_time(w: &mut World) {
        assert_eq!(w.store.ready_queues().await.unwrap(), []);
        w.submit(task("a")).await;
        w.submit(task("b")).await;
        let tool = |name: &str| NewTask { target: Target::Tool(name.into()), message: String::new(), ..task("x") };
        let ready = w.submit(tool("read")).await;
        w.submit(NewTask { run_at: Some(Timestamp::now() + 1.hour()), ..tool("later") }).await;
        w.store.pause("tool:read", true).await.unwrap();
        let mut told = w.store.ready_queues().await.unwrap();
        told.sort();
        let names: Vec<&str> = told.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["tally", "tool:read"]);
        assert_eq!(told[1].1, w.view(ready).await.created_at);
        w.store.pause("tool:read", false).await.unwrap();
        w.claim(9).await;
        let left: Vec<_> = w.store.ready_queues().await.unwrap().into_iter().map(|(name, _)| name).collect();
        assert!(!left.contains(&"tally".to_owned()), "{left:?}");
    }

    async fn a_kind_with_many_tasks_does_not_hold_up_the_one_of_another(w: &mut World) {
        accept(w, &[("many", 200), ("one", 1), ("tool:many", 50), ("tool:one", 1)]).await;
        let request = ClaimRequest { agents: 10, tools: 4, ..ClaimRequest::default() };
        let claimed = w.store.claim(w.boot, &request).await.unwrap();
        assert_eq!(counted(&claimed), counts(&[("many", 9), ("one", 1), ("tool:many", 3), ("tool:one", 1)]));
        // alone, it has all the room
        assert_eq!(counted(&w.claim(20).await), counts(&[("many", 20)]));
    }

    async fn the_best_of_each_kind_go_first(w: &mut World) {
        for (kind, key, priority) in [("a", "1", 0), ("a", "2", 5), ("b", "1", 0), ("b", "2", 9), ("a", "3", 5)] {
            w.submit(NewTask { priority, ..task_for(Target::agent(kind, key)) }).await;
        }
        let names = |claimed: Vec<Claimed>| -> Vec<String> {
            claimed.iter().map(|claim| claim.target.to_string()).collect()
        };
        assert_eq!(names(w.claim(3).await), ["b/2", "a/2", "a/3"]);
        assert_eq!(names(w.claim(9).await), ["a/1", "b/1"]);
    }

    async fn kinds_take_turns_in_the_order_that_is_given(w: &mut World) {
        accept(w, &[("a", 9), ("b", 9), ("c", 9)]).await;
        let claim = async |room, queues: &[Queue]| {
            let request = ClaimRequest { agents: room, queues: queues.to_vec(), ..ClaimRequest::default() };
            counted(&w.store.claim(w.boot, &request).await.unwrap())
        };
        let any = usize::MAX;
        let turns = [queue("b", any), queue("a", any), queue("c", any)];
        assert_eq!(claim(1, &turns).await, counts(&[("b", 1)]));
        assert_eq!(claim(2, &turns).await, counts(&[("a", 1), ("b", 1)]));
        // a node claims of what it has: the others are another's
        assert_eq!(claim(20, &turns[..1]).await, counts(&[("b", 7)]));
        assert_eq!(claim(20, &turns[2..]).await, counts(&[("c", 9)]));
    }

    async fn no_more_is_claimed_of_a_kind_than_it_may_have(w: &mut World) {
        accept(w, &[("a", 9), ("b", 9), ("tool:t", 9)]).await;
        let queues = vec![queue("a", 2), queue("b", 0), queue("tool:t", 1)];
        let request = ClaimRequest { agents: 9, tools: 9, queues, ..ClaimRequest::default() };
        let claimed = w.store.claim(w.boot, &request).await.unwrap();
        assert_eq!(counted(&claimed), counts(&[("a", 2), ("tool:t", 1)]));
    }

    async fn no_more_is_claimed_for_one_agent_than_it_may_have(w: &mut World) {
        let to = |key: &str, priority| NewTask { priority, ..task(key) };
        let hot = (0..100).map(|_| to("hot", 0)).chain([to("other", 0), to("late", -1), to("hot", 9)]);
        w.must(accepting(hot)).await;
        w.must(accepting((0..9).map(|_| tool("t")))).await;
        let claim = async |agents, each, except: &[&str], look| {
            let except = except.iter().map(|agent| format!("tally/{agent}")).collect();
            let request = ClaimRequest { agents, tools: 5, each: Some(each), look, except, ..ClaimRequest::default() };
            let claimed = w.store.claim(w.boot, &request).await.unwrap();
            let names = claimed.iter().map(|c| (c.target.to_string(), c.priority));
            names.filter(|(name, _)| name.starts_with("tally/")).collect::<Vec<_>>()
        };
        let row = |key: &str, priority| (format!("tally/{key}"), priority);
        let found = claim(30, 2, &[], None).await;
        assert_eq!(found, [row("hot", 9), row("hot", 0), row("other", 0), row("late", -1)], "its best");
        w.must(accepting([to("other", 0), to("third", 0), to("third", 0)])).await;
        assert_eq!(claim(30, 2, &["hot"], Some(20)).await, [], "it does not look so far");
        assert_eq!(claim(2, 2, &["hot"], Some(100)).await, [row("other", 0), row("third", 0)]);
        assert_eq!(claim(9, 9, &["other"], Some(0)).await.len(), 9, "nothing is passed over");
        assert_eq!(claim(9, 1, &[], None).await, [row("hot", 0), row("third", 0)]);
    }

    /// Each round of a claim takes what the rounds before have left.
    async fn an_agent_has_its_part_of_a_claim_once(w: &mut World) {
        let to = |kind: &str, key: &str| task_for(Target::agent(kind, key));
        let tasks = (0..20).map(|_| to("a", "hot")).chain((0..20).map(|n| to("a", &n.to_string())));
        w.must(accepting(tasks.chain([to("b", "1")]))).await;
        let request = ClaimRequest { agents: 30, each: Some(3), ..ClaimRequest::default() };
        let claimed = w.store.claim(w.boot, &request).await.unwrap();
        assert_eq!(counted(&claimed), counts(&[("a", 23), ("b", 1)]));
        assert_eq!(claimed.iter().filter(|c| c.target == Target::agent("a", "hot")).count(), 3);
    }

    async fn nothing_of_a_paused_kind_is_claimed_until_it_is_resumed(w: &mut World) {
        accept(w, &[("a", 2), ("b", 1), ("tool:t", 1)]).await;
        assert_eq!(w.store.paused().await.unwrap(), []);
        assert!(w.store.pause("a", true).await.unwrap());
        assert!(!w.store.pause("a", true).await.unwrap(), "it is paused already");
        assert!(w.store.pause("tool:t", true).await.unwrap());
        let names: Vec<String> = w.store.paused().await.unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "tool:t"]);
        let all = ClaimRequest { agents: 9, tools: 9, ..ClaimRequest::default() };
        assert_eq!(counted(&w.store.claim(w.boot, &all).await.unwrap()), counts(&[("b", 1)]));
        assert_eq!(w.store.claim(w.boot, &all).await.unwrap().len(), 0);
        assert!(w.store.pause("a", false).await.unwrap());
        assert!(!w.store.pause("a", false).await.unwrap());
        assert_eq!(counted(&w.store.claim(w.boot, &all).await.unwrap()), counts(&[("a", 2)]));
    }

    async fn a_suspect_of_a_paused_kind_waits_with_it(w: &mut World) {
        w.submit(task("a")).await;
        for _ in 0..2 {
            w.claim(9).await;
            w.crash().await;
        }
        assert_eq!(w.store.suspects(w.boot).await.unwrap().len(), 1);
        w.store.pause("tally", true).await.unwrap();
        assert_eq!(w.store.suspects(w.boot).await.unwrap().len(), 0);
        assert_eq!(w.claim_alone().await.len(), 0);
        w.store.pause("tally", false).await.unwrap();
        assert_eq!(w.claim_alone().await.len(), 1);
    }
}
