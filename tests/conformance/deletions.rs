//! Agents that a person has deleted.

use std::{sync::Arc, time::Duration};

use greenroom::{
    model::{
        id::AgentId,
        snapshot::{self, Codec, Header},
        topic::{Subscriber, SubscriptionWrite},
    },
    store::{AgentFilter, Deletion, KeyWrite, Refusal, StoredStatus, Verdict},
};
use jiff::Timestamp;

use crate::support::*;

impl World {
    /// The deletion of `tally/key` at a version.
    fn deletion(&self, key: &str, version: i64) -> Deletion {
        let id = AgentId::of("tally", key);
        let epoch = self.epoch(id);
        let mut frame = Vec::new();
        let header = Header {
            codec: Codec::Json,
            agent: id,
            version: Deletion::behind(version),
            epoch,
            schema_version: 1,
        };
        snapshot::begin(&header, &mut frame);
        snapshot::seal(&mut frame).unwrap();
        Deletion { id, epoch, version, tombstone: Arc::new(frame) }
    }

    async fn listed(&self) -> Vec<String> {
        let filter = AgentFilter { limit: 100, ..AgentFilter::default() };
        let rows = self.store.agents(&filter).await.unwrap();
        rows.into_iter().map(|row| row.key).collect()
    }

    async fn status(&self, key: &str) -> StoredStatus {
        self.store.load(&[AgentId::of("tally", key)]).await.unwrap().pop().unwrap().unwrap().status
    }
}

rules! {
    async fn a_deleted_agent_leaves_nothing_but_its_version(w: &mut World) {
        let id = AgentId::of("tally", "a");
        let mut unit = w.turn("a", 0, "1");
        let subscriber = Subscriber { agent: id, kind: "tally".into(), key: "a".into(), message: "Price".into() };
        unit.subscriptions = vec![SubscriptionWrite { topic: "prices".into(), subscriber, subscribed: true }];
        let expires_at = Timestamp::now() + Duration::from_secs(600);
        let key = KeyWrite { scope: id.0, key: "k".into(), request: [1; 16], task: None, reply: None, expires_at };
        unit.keys = vec![key];
        w.must(unit).await;
        w.must(w.turn("a", 1, "2")).await;
        w.must(w.turn("b", 0, "7")).await;
        assert!(w.store.delete_agent(&w.deletion("a", 2)).await.unwrap());
        assert_eq!((w.status("a").await, w.listed().await), (StoredStatus::Deleted, vec!["b".to_owned()]));
        assert_eq!(w.state("a").await, Some((4, String::new())));
        assert_eq!(w.store.snapshots(id).await.unwrap().len(), 1, "none is kept of earlier");
        assert_eq!(w.store.subscribers("prices", 9).await.unwrap().0, []);
        assert_eq!(w.store.key(id.0, "k").await.unwrap(), None);
        w.crash().await;
        assert_eq!(w.status("a").await, StoredStatus::Deleted);
        let counts = w.store.counts().await.unwrap();
        let agents: u64 = counts.agents.iter().map(|(_, n)| n).sum();
        assert_eq!(agents, 1, "{counts:?}");
        let report = w.verify().await;
        assert_eq!(report.problems, Vec::<String>::new());
    }

    async fn an_agent_of_that_name_goes_on_from_there_and_no_late_commit_comes_upon_it(w: &mut World) {
        let id = AgentId::of("tally", "a");
        w.must(w.turn("a", 0, "1")).await;
        let late = w.turn("a", 1, "2");
        assert!(w.store.delete_agent(&w.deletion("a", 1)).await.unwrap());
        assert_eq!(w.commit_one(late.clone()).await, Verdict::Refused(Refusal::Fenced));
        assert_eq!(w.commit_one(w.turn("a", 0, "0")).await, Verdict::Refused(Refusal::Fenced));
        w.store.set_status(id, "tally", "a", w.epoch(id), StoredStatus::Normal, None).await.unwrap();
        w.must(w.turn("a", 3, "10")).await;
        assert_eq!(w.commit_one(late).await, Verdict::Refused(Refusal::Fenced));
        assert_eq!((w.state("a").await, w.listed().await), (Some((4, "10".to_owned())), vec!["a".to_owned()]));
        let report = w.verify().await;
        assert_eq!(report.problems, Vec::<String>::new());
    }

    async fn only_what_is_as_it_was_seen_is_deleted_and_asking_again_is_as_once(w: &mut World) {
        w.must(w.turn("a", 0, "1")).await;
        assert!(!w.store.delete_agent(&w.deletion("a", 2)).await.unwrap());
        assert!(!w.store.delete_agent(&w.deletion("never", 1)).await.unwrap());
        let strange = Deletion { epoch: w.deletion("a", 1).epoch + 1, ..w.deletion("a", 1) };
        assert!(!w.store.delete_agent(&strange).await.unwrap(), "of another owner");
        assert_eq!(w.state("a").await, Some((1, "1".to_owned())));
        for _ in 0..2 {
            assert!(w.store.delete_agent(&w.deletion("a", 1)).await.unwrap());
        }
        assert_eq!(w.state("a").await.unwrap().0, 3);
        let id = AgentId::of("tally", "p");
        w.store.set_status(id, "tally", "p", w.epoch(id), StoredStatus::Paused, Some("why")).await.unwrap();
        assert!(w.store.delete_agent(&w.deletion("p", 0)).await.unwrap(), "of which only a status is stored");
        assert_eq!(w.listed().await, [""; 0]);
        let report = w.verify().await;
        assert_eq!(report.problems, Vec::<String>::new());
    }
}
