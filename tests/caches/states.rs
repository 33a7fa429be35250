//! Agents' states: later commits win.

use greenroom::model::id::AgentId;

use crate::support::{World, bytes, rules};

rules! {
    async fn a_late_older_state_does_not_replace_a_newer_one(world: &World) {
        let (cache, id) = (&world.cache, AgentId::of("tally", "a"));
        assert_eq!(cache.get_state(id).await, None);
        cache.put_state(id, 2, 5, bytes("2.5")).await;
        cache.put_state(id, 2, 4, bytes("2.4")).await;
        cache.put_state(id, 1, 9, bytes("1.9")).await;
        let kept = cache.get_state(id).await.unwrap();
        assert!(kept.is(2, 5) && !kept.is(2, 6) && *kept.bytes == b"2.5");
        cache.put_state(id, 3, 1, bytes("3.1")).await;
        assert!(cache.get_state(id).await.unwrap().is(3, 1));
        // Past what a double holds exactly: a script must not compare these as numbers.
        cache.put_state(id, (1 << 60) + 1, 1, bytes("large")).await;
        cache.put_state(id, 1 << 60, 7, bytes("less")).await;
        assert!(cache.get_state(id).await.unwrap().is((1 << 60) + 1, 1));
        // What is newer than what was found to be old stays.
        cache.drop_state(id, 1 << 60, i64::MAX).await;
        assert!(cache.get_state(id).await.is_some());
        cache.drop_state(id, (1 << 60) + 1, 1).await;
        assert_eq!(cache.get_state(id).await, None);
    }

    async fn states_of_two_agents_are_apart(world: &World) {
        let (a, b) = (AgentId::of("tally", "a"), AgentId::of("tally", "b"));
        world.cache.put_state(a, 1, 1, bytes("a")).await;
        assert_eq!(world.cache.get_state(b).await, None);
        world.cache.put_state(b, 1, 1, bytes("")).await;
        assert_eq!(*world.cache.get_state(a).await.unwrap().bytes, b"a");
        assert_eq!(*world.cache.get_state(b).await.unwrap().bytes, b"");
    }
}
