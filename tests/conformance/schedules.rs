//! Schedules: written under their revision, moved on once from each nominal time.

use futures_util::future::join_all;
use greenroom::{
    TaskId,
    model::{
        schedule::{Definition, Misfire, Origin, Overlap, Schedule, ScheduleMove, Spec, key},
        task::{OnParentFailed, TaskState, TaskTerms},
    },
    store::{Refusal, Unit, Verdict},
};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::support::*;

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
}

/// One that is due at minute 0.
pub fn schedule(name: &str) -> Schedule {
    let task = task("a");
    let definition = Definition {
        spec: "* * * * *".into(),
        target: task.target,
        message: task.message,
        input: task.input,
        priority: -3,
        max_attempts: Some(2),
        timeout: Some(std::time::Duration::from_secs(9)),
        tags: vec!["x".into(), "Zoë".into()],
        overlap: Overlap::QueueOne,
        misfire: Misfire::All,
    };
    let spec: Spec = definition.spec.parse().unwrap();
    let now = at(0) - SignedDuration::from_micros(7);
    Schedule::new(name.into(), definition, &spec, Origin::Operator, now)
}

/// What fires it at its next time, the minute after being the next.
pub fn firing(schedule: &Schedule) -> Unit {
    let from = schedule.next_at.unwrap();
    let task = schedule.task(from, &TaskTerms::default());
    let to = moved(schedule, Some((from, task.id)));
    Unit { accepted: vec![task], schedule: Some(to), ..Unit::default() }
}

fn moved(schedule: &Schedule, fired: Option<(Timestamp, TaskId)>) -> ScheduleMove {
    let from = schedule.next_at.unwrap();
    let next_at = Some(from + SignedDuration::from_mins(1));
    ScheduleMove { name: schedule.name.clone(), revision: schedule.revision, from, next_at, fired }
}

fn has_moved(name: &str) -> Verdict {
    Verdict::Refused(Refusal::ScheduleMoved(name.into()))
}

impl World {
    async fn has(&self, schedule: &Schedule) {
        assert!(self.store.put_schedule(schedule, None).await.unwrap());
    }

    async fn schedule(&self, name: &str) -> Schedule {
        self.store.schedule(name).await.unwrap().unwrap()
    }
}

rules! {
    async fn a_schedule_is_read_back_as_it_was_written(w: &mut World) {
        assert_eq!(w.store.schedules().await.unwrap(), []);
        let (b, mut a) = (schedule("b"), schedule("a"));
        (a.paused, a.next_at, a.last_at, a.last_task) = (true, None, Some(at(-1)), Some(TaskId::fresh()));
        (a.origin, a.definition.max_attempts, a.definition.timeout) = (Origin::Program, None, None);
        a.definition.tags.clear();
        w.has(&b).await;
        w.has(&a).await;
        assert_eq!(w.store.schedules().await.unwrap(), [a.clone(), b.clone()], "by name");
        w.crash().await;
        assert_eq!(w.store.schedule("b").await.unwrap(), Some(b));
        assert_eq!(w.store.schedule("c").await.unwrap(), None);
    }

    async fn a_schedule_is_written_over_the_one_that_was_read(w: &mut World) {
        let first = schedule("a");
        w.has(&first).await;
        assert!(!w.store.put_schedule(&schedule("a"), None).await.unwrap(), "the name is taken");
        let second = Schedule { paused: true, revision: Uuid::now_v7(), ..first.clone() };
        assert!(w.store.put_schedule(&second, Some(&first)).await.unwrap());
        let late = Schedule { revision: Uuid::now_v7(), ..first.clone() };
        assert!(!w.store.put_schedule(&late, Some(&first)).await.unwrap());
        // as whoever heard no answer sends them
        assert!(w.store.put_schedule(&second, Some(&first)).await.unwrap());
        assert_eq!(w.schedule("a").await, second);
        assert!(!w.store.remove_schedule("a", first.revision).await.unwrap());
        assert!(w.store.remove_schedule("a", second.revision).await.unwrap());
        assert!(!w.store.remove_schedule("a", second.revision).await.unwrap());
        assert!(!w.store.put_schedule(&late, Some(&second)).await.unwrap(), "it is gone");
        w.has(&first).await;
        assert!(w.store.put_schedule(&first, None).await.unwrap(), "sent again");
    }

    async fn what_is_due_is_told_with_when_the_next_is(w: &mut World) {
        assert_eq!(w.store.due_schedules(at(0)).await.unwrap(), (vec![], None));
        let later = Schedule { next_at: Some(at(9)), ..schedule("later") };
        let over = Schedule { next_at: None, ..schedule("over") };
        let paused = Schedule { paused: true, ..schedule("paused") };
        let (a, b) = (Schedule { next_at: Some(at(1)), ..schedule("a") }, schedule("b"));
        for schedule in [&later, &over, &paused, &a, &b] {
            w.has(schedule).await;
        }
        let before = at(0) - SignedDuration::from_micros(1);
        assert_eq!(w.store.due_schedules(before).await.unwrap(), (vec![], Some(at(0))));
        assert_eq!(w.store.due_schedules(at(0)).await.unwrap(), (vec![b.clone()], Some(at(1))));
        assert_eq!(w.store.due_schedules(at(1)).await.unwrap(), (vec![b, a], Some(at(9))));
    }

    async fn a_task_is_submitted_with_the_move_of_its_schedule(w: &mut World) {
        let due = schedule("a");
        w.has(&due).await;
        let unit = firing(&due);
        let (fired, id) = (unit.accepted[0].clone(), unit.accepted[0].id);
        w.must(unit).await;
        let there = w.schedule("a").await;
        assert_eq!((there.next_at, there.last_at, there.last_task), (Some(at(1)), Some(at(0)), Some(id)));
        assert_eq!((there.revision, &there.definition), (due.revision, &due.definition));
        assert_eq!(w.counts().await, [(TaskState::Ready, 1)]);
        // as any other task
        let plain = w.submit(fired_like(&fired)).await;
        let claimed = w.claim(9).await;
        assert_eq!(claimed.iter().map(|c| c.id).collect::<Vec<_>>(), [id, plain]);
        assert_eq!((claimed[0].priority, claimed[0].max_attempts, claimed[0].timeout), (-3, 2, fired.timeout));
        assert_eq!(claimed[0].input.get(), fired.input.get());
        let nominal = w.view(id).await.idempotency_key;
        assert_eq!(nominal.as_deref(), Some("schedule:a:2027-01-15T08:00:00Z"));
        assert_eq!(nominal, Some(key("a", at(0))));
    }

    async fn of_two_who_fire_one_nominal_time_one_does(w: &mut World) {
        let due = schedule("a");
        w.has(&due).await;
        let (first, second) = (firing(&due), firing(&due));
        let id = first.accepted[0].id;
        // in one call, and the other neighbours of it do not notice
        assert_eq!(
            w.commit(&[accepting([task("b")]), first, second.clone(), accepting([task("c")])]).await,
            [Verdict::Durable, Verdict::Durable, has_moved("a"), Verdict::Durable]
        );
        assert_eq!(w.commit_one(second).await, has_moved("a"), "and in a later one");
        assert_eq!(w.schedule("a").await.last_task, Some(id));
        assert_eq!(w.counts().await, [(TaskState::Ready, 3)]);
    }

    async fn of_many_who_fire_at_once_one_does(w: &mut World) {
        let due = schedule("a");
        w.has(&due).await;
        let all = (0..12).map(|_| {
            let (store, boot, unit) = (w.store.clone(), Uuid::now_v7(), firing(&due));
            tokio::spawn(async move { store.commit(boot, &[unit]).await.unwrap().pop().unwrap() })
        });
        let verdicts: Vec<_> = join_all(all).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Durable).count(), 1, "{verdicts:?}");
        assert_eq!(verdicts.iter().filter(|v| **v == has_moved("a")).count(), 11, "{verdicts:?}");
        assert_eq!(w.counts().await, [(TaskState::Ready, 1)]);
    }

    async fn a_firing_whose_answer_was_lost_is_known_again(w: &mut World) {
        let due = schedule("a");
        w.has(&due).await;
        let unit = firing(&due);
        w.must(unit.clone()).await;
        w.must(unit.clone()).await;
        assert_eq!(w.counts().await, [(TaskState::Ready, 1)]);
        // also when the work has ended, and the next time has been fired
        let claimed = w.claim(1).await.pop().unwrap();
        assert_eq!(w.end(&claimed, ok()).await, Verdict::Durable);
        w.must(firing(&w.schedule("a").await)).await;
        w.crash().await;
        w.must(unit).await;
        assert_eq!(w.schedule("a").await.next_at, Some(at(2)));
        assert_eq!(w.counts().await, [(TaskState::Ready, 1), (TaskState::Succeeded, 1)]);
    }

    async fn a_nominal_time_passes_without_a_task_once(w: &mut World) {
        let due = schedule("a");
        w.has(&due).await;
        let pass = || Unit { schedule: Some(moved(&due, None)), ..Unit::default() };
        w.must(pass()).await;
        w.must(pass()).await;
        let there = w.schedule("a").await;
        assert_eq!((there.next_at, there.last_at, there.last_task), (Some(at(1)), None, None));
        assert_eq!(w.commit_one(firing(&due)).await, has_moved("a"));
        w.must(firing(&there)).await;
        assert_eq!(w.commit_one(pass()).await, has_moved("a"));
        assert_eq!(w.counts().await, [(TaskState::Ready, 1)]);
    }

    async fn who_fires_what_was_changed_is_refused(w: &mut World) {
        let due = schedule("a");
        w.has(&due).await;
        let unit = firing(&due);
        let paused = Schedule { paused: true, ..due.clone() };
        assert!(w.store.put_schedule(&Schedule { revision: Uuid::now_v7(), ..paused.clone() }, Some(&due)).await.unwrap());
        assert_eq!(w.commit_one(unit.clone()).await, has_moved("a"));
        let held = w.schedule("a").await;
        assert_eq!(w.commit_one(firing(&held)).await, has_moved("a"), "it is held up");
        assert!(w.store.remove_schedule("a", held.revision).await.unwrap());
        assert_eq!(w.commit_one(unit).await, has_moved("a"), "it is gone");
        assert_eq!(w.counts().await, []);
    }

    /// A person who holds a schedule up that fires meanwhile does not have it stand where it stood before.
    async fn nobody_writes_over_a_schedule_that_was_moved_on_since_it_was_read(w: &mut World) {
        let due = schedule("a");
        w.has(&due).await;
        w.must(firing(&due)).await;
        let fired = w.schedule("a").await;
        let late = Schedule { paused: true, revision: Uuid::now_v7(), ..due.clone() };
        assert!(!w.store.put_schedule(&late, Some(&due)).await.unwrap());
        assert_eq!(w.schedule("a").await, fired);
        let held = Schedule { paused: true, next_at: None, revision: Uuid::now_v7(), ..fired.clone() };
        assert!(w.store.put_schedule(&held, Some(&fired)).await.unwrap());
        let again = Schedule { next_at: due.next_at, revision: Uuid::now_v7(), ..held.clone() };
        assert!(!w.store.put_schedule(&again, Some(&fired)).await.unwrap());
        assert!(w.store.put_schedule(&again, Some(&held)).await.unwrap(), "it had no time to come");
    }

    async fn a_firing_waits_for_the_one_before(w: &mut World) {
        let due = schedule("a");
        w.has(&due).await;
        w.must(firing(&due)).await;
        let first = w.claim(1).await.pop().unwrap();
        let mut second = firing(&w.schedule("a").await);
        second.accepted[0].after.push(first.id);
        second.accepted[0].on_parent_failed = OnParentFailed::Run;
        let id = second.accepted[0].id;
        w.must(second).await;
        assert_eq!(w.state_of(id).await, TaskState::Blocked);
        assert_eq!(w.end(&first, failed()).await, Verdict::Durable);
        w.promote().await;
        assert_eq!(w.state_of(id).await, TaskState::Ready);
        // what is waited for must be there: else nothing happens
        let there = w.schedule("a").await;
        let mut third = firing(&there);
        let nobody = TaskId::fresh();
        third.accepted[0].after.push(nobody);
        assert_eq!(w.commit_one(third).await, Verdict::Refused(Refusal::ParentUnknown(nobody)));
        assert_eq!(w.schedule("a").await, there);
    }
}

/// A task that stands behind it in every order.
fn fired_like(fired: &greenroom::model::task::NewTask) -> greenroom::model::task::NewTask {
    greenroom::model::task::NewTask { id: TaskId::fresh(), idempotency_key: None, ..fired.clone() }
}
