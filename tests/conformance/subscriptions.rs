//! Subscriptions: begun and ended with the unit that says so, or not at all.

use greenroom::{
    model::{
        id::AgentId,
        topic::{Subscriber, SubscriptionWrite},
    },
    store::{Unit, Verdict},
};

use crate::support::*;

fn subscriber(key: &str, message: &str) -> Subscriber {
    let agent = AgentId::of("tally", key);
    Subscriber { agent, kind: "tally".into(), key: key.into(), message: message.into() }
}

fn write(topic: &str, key: &str, subscribed: bool) -> SubscriptionWrite {
    SubscriptionWrite { topic: topic.into(), subscriber: subscriber(key, "Price"), subscribed }
}

impl World {
    /// A unit of nothing but subscriptions of `tally/key`.
    fn subscribing(&self, key: &str, writes: &[(&str, bool)]) -> Unit {
        let id = AgentId::of("tally", key);
        let subscriptions = writes.iter().map(|(topic, on)| write(topic, key, *on)).collect();
        Unit { owner: Some((id.partition(), self.epoch(id))), subscriptions, ..Unit::default() }
    }

    /// The keys of a topic's subscribers, in order.
    async fn subscribed(&self, topic: &str) -> Vec<String> {
        let (found, more) = self.store.subscribers(topic, 10_000).await.unwrap();
        assert_eq!(more, 0);
        let mut keys: Vec<String> = found.iter().map(|s| s.key.to_string()).collect();
        keys.sort();
        keys
    }
}

rules! {
    async fn a_subscription_is_read_back_as_it_was_written(w: &mut World) {
        assert_eq!(w.subscribed("prices").await, [""; 0]);
        let mut unit = w.turn("Zoë", 0, "1");
        unit.subscriptions = vec![write("prices", "Zoë", true), write("prices/EURUSD", "Zoë", true)];
        w.must(unit).await;
        for topic in ["prices", "prices/EURUSD"] {
            assert_eq!(w.store.subscribers(topic, 9).await.unwrap().0, [subscriber("Zoë", "Price")]);
        }
        assert_eq!(w.subscribed("prices/eurusd").await, [""; 0]);
        assert_eq!(w.state("Zoë").await, Some((1, "1".to_owned())));
        w.crash().await;
        assert_eq!(w.subscribed("prices").await, ["Zoë"]);
        assert_eq!(w.verify().await.subscriptions, 2);
    }

    async fn subscribing_and_unsubscribing_twice_is_as_once(w: &mut World) {
        for _ in 0..2 {
            w.must(w.subscribing("a", &[("prices", true)])).await;
        }
        assert_eq!(w.subscribed("prices").await, ["a"]);
        // it takes another message from it now
        let mut other = w.subscribing("a", &[("prices", true)]);
        other.subscriptions[0].subscriber.message = "Quote".into();
        w.must(other).await;
        assert_eq!(w.store.subscribers("prices", 9).await.unwrap().0, [subscriber("a", "Quote")]);
        for _ in 0..2 {
            w.must(w.subscribing("a", &[("prices", false)])).await;
            assert_eq!(w.subscribed("prices").await, [""; 0]);
        }
    }

    async fn a_refused_unit_leaves_its_subscriptions_as_they_were(w: &mut World) {
        w.must(w.turn("a", 0, "1")).await;
        w.must(w.subscribing("a", &[("old", true)])).await;
        let mut stale = w.turn("a", 5, "x");
        stale.subscriptions = vec![write("new", "a", true), write("old", "a", false)];
        let mut zombie = w.subscribing("b", &[("new", true)]);
        zombie.owner = zombie.owner.map(|(partition, epoch)| (partition, epoch - 1));
        let good = w.subscribing("c", &[("new", true)]);
        assert_eq!(w.commit(&[stale, zombie, good]).await, [fenced(), fenced(), Verdict::Durable]);
        assert_eq!(w.subscribed("new").await, ["c"]);
        assert_eq!(w.subscribed("old").await, ["a"]);
    }

    async fn a_unit_whose_answer_was_lost_subscribes_once(w: &mut World) {
        let mut unit = w.turn("a", 0, "1");
        unit.subscriptions = vec![write("prices", "a", true)];
        let alone = w.subscribing("b", &[("prices", true)]);
        for _ in 0..2 {
            let units = [unit.clone(), alone.clone()];
            assert_eq!(w.commit(&units).await, [Verdict::Durable, Verdict::Durable]);
        }
        assert_eq!(w.subscribed("prices").await, ["a", "b"]);
    }

    async fn units_of_one_call_keep_their_order_and_their_neighbours_theirs(w: &mut World) {
        let task = task("other");
        let mut submitting = w.turn("d", 0, "1");
        submitting.accepted.push(task.clone());
        let units = [
            w.subscribing("a", &[("x", true), ("y", true)]),
            w.turn("b", 0, "1"),
            w.subscribing("a", &[("x", false)]),
            w.subscribing("c", &[("x", true)]),
            submitting,
        ];
        assert_eq!(w.commit(&units).await, vec![Verdict::Durable; 5]);
        assert_eq!([w.subscribed("x").await, w.subscribed("y").await], [["c"], ["a"]]);
        assert_eq!(w.state("b").await, Some((1, "1".to_owned())));
        assert_eq!(w.claim(9).await[0].id, task.id);
    }

    async fn a_unit_ends_the_subscriptions_of_those_whom_its_tasks_tell(w: &mut World) {
        w.must(w.subscribing("a", &[("@watch/tally/x", true), ("prices", true)])).await;
        w.must(w.subscribing("b", &[("@watch/tally/x", true)])).await;
        let telling = |key: &str| Unit {
            accepted: vec![task(key)],
            subscriptions: vec![write("@watch/tally/x", key, false)],
            ..w.subscribing("x", &[])
        };
        let (told, mut zombie) = (telling("a"), telling("b"));
        zombie.owner = zombie.owner.map(|(partition, epoch)| (partition, epoch - 1));
        for _ in 0..2 {
            let units = [zombie.clone(), told.clone()];
            assert_eq!(w.commit(&units).await, [fenced(), Verdict::Durable]);
        }
        assert_eq!(w.subscribed("@watch/tally/x").await, ["b"]);
        assert_eq!(w.subscribed("prices").await, ["a"]);
        let claimed: Vec<_> = w.claim(9).await.iter().map(|task| task.id).collect();
        assert_eq!(claimed, [told.accepted[0].id]);
    }

    async fn no_more_subscribers_are_read_than_were_asked_for_and_the_rest_is_counted(w: &mut World) {
        let names: Vec<String> = (0..50).map(|n| format!("k{n}")).collect();
        let units: Vec<Unit> = names.iter().map(|key| w.subscribing(key, &[("prices", true)])).collect();
        assert_eq!(w.commit(&units).await, vec![Verdict::Durable; 50]);
        w.must(w.subscribing("a", &[("other", true)])).await;
        let mut ids: Vec<AgentId> = names.iter().map(|key| AgentId::of("tally", key)).collect();
        ids.sort();
        for (limit, left) in [(20, 30), (50, 0), (51, 0), (0, 50)] {
            let (found, more) = w.store.subscribers("prices", limit).await.unwrap();
            let found: Vec<AgentId> = found.iter().map(|subscriber| subscriber.agent).collect();
            assert_eq!((found.as_slice(), more), (&ids[..limit.min(50)], left));
        }
        assert_eq!(w.subscribed("prices").await.len(), 50);
    }
}
