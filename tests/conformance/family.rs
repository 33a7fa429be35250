//! Tasks that come after others, and batches.

use greenroom::{
    model::{
        id::{Target, TaskId},
        task::{DeadTask, NewBatch, NewTask, Notify, OnParentFailed, TaskState},
    },
    store::{Doom, FinishOutcome, Kin, Past, Refusal, Unit, Verdict},
};
use jiff::{Timestamp, ToSpan};
use tokio::time::{Duration, Instant};

use crate::support::*;

fn told(message: &str) -> Option<Notify> {
    Some(Notify { target: Target::agent("tally", "told"), message: message.into() })
}

/// A batch of one task for each key.
fn batch(keys: &[&str], notify: Option<Notify>) -> (Unit, TaskId) {
    let id = TaskId::fresh();
    let mut unit =
        accepting(keys.iter().map(|key| NewTask { batch: Some(id), max_attempts: 1, ..task(key) }));
    unit.batches.push(NewBatch { id, size: keys.len() as u64, notify: notify.map(Into::into) });
    (unit, id)
}

rules! {
    async fn a_child_waits_for_every_parent(w: &mut World) {
        let one = w.submit(task("one")).await;
        let two = w.submit(task("two")).await;
        let child = w.submit(child("child", &[one, two, one])).await;
        assert_eq!(w.view(child).await.waiting_for, Some(2));
        let parents = w.claim(9).await;
        assert_eq!(parents.len(), 2);
        w.must(ending(&parents[0], ok())).await;
        assert_eq!(w.state_of(child).await, TaskState::Blocked);
        assert_eq!(w.view(child).await.waiting_for, Some(1));
        w.must(ending(&parents[1], ok())).await;
        assert_eq!(w.claim(9).await[0].id, child);
    }

    async fn who_comes_after_whom_is_told_also_when_it_is_over(w: &mut World) {
        let one = w.submit(task("one")).await;
        let two = w.submit(task("two")).await;
        let both = w.submit(child("both", &[one, two])).await;
        let last = w.submit(child("last", &[both, both])).await;
        let mut near = w.store.edges(&[both], 9).await.unwrap();
        near.sort_unstable();
        assert_eq!(near, [(one, both), (two, both), (both, last)]);
        assert_eq!(w.store.edges(&[last], 9).await.unwrap(), [(both, last)]);
        assert_eq!(w.store.edges(&[both], 1).await.unwrap().len(), 1);
        assert_eq!(w.store.edges(&[], 9).await.unwrap(), []);
        let parents = w.claim(9).await;
        w.must(ending(&parents[0], ok())).await;
        w.must(ending(&parents[1], failed())).await;
        let mut near = w.store.edges(&[both], 9).await.unwrap();
        near.sort_unstable();
        assert_eq!(near, [(one, both), (two, both), (both, last)], "the lines stay");
        // One that is submitted when its parent has ended has a line as well.
        let late = w.submit(child("late", &[one])).await;
        assert!(w.store.edges(&[late], 9).await.unwrap().contains(&(one, late)));
        // They go with the later one.
        w.must(ending_idle(late, FinishOutcome::Cancelled)).await;
        while w.store.clean(Timestamp::now(), Past::before(Timestamp::now() + 1.hour())).await.unwrap() > 0 {}
        assert!(w.store.task(late).await.unwrap().is_none());
        assert!(!w.store.edges(&[one], 9).await.unwrap().contains(&(one, late)));
    }

    async fn what_a_blocked_task_waits_for_is_told(w: &mut World) {
        let one = w.submit(task("one")).await;
        let two = w.submit(task("two")).await;
        let three = w.submit(task("three")).await;
        let runs = NewTask { on_parent_failed: OnParentFailed::Run, ..child("runs", &[three, one, two, one]) };
        let child = w.submit(runs).await;
        w.submit(self::child("behind", &[child])).await;
        let waits = async |w: &World, limit| {
            let all = w.store.prerequisites(child, limit).await.unwrap();
            all.into_iter().map(|one| (one.id, one.state)).collect::<Vec<_>>()
        };
        let (ready, running) = (TaskState::Ready, TaskState::Running);
        let claimed = w.claim(1).await.remove(0);
        assert_eq!(waits(w, 9).await, [(one, running), (two, ready), (three, ready)]);
        assert_eq!(waits(w, 2).await, [(one, running), (two, ready)]);
        assert_eq!(w.store.prerequisites(child, 1).await.unwrap()[0].target, claimed.target);
        w.must(ending(&claimed, failed())).await;
        assert_eq!(waits(w, 9).await, [(two, ready), (three, ready)]);
        w.store.retry(one).await.unwrap().unwrap().unwrap();
        assert_eq!(waits(w, 9).await, [(two, ready), (three, ready)], "it has counted as ended");
        for claimed in w.claim(9).await {
            w.must(ending(&claimed, ok())).await;
        }
        assert_eq!((waits(w, 9).await, w.state_of(child).await), (Vec::new(), ready));
        assert_eq!(w.store.prerequisites(TaskId::fresh(), 9).await.unwrap(), []);
    }

    async fn whose_a_task_is_is_told_in_the_order_of_ids(w: &mut World) {
        let first = w.submit(task("first")).await;
        let submitted = w.submit(NewTask { parent: Some(first), ..task("submitted") }).await;
        let (unit, batch) = batch(&["a", "b"], None);
        let counted: Vec<TaskId> = unit.accepted.iter().map(|task| task.id).collect();
        w.must(unit).await;
        let claimed = w.claim(9).await;
        w.must(ending(&claimed[1], ok())).await;
        let kin = |id, parent, batch| Kin { id, parent, batch };
        let all = [
            kin(submitted, Some(first), None),
            kin(counted[0], None, Some(batch)),
            kin(counted[1], None, Some(batch)),
        ];
        assert_eq!(w.store.kin_behind(first, 9).await.unwrap(), all);
        assert_eq!(w.store.kin_behind(first, 2).await.unwrap(), all[..2]);
        assert_eq!(w.store.kin_behind(counted[1], 9).await.unwrap(), []);
    }

    async fn two_parents_that_end_in_one_call_free_their_child(w: &mut World) {
        let one = w.submit(task("one")).await;
        let two = w.submit(task("two")).await;
        let child = w.submit(child("child", &[one, two])).await;
        let parents = w.claim(9).await;
        let units: Vec<Unit> = parents.iter().map(|p| ending(p, ok())).collect();
        assert_eq!(w.commit(&units).await, [Verdict::Durable, Verdict::Durable]);
        assert_eq!(w.state_of(child).await, TaskState::Ready);
        assert_eq!(w.counts().await, [(TaskState::Ready, 1), (TaskState::Succeeded, 2)]);
    }

    async fn two_parents_that_end_in_one_unit_free_their_child(w: &mut World) {
        let one = w.submit(task("one")).await;
        let two = w.submit(task("two")).await;
        let child = w.submit(child("child", &[one, two])).await;
        let parents = w.claim(9).await;
        let finished = parents.iter().map(|p| finish(p, ok())).collect();
        w.must(Unit { finished, ..Unit::default() }).await;
        assert_eq!(w.state_of(child).await, TaskState::Ready);
    }

    async fn a_refused_end_frees_nobody(w: &mut World) {
        let parent = w.running(task("one")).await;
        let child = w.submit(child("child", &[parent.id])).await;
        let mut stale = w.turn("a", 5, "x");
        stale.finished.push(finish(&parent, ok()));
        assert_eq!(w.commit_one(stale).await, fenced());
        assert_eq!(w.state_of(child).await, TaskState::Blocked);
        w.must(ending(&parent, ok())).await;
        assert_eq!(w.state_of(child).await, TaskState::Ready);
    }

    async fn a_parent_may_stand_behind_its_child(w: &mut World) {
        let parent = task("parent");
        let child = child("child", &[parent.id]);
        let (parent_id, child_id) = (parent.id, child.id);
        w.must(accepting([child, parent])).await;
        let claimed = w.claim(9).await;
        assert_eq!(claimed.iter().map(|c| c.id).collect::<Vec<_>>(), [parent_id]);
        w.must(ending(&claimed[0], ok())).await;
        assert_eq!(w.state_of(child_id).await, TaskState::Ready);
    }

    async fn a_parent_that_has_ended_is_done(w: &mut World) {
        let parent = w.running(task("parent")).await;
        w.must(ending(&parent, ok())).await;
        let late = w.submit(child("child", &[parent.id])).await;
        assert_eq!(w.state_of(late).await, TaskState::Ready);
        // also when the child is submitted by the very turn that ends the parent
        let parent = w.running(task("parent")).await;
        let mut unit = ending(&parent, ok());
        let after = child("child", &[parent.id]);
        let after_id = after.id;
        unit.accepted.push(after);
        w.must(unit).await;
        assert_eq!(w.state_of(after_id).await, TaskState::Ready);
    }

    async fn a_freed_child_still_waits_for_its_time(w: &mut World) {
        let parent = w.running(task("parent")).await;
        let run_at = Some(Timestamp::now() + 1.hour());
        let child = w.submit(NewTask { run_at, ..child("child", &[parent.id]) }).await;
        w.must(ending(&parent, ok())).await;
        assert_eq!(w.state_of(child).await, TaskState::Scheduled);
        w.store.promote(Timestamp::now() + 2.hours()).await.unwrap();
        assert_eq!(w.state_of(child).await, TaskState::Ready);
    }

    async fn a_family_of_one_call_stands_as_if_each_had_come_alone(w: &mut World) {
        let well = w.running(task("well")).await;
        w.must(ending(&well, ok())).await;
        let ill = w.running(task("ill")).await;
        w.must(ending(&ill, failed())).await;
        let open = w.running(task("open")).await;
        let brave = |parents: &[TaskId]| NewTask { on_parent_failed: OnParentFailed::Run, ..child("c", parents) };
        let root = task("root");
        let both = child("both", &[root.id, open.id, root.id]);
        let done = child("done", &[well.id, well.id]);
        let later = NewTask { run_at: Some(Timestamp::now() + 1.hour()), ..child("later", &[well.id]) };
        let doomed = child("doomed", &[ill.id, open.id]);
        let (brave, brave_later) = (brave(&[ill.id]), brave(&[ill.id, root.id, well.id]));
        let last = child("last", &[both.id, done.id, brave_later.id]);
        let waits = [
            (root.id, TaskState::Ready, None),
            (both.id, TaskState::Blocked, Some(2)),
            (done.id, TaskState::Ready, None),
            (later.id, TaskState::Scheduled, None),
            (doomed.id, TaskState::Blocked, Some(1)),
            (brave.id, TaskState::Ready, None),
            (brave_later.id, TaskState::Blocked, Some(1)),
            (last.id, TaskState::Blocked, Some(3)),
        ];
        // beside one that is refused
        let (known, nobody) = (w.submit(task("known")).await, TaskId::fresh());
        let family = [last, both, doomed, brave_later, brave, later, done, root];
        let order: Vec<TaskId> = family.iter().map(|task| task.id).filter(|id| *id != waits[4].0).collect();
        let units = [accepting(family), accepting([task("sibling"), child("orphan", &[known, nobody])])];
        let refused = Verdict::Refused(Refusal::ParentUnknown(nobody));
        assert_eq!(w.commit(&units).await, [Verdict::Durable, refused]);
        assert_eq!(w.store.edges(&[known], 9).await.unwrap(), []);
        for (id, state, waiting_for) in waits {
            let view = w.view(id).await;
            assert_eq!((view.state, view.waiting_for), (state, waiting_for), "{id}");
        }
        w.promote().await;
        assert_eq!(w.state_of(waits[4].0).await, TaskState::Cancelled);
        // and each of them is freed when the last that it waits for has ended
        w.must(ending(&open, ok())).await;
        w.store.promote(Timestamp::now() + 2.hours()).await.unwrap();
        let mut ended = Vec::new();
        loop {
            let claimed = w.claim(99).await;
            if claimed.is_empty() {
                break;
            }
            let units: Vec<Unit> = claimed.iter().map(|c| ending(c, ok())).collect();
            w.commit(&units).await;
            ended.extend(claimed.iter().map(|c| c.id));
        }
        let generation = |id: &TaskId| ended.iter().position(|ended| ended == id).unwrap();
        assert!(generation(&waits[7].0) > generation(&waits[1].0).max(generation(&waits[6].0)));
        assert!(generation(&waits[1].0).min(generation(&waits[6].0)) > generation(&waits[0].0));
        assert_eq!(ended.len(), order.len() + 1, "they and `known`");
        let succeeded = ended.len() as u64 + 2;
        let counts =
            [(TaskState::Succeeded, succeeded), (TaskState::Failed, 1), (TaskState::Cancelled, 1)];
        assert_eq!(w.counts().await, counts);
    }

    async fn an_unknown_parent_is_refused(w: &mut World) {
        let nobody = TaskId::fresh();
        let known = w.submit(task("known")).await;
        let orphan = child("child", &[known, nobody]);
        let id = orphan.id;
        let verdict = w.commit_one(accepting([task("sibling"), orphan])).await;
        assert_eq!(verdict, Verdict::Refused(Refusal::ParentUnknown(nobody)));
        assert!(w.store.task(id).await.unwrap().is_none());
        assert_eq!(w.counts().await, [(TaskState::Ready, 1)]);
        // and its known parent ends as if it had never been
        let parent = w.claim(9).await;
        w.must(ending(&parent[0], ok())).await;
    }

    async fn a_failed_parent_takes_its_children_with_it(w: &mut World) {
        for outcome in [failed(), FinishOutcome::Cancelled] {
            let parent = w.running(task("parent")).await;
            let other = w.submit(task("other")).await;
            let one = w.submit(child("child", &[parent.id, other])).await;
            let grandchild = w.submit(child("grandchild", &[one])).await;
            w.must(ending(&parent, outcome)).await;
            // one level a pass
            w.promote().await;
            assert_eq!(w.state_of(one).await, TaskState::Cancelled);
            w.promote().await;
            assert_eq!(w.state_of(grandchild).await, TaskState::Cancelled);
            // its other parent frees nobody
            let other = w.claim(9).await.pop().unwrap();
            w.must(ending(&other, ok())).await;
            assert_eq!(w.claim(9).await.len(), 0);
        }
    }

    async fn a_child_that_runs_all_the_same_runs(w: &mut World) {
        let parent = w.running(task("parent")).await;
        let brave = NewTask { on_parent_failed: OnParentFailed::Run, ..child("child", &[parent.id]) };
        let brave = w.submit(brave).await;
        w.must(ending(&parent, failed())).await;
        assert_eq!(w.state_of(brave).await, TaskState::Ready);
        // the same for those that come later
        let late = NewTask { on_parent_failed: OnParentFailed::Run, ..child("child", &[parent.id]) };
        assert_eq!({ let id = w.submit(late).await; w.state_of(id).await }, TaskState::Ready);
        let late = w.submit(child("child", &[parent.id])).await;
        assert_eq!(w.claim(9).await.len(), 2);
        w.promote().await;
        assert_eq!(w.state_of(late).await, TaskState::Cancelled);
    }

    async fn whoever_waits_for_a_doomed_child_is_told_by_the_runtime(w: &mut World) {
        let parent = w.running(task("parent")).await;
        let other = w.running(task("other")).await;
        let one = child("child", &[parent.id, other.id]);
        let one = w.submit(NewTask { notify: told("Add.done"), ..one }).await;
        let grandchild = w.submit(child("grandchild", &[one])).await;
        w.must(ending(&parent, failed())).await;
        w.must(ending(&other, ok())).await;
        w.promote().await;
        assert_eq!(w.state_of(one).await, TaskState::Blocked, "the store does not end it");
        assert_eq!(w.store.doomed().await.unwrap(), [(one, Doom::ParentFailed)]);
        let mut unit = ending_idle(one, FinishOutcome::Cancelled);
        unit.accepted.push(task("told"));
        w.must(unit).await;
        assert_eq!(w.store.doomed().await.unwrap(), []);
        w.promote().await;
        assert_eq!(w.state_of(grandchild).await, TaskState::Cancelled);
        assert_eq!(w.claim(9).await.len(), 1);
    }

    async fn a_cancelled_child_is_not_freed_later(w: &mut World) {
        let parent = w.running(task("parent")).await;
        let child = w.submit(child("child", &[parent.id])).await;
        w.must(ending_idle(child, FinishOutcome::Cancelled)).await;
        w.must(ending(&parent, ok())).await;
        assert_eq!(w.state_of(child).await, TaskState::Cancelled);
        assert_eq!(w.counts().await, [(TaskState::Succeeded, 1), (TaskState::Cancelled, 1)]);
    }

    /// As when a person brings back all that was cancelled, and what it was cancelled for.
    async fn what_comes_back_waits_for_what_comes_back_with_it(w: &mut World) {
        let root = w.submit(task("root")).await;
        let middle = w.submit(child("middle", &[root])).await;
        let leaf = w.submit(child("leaf", &[middle, root])).await;
        let claimed = w.claim(9).await;
        w.must(ending(&claimed[0], failed())).await;
        while w.state_of(leaf).await == TaskState::Blocked {
            w.promote().await;
        }
        assert_eq!(w.store.retry(root).await.unwrap(), Some(Ok(())));
        let dead = |id| DeadTask {
            id,
            state: TaskState::Cancelled,
            target: Target::agent("tally", "x"),
            tags: Vec::new(),
            code: None,
        };
        // the later generation first
        assert_eq!(w.store.retry_many(&[dead(leaf), dead(middle)]).await.unwrap(), 2);
        assert_eq!(w.view(leaf).await.waiting_for, Some(2));
        assert_eq!(w.view(middle).await.waiting_for, Some(1));
        for id in [root, middle, leaf] {
            let claimed = w.claim(9).await;
            assert_eq!(claimed.iter().map(|c| c.id).collect::<Vec<_>>(), [id]);
            w.must(ending(&claimed[0], ok())).await;
        }
        // one that comes back alone, after those that have ended, runs
        let alone = w.submit(child("alone", &[leaf])).await;
        let claimed = w.claim(9).await;
        w.must(ending(&claimed[0], failed())).await;
        assert_eq!(w.store.retry(alone).await.unwrap(), Some(Ok(())));
        assert_eq!(w.claim(9).await.len(), 1);
    }

    /// The parent knows it still: it was to be told of its end.
    async fn what_was_cancelled_while_it_waited_and_comes_back_waits_on(w: &mut World) {
        let (one, two) = (w.submit(task("one")).await, w.submit(task("two")).await);
        let child = w.submit(child("child", &[one, two])).await;
        w.must(ending_idle(child, FinishOutcome::Cancelled)).await;
        assert_eq!(w.store.retry(child).await.unwrap(), Some(Ok(())));
        assert_eq!(w.view(child).await.waiting_for, Some(2));
        let parents = w.claim(9).await;
        w.must(ending(&parents[0], ok())).await;
        assert_eq!(w.state_of(child).await, TaskState::Blocked, "the other one runs");
        w.must(ending(&parents[1], ok())).await;
        assert_eq!(w.claim(9).await[0].id, child);
    }

    async fn the_end_of_a_batch_is_told_once(w: &mut World) {
        let (unit, id) = batch(&["a", "b", "c"], told("Add.joined"));
        w.must(unit).await;
        let claimed = w.claim(9).await;
        assert_eq!(claimed.len(), 3);
        assert_eq!(claimed[0].batch, Some(id));
        let units: Vec<Unit> = [ok(), failed()].into_iter().zip(&claimed).map(|(o, c)| ending(c, o)).collect();
        w.commit(&units).await;
        assert_eq!(w.claim(9).await.len(), 0);
        w.must(ending(&claimed[2], ok())).await;
        let joined = w.claim(9).await;
        assert_eq!(joined.len(), 1);
        assert_eq!(joined[0].target, Target::agent("tally", "told"));
        assert_eq!(joined[0].message, "Add.joined");
        assert_eq!(joined[0].max_attempts, 5, "however few its parts have");
        let input: serde_json::Value = serde_json::from_str(joined[0].input.get()).unwrap();
        assert_eq!(input, serde_json::json!({"batch": id.to_string(), "succeeded": 2, "failed": 1}));
        // the failed one comes back: nobody is told twice
        w.store.retry(claimed[1].id).await.unwrap().unwrap().unwrap();
        let again = w.claim(9).await.pop().unwrap();
        assert_eq!(again.batch, None, "the batch has ended without it");
        w.must(ending(&again, ok())).await;
        assert_eq!(w.claim(9).await.len(), 0);
    }

    async fn the_last_of_a_batch_may_end_in_the_call_of_the_others(w: &mut World) {
        let (unit, _) = batch(&["a", "b", "c"], told("Add.joined"));
        w.must(unit).await;
        let units: Vec<Unit> = w.claim(9).await.iter().map(|c| ending(c, ok())).collect();
        w.commit(&units).await;
        w.commit(&units).await;
        assert_eq!(w.claim(9).await.len(), 1);
    }

    async fn a_task_brought_back_is_open_again_in_its_batch(w: &mut World) {
        let (unit, id) = batch(&["a", "b"], told("Add.joined"));
        w.must(unit).await;
        let claimed = w.claim(9).await;
        w.must(ending(&claimed[0], failed())).await;
        w.store.retry(claimed[0].id).await.unwrap().unwrap().unwrap();
        w.must(ending(&claimed[1], ok())).await;
        let again = w.claim(9).await;
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].batch, Some(id));
        w.must(ending(&again[0], ok())).await;
        let joined = w.claim(9).await;
        let input: serde_json::Value = serde_json::from_str(joined[0].input.get()).unwrap();
        assert_eq!(input, serde_json::json!({"batch": id.to_string(), "succeeded": 2, "failed": 0}));
    }

    async fn doomed_and_cancelled_tasks_count_in_their_batch(w: &mut World) {
        let parent = w.running(task("parent")).await;
        let (mut unit, id) = batch(&["a", "b"], told("Add.joined"));
        unit.accepted[0].after = vec![parent.id];
        let cancelled = unit.accepted[1].id;
        w.must(unit).await;
        w.must(ending(&parent, failed())).await;
        w.must(ending_idle(cancelled, FinishOutcome::Cancelled)).await;
        w.promote().await;
        let joined = w.claim(9).await;
        let input: serde_json::Value = serde_json::from_str(joined[0].input.get()).unwrap();
        assert_eq!(input, serde_json::json!({"batch": id.to_string(), "succeeded": 0, "failed": 2}));
    }

    async fn a_batch_of_nothing_has_ended(w: &mut World) {
        let (unit, _) = batch(&[], told("Add.joined"));
        w.must(unit).await;
        assert_eq!(w.claim(9).await.len(), 1);
        let (unit, _) = batch(&[], None);
        w.must(unit).await;
        assert_eq!(w.claim(9).await.len(), 0);
    }
}

/// Tasks of a key each, ten a generation, each after two of the generation before.
fn generations(n: usize) -> Vec<NewTask> {
    let mut tasks: Vec<NewTask> = Vec::with_capacity(n);
    for i in 0..n {
        let mut task = task("g");
        if let Some(before) = (i / 10).checked_sub(1) {
            task.after = vec![tasks[before * 10 + i % 10].id, tasks[before * 10 + (i + 1) % 10].id];
        }
        tasks.push(task);
    }
    tasks
}

/// How long it takes to submit a family in one call.
async fn submitted(w: &World, n: usize) -> Duration {
    let family = accepting(generations(n));
    let begun = Instant::now();
    w.must(family).await;
    begun.elapsed()
}

/// How long it takes to end a task after which so many come.
async fn freed(w: &World, n: usize) -> Duration {
    let parent = NewTask { priority: 1, ..task("parent") };
    let children: Vec<NewTask> = (0..n).map(|_| child("c", &[parent.id])).collect();
    let last = children[n - 1].id;
    w.submit(parent).await;
    w.must(accepting(children)).await;
    assert!(w.store.renew(&w.member()).await.unwrap().is_some());
    let parent = w.claim(1).await.pop().unwrap();
    let mut end = ending(&parent, ok());
    end.finished[0].note = Some("with a note it goes the way of all commits".into());
    let begun = Instant::now();
    w.must(end).await;
    let freed = begun.elapsed();
    assert_eq!(w.state_of(last).await, TaskState::Ready);
    freed
}

/// Where the time grows with the square of the family, eight times as many take 64 times as long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_of_a_family_grows_with_its_size_on_postgres() {
    const SMALL: usize = 2_500;
    let w = World::postgres().await;
    let (few, many) = (submitted(&w, SMALL).await, submitted(&w, 8 * SMALL).await);
    assert!(many < few * 24, "submitted in {many:?}, a few in {few:?}");
    let (few, many) = (freed(&w, SMALL).await, freed(&w, 8 * SMALL).await);
    assert!(many < few * 24, "freed in {many:?}, a few in {few:?}");
}
