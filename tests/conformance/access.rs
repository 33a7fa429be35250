//! Tokens, and the audit log: what is written is read back, once, and in its order.

use greenroom::{
    model::{
        access::{Digest, Scope, StoredToken},
        act::Act,
        period::Period,
    },
    store::ActFilter,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use uuid::Uuid;

use crate::support::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap() + SignedDuration::from_micros(7)
}

fn token(name: &str) -> StoredToken {
    StoredToken {
        name: name.into(),
        digest: Digest::of(name.as_bytes()),
        scope: Scope::Operate,
        created_at: at(0),
        expires_at: Some(at(9)),
        used_at: None,
    }
}

fn act(n: u128, who: &str, action: &str, subject: &str) -> Act {
    Act {
        id: Uuid::from_u128(n),
        at: at(i64::try_from(n).unwrap()),
        who: who.into(),
        by: Some("::1".into()),
        action: action.into(),
        subject: subject.into(),
        outcome: None,
        before: None,
        after: Some(json!({"to": 3})),
    }
}

rules! {
    async fn a_token_is_read_back_as_it_was_written(w: &mut World) {
        assert_eq!(w.store.tokens().await.unwrap(), []);
        let (b, a) = (token("b"), StoredToken { scope: Scope::Admin, expires_at: None, ..token("a") });
        for token in [&b, &a] {
            assert!(w.store.add_token(token).await.unwrap());
        }
        w.crash().await;
        assert_eq!(w.store.tokens().await.unwrap(), [a, b], "by name");
    }

    async fn a_name_is_given_once_and_is_free_again_when_its_token_is_gone(w: &mut World) {
        let first = token("a");
        assert!(w.store.add_token(&first).await.unwrap());
        // as whoever heard no answer sends it
        assert!(w.store.add_token(&first).await.unwrap());
        let second = StoredToken { digest: Digest::of(b"other"), ..token("a") };
        assert!(!w.store.add_token(&second).await.unwrap());
        assert!(!w.store.remove_token("b").await.unwrap());
        assert!(w.store.remove_token("a").await.unwrap());
        assert!(!w.store.remove_token("a").await.unwrap());
        assert!(w.store.add_token(&second).await.unwrap());
        assert_eq!(w.store.tokens().await.unwrap(), [second]);
    }

    async fn it_is_noted_when_a_token_was_shown(w: &mut World) {
        let (a, b) = (token("a"), token("b"));
        w.store.add_token(&a).await.unwrap();
        w.store.add_token(&b).await.unwrap();
        w.store.token_used(a.digest, at(5)).await.unwrap();
        w.store.token_used(Digest::of(b"gone"), at(6)).await.unwrap();
        let used = StoredToken { used_at: Some(at(5)), ..a };
        assert_eq!(w.store.tokens().await.unwrap(), [used, b]);
    }

    async fn an_act_is_written_down_before_and_after(w: &mut World) {
        let act = act(1, "node", "agent.stop", "counter/a");
        w.store.begin_act(&act).await.unwrap();
        w.crash().await;
        let all = ActFilter { limit: 10, ..ActFilter::default() };
        assert_eq!(w.store.acts(&all).await.unwrap(), std::slice::from_ref(&act));
        let done = Act { outcome: Some("ok".into()), before: Some(json!(["ü"])), after: None, ..act.clone() };
        w.store.end_act(&done).await.unwrap();
        // as whoever heard no answer sends it: what came of it stays
        w.store.begin_act(&act).await.unwrap();
        assert_eq!(w.store.acts(&all).await.unwrap(), [done]);
    }

    async fn acts_are_found_page_by_page(w: &mut World) {
        for (n, who, action, subject) in [
            (1, "node", "agent.stop", "counter/a"),
            (2, "ci", "agent.stop", "counter/b"),
            (3, "node", "task.retry", "task:1"),
            (4, "node", "agent.stop", "counter/a"),
        ] {
            w.store.begin_act(&act(n, who, action, subject)).await.unwrap();
        }
        let find = async |filter: ActFilter| {
            let filter = ActFilter { limit: filter.limit.max(1), ..filter };
            let found = w.store.acts(&filter).await.unwrap();
            found.into_iter().map(|act| act.id.as_u128()).collect::<Vec<_>>()
        };
        let all = ActFilter { limit: 10, ..ActFilter::default() };
        assert_eq!(find(all.clone()).await, [4, 3, 2, 1]);
        assert_eq!(find(ActFilter { limit: 2, ..all.clone() }).await, [4, 3]);
        assert_eq!(find(ActFilter { before: Some(Uuid::from_u128(3)), ..all.clone() }).await, [2, 1]);
        assert_eq!(find(ActFilter { who: Some("ci".into()), ..all.clone() }).await, [2]);
        assert_eq!(find(ActFilter { subject: Some("counter/a".into()), ..all.clone() }).await, [4, 1]);
        let stops = ActFilter { action: Some("agent.stop".into()), who: Some("node".into()), ..all };
        assert_eq!(find(stops.clone()).await, [4, 1]);
        assert_eq!(find(ActFilter { subject: Some("counter/b".into()), ..stops }).await, [0; 0]);
    }

    /// A period is a range of ids, so each of the indexes finds it.
    async fn acts_of_a_period_are_found_page_by_page(w: &mut World) {
        let mut ids = Vec::new();
        for n in 0..6 {
            let who = if n % 2 == 0 { "node" } else { "ci" };
            let act = Act { who: who.into(), ..Act::new(at(n), "agent.stop", "counter/a") };
            w.store.begin_act(&act).await.unwrap();
            ids.push(act.id);
        }
        let find = async |since: Option<i64>, until: Option<i64>, filter: ActFilter| {
            let (from, until) = Period { since: since.map(at), until: until.map(at) }.ids();
            let before = [filter.before, until].into_iter().flatten().min();
            let filter = ActFilter { from, before, limit: 2, ..filter };
            let found = w.store.acts(&filter).await.unwrap();
            let place = |act: Act| ids.iter().position(|id| *id == act.id).unwrap();
            found.into_iter().map(place).collect::<Vec<_>>()
        };
        let any = ActFilter::default;
        assert_eq!(find(Some(4), None, any()).await, [5, 4]);
        assert_eq!(find(None, Some(2), any()).await, [1, 0]);
        assert_eq!(find(Some(1), Some(4), any()).await, [3, 2], "not the one at its end");
        let behind = |n: usize| ActFilter { before: Some(ids[n]), ..any() };
        assert_eq!(find(Some(1), Some(4), behind(2)).await, [1], "and its first one on the next page");
        assert_eq!(find(Some(1), Some(4), behind(1)).await, [0; 0]);
        for (name, found) in [("node", [4, 2]), ("ci", [5, 3])] {
            assert_eq!(find(Some(2), None, ActFilter { who: Some(name.into()), ..any() }).await, found);
        }
        let subject = ActFilter { subject: Some("counter/a".into()), ..any() };
        assert_eq!(find(Some(5), None, subject.clone()).await, [5]);
        assert_eq!(find(Some(6), None, subject).await, [0; 0]);
        let action = ActFilter { action: Some("agent.stop".into()), ..any() };
        assert_eq!(find(Some(3), Some(1), action).await, [0; 0]);
    }

    async fn old_acts_are_forgotten(w: &mut World) {
        for n in 1..=4 {
            w.store.begin_act(&act(n, "node", "agent.stop", "counter/a")).await.unwrap();
        }
        assert_eq!(w.store.forget_acts(at(3)).await.unwrap(), 2);
        assert_eq!(w.store.forget_acts(at(3)).await.unwrap(), 0);
        let left = w.store.acts(&ActFilter { limit: 10, ..ActFilter::default() }).await.unwrap();
        assert_eq!(left.len(), 2);
    }
}
