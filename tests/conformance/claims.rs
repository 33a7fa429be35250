//! Claiming, giving back, and what becomes of tasks whose node died.

use greenroom::{
    model::{
        id::Target,
        task::{Claimed, NewTask, Notify, TaskState},
    },
    store::{CancelFound, ClaimRequest, Doom, Doomed, FinishOutcome, Promoted, Refusal, Unit, Verdict},
};
use jiff::{Timestamp, ToSpan};

use crate::support::*;

fn keys(claimed: &[greenroom::model::task::Claimed]) -> Vec<String> {
    claimed.iter().map(|c| c.target.to_string().trim_start_matches("tally/").to_owned()).collect()
}

/// Whoever begins an effect that must not be begun twice can be told of it by its claim alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_no_crash_may_forget_is_on_disk_when_it_is_answered() {
    let w = World::postgres().await;
    for n in 0..10 {
        w.submit(paying()).await;
        let before = w.psql("SELECT pg_current_wal_insert_lsn()");
        let durable = vec!["tool:pay".to_owned()];
        let request = ClaimRequest { tools: 5, durable, ..ClaimRequest::default() };
        assert_eq!(w.store.claim(w.boot, &request).await.unwrap().len(), 1);
        let is_flushed = format!("SELECT pg_current_wal_flush_lsn() > '{}'", before.trim());
        assert_eq!(w.psql(&is_flushed).trim(), "t", "claim {n}");
    }
}

fn paying() -> NewTask {
    NewTask::new(Target::Tool("pay".into()), "", json("{}"), 5)
}

fn beginning(task: NewTask) -> Unit {
    Unit { begin: true, ..accepting([task]) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_may_begin_with_its_submission() {
    let mut w = World::postgres().await;
    let (first, second) = (beginning(paying()), accepting([paying()]));
    let verdicts = w.commit(&[first.clone(), second]).await;
    let [Verdict::Begun { seq, claim }, Verdict::Durable] = verdicts[..] else { panic!("{verdicts:?}") };
    let claimed = Claimed::begun(&first.accepted[0], seq, claim);
    let view = w.view(claimed.id).await;
    assert_eq!((view.state, view.attempt), (TaskState::Running, 1));
    assert_eq!((view.node, view.started_at.is_some()), (Some(w.boot.to_string()), true));
    assert_eq!(w.claims_held().await, [(claimed.id, claim)]);
    let tools = ClaimRequest { tools: 5, ..ClaimRequest::default() };
    assert_eq!(w.store.claim(w.boot, &tools).await.unwrap().len(), 1, "the other one");
    assert_eq!(w.commit_one(first).await, Verdict::Durable, "sent again, it is known");
    w.must(ending(&claimed, ok())).await;
    assert_eq!(w.state_of(claimed.id).await, TaskState::Succeeded);

    // What has begun goes back, and is lost, like any other claim.
    let (unit, gone) = (beginning(paying()), beginning(paying()));
    let Verdict::Begun { claim, .. } = w.commit_one(unit.clone()).await else { panic!("it begins") };
    w.store.give_back(w.boot, &[(unit.accepted[0].id, claim)]).await.unwrap();
    assert_eq!(w.state_of(unit.accepted[0].id).await, TaskState::Ready);
    let old = w.boot;
    assert!(matches!(w.commit_one(gone.clone()).await, Verdict::Begun { .. }));
    assert_eq!(w.crash().await.0, 2, "it, and the one that was claimed above");
    assert_eq!(w.view(gone.accepted[0].id).await.lost, 1);

    let late = beginning(paying());
    assert_eq!(w.store.commit(old, std::slice::from_ref(&late)).await.unwrap(), [Verdict::Durable]);
    assert_eq!(w.state_of(late.accepted[0].id).await, TaskState::Ready, "its node's time is over");
    assert!(w.store.pause("tool:pay", true).await.unwrap());
    let paused = beginning(paying());
    w.must(paused.clone()).await;
    assert_eq!(w.state_of(paused.accepted[0].id).await, TaskState::Ready);
}

rules! {
    async fn what_a_boot_runs_can_be_told(w: &mut World) {
        assert_eq!(w.claims_held().await, []);
        let one = w.running(task("a")).await;
        let two = w.running(task("b")).await;
        let mut running = w.claims_held().await;
        running.sort();
        let mut expected = vec![(one.id, one.claim), (two.id, two.claim)];
        expected.sort();
        assert_eq!(running, expected);
        assert_eq!(w.store.running(uuid::Uuid::now_v7()).await.unwrap(), []);
        w.store.give_back(w.boot, &running[..1]).await.unwrap();
        assert_eq!(w.claims_held().await, running[1..]);
    }

    async fn the_best_goes_first(w: &mut World) {
        let tasks = [("a", 0), ("b", 5), ("c", 0), ("d", 5), ("e", -1)];
        w.must(accepting(tasks.map(|(key, priority)| NewTask { priority, ..task(key) }))).await;
        assert_eq!(keys(&w.claim(2).await), ["b", "d"]);
        assert_eq!(keys(&w.claim(9).await), ["a", "c", "e"]);
        assert_eq!(w.claim(9).await.len(), 0);
    }

    async fn the_store_gives_the_order_not_the_id(w: &mut World) {
        let (early, late) = (task("early"), task("late"));
        w.submit(late).await;
        w.submit(early).await;
        let claimed = w.claim(9).await;
        assert_eq!(keys(&claimed), ["late", "early"]);
        assert!(claimed[0].seq < claimed[1].seq);
    }

    async fn a_claim_carries_all_that_is_needed_to_run(w: &mut World) {
        let mut new = task("a");
        new.timeout = Some(std::time::Duration::from_millis(1500));
        new.max_attempts = 7;
        new.priority = 3;
        let target = Target::agent("tally", "told");
        new.notify = Some(greenroom::model::task::Notify { target, message: "Add.done".into() });
        let claimed = w.running(new.clone()).await;
        assert_eq!(claimed.target, new.target);
        assert_eq!(claimed.message, "Add");
        assert_eq!(claimed.input.get(), new.input.get());
        assert_eq!((claimed.priority, claimed.attempt, claimed.lost, claimed.max_attempts), (3, 1, 0, 7));
        assert_eq!(claimed.timeout, new.timeout);
        assert_eq!(claimed.notify, new.notify);
        let view = w.view(claimed.id).await;
        assert_eq!(view.state, TaskState::Running);
        assert_eq!(view.node, Some(w.boot.to_string()));
        assert!(view.started_at.is_some());
        let data = w.store.task_data(claimed.id).await.unwrap().unwrap();
        assert_eq!((data.id, data.attempt, data.notify), (claimed.id, 1, new.notify));
    }

    async fn tools_and_agents_have_their_own_room(w: &mut World) {
        w.submit(task("a")).await;
        let tool = NewTask::new(Target::Tool("fs.read".into()), "", json("{}"), 5);
        w.submit(tool).await;
        let tools = ClaimRequest { tools: 5, ..ClaimRequest::default() };
        let claimed = w.store.claim(w.boot, &tools).await.unwrap();
        assert_eq!(claimed.len(), 1);
        assert_eq!(claimed[0].target, Target::Tool("fs.read".into()));
        assert_eq!(w.view(claimed[0].id).await.message, None);
        assert_eq!(keys(&w.claim(5).await), ["a"]);
    }

    async fn targets_without_room_are_passed_over(w: &mut World) {
        for key in ["a", "a", "b", "c"] {
            w.submit(task(key)).await;
        }
        let except = vec!["tally/a".to_owned(), "tally/c".to_owned()];
        let request = ClaimRequest { agents: 5, except, ..ClaimRequest::default() };
        assert_eq!(keys(&w.store.claim(w.boot, &request).await.unwrap()), ["b"]);
        assert_eq!(keys(&w.claim(9).await), ["a", "a", "c"]);
    }

    async fn only_the_claims_owner_may_end_it(w: &mut World) {
        let claimed = w.running(task("a")).await;
        let lost = Verdict::Refused(Refusal::ClaimLost(claimed.id));
        let other = greenroom::model::task::Claimed { attempt: 2, ..claimed.clone() };
        assert_eq!(w.end(&other, ok()).await, lost);
        let stranger = uuid::Uuid::now_v7();
        let verdicts = w.store.commit(stranger, &[ending(&claimed, ok())]).await.unwrap();
        assert_eq!(verdicts.first(), Some(&lost));
        let retry = FinishOutcome::Retry { run_at: Timestamp::now(), error: error("x") };
        assert_eq!(w.store.commit(stranger, &[ending(&claimed, retry)]).await.unwrap(), [lost]);
        w.must(ending(&claimed, ok())).await;
    }

    /// However it came that the task was handed out twice: both attempts may have run before one commit.
    async fn a_unit_that_ends_a_task_twice_is_refused_whole(w: &mut World) {
        let claimed = w.running(task("a")).await;
        let mut twice = w.turn("a", 0, "twice");
        for _ in 0..2 {
            twice.finished.extend(ending(&claimed, ok()).finished);
        }
        let lost = Verdict::Refused(Refusal::ClaimLost(claimed.id));
        assert_eq!(w.commit(&[twice]).await, [lost]);
        assert_eq!(w.state("a").await, None);
        w.must(ending(&claimed, ok())).await;
    }

    async fn what_was_given_back_keeps_its_place_and_its_attempts(w: &mut World) {
        w.submit(task("a")).await;
        w.submit(task("b")).await;
        let claimed = w.claim(1).await;
        w.store.give_back(w.boot, &[(claimed[0].id, claimed[0].claim)]).await.unwrap();
        assert_eq!(w.view(claimed[0].id).await.started_at, None, "nothing has started");
        let again = w.claim(9).await;
        assert_eq!(keys(&again), ["a", "b"]);
        assert_eq!((again[0].attempt, again[0].seq), (1, claimed[0].seq));
        // not by a stranger, not for another's claim
        w.store.give_back(uuid::Uuid::now_v7(), &[(again[0].id, again[0].claim)]).await.unwrap();
        w.store.give_back(w.boot, &[(again[1].id, again[0].claim)]).await.unwrap();
        assert_eq!(w.counts().await, [(TaskState::Running, 2)]);
    }

    /// Its next run must know that it may not be the first, and what has begun does not expire.
    async fn what_was_broken_off_could_run_since_it_was_accepted_and_does_not_expire(w: &mut World) {
        let tool = || NewTask::new(Target::Tool("fs.read".into()), "", json("{}"), 5);
        let long_ago = Some(Timestamp::from_second(1_000_000_000).unwrap());
        let soon = Some(Timestamp::from_second(Timestamp::now().as_second() + 3_600).unwrap());
        let fresh = w.submit(NewTask { expires_at: soon, ..tool() }).await;
        let due = w.submit(NewTask { run_at: long_ago, ..tool() }).await;
        w.submit(task("a")).await;
        let request = ClaimRequest { tools: 5, agents: 5, ..ClaimRequest::default() };
        let claimed = w.store.claim(w.boot, &request).await.unwrap();
        assert!(claimed.iter().all(|claimed| claimed.due.is_some() == (claimed.id == due)));
        let back: Vec<_> = claimed.iter().map(|claimed| (claimed.id, claimed.claim)).collect();
        w.store.give_back(w.boot, &back).await.unwrap();
        assert_eq!(w.view(fresh).await.expires_at, soon, "it has not begun");
        let claimed = w.store.claim(w.boot, &request).await.unwrap();
        assert!(claimed.iter().all(|claimed| claimed.due.is_some() == (claimed.id == due)));
        let back: Vec<_> = claimed.iter().map(|claimed| (claimed.id, claimed.claim)).collect();
        w.store.break_off(w.boot, &back).await.unwrap();
        let left = w.view(fresh).await;
        assert_eq!((left.expires_at, left.attempt, left.started_at), (None, 0, None));
        let accepted = left.created_at;
        let told = w.store.history(fresh).await.unwrap();
        let told: Vec<_> = told.iter().map(|line| (line.event.as_str(), line.attempt)).collect();
        assert_eq!(told, [("accepted", 0), ("started", 1), ("broken_off", 1)]);
        let again = w.store.claim(w.boot, &request).await.unwrap();
        assert_eq!(again.len(), 3);
        for again in again {
            match again.id {
                id if id == fresh => assert_eq!(again.due, Some(accepted)),
                id if id == due => assert_eq!(again.due, long_ago),
                _ => assert_eq!(again.due, None, "an agent's"),
            }
        }
    }

    /// A pooler may hold a statement past its sender's patience.
    async fn a_return_that_is_late_takes_nothing_from_the_next_claim(w: &mut World) {
        let first = w.running(task("a")).await;
        let back = [(first.id, first.claim)];
        w.store.give_back(w.boot, &back).await.unwrap();
        let next = w.claim(9).await;
        assert_eq!((next[0].id, next[0].attempt), (first.id, first.attempt), "the attempt tells nothing");
        assert_ne!(next[0].claim, first.claim);
        w.store.give_back(w.boot, &back).await.unwrap();
        assert_eq!(w.claims_held().await, [(first.id, next[0].claim)]);
        // nor from one after a person's retry, which counts the attempts anew
        w.must(ending(&next[0], FinishOutcome::Failed { error: error("no") })).await;
        w.store.retry(first.id).await.unwrap().unwrap().unwrap();
        let last = w.claim(9).await;
        assert!(last[0].due.is_some(), "it could run as of the retry, and may have run before");
        for claim in [first.claim, next[0].claim] {
            w.store.give_back(w.boot, &[(first.id, claim)]).await.unwrap();
        }
        assert_eq!(w.claims_held().await, [(first.id, last[0].claim)]);
        w.must(ending(&last[0], ok())).await;
    }

    async fn a_retry_waits_and_takes_its_place_anew(w: &mut World) {
        let claimed = w.running(task("a")).await;
        w.submit(task("b")).await;
        let run_at = Timestamp::now() + 1.hour();
        w.must(ending(&claimed, FinishOutcome::Retry { run_at, error: error("not yet") })).await;
        let view = w.view(claimed.id).await;
        assert_eq!(view.state, TaskState::Scheduled);
        assert_eq!(view.error, Some(error("not yet")));
        let Promoted { ready, next, .. } = w.store.promote(Timestamp::now()).await.unwrap();
        assert_eq!(ready, 0);
        assert_eq!(next.map(|d| d.as_microsecond()), Some(run_at.as_microsecond()));
        let promoted = w.store.promote(run_at).await.unwrap();
        assert_eq!(promoted, Promoted { ready: 1, ..Promoted::default() });
        let again = w.claim(9).await;
        assert_eq!(keys(&again), ["b", "a"]);
        assert_eq!((again[1].attempt, again[1].lost), (2, 0));
    }

    async fn what_is_for_later_waits(w: &mut World) {
        let run_at = Timestamp::now() + 1.hour();
        let id = w.submit(NewTask { run_at: Some(run_at), ..task("a") }).await;
        let past = NewTask { run_at: Some(Timestamp::now() - 1.hour()), ..task("b") };
        w.submit(past).await;
        assert_eq!(keys(&w.claim(9).await), ["b"]);
        assert_eq!(w.state_of(id).await, TaskState::Scheduled);
        assert_eq!(w.store.promote(run_at).await.unwrap().ready, 1);
        assert_eq!(keys(&w.claim(9).await), ["a"]);
    }

    async fn a_dead_boots_work_is_ready_again(w: &mut World) {
        let claimed = w.running(task("a")).await;
        w.submit(task("b")).await;
        assert_eq!(w.crash().await, (1, vec![]));
        assert_eq!(w.counts().await, [(TaskState::Ready, 2)]);
        // the zombie cannot end it any more
        assert_eq!(w.end(&claimed, ok()).await, Verdict::Refused(Refusal::ClaimLost(claimed.id)));
        let again = w.claim(9).await;
        assert_eq!(keys(&again), ["a", "b"]);
        assert_eq!((again[0].attempt, again[0].lost), (2, 1));
        assert_eq!(w.end(&claimed, ok()).await, Verdict::Refused(Refusal::ClaimLost(claimed.id)));
        w.must(ending(&again[0], ok())).await;
    }

    async fn a_suspect_runs_alone_and_poison_is_found(w: &mut World) {
        let id = w.submit(task("poison")).await;
        let innocent = w.submit(task("innocent")).await;
        for _ in 0..2 {
            assert_eq!(w.claim(9).await.len(), 2);
            w.crash().await;
        }
        assert_eq!(w.store.suspects(w.boot).await.unwrap().len(), 2);
        assert_eq!(w.claim(9).await.len(), 0, "suspects are not claimed with others");
        let first = w.claim_alone().await;
        assert_eq!(first.len(), 1, "one, and nothing else");
        assert_eq!(first[0].lost, 2);
        // alone is alone: only these losses count
        for lost in 1..=3 {
            let (_, poison) = w.crash().await;
            assert_eq!(poison, if lost == 3 { vec![id] } else { vec![] });
            let next = w.claim_alone().await;
            assert_eq!(next[0].id, if lost == 3 { innocent } else { id });
            if lost == 3 {
                w.must(ending(&next[0], ok())).await;
            }
        }
        assert_eq!(w.store.suspects(w.boot).await.unwrap().len(), 0);
        assert_eq!(w.claim_alone().await.len(), 0);
        assert_eq!(w.store.doomed().await.unwrap(), [(id, Doom::Poison)]);
        // told again until it is ended
        assert_eq!(w.crash().await.1, [id]);
        w.promote().await;
        w.must(ending_idle(id, FinishOutcome::Failed { error: error("poison") })).await;
        assert_eq!(w.crash().await, (0, vec![]));
        assert_eq!(w.state_of(id).await, TaskState::Failed);
        assert_eq!(w.state_of(innocent).await, TaskState::Succeeded);
    }

    async fn an_idle_task_is_ended_by_its_cancellation(w: &mut World) {
        let id = w.submit(task("a")).await;
        assert_eq!(w.store.cancel(id).await.unwrap(), Some(CancelFound::Idle));
        w.must(ending_idle(id, FinishOutcome::Cancelled)).await;
        assert_eq!(w.store.cancel(id).await.unwrap(), Some(CancelFound::Final(TaskState::Cancelled)));
        assert_eq!(w.claim(9).await.len(), 0);
        assert_eq!(w.store.cancel(task("x").id).await.unwrap(), None);
    }

    async fn a_running_task_is_flagged_and_may_still_succeed(w: &mut World) {
        let claimed = w.running(task("a")).await;
        assert_eq!(w.store.cancel(claimed.id).await.unwrap(), Some(CancelFound::Running));
        let idle = w.commit_one(ending_idle(claimed.id, FinishOutcome::Cancelled)).await;
        assert_eq!(idle, Verdict::Refused(Refusal::ClaimLost(claimed.id)), "it is not idle");
        w.must(ending(&claimed, ok())).await;
        assert_eq!(w.state_of(claimed.id).await, TaskState::Succeeded);
        let claimed = w.running(task("a")).await;
        w.store.cancel(claimed.id).await.unwrap();
        w.must(ending(&claimed, FinishOutcome::Cancelled)).await;
        assert_eq!(w.state_of(claimed.id).await, TaskState::Cancelled);
    }

    async fn a_flagged_task_gets_no_other_attempt(w: &mut World) {
        let retried = w.running(task("a")).await;
        w.store.cancel(retried.id).await.unwrap();
        let retry = FinishOutcome::Retry { run_at: Timestamp::now(), error: error("x") };
        w.must(ending(&retried, retry)).await;
        let given = w.running(task("b")).await;
        w.store.cancel(given.id).await.unwrap();
        w.store.give_back(w.boot, &[(given.id, given.claim)]).await.unwrap();
        let lost = w.running(task("c")).await;
        w.store.cancel(lost.id).await.unwrap();
        w.crash().await;
        assert_eq!(w.claim(9).await.len(), 0);
        w.promote().await;
        assert_eq!(w.claim(9).await.len(), 0);
        for id in [retried.id, given.id, lost.id] {
            assert_eq!(w.state_of(id).await, TaskState::Cancelled);
        }
    }

    async fn who_runs_a_task_is_told_that_it_is_to_be_cancelled(w: &mut World) {
        let (one, two) = (w.running(task("a")).await, w.running(task("b")).await);
        assert_eq!(w.store.cancel(two.id).await.unwrap(), Some(CancelFound::Running));
        let held = w.store.running(w.boot).await.unwrap();
        let flagged: Vec<_> = held.iter().filter(|held| held.cancel).map(|held| held.id).collect();
        assert_eq!((held.len(), flagged), (2, vec![two.id]));
        w.must(ending(&one, ok())).await;
    }

    /// Whether it has begun what takes effect once, the runtime knows.
    async fn a_lost_task_of_a_tool_that_was_to_be_cancelled_is_not_ended_by_the_store(w: &mut World) {
        let (lost, of_agent) = (w.submit(paying()).await, w.submit(task("a")).await);
        let all = ClaimRequest { agents: 9, tools: 9, ..ClaimRequest::default() };
        assert_eq!(w.store.claim(w.boot, &all).await.unwrap().len(), 2);
        for id in [lost, of_agent] {
            assert_eq!(w.store.cancel(id).await.unwrap(), Some(CancelFound::Running));
        }
        w.crash().await;
        w.promote().await;
        assert_eq!(w.state_of(of_agent).await, TaskState::Cancelled);
        assert_eq!(w.store.doomed().await.unwrap(), [(lost, Doom::Cancelled)]);
        w.must(ending_idle(lost, FinishOutcome::OutcomeUnknown { error: error("cut off") })).await;
        assert_eq!(w.state_of(lost).await, TaskState::OutcomeUnknown);
        assert_eq!(w.store.doomed().await.unwrap(), []);
        // a person lets it run again: nothing is left of its doom
        assert_eq!(w.store.retry(lost).await.unwrap(), Some(Ok(())));
        w.promote().await;
        let again = w.store.claim(w.boot, &all).await.unwrap();
        assert_eq!((again.len(), again[0].id, again[0].lost), (1, lost, 0));
    }

    async fn what_expired_in_the_hands_of_a_node_that_did_not_start_it_is_cancelled(w: &mut World) {
        let soon = Some(Timestamp::now() + 1.hour());
        let claimed = w.running(NewTask { expires_at: soon, ..task("a") }).await;
        let next = w.store.promote(Timestamp::now() + 2.hours()).await.unwrap().next;
        assert_eq!(w.state_of(claimed.id).await, TaskState::Running);
        assert!(next.is_none_or(|next| next > Timestamp::now()), "nothing is to be done about it now: {next:?}");
        w.store.give_back(w.boot, &[(claimed.id, claimed.claim)]).await.unwrap();
        w.store.promote(Timestamp::now() + 2.hours()).await.unwrap();
        w.promote().await;
        assert_eq!(w.state_of(claimed.id).await, TaskState::Cancelled);
    }

    async fn what_the_store_cancels_by_itself_it_tells(w: &mut World) {
        let doomed = |id, key: &str, why| Doomed { id, target: Target::agent("tally", key), why };
        let parent = w.running(task("parent")).await;
        let flagged = w.running(task("flagged")).await;
        let expires_at = Some(Timestamp::now() + 1.hour());
        let late = w.submit(NewTask { expires_at, run_at: expires_at, ..task("late") }).await;
        let child = w.submit(child("child", &[parent.id])).await;
        let told = Notify { target: Target::agent("tally", "told"), message: "Add.done".into() };
        let told = NewTask { notify: Some(told), after: vec![parent.id], ..task("notified") };
        w.submit(told).await;
        assert_eq!(w.store.promote(Timestamp::now()).await.unwrap().cancelled, []);
        w.must(ending(&parent, failed())).await;
        w.store.cancel(flagged.id).await.unwrap();
        w.store.give_back(w.boot, &[(flagged.id, flagged.claim)]).await.unwrap();
        let mut cancelled = w.store.promote(Timestamp::now() + 2.hours()).await.unwrap().cancelled;
        cancelled.sort_by_key(|task| task.target.to_string());
        let all = [
            doomed(child, "child", Doom::ParentFailed),
            doomed(flagged.id, "flagged", Doom::Cancelled),
            doomed(late, "late", Doom::Expired),
        ];
        assert_eq!(cancelled, all);
        assert_eq!(w.store.promote(Timestamp::now()).await.unwrap().cancelled, [], "once");
    }

    async fn what_expired_before_it_started_is_cancelled(w: &mut World) {
        let soon = Some(Timestamp::now() + 1.hour());
        let waiting = w.submit(NewTask { expires_at: soon, ..task("a") }).await;
        let started = w.running(NewTask { expires_at: soon, priority: 9, ..task("b") }).await;
        let again = w.running(NewTask { expires_at: soon, ..task("c") }).await;
        let retry = FinishOutcome::Retry { run_at: Timestamp::now() + 90.minutes(), error: error("busy") };
        w.must(ending(&again, retry)).await;
        // claimed together; the first never started
        let running = w.claims_held().await;
        let (_, claim) = running.into_iter().find(|(id, _)| *id == waiting).unwrap();
        w.store.give_back(w.boot, &[(waiting, claim)]).await.unwrap();
        assert_eq!(w.promote().await, 0);
        assert_eq!(w.state_of(waiting).await, TaskState::Ready);
        w.store.promote(Timestamp::now() + 2.hours()).await.unwrap();
        assert_eq!(w.state_of(waiting).await, TaskState::Cancelled);
        assert_eq!(w.state_of(started.id).await, TaskState::Running);
        w.must(ending(&started, ok())).await;
        assert_eq!(w.claim(9).await[0].id, again.id, "it started in time, and may be tried again");
    }

    /// Whoever promotes and whoever claims do not wait for each other.
    async fn what_has_expired_is_not_claimed_before_it_is_promoted(w: &mut World) {
        let past = Some(Timestamp::now() - 1.hour());
        let later = Some(Timestamp::now() + 1.hour());
        let all = ClaimRequest { agents: 9, tools: 9, ..ClaimRequest::default() };
        let claim = async |w: &World| w.store.claim(w.boot, &all).await.unwrap();
        let expired = [
            w.submit(NewTask { expires_at: past, ..task("a") }).await,
            w.submit(NewTask { expires_at: past, ..paying() }).await,
        ];
        let open = w.submit(NewTask { expires_at: later, ..task("b") }).await;
        let claimed = claim(w).await;
        assert_eq!(claimed.iter().map(|c| c.id).collect::<Vec<_>>(), [open]);
        assert_eq!(claimed[0].expires_at.map(|at| at.as_microsecond()), later.map(|at| at.as_microsecond()));
        w.promote().await;
        for id in expired {
            assert_eq!(w.state_of(id).await, TaskState::Cancelled);
        }
    }

    /// Of a turn whose node died nothing has happened; what a tool's call has begun goes on.
    async fn what_was_lost_expires_unless_it_may_have_left_something(w: &mut World) {
        let soon = Some(Timestamp::now() + 1.hour());
        let lost = w.submit(NewTask { expires_at: soon, ..task("a") }).await;
        let tool = w.submit(NewTask { expires_at: soon, ..paying() }).await;
        let tried = w.submit(NewTask { expires_at: soon, ..task("b") }).await;
        let all = ClaimRequest { agents: 9, tools: 9, ..ClaimRequest::default() };
        let claimed = w.store.claim(w.boot, &all).await.unwrap();
        let one = claimed.iter().find(|c| c.id == tried).unwrap();
        let retry = FinishOutcome::Retry { run_at: Timestamp::now() - 1.hour(), error: error("busy") };
        w.must(ending(one, retry)).await;
        w.promote().await;
        assert_eq!(w.store.claim(w.boot, &all).await.unwrap().len(), 1);
        assert_eq!(w.crash().await.0, 3);
        w.store.promote(Timestamp::now() + 2.hours()).await.unwrap();
        w.promote().await;
        assert_eq!(w.state_of(lost).await, TaskState::Cancelled);
        assert_eq!(w.view(lost).await.lost, 1);
        let history = w.store.history(lost).await.unwrap();
        let end = history.iter().find(|e| e.event == "cancelled").unwrap();
        assert_eq!(end.detail.as_deref(), Some("it expired before it started"));
        let again = w.store.claim(w.boot, &all).await.unwrap();
        let mut ids: Vec<_> = again.iter().map(|c| c.id).collect();
        ids.sort();
        let mut both = vec![tool, tried];
        both.sort();
        assert_eq!(ids, both, "the one may have left something, the other was attempted in time");
        assert!(again.iter().all(|c| c.expires_at.is_none()));
    }

    async fn what_a_person_lets_run_again_does_not_expire(w: &mut World) {
        let soon = Some(Timestamp::now() + 1.hour());
        let claimed = w.running(NewTask { expires_at: soon, ..task("a") }).await;
        w.must(ending(&claimed, FinishOutcome::OutcomeUnknown { error: error("cut off") })).await;
        assert_eq!(w.store.retry(claimed.id).await.unwrap(), Some(Ok(())));
        w.store.promote(Timestamp::now() + 2.hours()).await.unwrap();
        w.promote().await;
        assert_eq!(w.claim(9).await[0].id, claimed.id);
    }

    async fn whoever_waits_for_an_expired_task_is_told_by_the_runtime(w: &mut World) {
        let target = Target::agent("tally", "told");
        let notify = Some(greenroom::model::task::Notify { target, message: "Add.done".into() });
        let expires_at = Some(Timestamp::now() - 1.hour());
        let id = w.submit(NewTask { expires_at, notify: notify.clone(), ..task("a") }).await;
        w.promote().await;
        assert_eq!(w.claim(9).await.len(), 0, "it may not start any more");
        assert_eq!(w.store.doomed().await.unwrap(), [(id, Doom::Expired)]);
        assert_eq!(w.store.task_data(id).await.unwrap().unwrap().notify, notify);
        let mut unit = ending_idle(id, FinishOutcome::Cancelled);
        unit.accepted.push(task("told"));
        w.must(unit).await;
        assert_eq!(w.store.doomed().await.unwrap(), []);
        assert_eq!(keys(&w.claim(9).await), ["told"]);
    }
}
