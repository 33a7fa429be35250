//! Idempotency keys: settled in the commit of what they stand for.

use greenroom::{
    model::id::Target,
    store::{KeyRow, KeyWrite, Refusal, Unit, Verdict},
};
use jiff::{Timestamp, ToSpan};
use uuid::Uuid;

use crate::support::*;

fn scope() -> Uuid {
    Target::agent("tally", "a").scope()
}

fn key(name: &str) -> KeyWrite {
    KeyWrite {
        scope: scope(),
        key: name.into(),
        request: [7; 16],
        task: None,
        reply: Some(b"{\"total\":1}".to_vec()),
        expires_at: Timestamp::now() + 1.hour(),
    }
}

fn row(write: &KeyWrite) -> KeyRow {
    KeyRow { request: write.request, task: write.task, reply: write.reply.clone() }
}

/// A submission under a key.
fn keyed(name: &str) -> Unit {
    let mut unit = accepting([task("a")]);
    unit.keys.push(KeyWrite { task: Some(unit.accepted[0].id), reply: None, ..key(name) });
    unit
}

rules! {
    async fn a_key_is_found_until_it_expires(w: &mut World) {
        let kept = key("k");
        let old = KeyWrite { expires_at: Timestamp::now() - 1.second(), ..key("old") };
        w.must(Unit { keys: vec![kept.clone(), old], ..Unit::default() }).await;
        assert_eq!(w.store.key(scope(), "k").await.unwrap(), Some(row(&kept)));
        assert_eq!(w.store.key(scope(), "old").await.unwrap(), None);
        assert_eq!(w.store.key(scope(), "other").await.unwrap(), None);
        assert_eq!(w.store.key(Uuid::now_v7(), "k").await.unwrap(), None);
    }

    async fn a_taken_key_refuses_the_whole_unit(w: &mut World) {
        let first = keyed("k");
        let second = keyed("k");
        let mut turn = w.turn("a", 0, "1");
        turn.keys.push(key("k"));
        let verdicts = w.commit(&[first.clone(), second.clone(), turn, w.turn("b", 0, "1")]).await;
        let taken = Verdict::Refused(Refusal::KeyTaken(row(&first.keys[0])));
        assert_eq!(verdicts, [Verdict::Durable, taken.clone(), taken, Verdict::Durable]);
        assert!(w.store.task(second.accepted[0].id).await.unwrap().is_none());
        assert_eq!(w.state("a").await, None);
        assert_eq!(w.store.key(scope(), "k").await.unwrap(), Some(row(&first.keys[0])));
    }

    async fn a_turn_whose_tasks_key_is_taken_leaves_no_trace(w: &mut World) {
        let first = keyed("k");
        let mut turn = w.turn("b", 0, "1");
        let second = keyed("k");
        (turn.accepted, turn.keys) = (second.accepted, second.keys);
        turn.accepted.push(task("c"));
        let verdicts = w.commit(&[first.clone(), turn.clone()]).await;
        let taken = Verdict::Refused(Refusal::KeyTaken(row(&first.keys[0])));
        assert_eq!(verdicts, [Verdict::Durable, taken]);
        assert_eq!(w.state("b").await, None);
        for task in &turn.accepted {
            assert!(w.store.task(task.id).await.unwrap().is_none());
        }
        // Without the task whose key is taken it is another.
        (turn.accepted, turn.keys) = (vec![task("c")], Vec::new());
        w.must(turn.clone()).await;
        w.must(turn).await;
    }

    async fn a_keys_own_unit_sent_again_is_durable(w: &mut World) {
        let submission = keyed("k");
        w.must(submission.clone()).await;
        w.must(submission.clone()).await;
        let mut turn = w.turn("a", 0, "1");
        turn.keys.push(key("turn"));
        w.must(turn.clone()).await;
        w.must(turn).await;
        // a handler's error commits its row alone
        let alone = Unit { keys: vec![key("alone")], owner: None, ..Unit::default() };
        w.must(alone.clone()).await;
        w.must(alone).await;
        let claimed = w.claim(9).await;
        assert_eq!(claimed.len(), 1);
        w.must(ending(&claimed[0], ok())).await;
        w.must(submission).await;
        assert_eq!(w.claim(9).await.len(), 0);
    }

    async fn another_reply_under_the_key_is_refused(w: &mut World) {
        w.must(Unit { keys: vec![key("k")], ..Unit::default() }).await;
        let other = KeyWrite { reply: Some(b"2".to_vec()), ..key("k") };
        let verdict = w.commit_one(Unit { keys: vec![other], ..Unit::default() }).await;
        assert_eq!(verdict, Verdict::Refused(Refusal::KeyTaken(row(&key("k")))));
    }

    async fn an_expired_key_may_be_used_again(w: &mut World) {
        let old = KeyWrite { expires_at: Timestamp::now() - 1.second(), ..key("k") };
        w.must(Unit { keys: vec![old], ..Unit::default() }).await;
        let new = keyed("k");
        w.must(new.clone()).await;
        assert_eq!(w.store.key(scope(), "k").await.unwrap(), Some(row(&new.keys[0])));
    }

    async fn a_refused_unit_leaves_its_key_free(w: &mut World) {
        w.must(w.turn("a", 0, "1")).await;
        let mut stale = w.turn("a", 4, "x");
        stale.keys.push(key("k"));
        let mut orphan = keyed("k");
        orphan.accepted[0].after = vec![task("nobody").id];
        assert_eq!(w.commit_one(stale).await, fenced());
        assert!(matches!(w.commit_one(orphan).await, Verdict::Refused(Refusal::ParentUnknown(_))));
        assert_eq!(w.store.key(scope(), "k").await.unwrap(), None);
        w.must(keyed("k")).await;
    }

    async fn the_same_key_for_another_target_is_another_key(w: &mut World) {
        w.must(keyed("k")).await;
        let mut other = keyed("k");
        other.keys[0].scope = Target::Tool("fs.read".into()).scope();
        w.must(other).await;
    }
}
