//! What task functions record, what they wait for, and what they say of themselves.

use std::time::Duration;

use greenroom::{
    TaskId,
    model::{
        event::Level,
        journal::{self, Answer, CallId, Entry, JournalWrite, LogLine, MAX_SIGNALS, Signal, TaskNotes, Wait},
        task::{BatchNotify, ClaimId, Claimed, NewBatch, NewTask, TaskState},
    },
    store::{FinishOutcome, Past, Promoted, Refusal, SignalFound, Unit, Verdict},
};
use jiff::Timestamp;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::support::*;

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

fn entry(n: u8, answer: Option<&str>) -> Entry {
    let call = CallId { hash: [n; 16], occurrence: 1 };
    let answer = answer.map(|text| Answer::Reply(raw(text)));
    Entry { call, target: format!("tool:t{n}"), ordinal: u32::from(n), optional: n == 2, answer }
}

fn writing(claimed: &Claimed, change: impl FnOnce(&mut JournalWrite)) -> Unit {
    let mut write = JournalWrite::of(claimed.id, claimed.claim);
    change(&mut write);
    Unit { journal: Some(write), ..Unit::default() }
}

fn recording(claimed: &Claimed, entries: Vec<Entry>) -> Unit {
    writing(claimed, |write| write.entries = entries)
}

fn wait(name: &str, until: Option<Timestamp>) -> Wait {
    Wait { name: name.into(), occurrence: 1, until, seen: 0 }
}

fn waiting(claimed: &Claimed, waits: &[Wait]) -> Unit {
    writing(claimed, |write| write.waits = waits.to_vec())
}

fn signal(name: &str, body: &str) -> Signal {
    Signal { id: Uuid::now_v7(), name: name.into(), body: raw(body) }
}

/// So many tasks that a function submits together.
fn fan_out(claimed: &Claimed, n: u64) -> (Unit, TaskId) {
    let id = TaskId::fresh();
    let mut unit = accepting((0..n).map(|_| NewTask { batch: Some(id), max_attempts: 1, ..task("child") }));
    let notify = Some(BatchNotify::Function { task: claimed.id });
    unit.batches.push(NewBatch { id, size: n, notify });
    (unit, id)
}

impl World {
    async fn recorded(&self, task: TaskId) -> Vec<(u8, String)> {
        let mut entries = self.store.journal(task).await.unwrap().entries;
        entries.sort_by_key(|entry| entry.call);
        let told = |entry: Entry| {
            let answer = match entry.answer {
                Some(Answer::Reply(body)) => body.get().to_owned(),
                None => "begun".to_owned(),
                other => format!("{other:?}"),
            };
            (entry.call.hash[0], answer)
        };
        entries.into_iter().map(told).collect()
    }

    async fn sends(&self, task: TaskId, signal: &Signal) -> Option<SignalFound> {
        self.store.signal(task, signal).await.unwrap()
    }

    async fn waits(&self, task: TaskId) -> Vec<Wait> {
        let mut waits = self.store.waits(task).await.unwrap();
        waits.sort_by(|a, b| a.name.cmp(&b.name));
        waits
    }

    async fn events(&self, task: TaskId) -> Vec<String> {
        self.store.history(task).await.unwrap().into_iter().map(|event| event.event).collect()
    }
}

fn lost(claimed: &Claimed) -> Verdict {
    Verdict::Refused(Refusal::ClaimLost(claimed.id))
}

rules! {
    async fn calls_are_recorded_as_they_were_answered(w: &mut World) {
        let claimed = w.running(task("a")).await;
        w.must(recording(&claimed, vec![entry(1, Some("null")), entry(2, None)])).await;
        // again, as after a lost reply
        w.must(recording(&claimed, vec![entry(1, Some("null")), entry(2, None)])).await;
        assert_eq!(w.recorded(claimed.id).await, [(1, "null".into()), (2, "begun".into())]);
        w.must(recording(&claimed, vec![entry(2, Some("7")), entry(3, None)])).await;
        // what was answered stays
        w.must(recording(&claimed, vec![entry(1, Some("9")), entry(2, None)])).await;
        let undone = |n: u8| CallId { hash: [n; 16], occurrence: 1 };
        w.must(writing(&claimed, |write| write.undone = vec![undone(2), undone(3)])).await;
        assert_eq!(w.recorded(claimed.id).await, [(1, "null".into()), (2, "7".into())]);
        let entries = w.store.journal(claimed.id).await.unwrap().entries;
        let second = entries.iter().find(|entry| entry.call == undone(2)).unwrap();
        assert_eq!((&*second.target, second.ordinal, second.optional), ("tool:t2", 2, true));
        assert!(entries.iter().any(|entry| entry.ordinal == 1 && !entry.optional));
        assert!(w.store.journal(TaskId::fresh()).await.unwrap().entries.is_empty());
    }

    async fn a_function_hears_that_its_batch_has_ended(w: &mut World) {
        let waits = w.running(task("waits")).await;
        let named = |batch: TaskId| journal::joined(batch);
        let (first, batch) = fan_out(&waits, 2);
        let (second, other) = fan_out(&waits, 1);
        w.must(first).await;
        w.must(waiting(&waits, &[wait(&named(batch), None)])).await;
        w.must(second).await;
        let children = w.claim(9).await;
        assert_eq!(children.len(), 3);
        w.must(ending(&children[2], ok())).await;
        w.must(ending(&children[0], ok())).await;
        assert_eq!(w.state_of(waits.id).await, TaskState::Waiting, "another batch, and half of its own");
        w.must(ending(&children[1], failed())).await;
        assert_eq!(w.state_of(waits.id).await, TaskState::Ready);
        let signals = w.store.journal(waits.id).await.unwrap().signals;
        let told: Vec<_> = signals.iter().map(|s| (s.id, s.name.clone(), s.body.get().to_owned())).collect();
        let body = |id: TaskId, well, ill| format!(r#"{{"batch":"{id}","succeeded":{well},"failed":{ill}}}"#);
        let expected = [
            (other.0, named(other), body(other, 1, 0)),
            (batch.0, named(batch), body(batch, 1, 1)),
        ];
        assert_eq!(told, expected);
        // The wait for one that has ended is over at once.
        let again = w.claim(9).await;
        w.must(waiting(&again[0], &[wait(&named(other), None)])).await;
        assert_eq!(w.state_of(waits.id).await, TaskState::Ready);
    }

    async fn the_end_of_a_batch_is_kept_for_a_function_that_has_ended_and_counts_as_no_signal(w: &mut World) {
        let gone = w.running(task("gone")).await;
        let (unit, batch) = fan_out(&gone, 1);
        w.must(unit).await;
        let children = w.claim(9).await;
        for n in 0..MAX_SIGNALS {
            w.sends(gone.id, &signal("go", &n.to_string())).await;
        }
        w.must(ending(&gone, failed())).await;
        w.must(ending(&children[0], ok())).await;
        let signals = w.store.journal(gone.id).await.unwrap().signals;
        assert_eq!(signals.last().unwrap().name, journal::joined(batch));
        assert_eq!(signals.len(), MAX_SIGNALS + 1);
        w.store.retry(gone.id).await.unwrap().unwrap().unwrap();
        let back = w.claim(9).await;
        w.must(waiting(&back[0], &[wait(&journal::joined(batch), None)])).await;
        assert_eq!(w.state_of(gone.id).await, TaskState::Ready);
    }

    async fn only_whoever_holds_the_claim_records(w: &mut World) {
        let claimed = w.running(task("a")).await;
        let other = w.running(task("b")).await;
        let later = Claimed { claim: ClaimId(claimed.claim.0 + 1_000), ..claimed.clone() };
        assert_eq!(w.commit_one(recording(&later, vec![entry(1, None)])).await, lost(&claimed));
        // its neighbours in the call do not notice
        let units = [recording(&later, vec![entry(1, None)]), recording(&other, vec![entry(1, Some("1"))]),
            accepting([task("c")]), w.turn("n", 0, "1")];
        let verdicts = w.commit(&units).await;
        assert_eq!(verdicts, [lost(&claimed), Verdict::Durable, Verdict::Durable, Verdict::Durable]);
        w.must(ending(&claimed, ok())).await;
        assert_eq!(w.commit_one(recording(&claimed, vec![entry(1, None)])).await, lost(&claimed));
        assert_eq!(w.commit_one(waiting(&claimed, &[wait("go", None)])).await, lost(&claimed));
        w.crash().await;
        assert_eq!(w.commit_one(recording(&other, vec![entry(2, None)])).await, lost(&other));
        assert_eq!(w.recorded(other.id).await, [(1, "1".into())]);
        assert!(w.recorded(claimed.id).await.is_empty());
    }

    async fn what_a_function_records_is_committed_alone(w: &mut World) {
        let claimed = w.running(task("a")).await;
        let mixed = Unit { finished: vec![], accepted: vec![task("b")], ..recording(&claimed, vec![entry(1, None)]) };
        assert!(matches!(w.commit_one(mixed).await, Verdict::Refused(Refusal::Bad(_))));
        assert!(w.recorded(claimed.id).await.is_empty());
    }

    async fn a_task_that_waits_is_woken_by_its_signal(w: &mut World) {
        let claimed = w.running(task("a")).await;
        w.must(waiting(&claimed, &[wait("go", None), wait("stop", None)])).await;
        let view = w.view(claimed.id).await;
        assert_eq!((view.state, view.attempt, view.node), (TaskState::Waiting, 0, None));
        assert_eq!(w.counts().await, [(TaskState::Waiting, 1)]);
        w.promote().await;
        assert_eq!(w.claim(9).await.len(), 0);
        assert_eq!(w.sends(claimed.id, &signal("other", "1")).await, Some(SignalFound::Kept(TaskState::Waiting)));
        assert_eq!(w.state_of(claimed.id).await, TaskState::Waiting);
        let later = w.submit(task("z")).await;
        let go = signal("go", r#"{"by":"me"}"#);
        assert_eq!(w.sends(claimed.id, &go).await, Some(SignalFound::Kept(TaskState::Waiting)));
        // the same again is none
        assert_eq!(w.sends(claimed.id, &go).await, Some(SignalFound::Kept(TaskState::Ready)));
        assert_eq!(w.counts().await, [(TaskState::Ready, 2)]);
        let again = w.claim(9).await;
        // behind whoever waited
        assert_eq!(again.iter().map(|c| (c.id, c.attempt)).collect::<Vec<_>>(), [(later, 1), (claimed.id, 1)]);
        let journal = w.store.journal(claimed.id).await.unwrap();
        let sent: Vec<_> = journal.signals.iter().map(|s| (&*s.name, s.body.get())).collect();
        assert_eq!(sent, [("other", "1"), ("go", r#"{"by":"me"}"#)]);
        assert_eq!(w.events(claimed.id).await, ["accepted", "started", "waiting", "signalled", "signalled", "started"]);
        w.must(ending(&again[1], ok())).await;
        assert_eq!(w.sends(claimed.id, &go).await, Some(SignalFound::Final(TaskState::Succeeded)));
        assert_eq!(w.sends(TaskId::fresh(), &go).await, None);
    }

    async fn what_a_task_waits_for_is_told_as_long_as_it_waits(w: &mut World) {
        let claimed = w.running(task("a")).await;
        assert!(w.store.waits(claimed.id).await.unwrap().is_empty());
        let later = Some(Timestamp::from_second(Timestamp::now().as_second() + 3_600).unwrap());
        w.must(waiting(&claimed, &[wait("stop", None), wait("go", later)])).await;
        assert_eq!(w.waits(claimed.id).await, [wait("go", later), wait("stop", None)]);
        assert!(w.store.waits(TaskId::fresh()).await.unwrap().is_empty());
        w.sends(claimed.id, &signal("go", "1")).await;
        assert_eq!(w.waits(claimed.id).await, []);
        let again = w.claim(9).await.remove(0);
        let second = Wait { occurrence: 2, ..wait("go", None) };
        w.must(waiting(&again, &[Wait { seen: 1, ..second.clone() }])).await;
        assert_eq!(w.waits(claimed.id).await, [second], "and nothing of the waits that are over");
    }

    /// A task that is cancelled while it waits, and tried again, waits for something else then.
    async fn what_a_task_waited_for_when_it_was_cancelled_is_over(w: &mut World) {
        let claimed = w.running(task("a")).await;
        w.must(waiting(&claimed, &[wait("stop", None)])).await;
        w.must(ending_idle(claimed.id, FinishOutcome::Cancelled)).await;
        w.store.retry(claimed.id).await.unwrap().unwrap().unwrap();
        let again = w.claim(9).await.remove(0);
        w.must(waiting(&again, &[wait("go", None)])).await;
        assert_eq!(w.waits(claimed.id).await, [wait("go", None)]);
        w.sends(claimed.id, &signal("stop", "1")).await;
        assert_eq!(w.state_of(claimed.id).await, TaskState::Waiting, "it wakes nobody");
    }

    async fn a_signal_that_came_before_the_wait_is_not_missed(w: &mut World) {
        let claimed = w.running(task("a")).await;
        assert_eq!(w.sends(claimed.id, &signal("go", "1")).await, Some(SignalFound::Kept(TaskState::Running)));
        w.must(waiting(&claimed, &[wait("go", None)])).await;
        assert_eq!(w.state_of(claimed.id).await, TaskState::Ready);
        let again = w.claim(9).await.remove(0);
        // it has been answered with that one
        w.must(waiting(&again, &[Wait { seen: 1, occurrence: 2, ..wait("go", None) }])).await;
        assert_eq!(w.state_of(claimed.id).await, TaskState::Waiting);
        assert_eq!(w.counts().await, [(TaskState::Waiting, 1)]);
        w.sends(claimed.id, &signal("go", "2")).await;
        assert_eq!(w.counts().await, [(TaskState::Ready, 1)]);
    }

    async fn a_wait_ends_at_its_time(w: &mut World) {
        let claimed = w.running(task("a")).await;
        let other = w.running(task("b")).await;
        let now = Timestamp::now();
        let (soon, later) = (now + Duration::from_secs(60), now + Duration::from_secs(3_600));
        w.must(waiting(&claimed, &[wait("go", Some(soon)), wait("stop", None)])).await;
        w.must(waiting(&other, &[wait("go", Some(later))])).await;
        let Promoted { ready, next, .. } = w.store.promote(now).await.unwrap();
        assert_eq!(ready, 0);
        assert!(next.unwrap().duration_until(soon).abs() < jiff::SignedDuration::from_millis(1));
        let Promoted { ready, next, .. } = w.store.promote(soon + Duration::from_secs(1)).await.unwrap();
        assert_eq!((ready, w.state_of(claimed.id).await), (1, TaskState::Ready));
        assert!(next.unwrap().duration_until(later).abs() < jiff::SignedDuration::from_millis(1));
        assert_eq!(w.store.promote(soon + Duration::from_secs(2)).await.unwrap().ready, 0);
        let waits = w.store.journal(claimed.id).await.unwrap().waits;
        let go = waits.iter().find(|wait| wait.name == "go").unwrap();
        assert!(go.until.unwrap().duration_until(soon).abs() < jiff::SignedDuration::from_millis(1));
        // one that was signalled is not woken again
        w.sends(other.id, &signal("go", "1")).await;
        let again = w.claim(9).await;
        assert_eq!(again.len(), 2);
        assert_eq!(w.store.promote(later + Duration::from_secs(1)).await.unwrap(), Promoted::default());
        assert_eq!(w.counts().await, [(TaskState::Running, 2)]);
    }

    async fn a_waiting_task_is_cancelled_and_one_that_was_flagged_does_not_wait(w: &mut World) {
        let claimed = w.running(task("a")).await;
        w.must(waiting(&claimed, &[wait("go", Some(Timestamp::now() + Duration::from_secs(1)))])).await;
        w.must(ending_idle(claimed.id, greenroom::store::FinishOutcome::Cancelled)).await;
        assert_eq!(w.state_of(claimed.id).await, TaskState::Cancelled);
        let flagged = w.running(task("b")).await;
        w.store.cancel(flagged.id).await.unwrap();
        w.must(waiting(&flagged, &[wait("go", None)])).await;
        w.promote().await;
        assert_eq!(w.state_of(flagged.id).await, TaskState::Cancelled);
        let next = w.store.promote(Timestamp::now() + Duration::from_secs(2)).await.unwrap().next;
        assert_eq!(next, None, "a wait of a task that has ended is over");
    }

    async fn a_task_that_has_begun_in_time_does_not_expire_while_it_waits(w: &mut World) {
        let mut new = task("a");
        new.expires_at = Some(Timestamp::now() + Duration::from_secs(60));
        let claimed = w.running(new).await;
        w.must(waiting(&claimed, &[wait("go", None)])).await;
        w.store.promote(Timestamp::now() + Duration::from_secs(120)).await.unwrap();
        assert_eq!(w.state_of(claimed.id).await, TaskState::Waiting);
    }

    async fn signals_are_bounded(w: &mut World) {
        let claimed = w.running(task("a")).await;
        for n in 0..MAX_SIGNALS {
            let found = w.sends(claimed.id, &signal("go", &n.to_string())).await;
            assert_eq!(found, Some(SignalFound::Kept(TaskState::Running)));
        }
        assert_eq!(w.sends(claimed.id, &signal("go", "0")).await, Some(SignalFound::TooMany));
        // Those that have answered a wait do not count, however many they are.
        let kept = w.store.journal(claimed.id).await.unwrap().signals;
        let takes = |(n, signal): (usize, &Signal)| Entry {
            call: CallId { hash: [7; 16], occurrence: n as u32 + 1 },
            target: "wait go".into(),
            ordinal: n as u32 + 1,
            optional: false,
            answer: Some(Answer::Signal { id: signal.id, body: signal.body.clone() }),
        };
        let other = entry(1, Some(r#"{"signal":{"id":"no"}}"#));
        let taken = kept.iter().enumerate().map(takes).take(2).chain([other]).collect();
        w.must(recording(&claimed, taken)).await;
        for left in [1, 0] {
            let found = w.sends(claimed.id, &signal("go", "1")).await;
            assert_eq!(found, Some(SignalFound::Kept(TaskState::Running)), "{left} to come");
        }
        assert_eq!(w.sends(claimed.id, &signal("go", "1")).await, Some(SignalFound::TooMany));
    }

    async fn a_person_who_confirms_another_attempt_has_what_was_begun_forgotten(w: &mut World) {
        let claimed = w.running(task("a")).await;
        w.must(recording(&claimed, vec![entry(1, Some("1")), entry(2, None)])).await;
        w.must(ending(&claimed, greenroom::store::FinishOutcome::OutcomeUnknown { error: error("x") })).await;
        assert_eq!(w.store.retry(claimed.id).await.unwrap(), Some(Ok(())));
        assert_eq!(w.recorded(claimed.id).await, [(1, "1".into())]);
        let again = w.claim(9).await.remove(0);
        assert!(again.due.is_some(), "it may have run before");
        w.must(recording(&again, vec![entry(3, None)])).await;
        w.must(ending(&again, failed())).await;
        assert_eq!(w.recorded(claimed.id).await.len(), 2);
        assert_eq!(w.store.retry(claimed.id).await.unwrap(), Some(Ok(())));
        assert_eq!(w.recorded(claimed.id).await, [(1, "1".into())]);
    }

    async fn what_a_task_says_is_kept_with_it_and_forgotten_with_it(w: &mut World) {
        let claimed = w.running(task("a")).await;
        let at = Timestamp::now();
        let line = |text: &str| LogLine { at, level: Level::Warn, text: text.into() };
        let note = |progress: Option<&str>, logs: &[&str]| TaskNotes {
            task: claimed.id,
            at,
            progress: progress.map(raw),
            logs: logs.iter().map(|text| line(text)).collect(),
        };
        assert!(w.store.progress(claimed.id).await.unwrap().is_none());
        w.store.note(&[note(Some(r#"{"fraction":0.5}"#), &["one", "t\0wo"])]).await.unwrap();
        w.store.note(&[note(None, &["three"])]).await.unwrap();
        assert_eq!(w.store.progress(claimed.id).await.unwrap().unwrap().get(), r#"{"fraction":0.5}"#);
        w.store.note(&[note(Some("1"), &[])]).await.unwrap();
        assert_eq!(w.store.progress(claimed.id).await.unwrap().unwrap().get(), "1");
        let lines = w.store.task_logs(claimed.id, 0, 2).await.unwrap();
        assert_eq!((lines.len(), lines[0].1.level, &*lines[0].1.text), (2, Level::Warn, "one"));
        let rest = w.store.task_logs(claimed.id, lines[1].0, 9).await.unwrap();
        assert_eq!(rest.iter().map(|(_, line)| &*line.text).collect::<Vec<_>>(), ["three"]);
        w.must(recording(&claimed, vec![entry(1, Some("1"))])).await;
        w.sends(claimed.id, &signal("go", "1")).await;
        w.must(ending(&claimed, ok())).await;
        assert_eq!(w.recorded(claimed.id).await.len(), 1);
        let later = Timestamp::now() + Duration::from_secs(60);
        assert!(w.store.clean(later, Past::before(later)).await.unwrap() > 0);
        assert!(w.store.task(claimed.id).await.unwrap().is_none());
        let journal = w.store.journal(claimed.id).await.unwrap();
        assert!(journal.entries.is_empty() && journal.signals.is_empty() && journal.waits.is_empty());
        assert!(w.store.progress(claimed.id).await.unwrap().is_none());
        assert!(w.store.task_logs(claimed.id, 0, 9).await.unwrap().is_empty());
    }
}
