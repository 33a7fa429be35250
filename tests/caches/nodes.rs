//! Several nodes on one server: what one writes the others see, and hold no old copies of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use greenroom::{
    cache::{self, Cache, Recent, Shelf},
    model::id::AgentId,
};

use crate::support::{PATIENCE, World, bytes, document, item, options, tail};

/// A second node on the world's server.
async fn neighbour(world: &World) -> Arc<dyn Cache> {
    let cache = cache::open(&world.server.as_ref().unwrap().url(), &options()).unwrap();
    let began = Instant::now();
    while !cache.health().up {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    cache
}

/// Waits until this holds, for much less than a copy would live.
async fn soon(what: &str, condition: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < Duration::from_secs(5), "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_one_node_writes_replaces_the_copies_of_others() {
    let world = World::tiered().await;
    let (one, two) = (&world.cache, neighbour(&world).await);
    for shelf in [Shelf::Conversations, Shelf::Sessions] {
        one.put(shelf, "a", document(1, "one")).await;
        assert_eq!(two.get(shelf, "a").await, Some(document(1, "one")));
        one.put(shelf, "a", document(2, "two")).await;
        soon("the new one", async || two.get(shelf, "a").await == Some(document(2, "two"))).await;
        two.put(shelf, "a", document(3, "three")).await;
        soon("the newest one", async || one.get(shelf, "a").await == Some(document(3, "three"))).await;
        two.remove(shelf, "a").await;
        soon("none", async || one.get(shelf, "a").await.is_none()).await;
        // A reader on any node that had loaded it before does not bring it back.
        one.fill(shelf, "a", document(3, "three")).await;
        assert_eq!((one.get(shelf, "a").await, two.get(shelf, "a").await), (None, None));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_one_node_appends_is_seen_by_others() {
    let world = World::tiered().await;
    let two = neighbour(&world).await;
    let sees = async |seqs: &[i64]| match two.get_recent("c", 5).await {
        Recent::Hit(tail) => tail.items.iter().map(|item| item.seq).eq(seqs.iter().copied()),
        Recent::Miss(_) => seqs.is_empty(),
    };
    world.fill("c", 1, 2).await;
    assert!(sees(&[1, 2]).await);
    world.append("c", 3).await;
    soon("the message", async || sees(&[1, 2, 3]).await).await;
    two.append_recent("c", 3, item(4)).await;
    soon("the answer", async || world.seqs("c", 5).await == Some(vec![1, 2, 3, 4])).await;
    world.cache.drop_recent("c").await;
    soon("nothing", async || sees(&[]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_of_one_node_is_worthless_once_another_has_appended() {
    let world = World::tiered().await;
    let two = neighbour(&world).await;
    let ticket = world.ticket("c").await;
    two.append_recent("c", 3, item(4)).await;
    world.cache.fill_recent("c", ticket, tail(1, 3)).await;
    assert_eq!(world.seqs("c", 1).await, None);
    assert!(matches!(two.get_recent("c", 1).await, Recent::Miss(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_is_found_by_the_node_that_takes_over() {
    let world = World::tiered().await;
    let (two, id) = (neighbour(&world).await, AgentId::of("tally", "a"));
    world.cache.put_state(id, 1, 7, bytes("seven")).await;
    assert!(two.get_state(id).await.unwrap().is(1, 7));
    two.put_state(id, 2, 8, bytes("eight")).await;
    // The first node may still hold the old one; told so by the store, it forgets that alone.
    world.cache.drop_state(id, 1, 7).await;
    assert!(world.cache.get_state(id).await.unwrap().is(2, 8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_might_have_missed_a_notice_forgets_its_copies() {
    let world = World::tiered().await;
    let (one, two) = (&world.cache, neighbour(&world).await);
    let server = world.server.as_ref().unwrap();
    for round in 1..=6 {
        soon("it", async || {
            // Again, in case that it was deaf still.
            one.put(Shelf::Sessions, "a", document(round, "x")).await;
            two.get(Shelf::Sessions, "a").await.is_some_and(|found| found.version == round)
        })
        .await;
        // Both lose their ears, at whatever moment of what follows.
        server.say(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        one.put(Shelf::Sessions, "a", document(round + 1, "y")).await;
        world.up(true).await;
        let began = Instant::now();
        while !two.health().up {
            assert!(began.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        soon("nothing old", async || {
            two.get(Shelf::Sessions, "a").await.is_none_or(|found| found.version == round + 1)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_and_writers_on_two_nodes_never_see_a_gap_or_go_back() {
    use std::sync::atomic::{AtomicI64, Ordering};
    let world = World::tiered().await;
    let nodes = [world.cache.clone(), neighbour(&world).await];
    // The store: messages 1..=n are committed.
    let committed = Arc::new(AtomicI64::new(0));
    let mut readers = Vec::new();
    for node in nodes.clone() {
        let committed = committed.clone();
        readers.push(tokio::spawn(async move {
            let mut hits = 0;
            while committed.load(Ordering::SeqCst) < 400 {
                let seen = match node.get_recent("c", 3).await {
                    Recent::Hit(tail) => {
                        hits += 1;
                        tail.items
                    }
                    Recent::Miss(ticket) => {
                        let last = committed.load(Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        let loaded = tail((last - 4).max(1), last);
                        if let Some(ticket) = ticket {
                            node.fill_recent("c", ticket, loaded.clone()).await;
                        }
                        loaded.items
                    }
                };
                assert!(seen.windows(2).all(|two| two[0].seq + 1 == two[1].seq), "a gap: {seen:?}");
                tokio::task::yield_now().await;
            }
            hits
        }));
    }
    for seq in 1..=400 {
        committed.store(seq, Ordering::SeqCst);
        nodes[(seq % 2) as usize].append_recent("c", seq - 1, item(seq)).await;
    }
    let mut hits = 0;
    for reader in readers {
        hits += reader.await.unwrap();
    }
    assert!(hits > 0);
    // After the last append no node keeps a list without it, once its notice is there.
    for node in nodes {
        soon("the last message", async || match node.get_recent("c", 1).await {
            Recent::Hit(tail) => tail.items[0].seq == 400,
            Recent::Miss(_) => true,
        })
        .await;
    }
}
