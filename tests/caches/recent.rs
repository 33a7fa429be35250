//! The newest messages: a list without a gap, or none.

use greenroom::cache::{Item, Recent, Tail};

use crate::support::{World, item, rules, tail};

rules! {
    async fn a_list_is_filled_and_grows_behind_its_last_message(world: &World) {
        assert_eq!(world.seqs("c", 3).await, None);
        world.fill("c", 1, 3).await;
        world.append("c", 4).await;
        assert_eq!(world.seqs("c", 3).await, Some(vec![2, 3, 4]));
        assert_eq!(world.cache.get_recent("c", 2).await, Recent::Hit(tail(3, 4)));
        assert_eq!(world.seqs("other", 1).await, None);
    }

    async fn a_message_that_does_not_follow_drops_the_list(world: &World) {
        world.fill("c", 1, 3).await;
        world.append("c", 5).await;
        assert_eq!(world.seqs("c", 1).await, None);
        world.fill("c", 1, 5).await;
        world.append("c", 4).await;
        assert_eq!(world.seqs("c", 1).await, None);
    }

    async fn numbers_may_have_gaps_of_their_own(world: &World) {
        let ticket = world.ticket("c").await;
        let filled = Tail { after: 70, items: vec![item(80), item(90)] };
        world.cache.fill_recent("c", ticket, filled).await;
        world.cache.append_recent("c", 90, item(1 << 60)).await;
        world.cache.append_recent("c", 1 << 60, item((1 << 60) + 1)).await;
        // As a double this predecessor would equal the last one.
        assert_eq!(world.seqs("c", 4).await, Some(vec![80, 90, 1 << 60, (1 << 60) + 1]));
        world.cache.append_recent("c", 1 << 60, item((1 << 60) + 2)).await;
        assert_eq!(world.seqs("c", 1).await, None);
    }

    async fn a_message_that_the_reader_has_seen_is_not_added_again(world: &World) {
        world.fill("c", 1, 3).await;
        world.append("c", 3).await;
        assert_eq!(world.seqs("c", 5).await, Some(vec![1, 2, 3]));
    }

    async fn the_oldest_go_when_there_are_too_many(world: &World) {
        world.fill("c", 1, 4).await;
        for seq in 5..=9 {
            world.append("c", seq).await;
        }
        assert_eq!(world.cache.get_recent("c", 5).await, Recent::Hit(tail(5, 9)));
        // More than are kept: the store must be asked, and would fill no more than there is.
        assert_eq!(world.cache.get_recent("c", 6).await, Recent::Miss(None));
        world.fill("long", 1, 9).await;
        assert_eq!(world.cache.get_recent("long", 5).await, Recent::Hit(tail(5, 9)));
    }

    async fn few_messages_are_enough_when_there_are_no_others(world: &World) {
        world.fill("c", 1, 2).await;
        assert_eq!(world.seqs("c", 50).await, Some(vec![1, 2]));
        world.fill("d", 4, 5).await;
        assert_eq!(world.seqs("d", 2).await, Some(vec![4, 5]));
        assert_eq!(world.seqs("d", 3).await, None);
    }

    async fn a_list_too_heavy_keeps_its_newest_messages(world: &World) {
        let heavy = |seq| Item { seq, bytes: vec![7; 400 << 10].into() };
        let ticket = world.ticket("c").await;
        let filled = Tail { after: 0, items: (1..=4).map(heavy).collect() };
        world.cache.fill_recent("c", ticket, filled).await;
        assert_eq!(world.seqs("c", 2).await, Some(vec![3, 4]));
        world.cache.append_recent("c", 4, heavy(5)).await;
        assert_eq!(world.seqs("c", 2).await, Some(vec![4, 5]));
        assert_eq!(world.seqs("c", 3).await, None);
        let huge = Item { seq: 6, bytes: vec![7; 2 << 20].into() };
        world.cache.append_recent("c", 5, huge).await;
        assert_eq!(world.seqs("c", 1).await, None);
    }

    async fn a_fill_from_before_an_append_is_refused(world: &World) {
        // The reader looks into the store, the writer commits 4 and appends it, the reader fills.
        let ticket = world.ticket("c").await;
        world.append("c", 4).await;
        world.cache.fill_recent("c", ticket, tail(1, 3)).await;
        assert_eq!(world.seqs("c", 1).await, None);
        // The next reader sees it.
        world.fill("c", 1, 4).await;
        assert_eq!(world.seqs("c", 1).await, Some(vec![4]));
    }

    async fn a_fill_after_an_append_does_not_replace_it(world: &World) {
        let (one, two) = (world.ticket("c").await, world.ticket("c").await);
        world.cache.fill_recent("c", one, tail(1, 3)).await;
        world.append("c", 4).await;
        world.cache.fill_recent("c", two, tail(1, 3)).await;
        assert_eq!(world.seqs("c", 4).await, Some(vec![1, 2, 3, 4]));
    }

    async fn a_fill_from_before_a_drop_is_refused(world: &World) {
        let ticket = world.ticket("c").await;
        world.cache.drop_recent("c").await;
        world.cache.fill_recent("c", ticket, tail(1, 3)).await;
        assert_eq!(world.seqs("c", 1).await, None);
        world.fill("c", 1, 3).await;
        world.cache.drop_recent("c").await;
        assert_eq!(world.seqs("c", 1).await, None);
    }

    async fn an_empty_conversation_is_not_kept(world: &World) {
        let ticket = world.ticket("c").await;
        world.cache.fill_recent("c", ticket, Tail::default()).await;
        assert_eq!(world.seqs("c", 1).await, None);
        // Nor does a first message begin a list: a later one may have overtaken it.
        world.append("c", 1).await;
        assert_eq!(world.seqs("c", 1).await, None);
    }

    async fn whatever_the_order_a_list_has_no_gap_and_lacks_nothing_once_all_is_told(world: &World) {
        for seed in 0..30 {
            let (mut random, conversation) = (fastrand::Rng::with_seed(seed), format!("c{seed}"));
            // Messages 1..=committed are in the store; of some, the cache has not been told yet.
            let (mut committed, mut untold, mut readers) = (0, Vec::new(), Vec::new());
            for _ in 0..120 {
                match random.u8(0..10) {
                    0..=2 => {
                        committed += 1;
                        untold.push(committed);
                    }
                    // Writers overtake each other.
                    3..=5 if !untold.is_empty() => {
                        let at = if random.u8(0..4) == 0 { random.usize(0..untold.len()) } else { 0 };
                        world.append(&conversation, untold.remove(at)).await;
                    }
                    6 | 7 => match world.cache.get_recent(&conversation, 2).await {
                        Recent::Hit(kept) => {
                            let seqs: Vec<_> = kept.items.iter().map(|item| item.seq).collect();
                            assert!(seqs.windows(2).all(|two| two[0] + 1 == two[1]), "{seed}: {seqs:?}");
                            let told = |seq: &i64| *seq <= committed && *seq > 0;
                            assert!(seqs.iter().all(told), "{seed}: {seqs:?}");
                        }
                        // It looks into the store now, and brings what it saw some time later.
                        Recent::Miss(Some(ticket)) => {
                            readers.push((ticket, tail((committed - 4).max(1), committed)));
                        }
                        Recent::Miss(None) => {}
                    },
                    8 | 9 if !readers.is_empty() => {
                        let (ticket, seen) = readers.swap_remove(random.usize(0..readers.len()));
                        world.cache.fill_recent(&conversation, ticket, seen).await;
                    }
                    _ => {}
                }
                if untold.is_empty()
                    && let Some(seqs) = world.seqs(&conversation, 2).await
                {
                    assert_eq!(seqs.last(), Some(&committed), "{seed}");
                }
            }
        }
    }
}
