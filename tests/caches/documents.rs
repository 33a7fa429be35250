//! Conversations and sessions: one document by id, newer wins, removed stays removed.

use std::time::{Duration, Instant};

use greenroom::cache::Shelf;

use crate::support::{SHORT, World, document, rules};

rules! {
    async fn the_newer_version_wins(world: &World) {
        for shelf in [Shelf::Conversations, Shelf::Sessions] {
            assert_eq!(world.cache.get(shelf, "a").await, None);
            world.cache.put(shelf, "a", document(2, "two")).await;
            world.cache.put(shelf, "a", document(1, "one")).await;
            assert_eq!(world.cache.get(shelf, "a").await, Some(document(2, "two")));
            world.cache.put(shelf, "a", document(3, "three")).await;
            assert_eq!(world.cache.get(shelf, "a").await, Some(document(3, "three")));
            assert_eq!(world.cache.get(shelf, "b").await, None);
        }
    }

    async fn a_session_is_no_conversation(world: &World) {
        world.cache.put(Shelf::Sessions, "a", document(1, "session")).await;
        assert_eq!(world.cache.get(Shelf::Conversations, "a").await, None);
    }

    async fn a_late_reader_does_not_bring_back_what_was_removed(world: &World) {
        for shelf in [Shelf::Conversations, Shelf::Sessions] {
            world.cache.put(shelf, "a", document(3, "there")).await;
            world.cache.remove(shelf, "a").await;
            assert_eq!(world.cache.get(shelf, "a").await, None);
            // This reader had loaded it before; so has one whose document was never kept.
            world.cache.put(shelf, "a", document(3, "there")).await;
            world.cache.remove(shelf, "b").await;
            world.cache.put(shelf, "b", document(1, "there")).await;
            assert_eq!(world.cache.get(shelf, "a").await, None);
            assert_eq!(world.cache.get(shelf, "b").await, None);
        }
    }

    async fn a_session_lives_as_long_as_it_is_used(world: &World) {
        world.cache.put(Shelf::Sessions, "used", document(1, "x")).await;
        world.cache.put(Shelf::Sessions, "left", document(1, "x")).await;
        let began = Instant::now();
        let mut last = Instant::now();
        while began.elapsed() < SHORT * 3 {
            let found = world.cache.get(Shelf::Sessions, "used").await;
            // On a machine that stood still for longer, it may have gone.
            assert!(found.is_some() || last.elapsed() >= SHORT, "gone although it was used");
            last = Instant::now();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(world.cache.get(Shelf::Sessions, "left").await, None);
    }

    async fn any_bytes_and_any_id_come_back(world: &World) {
        let id = "umlaut ä, \r\n, {x} and \u{1f600}";
        let all = greenroom::cache::Versioned { version: 0, bytes: (0..=255).collect::<Vec<u8>>().into() };
        world.cache.put(Shelf::Conversations, id, all.clone()).await;
        assert_eq!(world.cache.get(Shelf::Conversations, id).await, Some(all));
        let large = greenroom::cache::Versioned { version: 1, bytes: vec![7; 1 << 20].into() };
        world.cache.put(Shelf::Conversations, id, large.clone()).await;
        assert_eq!(world.cache.get(Shelf::Conversations, id).await, Some(large));
    }

    async fn whatever_the_order_only_the_last_version_is_kept_once_all_is_told(world: &World) {
        let shelf = Shelf::Conversations;
        for seed in 0..30 {
            let (mut random, id) = (fastrand::Rng::with_seed(seed), format!("d{seed}"));
            let (mut committed, mut untold, mut readers) = (0, Vec::new(), Vec::new());
            for _ in 0..120 {
                match random.u8(0..8) {
                    0 | 1 => {
                        committed += 1;
                        untold.push(committed);
                    }
                    2..=4 if !untold.is_empty() => {
                        let version = untold.swap_remove(random.usize(0..untold.len()));
                        world.cache.put(shelf, &id, document(version, "x")).await;
                    }
                    // It looks into the store now, and brings what it saw some time later.
                    5 if committed > 0 && world.cache.get(shelf, &id).await.is_none() => {
                        readers.push(committed);
                    }
                    6 if !readers.is_empty() => {
                        let seen = readers.swap_remove(random.usize(0..readers.len()));
                        world.cache.fill(shelf, &id, document(seen, "x")).await;
                    }
                    _ => {}
                }
                if untold.is_empty() && let Some(kept) = world.cache.get(shelf, &id).await {
                    assert_eq!(kept.version, committed, "{seed}");
                }
            }
        }
    }
}
