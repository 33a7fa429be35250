//! Every way in which a task or an attempt ends.

use std::time::Duration;

use greenroom::{
    model::task::{Illegal, NewTask, TaskInput, TaskState, next},
    store::{Finish, FinishOutcome, Guard, Past, Refusal, Unit, Verdict},
};
use jiff::Timestamp;

use crate::support::*;

/// The server's own sweep comes once a minute, if at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_of_open_tasks_stays_small_however_many_go_through_it() {
    const AT_ONCE: usize = 500;
    let w = World::postgres().await;
    w.psql("ALTER TABLE greenroom_tasks SET (autovacuum_enabled = off)");
    for _ in 0..50_000 / AT_ONCE {
        w.must(accepting((0..AT_ONCE).map(|n| task(&n.to_string())))).await;
        let claimed = w.claim(AT_ONCE).await;
        let ends: Vec<Unit> = claimed.iter().map(|claimed| ending(claimed, ok())).collect();
        assert!(w.commit(&ends).await.iter().all(|verdict| *verdict == Verdict::Durable));
    }
    let swept = || w.psql("SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'greenroom_tasks'");
    while swept().trim() == "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let bytes: u64 = w.psql("SELECT pg_relation_size('greenroom_tasks')").trim().parse().unwrap();
    assert!(bytes < 20 << 20, "{bytes} bytes, and no open task");
}

/// Calls that were under way when the tables changed counted by triggers that were no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_counted_while_the_tables_changed_is_counted_soon_after() {
    let w = World::postgres().await;
    w.must(accepting([task("a"), task("b")])).await;
    let ended = w.running(task("c")).await;
    w.must(ending(&ended, ok())).await;
    w.psql("INSERT INTO greenroom_count_changes (id, n) VALUES (2, 7), (3, -4), (10, -1)");
    assert_eq!(w.verify().await.problems.len(), 3);
    let clean = async || {
        let now = Timestamp::now();
        w.store.clean(now, Past::before(now - Duration::from_secs(3_600))).await.unwrap()
    };
    clean().await;
    assert_eq!(w.verify().await.problems.len(), 3, "it is not due yet");
    w.psql("UPDATE greenroom_recounts SET due_at = now()");
    clean().await;
    assert_eq!(w.verify().await.problems, [""; 0]);
    assert_eq!(w.psql("SELECT count(*) FROM greenroom_recounts").trim(), "0", "once");
}

/// However many there are, a clean-up comes to the end of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appended_counts_are_folded_until_none_are_left() {
    let w = World::postgres().await;
    w.psql(
        "INSERT INTO greenroom_count_changes (id, n) SELECT 2, (-1) ^ i FROM generate_series(1, 450000) AS i",
    );
    let now = Timestamp::now();
    let mut calls = 0;
    while w.store.clean(now, Past::before(now - Duration::from_secs(3_600))).await.unwrap() > 0 {
        calls += 1;
    }
    assert_eq!(calls, 2, "and one that found less than it may");
    assert_eq!(w.psql("SELECT count(*) FROM greenroom_count_changes").trim(), "0");
}

rules! {
    async fn of_many_ends_each_is_judged_by_its_own_claim(w: &mut World) {
        let ids = [w.submit(task("a")).await, w.submit(task("b")).await, w.submit(task("c")).await];
        let after = w.submit(child("d", &ids[..1])).await;
        let claimed = w.claim(9).await;
        let stale = greenroom::model::task::Claimed { attempt: 7, ..claimed[1].clone() };
        let ends = [ending(&claimed[2], failed()), ending(&stale, ok()), ending(&claimed[0], ok())];
        let lost = Verdict::Refused(Refusal::ClaimLost(ids[1]));
        assert_eq!(w.commit(&ends).await, [Verdict::Durable, lost.clone(), Verdict::Durable]);
        // Sent again, what has happened is known to have.
        assert_eq!(w.commit(&ends).await, [Verdict::Durable, lost, Verdict::Durable]);
        let mut states = Vec::new();
        for id in ids.into_iter().chain([after]) {
            states.push(w.state_of(id).await);
        }
        assert_eq!(
            states,
            [TaskState::Succeeded, TaskState::Running, TaskState::Failed, TaskState::Ready],
            "the second is still claimed, and who came after the first may run"
        );
    }

    async fn a_failure_is_a_dead_letter_that_tells_why(w: &mut World) {
        let claimed = w.running(task("a")).await;
        w.must(ending(&claimed, failed())).await;
        let view = w.view(claimed.id).await;
        assert_eq!(view.state, TaskState::Failed);
        assert_eq!(view.error, Some(error("it does not work")));
        assert!(view.result.is_none());
        // its input is still there
        let data = w.store.task_data(claimed.id).await.unwrap().unwrap();
        assert_eq!(data.input.get(), claimed.input.get());
    }

    /// Nobody is shown it, and nobody can have it tried again.
    async fn the_input_of_a_success_is_not_kept(w: &mut World) {
        let large = format!("\"{}\"", "x".repeat(1_000));
        let given = || NewTask { input: json(&large), ..task("a") };
        let (alone, with_another) = (w.running(given()).await, w.running(given()).await);
        w.must(ending(&alone, ok())).await;
        w.must(Unit { accepted: vec![task("b")], ..ending(&with_another, ok()) }).await;
        for id in [alone.id, with_another.id] {
            assert_eq!(w.store.task_data(id).await.unwrap().unwrap().input.get(), "null");
        }
        let cancelled = w.running(given()).await;
        w.must(ending(&cancelled, FinishOutcome::Cancelled)).await;
        assert_eq!(w.store.task_data(cancelled.id).await.unwrap().unwrap().input.get(), large);
    }

    async fn a_success_after_failures_shows_no_error(w: &mut World) {
        let claimed = w.running(task("a")).await;
        w.must(ending(&claimed, FinishOutcome::Retry { run_at: Timestamp::now(), error: error("x") })).await;
        w.promote().await;
        let again = w.claim(1).await;
        w.must(ending(&again[0], ok())).await;
        let view = w.view(claimed.id).await;
        assert_eq!((view.state, view.error, view.attempt), (TaskState::Succeeded, None, 2));
    }

    async fn a_parked_attempt_is_given_back(w: &mut World) {
        let claimed = w.running(task("a")).await;
        w.must(ending(&claimed, FinishOutcome::Parked)).await;
        let view = w.view(claimed.id).await;
        assert_eq!((view.state, view.attempt), (TaskState::Parked, 0));
        assert_eq!(w.claim(9).await.len(), 0);
        assert_eq!(w.store.park("tally/a", false).await.unwrap(), 1);
        assert_eq!(w.claim(9).await[0].attempt, 1);
    }

    async fn an_unknown_outcome_waits_for_a_person(w: &mut World) {
        for resolved in [ok(), failed()] {
            let claimed = w.running(task("a")).await;
            w.must(ending(&claimed, FinishOutcome::OutcomeUnknown { error: error("cut off") })).await;
            assert_eq!(w.state_of(claimed.id).await, TaskState::OutcomeUnknown);
            w.crash().await;
            assert_eq!(w.claim(9).await.len(), 0);
            w.must(ending_idle(claimed.id, resolved)).await;
            assert!(w.state_of(claimed.id).await.is_final());
        }
        let claimed = w.running(task("a")).await;
        w.must(ending(&claimed, FinishOutcome::OutcomeUnknown { error: error("cut off") })).await;
        assert_eq!(w.store.retry(claimed.id).await.unwrap(), Some(Ok(())));
        assert_eq!(w.claim(9).await[0].attempt, 1);
    }

    async fn an_end_that_makes_no_sense_is_refused(w: &mut World) {
        let ready = w.submit(task("a")).await;
        let verdict = w.commit_one(ending_idle(ready, ok())).await;
        assert!(matches!(verdict, Verdict::Refused(Refusal::Bad(_))), "{verdict:?}");
        let retry = FinishOutcome::Retry { run_at: Timestamp::now(), error: error("x") };
        let verdict = w.commit_one(ending_idle(ready, retry)).await;
        assert!(matches!(verdict, Verdict::Refused(Refusal::Bad(_))), "{verdict:?}");
        assert_eq!(w.state_of(ready).await, TaskState::Ready);
        let nobody = task("x").id;
        let verdict = w.commit_one(ending_idle(nobody, FinishOutcome::Cancelled)).await;
        assert_eq!(verdict, Verdict::Refused(Refusal::ClaimLost(nobody)));
    }

    /// The store does what the one transition function says, for every end from every state.
    async fn the_store_moves_tasks_as_the_machine_says(w: &mut World) {
        let outcomes = || {
            [
                (FinishOutcome::Succeeded { result: b"1".to_vec() }, TaskInput::Succeeded, TaskInput::ResolvedSucceeded),
                (failed(), TaskInput::Failed, TaskInput::DeadLetter),
                (FinishOutcome::Cancelled, TaskInput::CancelSeen, TaskInput::Cancel),
                (FinishOutcome::Parked, TaskInput::TargetStopped, TaskInput::TargetStopped),
                (
                    FinishOutcome::OutcomeUnknown { error: error("x") },
                    TaskInput::Interrupted,
                    TaskInput::Interrupted,
                ),
            ]
        };
        for from in [TaskState::Ready, TaskState::Running, TaskState::Scheduled, TaskState::Parked, TaskState::OutcomeUnknown] {
            for (outcome, running, idle) in outcomes() {
                let claimed = w.running(task("a")).await;
                match from {
                    TaskState::Ready => w.store.give_back(w.boot, &[(claimed.id, claimed.claim)]).await.unwrap(),
                    TaskState::Scheduled => {
                        let run_at = Timestamp::now() + Duration::from_secs(3_600);
                        w.must(ending(&claimed, FinishOutcome::Retry { run_at, error: error("x") })).await;
                    }
                    TaskState::Parked => w.must(ending(&claimed, FinishOutcome::Parked)).await,
                    TaskState::OutcomeUnknown => {
                        w.must(ending(&claimed, FinishOutcome::OutcomeUnknown { error: error("x") })).await;
                    }
                    _ => {}
                }
                assert_eq!(w.state_of(claimed.id).await, from);
                let runs = from == TaskState::Running;
                let guard = if runs { Guard::Running { attempt: 1 } } else { Guard::Idle };
                let input = match (runs, idle) {
                    (true, _) => running,
                    (false, TaskInput::DeadLetter) if from == TaskState::OutcomeUnknown => TaskInput::ResolvedFailed,
                    (false, idle) => idle,
                };
                let shown = format!("{from:?} {outcome:?}");
                let same = matches!(
                    (&outcome, from),
                    (FinishOutcome::Parked, TaskState::Parked)
                        | (FinishOutcome::OutcomeUnknown { .. }, TaskState::OutcomeUnknown)
                );
                let unit = Unit {
                    finished: vec![Finish { task: claimed.id, guard, outcome, note: None }],
                    ..Unit::default()
                };
                let verdict = w.commit_one(unit).await;
                match next(from, input) {
                    Ok(to) => {
                        assert_eq!(verdict, Verdict::Durable, "{shown}");
                        assert_eq!(w.state_of(claimed.id).await, to, "{shown}");
                    }
                    // where it stands there already, it was sent before
                    Err(Illegal { .. }) if same => assert_eq!(verdict, Verdict::Durable, "{shown}"),
                    Err(Illegal { .. }) => {
                        assert!(matches!(verdict, Verdict::Refused(Refusal::Bad(_))), "{shown}: {verdict:?}");
                        assert_eq!(w.state_of(claimed.id).await, from, "{shown}");
                    }
                }
                if !w.state_of(claimed.id).await.is_final() {
                    w.crash().await;
                    let _ = w.commit_one(ending_idle(claimed.id, FinishOutcome::Cancelled)).await;
                    assert_eq!(w.state_of(claimed.id).await, TaskState::Cancelled);
                }
            }
        }
    }
}
