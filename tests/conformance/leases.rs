//! Who owns what, and until when.

use std::time::{Duration, Instant};

use greenroom::{
    model::task::TaskState,
    store::{ClaimRequest, Member, Ownership, Verdict},
};
use uuid::Uuid;

use crate::support::*;

/// A node on another data directory.
fn other(w: &World, lease: Duration) -> Member {
    Member { boot: Uuid::now_v7(), instance: Uuid::now_v7(), name: "other".to_owned(), lease, ..w.member() }
}

fn owned(ownership: &Ownership) -> usize {
    ownership.epochs.iter().filter(|epoch| **epoch > 0).count()
}

/// Renews until everything is owned.
async fn takes_over(w: &World, member: &Member) -> Ownership {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let renewed = w.store.renew(member).await.unwrap().expect("its own lease goes on");
        if owned(&renewed) == 64 {
            return renewed;
        }
        assert!(Instant::now() < deadline, "nothing was taken over");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

rules! {
    async fn a_renewed_lease_keeps_what_it_has(w: &mut World) {
        let renewed = w.store.renew(&w.member()).await.unwrap().unwrap();
        assert_eq!(renewed.epochs, w.epochs);
        w.must(w.turn("a", 0, "1")).await;
    }

    async fn a_boot_that_was_replaced_cannot_renew(w: &mut World) {
        let before = w.member();
        w.join().await;
        assert!(w.store.renew(&before).await.unwrap().is_none());
        assert!(w.store.renew(&w.member()).await.unwrap().is_some());
    }

    async fn members_are_listed_until_they_leave(w: &mut World) {
        let nodes = w.store.nodes().await.unwrap();
        assert_eq!(nodes.len(), 1);
        assert_eq!((nodes[0].boot, nodes[0].name.as_str()), (w.boot, "test"));
        assert_eq!(nodes[0].partitions, (0..64).collect::<Vec<i16>>());
        w.store.leave(w.boot).await.unwrap();
        assert_eq!(w.store.nodes().await.unwrap(), []);
    }
}

leases! {
    async fn a_boot_does_not_take_back_what_a_later_one_of_its_directory_has(w: &mut World) {
        let before = w.member();
        w.join().await;
        let again = w.store.join(&before).await;
        assert!(matches!(again, Err(greenroom::store::StoreError::Refused(_))), "{again:?}");
        assert_eq!(w.store.renew(&w.member()).await.unwrap().unwrap().epochs, w.epochs);
    }

    async fn another_node_takes_nothing_while_a_lease_goes_on(w: &mut World) {
        let other = other(w, Duration::from_secs(30));
        let ownership = w.store.join(&other).await.unwrap();
        assert_eq!(owned(&ownership), 0);
        // what it sends under no epoch is fenced, and the owner goes on
        assert_eq!(w.commit_one(World::turn_under(&ownership.epochs, "a", 0, "x")).await, fenced());
        w.must(w.turn("a", 0, "1")).await;
        // it accepts tasks for anybody, and claims none that are not its own
        let id = w.submit(task("a")).await;
        let request = ClaimRequest { agents: 9, tools: 9, ..ClaimRequest::default() };
        assert!(w.store.claim(other.boot, &request).await.unwrap().is_empty());
        assert_eq!(w.claim(9).await[0].id, id);
        let nodes = w.store.nodes().await.unwrap();
        assert_eq!(nodes.iter().map(|n| n.partitions.len()).collect::<Vec<_>>(), [64, 0]);
        assert_eq!(nodes[0].url.as_deref(), Some("http://127.0.0.1:7710"));
    }

    async fn who_leaves_is_replaced_at_once(w: &mut World) {
        let claimed = w.running(task("a")).await;
        let other = other(w, Duration::from_secs(30));
        w.store.join(&other).await.unwrap();
        w.store.leave(w.boot).await.unwrap();
        let ownership = w.store.renew(&other).await.unwrap().unwrap();
        assert_eq!((owned(&ownership), ownership.rescued), (64, 1));
        assert!(ownership.epochs.iter().zip(&w.epochs).all(|(new, old)| new > old));
        assert_eq!(w.state_of(claimed.id).await, TaskState::Ready);
        assert_eq!(w.commit_one(w.turn("a", 0, "late")).await, fenced());
        assert_eq!(w.commit_one(World::turn_under(&ownership.epochs, "a", 0, "1")).await, Verdict::Durable);
    }

    async fn a_lease_that_has_ended_is_lost_for_ever(w: &mut World) {
        w.must(w.turn("a", 0, "1")).await;
        // the node falls silent
        let silent = Member { lease: Duration::from_millis(100), ..w.member() };
        w.store.renew(&silent).await.unwrap().unwrap();
        let claimed = w.running(task("b")).await;
        let other = other(w, Duration::from_secs(30));
        w.store.join(&other).await.unwrap();
        let ownership = takes_over(w, &other).await;
        // and speaks again
        assert!(w.store.renew(&silent).await.unwrap().is_none());
        let mut late = w.turn("a", 1, "late");
        late.finished.push(finish(&claimed, ok()));
        assert_eq!(w.commit_one(late).await, fenced());
        assert!(matches!(w.end(&claimed, ok()).await, Verdict::Refused(_)));
        assert!(w.claim(9).await.is_empty(), "it claims nothing any more");
        assert_eq!(w.state("a").await, Some((1, "1".into())));
        assert_eq!(w.commit_one(World::turn_under(&ownership.epochs, "a", 1, "2")).await, Verdict::Durable);
        // the same boot may join again, and owns nothing until somebody else ends
        let again = w.store.join(&w.member()).await.unwrap();
        assert_eq!(owned(&again), 0);
        w.store.leave(other.boot).await.unwrap();
        let back = takes_over(w, &w.member()).await;
        assert!(back.epochs.iter().zip(&ownership.epochs).all(|(new, old)| new > old));
        w.epochs = back.epochs;
        w.must(w.turn("a", 2, "3")).await;
    }

    async fn a_lease_that_nobody_took_over_is_joined_again_under_its_epochs(w: &mut World) {
        let silent = Member { lease: Duration::from_millis(1), ..w.member() };
        w.store.renew(&silent).await.unwrap().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while w.store.renew(&silent).await.unwrap().is_some() {
            assert!(Instant::now() < deadline, "the lease does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let again = w.store.join(&w.member()).await.unwrap();
        assert_eq!(again.epochs, w.epochs, "what nobody else has touched need not be read again");
    }
}

/// A commit of the old owner and a takeover, at the same moment, again and again: the old one is durable
/// before the new one owns anything, or fenced.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_commit_and_a_takeover_never_both_win() {
    let mut w = World::postgres().await;
    for round in 0..20 {
        let key = format!("a{round}");
        let zombie = w.turn(&key, 0, "\"zombie\"");
        let next = Member { boot: Uuid::now_v7(), ..w.member() };
        let (store, boot) = (w.store.clone(), w.boot);
        let late = tokio::spawn(async move { store.commit(boot, &[zombie]).await.unwrap().pop().unwrap() });
        let ownership = w.store.join(&next).await.unwrap();
        let seen = w.state(&key).await;
        let verdict = late.await.unwrap();
        let after = w.state(&key).await;
        match verdict {
            Verdict::Durable => assert_eq!(seen, after, "it came after the takeover"),
            verdict => {
                assert_eq!(verdict, fenced());
                assert_eq!(after, None);
            }
        }
        (w.boot, w.epochs) = (next.boot, ownership.epochs);
    }
}
