//! What commits together, and what is refused.

use std::sync::Arc;

use greenroom::{
    model::task::{NewTask, TaskState},
    store::{FinishOutcome, Refusal, Unit, Verdict},
};
use jiff::Timestamp;
use uuid::Uuid;

use crate::support::*;

// the connections live on the threads of the runtime, and are to go on while a test waits
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_whose_answer_was_lost_is_looked_up_at_once() {
    let mut w = World::postgres().await;
    let proxy = w.behind_a_proxy().await;
    let claimed = w.running(task("z")).await;
    let mut units: Vec<Unit> = (0..100).map(|n| w.turn(&n.to_string(), 0, "1")).collect();
    units.extend((0..100).map(|_| accepting([task("b")])));
    units.push(ending(&claimed, ok()));
    for sent in 1..=2 {
        let before = proxy.passed();
        assert!(w.commit(&units).await.iter().all(|verdict| *verdict == Verdict::Durable));
        let answers = proxy.passed() - before;
        assert!(answers < 50, "the units, sent for time {sent}, took {answers} answers");
    }
}

rules! {
    async fn a_state_is_read_back_as_it_was_written(w: &mut World) {
        assert_eq!(w.state("a").await, None);
        w.must(w.turn("a", 0, r#"{"words":1}"#)).await;
        assert_eq!(w.state("a").await, Some((1, r#"{"words":1}"#.into())));
        w.must(w.turn("a", 1, r#"{"words":2}"#)).await;
        assert_eq!(w.state("a").await, Some((2, r#"{"words":2}"#.into())));
    }

    async fn rows_come_in_the_order_asked_for(w: &mut World) {
        use greenroom::model::id::AgentId;
        for key in ["a", "b", "c"] {
            w.must(w.turn(key, 0, "1")).await;
        }
        // more than are read in place, with one that nobody knows
        let mut ids: Vec<AgentId> = ["c", "nobody", "a", "b"].map(|k| AgentId::of("tally", k)).to_vec();
        for rows in [ids.clone(), { ids.extend(ids.clone()); ids.extend(ids.clone()); ids }] {
            let found = w.store.load(&rows).await.unwrap();
            for (id, row) in rows.iter().zip(&found) {
                assert_eq!(row.as_ref().map(|r| r.id), Some(*id).filter(|i| *i != AgentId::of("tally", "nobody")));
            }
        }
    }

    async fn a_stale_version_is_fenced(w: &mut World) {
        w.must(w.turn("a", 0, "1")).await;
        w.must(w.turn("a", 1, "2")).await;
        w.must(w.turn("a", 2, "3")).await;
        assert_eq!(w.commit_one(w.turn("a", 1, "x")).await, fenced());
        assert_eq!(w.commit_one(w.turn("a", 0, "x")).await, fenced());
        assert_eq!(w.commit_one(w.turn("a", 7, "x")).await, fenced());
        assert_eq!(w.state("a").await, Some((3, "3".into())));
    }

    async fn a_missing_row_is_not_made_by_a_later_version(w: &mut World) {
        assert_eq!(w.commit_one(w.turn("a", 1, "x")).await, fenced());
        assert_eq!(w.state("a").await, None);
    }

    async fn two_writers_of_one_version_cannot_both_win(w: &mut World) {
        w.must(w.turn("a", 0, "1")).await;
        w.must(w.turn("a", 1, "2")).await;
        let mut ahead = w.turn("a", 2, "3");
        ahead.accepted.push(task("b"));
        let late = w.turn("a", 1, "other");
        assert_eq!(w.commit(&[ahead, late]).await, [Verdict::Durable, fenced()]);
        assert_eq!(w.state("a").await, Some((3, "3".into())));
    }

    /// An operator writes states too, in the writer's own epoch.
    async fn a_version_that_somebody_else_has_written_is_not_the_units_own(w: &mut World) {
        let claimed = w.running(task("a")).await;
        w.must(w.turn("a", 0, "1")).await;
        w.must(w.turn("a", 1, "theirs")).await;
        let mut late = w.turn("a", 1, "ours");
        late.finished.push(finish(&claimed, ok()));
        assert_eq!(w.commit_one(late).await, fenced());
        assert_eq!(w.state("a").await, Some((2, "theirs".into())));
        assert_eq!(w.state_of(claimed.id).await, TaskState::Running);
    }

    async fn a_zombie_of_an_old_epoch_is_fenced(w: &mut World) {
        w.must(w.turn("a", 0, "1")).await;
        let zombie_state = w.turn("a", 1, "zombie");
        let mut zombie_submits = Unit { owner: zombie_state.owner, ..Unit::default() };
        let orphan = task("b");
        let orphan_id = orphan.id;
        zombie_submits.accepted.push(orphan);
        let old = w.epochs.clone();
        w.join().await;
        assert!(old.iter().zip(&w.epochs).all(|(old, new)| new > old), "each acquisition draws a new epoch");
        assert_eq!(w.epochs.len(), 64);
        let mut without_owner = zombie_state.clone();
        without_owner.owner = None;
        assert_eq!(
            w.commit(&[zombie_state, without_owner, zombie_submits]).await,
            [fenced(), fenced(), fenced()]
        );
        assert_eq!(w.state("a").await, Some((1, "1".into())));
        assert!(w.store.task(orphan_id).await.unwrap().is_none());
        // the new owner goes on where the old one stood
        w.must(w.turn("a", 1, "2")).await;
    }

    async fn a_unit_sent_again_is_durable_and_happens_once(w: &mut World) {
        let claimed = w.running(task("a")).await;
        let mut unit = w.turn("a", 0, "1");
        unit.finished.push(finish(&claimed, ok()));
        unit.accepted.push(task("b"));
        assert_eq!(w.commit(&[unit.clone(), unit.clone()]).await, [Verdict::Durable, Verdict::Durable]);
        w.must(unit).await;
        assert_eq!(w.state("a").await, Some((1, "1".into())));
        assert_eq!(w.counts().await, [(TaskState::Ready, 1), (TaskState::Succeeded, 1)]);
    }

    async fn an_update_sent_again_is_durable(w: &mut World) {
        w.must(w.turn("a", 0, "1")).await;
        let unit = w.turn("a", 1, "2");
        w.must(unit.clone()).await;
        w.must(unit).await;
        assert_eq!(w.state("a").await, Some((2, "2".into())));
    }

    async fn a_submission_sent_again_is_durable_even_when_its_work_has_ended(w: &mut World) {
        let (one, two) = (accepting([task("a")]), accepting([task("a"), task("b")]));
        w.must(one.clone()).await;
        w.must(one.clone()).await;
        w.must(two.clone()).await;
        w.must(two.clone()).await;
        for claimed in w.claim(9).await {
            assert_eq!(w.end(&claimed, ok()).await, Verdict::Durable);
        }
        w.must(one).await;
        w.must(two).await;
        assert_eq!(w.counts().await, [(TaskState::Succeeded, 3)]);
    }

    async fn an_attempts_end_sent_again_is_durable(w: &mut World) {
        let outcomes = [
            ok(),
            failed(),
            FinishOutcome::Cancelled,
            FinishOutcome::Retry { run_at: Timestamp::MAX, error: error("later") },
            FinishOutcome::OutcomeUnknown { error: error("who knows") },
            FinishOutcome::Parked,
        ];
        for outcome in outcomes {
            let claimed = w.running(task("a")).await;
            let unit = ending(&claimed, outcome);
            w.must(unit.clone()).await;
            w.must(unit).await;
        }
        // another end than the one that was committed is not
        let claimed = w.running(task("a")).await;
        w.must(ending(&claimed, ok())).await;
        assert_eq!(w.end(&claimed, failed()).await, Verdict::Refused(Refusal::ClaimLost(claimed.id)));
    }

    async fn a_refused_unit_leaves_no_trace_and_its_neighbours_commit(w: &mut World) {
        w.must(w.turn("a", 0, "1")).await;
        let claimed = w.running(task("c")).await;
        let mut stale = w.turn("a", 0, "stale");
        stale.accepted.push(task("x"));
        stale.finished.push(finish(&claimed, ok()));
        let mut lost = w.turn("b", 0, "1");
        lost.accepted.push(task("x"));
        lost.finished.push(finish(&greenroom::model::task::Claimed { attempt: 9, ..claimed.clone() }, ok()));
        w.must(w.turn("a", 1, "2")).await;
        let verdicts = w.commit(&[w.turn("d", 0, "1"), stale, lost, w.turn("a", 2, "3")]).await;
        assert_eq!(
            verdicts,
            [
                Verdict::Durable,
                fenced(),
                Verdict::Refused(Refusal::ClaimLost(claimed.id)),
                Verdict::Durable
            ]
        );
        assert_eq!(w.state("a").await, Some((3, "3".into())));
        assert_eq!(w.state("b").await, None);
        assert_eq!(w.state("d").await, Some((1, "1".into())));
        assert_eq!(w.counts().await, [(TaskState::Running, 1)]);
    }

    async fn a_unit_the_store_cannot_take_harms_no_neighbour(w: &mut World) {
        // one id twice in one unit breaks it, half way through
        let twice = task("x");
        let mut bad = w.turn("bad", 0, "1");
        bad.accepted = vec![task("y"), twice.clone(), twice.clone()];
        let taken = w.submit(task("z")).await;
        let mut half_taken = accepting([task("y")]);
        half_taken.accepted.push(NewTask { id: taken, ..task("y") });
        let verdicts = w.commit(&[w.turn("a", 0, "1"), bad, half_taken, w.turn("b", 0, "1")]).await;
        assert_eq!(verdicts[0], Verdict::Durable);
        assert!(matches!(&verdicts[1], Verdict::Refused(Refusal::Bad(_))), "{verdicts:?}");
        assert!(matches!(&verdicts[2], Verdict::Refused(Refusal::Bad(_))), "{verdicts:?}");
        assert_eq!(verdicts[3], Verdict::Durable);
        assert_eq!(w.state("bad").await, None);
        assert_eq!(w.state("b").await, Some((1, "1".into())));
        assert_eq!(w.counts().await, [(TaskState::Ready, 1)]);
        // and the order of acceptance goes on
        w.submit(task("a")).await;
    }

    async fn the_end_of_a_task_and_the_state_are_one(w: &mut World) {
        let claimed = w.running(task("a")).await;
        let mut unit = w.turn("a", 0, "1");
        unit.finished.push(finish(&claimed, ok()));
        unit.accepted.push(task("b"));
        w.must(unit).await;
        let view = w.view(claimed.id).await;
        assert_eq!(view.state, TaskState::Succeeded);
        assert_eq!(view.result.unwrap().get(), r#"{"total":2}"#);
        assert!(view.finished_at.is_some());
        assert_eq!(w.counts().await, [(TaskState::Ready, 1), (TaskState::Succeeded, 1)]);
    }

    async fn any_json_comes_back_byte_for_byte(w: &mut World) {
        let nul = r#"{"text":"a\u0000b","n":1e400,"deep":[[[]]],"dup":1,"dup":2}"#;
        let mut new = task("a");
        new.input = json(nul);
        new.tags = vec!["\0".into(), "ä".into()];
        let claimed = w.running(new).await;
        assert_eq!(claimed.input.get(), nul);
        let mut unit = w.turn("a", 0, "{\"text\":\"\\u0000\"}");
        unit.finished.push(finish(&claimed, FinishOutcome::Succeeded { result: nul.into() }));
        w.must(unit).await;
        assert_eq!(w.view(claimed.id).await.result.unwrap().get(), nul);
        assert_eq!(w.state("a").await.unwrap().1, "{\"text\":\"\\u0000\"}");
    }

    async fn what_was_acknowledged_survives_the_process(w: &mut World) {
        w.must(w.turn("a", 0, "1")).await;
        let id = w.submit(task("a")).await;
        w.crash().await;
        assert_eq!(w.state("a").await, Some((1, "1".into())));
        assert_eq!(w.state_of(id).await, TaskState::Ready);
    }

    async fn an_empty_call_and_an_empty_unit_are_nothing(w: &mut World) {
        assert_eq!(w.commit(&[]).await, []);
        w.must(Unit::default()).await;
        assert_eq!(w.counts().await, []);
    }

    async fn a_large_state_is_kept_whole(w: &mut World) {
        let body = format!("\"{}\"", "x".repeat(3 << 20));
        w.must(w.turn("a", 0, &body)).await;
        w.must(w.turn("a", 1, &body)).await;
        assert_eq!(w.state("a").await, Some((2, body)));
    }

    async fn many_callers_may_commit_at_once(w: &mut World) {
        let mut joined = Vec::new();
        for caller in 0..4 {
            let store = Arc::clone(&w.store);
            let units: Vec<Unit> = (0..50).map(|n| w.turn(&format!("{caller}-{n}"), 0, "1")).collect();
            let boot: Uuid = w.boot;
            joined.push(std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                units.chunks(5).all(|units| {
                    let verdicts = runtime.block_on(store.commit(boot, units)).unwrap();
                    verdicts.iter().all(|v| *v == Verdict::Durable)
                })
            }));
        }
        assert!(joined.into_iter().all(|t| t.join().unwrap()));
    }
}
