//! Agents: lasting status, listings, kept states.

use greenroom::{
    model::{id::AgentId, snapshot::HEADER_BYTES},
    store::{AgentFilter, StoredStatus},
};

use crate::support::*;

async fn set(w: &World, key: &str, status: StoredStatus, reason: Option<&str>) {
    let id = AgentId::of("tally", key);
    w.store.set_status(id, "tally", key, w.epoch(id), status, reason).await.unwrap();
}

async fn listed(w: &World, filter: AgentFilter) -> Vec<String> {
    let rows = w.store.agents(&filter).await.unwrap();
    assert!(rows.iter().all(|r| r.bytes.is_empty()), "listings carry no states");
    rows.into_iter().map(|r| format!("{}/{}", r.kind, r.key)).collect()
}

/// A state of about so many bytes, with the repetition that JSON has.
fn talk(bytes: usize) -> String {
    let line = |n| format!("{{\"role\":\"user\",\"n\":{n},\"text\":\"what is left to do today?\"}}");
    let lines: Vec<String> = (0..bytes / 60 + 1).map(line).collect();
    format!("[{}]", lines.join(","))
}

// the connections live on the threads of the runtime, and are to go on while a test waits
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_large_states_compressed_and_small_ones_as_they_are() {
    let w = World::postgres().await;
    let stored = |table: &str| -> usize {
        w.psql(&format!("SELECT max(octet_length(state)) FROM {table}")).parse().unwrap()
    };
    let small = talk(200);
    w.must(w.turn("a", 0, &small)).await;
    assert_eq!(stored("greenroom_agents"), small.len() + HEADER_BYTES);
    // by both ways of writing a state: with the first, and as the next
    let (first, next) = (talk(20_000), talk(30_000));
    w.must(w.turn("b", 0, &first)).await;
    assert!(stored("greenroom_agents") < first.len() / 2, "a first state is stored as it came");
    assert_eq!(w.state("b").await, Some((1, first)));
    w.must(w.turn("b", 1, &next)).await;
    assert!(stored("greenroom_agents") < next.len() / 2, "a next state is stored as it came");
    assert_eq!(w.state("b").await, Some((2, next.clone())));
    // and what is kept of earlier ones
    w.must(w.turn("b", 2, "3")).await;
    assert!(stored("greenroom_snapshots") < next.len() / 2);
    let kept = w.store.snapshots(AgentId::of("tally", "b")).await.unwrap();
    let body = |n: usize| kept[n].2[HEADER_BYTES..].to_vec();
    assert_eq!((body(0), body(1)), (b"3".to_vec(), next.into_bytes()));
}

rules! {
    async fn a_status_outlives_commits_and_the_process(w: &mut World) {
        w.must(w.turn("a", 0, "1")).await;
        set(w, "a", StoredStatus::Stopped, Some("five crashes in ten seconds")).await;
        w.must(w.turn("a", 1, "2")).await;
        w.crash().await;
        let row = w.store.load(&[AgentId::of("tally", "a")]).await.unwrap().pop().unwrap().unwrap();
        assert_eq!(row.status, StoredStatus::Stopped);
        assert_eq!(row.reason.as_deref(), Some("five crashes in ten seconds"));
        assert_eq!((row.version, row.schema_version), (2, 1));
        assert!(row.created_at <= row.updated_at);
        set(w, "a", StoredStatus::Normal, None).await;
        let row = w.store.load(&[AgentId::of("tally", "a")]).await.unwrap().pop().unwrap().unwrap();
        assert_eq!((row.status, row.reason), (StoredStatus::Normal, None));
    }

    async fn a_head_is_the_row_without_its_state(w: &mut World) {
        w.must(w.turn("a", 0, "1")).await;
        w.must(w.turn("a", 1, "2")).await;
        let ids = [AgentId::of("tally", "nobody"), AgentId::of("tally", "a")];
        let heads = w.store.heads(&ids).await.unwrap();
        let row = w.store.load(&ids).await.unwrap().pop().unwrap().unwrap();
        assert!(heads[0].is_none());
        let head = heads[1].as_ref().unwrap();
        assert_eq!((head.id, head.epoch, head.version, head.status), (row.id, row.epoch, row.version, row.status));
        assert!(head.bytes.is_empty() && !row.bytes.is_empty());
    }

    async fn a_status_may_come_before_the_first_state(w: &mut World) {
        set(w, "a", StoredStatus::Paused, None).await;
        assert_eq!(w.state("a").await, Some((0, String::new())));
        assert_eq!(w.store.snapshots(AgentId::of("tally", "a")).await.unwrap(), []);
        w.must(w.turn("a", 0, "1")).await;
        assert_eq!(w.state("a").await, Some((1, "1".into())));
        let row = w.store.load(&[AgentId::of("tally", "a")]).await.unwrap().pop().unwrap().unwrap();
        assert_eq!(row.status, StoredStatus::Paused);
        w.must(w.turn("a", 0, "1")).await;
        let stale = w.turn("a", 0, "other");
        w.must(w.turn("a", 1, "2")).await;
        assert_eq!(w.commit_one(stale).await, fenced());
        let counts = w.store.counts().await.unwrap().agents;
        assert_eq!(counts.iter().find(|(s, _)| *s == StoredStatus::Paused).unwrap().1, 1);
        assert_eq!(counts.iter().map(|(_, n)| n).sum::<u64>(), 1);
    }

    async fn a_status_of_an_old_epoch_is_refused(w: &mut World) {
        let id = AgentId::of("tally", "a");
        let old = w.epoch(id);
        w.join().await;
        let status = StoredStatus::Stopped;
        assert!(w.store.set_status(id, "tally", "a", old, status, None).await.is_err());
        assert_eq!(w.state("a").await, None);
    }

    async fn listings_go_page_by_page(w: &mut World) {
        for key in ["b", "a", "d", "c"] {
            w.must(w.turn(key, 0, "1")).await;
        }
        let id = AgentId::of("other", "b");
        w.store.set_status(id, "other", "b", w.epoch(id), StoredStatus::Quarantined, None).await.unwrap();
        set(w, "c", StoredStatus::Stopped, None).await;
        set(w, "d", StoredStatus::Stopped, None).await;
        set(w, "a", StoredStatus::Paused, None).await;
        set(w, "a", StoredStatus::Normal, None).await;
        let held = [("other", StoredStatus::Quarantined, 1), ("tally", StoredStatus::Stopped, 2)];
        assert_eq!(w.store.held().await.unwrap(), held.map(|(kind, status, n)| (kind.to_owned(), status, n)));
        set(w, "d", StoredStatus::Normal, None).await;
        let all = AgentFilter { limit: 9, ..AgentFilter::default() };
        let names = ["other/b", "tally/a", "tally/b", "tally/c", "tally/d"];
        assert_eq!(listed(w, all.clone()).await, names);
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let page = w.store.agents(&AgentFilter { after, limit: 2, ..AgentFilter::default() }).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some((last.kind.clone(), last.key.clone()));
            seen.extend(page.into_iter().map(|r| format!("{}/{}", r.kind, r.key)));
        }
        assert_eq!(seen, names);
        let held = AgentFilter { held: true, ..all.clone() };
        assert_eq!(listed(w, held).await, ["other/b", "tally/c"]);
        let stopped = AgentFilter { status: Some(StoredStatus::Stopped), ..all.clone() };
        assert_eq!(listed(w, stopped).await, ["tally/c"]);
        let normal = AgentFilter { status: Some(StoredStatus::Normal), ..all.clone() };
        assert_eq!(listed(w, normal).await, ["tally/a", "tally/b", "tally/d"]);
        let kind = AgentFilter { kind: Some("tally".into()), after: Some(("tally".into(), "b".into())), ..all };
        assert_eq!(listed(w, kind).await, ["tally/c", "tally/d"]);
    }

    async fn the_last_states_are_kept(w: &mut World) {
        let id = AgentId::of("tally", "a");
        for base in 0..6 {
            w.must(w.turn("a", base, &format!("{}", base + 1))).await;
        }
        let kept = w.store.snapshots(id).await.unwrap();
        // the current one and, in these tests, three before it
        assert_eq!(kept.iter().map(|(v, ..)| *v).collect::<Vec<_>>(), [6, 5, 4, 3]);
        for (version, _, bytes) in kept {
            let (header, body) = greenroom::model::snapshot::open(&bytes).unwrap();
            header.matches(id, w.epoch(id), version).unwrap();
            assert_eq!(body, version.to_string().as_bytes());
        }
        // what is refused is not kept
        assert_eq!(w.commit_one(w.turn("a", 3, "x")).await, fenced());
        assert_eq!(w.store.snapshots(id).await.unwrap().len(), 4);
    }
}
