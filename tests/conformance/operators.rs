//! What people see and do: parking, retrying, listings, histories, cleaning, checking.

use std::time::Duration;

use greenroom::{
    model::{
        id::{AgentId, Target},
        snapshot,
        task::{NewTask, Notify, OnParentFailed, TaskError, TaskEvent, TaskState},
    },
    store::{
        self, AgentFilter, FinishOutcome, KeyWrite, Past, SeenState, StoreError, StoreOptions, StoredStatus,
        TaskFilter, Unit,
    },
};
use jiff::{Timestamp, ToSpan};

use crate::support::*;

rules! {
    async fn parking_takes_ready_and_scheduled_tasks_of_one_target(w: &mut World) {
        let running = w.running(task("a")).await;
        let ready = w.submit(task("a")).await;
        let run_at = Some(Timestamp::now() + 1.hour());
        let scheduled = w.submit(NewTask { run_at, ..task("a") }).await;
        let blocked = w.submit(child("a", &[running.id])).await;
        let other = w.submit(task("b")).await;
        assert_eq!(w.store.park("tally/a", true).await.unwrap(), 2);
        let after = [
            (running.id, TaskState::Running),
            (ready, TaskState::Parked),
            (scheduled, TaskState::Parked),
            (blocked, TaskState::Blocked),
            (other, TaskState::Ready),
        ];
        for (id, state) in after {
            assert_eq!(w.state_of(id).await, state);
        }
        assert_eq!(w.claim(9).await.len(), 1);
        assert_eq!(w.store.park("tally/b", false).await.unwrap(), 0);
        // back in their old order, behind what came meanwhile; and what is not due waits for its time
        let second = w.submit(task("a")).await;
        assert_eq!(w.store.park("tally/a", true).await.unwrap(), 1);
        let third = w.submit(task("c")).await;
        assert_eq!(w.store.park("tally/a", false).await.unwrap(), 3);
        assert_eq!(w.state_of(scheduled).await, TaskState::Scheduled);
        let claimed: Vec<_> = w.claim(9).await.into_iter().map(|c| c.id).collect();
        assert_eq!(claimed, [third, ready, second]);
        let promoted = w.store.promote(Timestamp::now() + 2.hours()).await.unwrap().ready;
        assert_eq!((promoted, w.state_of(scheduled).await), (1, TaskState::Ready));
    }

    async fn a_dead_letter_comes_back_as_new(w: &mut World) {
        let claimed = w.running(task("a")).await;
        assert_eq!(w.store.retry(claimed.id).await.unwrap(), Some(Err(TaskState::Running)));
        w.must(ending(&claimed, failed())).await;
        let later = w.submit(task("b")).await;
        assert_eq!(w.store.retry(claimed.id).await.unwrap(), Some(Ok(())));
        assert_eq!(w.store.retry(claimed.id).await.unwrap(), Some(Err(TaskState::Ready)));
        let again = w.claim(9).await;
        assert_eq!(again.iter().map(|c| c.id).collect::<Vec<_>>(), [later, claimed.id]);
        assert_eq!((again[1].attempt, again[1].lost), (1, 0));
        assert_eq!(again[1].input.get(), claimed.input.get());
        assert!(again[1].seq > again[0].seq);
        w.must(ending(&again[1], ok())).await;
        assert_eq!(w.store.retry(claimed.id).await.unwrap(), Some(Err(TaskState::Succeeded)));
        assert_eq!(w.store.retry(task("x").id).await.unwrap(), None);
    }

    async fn tasks_are_listed_newest_first_hot_and_archived(w: &mut World) {
        let mut ids = Vec::new();
        for n in 0..10 {
            ids.push(w.submit(task(if n % 2 == 0 { "even" } else { "odd" })).await);
        }
        for (n, claimed) in w.claim(5).await.iter().enumerate() {
            w.must(ending(claimed, if n == 0 { failed() } else { ok() })).await;
        }
        w.claim(1).await;
        let mut seen = Vec::new();
        let mut before = None;
        loop {
            let filter = TaskFilter { before, limit: 3, ..TaskFilter::default() };
            let page = w.store.tasks(&filter).await.unwrap().items;
            let Some(last) = page.last() else { break };
            before = Some(last.id);
            seen.extend(page.iter().map(|v| v.id));
        }
        ids.reverse();
        assert_eq!(seen, ids);
        let list = async |state, target: Option<&str>| {
            let target = target.map(|text| text.parse().unwrap());
            let filter = TaskFilter { state, target, limit: 100, ..TaskFilter::default() };
            w.store.tasks(&filter).await.unwrap().items.len()
        };
        assert_eq!(list(Some(TaskState::Succeeded), None).await, 4);
        assert_eq!(list(Some(TaskState::Failed), None).await, 1);
        assert_eq!(list(Some(TaskState::Cancelled), None).await, 0);
        assert_eq!(list(Some(TaskState::Running), None).await, 1);
        assert_eq!(list(Some(TaskState::Ready), None).await, 4);
        assert_eq!(list(None, Some("tally/even")).await, 5);
        assert_eq!(list(Some(TaskState::Succeeded), Some("tally/even")).await, 2);
        assert_eq!(list(None, Some("tally/*")).await, 10, "all that begin so");
        assert_eq!(list(None, Some("tally/e*")).await, 5);
        assert_eq!(list(None, Some("tally/E*")).await, 0, "letters are what they are");
        assert_eq!(list(None, Some("tal/*")).await, 0);
        assert_eq!(list(None, Some("tool:*")).await, 0);
    }

    /// They may be megabytes each: a page of a thousand must not read them.
    async fn lists_hold_neither_results_nor_large_errors(w: &mut World) {
        let large = format!("\"{}\"", "x".repeat(100_000));
        let succeeded = w.running(NewTask { input: json(&large), ..task("a") }).await;
        w.must(ending(&succeeded, FinishOutcome::Succeeded { result: large.clone().into_bytes() })).await;
        let failing = w.running(task("a")).await;
        let refusal = Some(serde_json::Value::from(&*large));
        let whole = TaskError { refusal, ..error("it does not work") };
        w.must(ending(&failing, FinishOutcome::Failed { error: whole.clone() })).await;
        let retried = w.running(task("a")).await;
        let later = FinishOutcome::Retry { run_at: Timestamp::now() + 1.hour(), error: whole.clone() };
        w.must(ending(&retried, later)).await;

        let page = w.store.tasks(&TaskFilter { limit: 10, ..TaskFilter::default() }).await.unwrap().items;
        let ids = [succeeded.id, failing.id, retried.id];
        let relatives = w.store.relatives(&[retried.id, succeeded.id, failing.id]).await.unwrap();
        let brief = Some(TaskError { chain: Vec::new(), ..error("it does not work") });
        for (listed, id) in page.iter().rev().chain(&relatives).zip(ids.into_iter().cycle()) {
            assert_eq!((listed.id, listed.result.is_some()), (id, false));
            assert_eq!(listed.error, brief.clone().filter(|_| id != succeeded.id));
        }
        assert_eq!(page.len() + relatives.len(), 6);
        assert_eq!(w.view(succeeded.id).await.result.unwrap().get(), large, "one alone has all of it");
        assert_eq!(w.view(failing.id).await.error, Some(whole.clone()));
        assert_eq!(w.view(retried.id).await.error, Some(whole));
        assert_eq!(w.store.dead(None, 9).await.unwrap()[0].code.as_deref(), Some("handler_failed"));
    }

    async fn a_task_is_shown_with_what_its_submitter_chose(w: &mut World) {
        let at = Timestamp::from_second(Timestamp::now().as_second() + 3_600).unwrap();
        let plain = w.submit(task("plain")).await;
        let seen = w.view(plain).await;
        assert_eq!((seen.timeout_ms, seen.expires_at, seen.on_parent_failed, seen.notify), (None, None, None, None));
        let notify = Some(Notify { target: Target::agent("tally", "told"), message: "Add.done".into() });
        let chosen = w.submit(NewTask {
            timeout: Some(Duration::from_millis(1_500)),
            expires_at: Some(at),
            on_parent_failed: OnParentFailed::Run,
            notify: notify.clone(),
            ..task("chosen")
        }).await;
        let claimed = w.claim(9).await.into_iter().find(|claimed| claimed.id == chosen).unwrap();
        let shown = async |w: &World| {
            let listed = w.store.tasks(&TaskFilter { limit: 9, ..TaskFilter::default() }).await.unwrap().items;
            let listed = listed.into_iter().find(|task| task.id == chosen).unwrap();
            [w.view(chosen).await, listed, w.store.relatives(&[chosen]).await.unwrap().remove(0)]
        };
        for seen in shown(w).await {
            assert_eq!((seen.timeout_ms, seen.expires_at), (Some(1_500), Some(at)));
            assert_eq!((seen.on_parent_failed, &seen.notify), (Some(OnParentFailed::Run), &notify));
        }
        w.must(ending(&claimed, ok())).await;
        for seen in shown(w).await {
            assert_eq!((seen.timeout_ms, seen.expires_at), (Some(1_500), None), "it cannot expire any more");
            assert_eq!((seen.on_parent_failed, &seen.notify), (Some(OnParentFailed::Run), &notify));
        }
    }

    async fn a_history_tells_the_story_in_order(w: &mut World) {
        let claimed = w.running(task("a")).await;
        w.must(ending(&claimed, FinishOutcome::Retry { run_at: Timestamp::now(), error: error("busy") })).await;
        w.promote().await;
        w.claim(1).await;
        w.crash().await;
        let again = w.claim(1).await.pop().unwrap();
        w.store.cancel(again.id).await.unwrap();
        w.must(ending(&again, failed())).await;
        let seen = w.store.history(claimed.id).await.unwrap();
        let events = |told: &[TaskEvent]| told.iter().map(|e| (e.event.clone(), e.attempt)).collect::<Vec<_>>();
        let expected = [
            ("accepted", 0),
            ("started", 1),
            ("retry", 1),
            ("started", 2),
            ("rescued", 2),
            ("started", 3),
            ("cancel_requested", 3),
            ("failed", 3),
        ];
        let expected = expected.map(|(event, attempt)| (event.to_owned(), attempt));
        assert_eq!(events(&seen), expected);
        assert_eq!(seen[2].detail.as_deref(), Some("busy"));
        assert_eq!(seen[7].detail.as_deref(), Some("it does not work"));
        // What a person undoes is still told, also where the next end is the same.
        for _ in 0..2 {
            assert_eq!(w.store.retry(claimed.id).await.unwrap(), Some(Ok(())));
            let once_more = w.claim(1).await.pop().unwrap();
            w.must(ending(&once_more, failed())).await;
        }
        let told = w.store.history(claimed.id).await.unwrap();
        let more = [("retried", 3), ("started", 1), ("failed", 1), ("retried", 1), ("started", 1), ("failed", 1)];
        let more = more.map(|(event, attempt)| (event.to_owned(), attempt));
        assert_eq!(events(&told), [&expected[..], &more[..]].concat());
        assert_eq!(told.last().unwrap().detail.as_deref(), Some("it does not work"));
        for (before, now) in seen.iter().zip(&told) {
            assert_eq!((before.at, &before.detail, &before.node), (now.at, &now.detail, &now.node));
        }
        assert_eq!(w.store.history(task("x").id).await.unwrap().len(), 0);
    }

    async fn a_claim_that_goes_back_is_no_start(w: &mut World) {
        let claimed = w.running(task("a")).await;
        w.must(ending(&claimed, FinishOutcome::Retry { run_at: Timestamp::now(), error: error("busy") })).await;
        w.promote().await;
        let again = w.claim(1).await.pop().unwrap();
        w.store.give_back(w.boot, &[(again.id, again.claim)]).await.unwrap();
        let events = async |w: &World| {
            let told = w.store.history(claimed.id).await.unwrap();
            told.into_iter().map(|line| (line.event, line.attempt)).collect::<Vec<_>>()
        };
        let expected = [("accepted", 0), ("started", 1), ("retry", 1), ("started", 2)];
        let expected = expected.map(|(event, attempt)| (event.to_owned(), attempt));
        assert_eq!(events(w).await, expected[..3]);
        assert_eq!(w.claim(1).await.len(), 1);
        assert_eq!(events(w).await, expected);
    }

    async fn cleaning_forgets_what_is_old_and_nothing_else(w: &mut World) {
        let ended = w.running(task("a")).await;
        let hot = w.submit(task("hot")).await;
        w.must(ending(&ended, failed())).await;
        let key = |name: &str, expires_at| KeyWrite {
            scope: uuid::Uuid::nil(),
            key: name.into(),
            request: [0; 16],
            task: None,
            reply: None,
            expires_at,
        };
        let now = Timestamp::now();
        let keys = vec![key("old", now - 1.hour()), key("new", now + 1.hour())];
        w.must(Unit { keys, ..Unit::default() }).await;
        assert_eq!(w.store.clean(now, Past::before(now - 1.hour())).await.unwrap(), 1, "the expired key");
        assert_eq!(w.state_of(ended.id).await, TaskState::Failed);
        assert!(w.store.clean(now, Past::before(now + 1.hour())).await.unwrap() >= 1);
        assert!(w.store.task(ended.id).await.unwrap().is_none());
        assert!(w.store.history(ended.id).await.unwrap().is_empty());
        assert_eq!(w.state_of(hot).await, TaskState::Ready);
        assert!(w.store.key(uuid::Uuid::nil(), "new").await.unwrap().is_some());
        assert_eq!(w.counts().await, [(TaskState::Ready, 1)]);
    }

    async fn cleaning_is_bounded(w: &mut World) {
        w.must(accepting((0..1_200).map(|_| task("a")))).await;
        for claimed in w.claim(1_000).await.chunks(100) {
            let units: Vec<Unit> = claimed.iter().map(|c| ending(c, ok())).collect();
            w.commit(&units).await;
        }
        let future = Timestamp::now() + 1.hour();
        let mut calls = Vec::new();
        while let n @ 1.. = w.store.clean(Timestamp::now(), Past::before(future)).await.unwrap() {
            calls.push(n);
        }
        assert!(calls.len() > 1 && calls.iter().sum::<u64>() >= 1_000, "{calls:?}");
        assert_eq!(w.counts().await, [(TaskState::Ready, 200)]);
    }

    async fn verification_shows_each_sound_state_with_its_name(w: &mut World) {
        for base in 0..3 {
            w.must(w.turn("a", base, &format!("{}", base + 1))).await;
        }
        w.must(w.turn("b", 0, "7")).await;
        let id = AgentId::of("tally", "c");
        let status = StoredStatus::Paused;
        w.store.set_status(id, "tally", "c", w.epoch(id), status, None).await.unwrap();
        let mut shown = Vec::new();
        let mut note = |state: SeenState<'_>| {
            let (header, body) = snapshot::open(state.bytes).unwrap();
            header.matches(state.id, state.epoch, state.version).unwrap();
            assert_eq!(AgentId::of(state.kind, state.key), state.id);
            assert_eq!(state.schema_version, header.schema_version);
            let body = String::from_utf8(body.to_vec()).unwrap();
            shown.push((state.key.to_owned(), state.version, state.is_current, body));
        };
        assert_eq!(w.verify_with(&mut note).await.problems, [""; 0]);
        shown.sort();
        let state = |key: &str, version, current, body: &str| (key.to_owned(), version, current, body.to_owned());
        let all = [
            state("a", 1, false, "1"),
            state("a", 2, false, "2"),
            state("a", 3, true, "3"),
            state("b", 1, true, "7"),
        ];
        assert_eq!(shown, all);
    }

    async fn what_waits_for_a_person_is_told_with_its_beginning(w: &mut World) {
        use greenroom::store::Oldest;
        assert_eq!(w.store.oldest().await.unwrap(), Oldest::default());
        let set = async |w: &World, key: &str, status| {
            let id = AgentId::of("tally", key);
            w.store.set_status(id, "tally", key, w.epoch(id), status, None).await.unwrap();
        };
        w.must(w.turn("a", 0, "1")).await;
        w.must(w.turn("b", 0, "1")).await;
        set(w, "b", StoredStatus::Paused).await;
        assert_eq!(w.store.oldest().await.unwrap(), Oldest::default());
        set(w, "a", StoredStatus::Quarantined).await;
        let first = w.store.oldest().await.unwrap().quarantined.unwrap();
        set(w, "b", StoredStatus::Quarantined).await;
        // an agent of which nothing else is kept, and one that is told again
        set(w, "c", StoredStatus::Quarantined).await;
        set(w, "a", StoredStatus::Quarantined).await;
        assert_eq!(w.store.oldest().await.unwrap().quarantined, Some(first));
        let filter = AgentFilter { status: Some(StoredStatus::Quarantined), limit: 9, ..AgentFilter::default() };
        let rows = w.store.agents(&filter).await.unwrap();
        let since: Vec<_> = rows.iter().map(|row| (&*row.key, row.held_at)).collect();
        assert_eq!((since[0], since[2]), (("a", Some(first)), ("c", None)), "c was made with its status");
        assert!(since[1].1 > Some(first), "{since:?}");
        let [head] = &w.store.heads(&[AgentId::of("tally", "a")]).await.unwrap()[..] else { panic!("one") };
        assert_eq!(head.as_ref().unwrap().held_at, Some(first));
        set(w, "a", StoredStatus::Normal).await;
        let second = w.store.oldest().await.unwrap().quarantined.unwrap();
        assert!(second > first, "{first} {second}");
        set(w, "b", StoredStatus::Normal).await;
        assert!(w.store.oldest().await.unwrap().quarantined.unwrap() > second);
        set(w, "c", StoredStatus::Normal).await;
        assert_eq!(w.store.oldest().await.unwrap(), Oldest::default());

        let interrupt = async |w: &mut World, key: &str| {
            let claimed = w.running(task(key)).await;
            w.must(ending(&claimed, FinishOutcome::OutcomeUnknown { error: error("cut off") })).await;
            claimed.id
        };
        let early = interrupt(w, "d").await;
        let first = w.store.oldest().await.unwrap().outcome_unknown.unwrap();
        let late = interrupt(w, "e").await;
        assert_eq!(w.store.oldest().await.unwrap().outcome_unknown, Some(first));
        // tried again, and interrupted again: it is so since then
        w.store.retry(early).await.unwrap().unwrap().unwrap();
        let second = w.store.oldest().await.unwrap().outcome_unknown.unwrap();
        assert!(second > first, "{first} {second}");
        let again = w.claim(9).await.remove(0);
        w.must(ending(&again, FinishOutcome::OutcomeUnknown { error: error("cut off") })).await;
        assert_eq!(w.store.oldest().await.unwrap().outcome_unknown, Some(second));
        for id in [early, late] {
            w.must(ending_idle(id, failed())).await;
        }
        assert_eq!(w.store.oldest().await.unwrap(), Oldest::default());
    }

    async fn a_store_that_answers_says_what_it_is(w: &mut World) {
        w.store.ping().await.unwrap();
        // twice: it writes where it has written before
        w.store.try_room().await.unwrap();
        w.store.try_room().await.unwrap();
        assert!(w.store.name().contains(' '));
        assert!(w.store.writers() >= 1);
    }

}

async fn opened_again_there_is_nothing_to_migrate(w: &World) {
    assert_eq!(store::migrate(&w.url).await.unwrap(), Vec::<String>::new());
    let status = store::migration_status(&w.url).await.unwrap();
    assert!(!status.applied.is_empty());
    assert_eq!((status.pending.len(), status.unknown.len()), (0, 0));
}

#[tokio::test]
async fn a_file_opened_again_has_nothing_to_migrate() {
    opened_again_there_is_nothing_to_migrate(&World::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_opened_again_has_nothing_to_migrate() {
    opened_again_there_is_nothing_to_migrate(&World::postgres().await).await;
}

/// SQLite alone: what its file may look like.
mod sqlite {
    use diesel::{connection::SimpleConnection, prelude::*};

    use super::*;

    fn raw(w: &World, sql: &str) {
        let mut conn = SqliteConnection::establish(w.path().to_str().unwrap()).unwrap();
        conn.batch_execute(sql).unwrap();
    }

    #[tokio::test]
    async fn a_store_made_by_a_newer_program_is_refused() {
        let w = World::sqlite().await;
        raw(&w, "INSERT INTO __diesel_schema_migrations (version) VALUES ('99990101000000')");
        let refused = store::open(&w.url, &StoreOptions::default()).await.err();
        assert!(matches!(&refused, Some(StoreError::Refused(why)) if why.contains("newer")), "{refused:?}");
        let status = store::migration_status(&w.url).await.unwrap();
        assert_eq!(status.unknown, ["99990101000000"]);
    }

    #[tokio::test]
    async fn a_commit_that_the_process_did_not_live_to_see_is_nothing() {
        let mut w = World::sqlite().await;
        // a writer dies in the middle of its transaction
        let mut conn = SqliteConnection::establish(w.path().to_str().unwrap()).unwrap();
        conn.batch_execute(
            "BEGIN IMMEDIATE; DELETE FROM greenroom_partitions; UPDATE greenroom_counts SET n = 7",
        )
        .unwrap();
        drop(conn);
        w.crash().await;
        w.must(w.turn("a", 0, "1")).await;
        assert_eq!(w.counts().await, []);
    }

    #[tokio::test]
    async fn verification_finds_what_is_wrong() {
        let w = World::sqlite().await;
        w.must(w.turn("a", 0, "1")).await;
        w.must(w.turn("a", 1, "2")).await;
        w.submit(task("a")).await;
        let fine = store::verify(&w.url).await.unwrap();
        assert_eq!((fine.agents, fine.snapshots, fine.tasks, fine.problems.len()), (1, 1, 1, 0));
        let spoil = [
            ("UPDATE greenroom_agents SET version = version + 1", "version"),
            ("UPDATE greenroom_agents SET version = 2, state = CAST(state || 'x' AS BLOB)", "cut off"),
            ("UPDATE greenroom_snapshots SET agent = randomblob(16)", "belongs to agent"),
            ("UPDATE greenroom_tasks SET input = x'7b'", "not JSON"),
            ("UPDATE greenroom_counts SET n = 3 WHERE id = 2", "counter 2"),
        ];
        for (sql, word) in spoil {
            raw(&w, sql);
            let problems = store::verify(&w.url).await.unwrap().problems;
            assert!(problems.iter().any(|p| p.contains(word)), "{sql}: {problems:?}");
        }
        std::mem::forget(w);
    }

    #[tokio::test]
    async fn a_url_that_names_no_store_is_refused() {
        for url in [
            "postgres://u:secret@h/db?sslmode=maybe",
            "sqlite://",
            "sqlite://:memory:",
            "memory://",
            "greenroom.db",
            "mysql://secret@h",
        ] {
            let error = store::open(url, &StoreOptions::default()).await.err();
            assert!(matches!(&error, Some(StoreError::Refused(why)) if !why.contains("secret")), "{error:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        let nothing = folder.path().join("none.db");
        assert!(store::verify(&format!("sqlite://{}", nothing.display())).await.is_err());
        let status = store::migration_status(&format!("sqlite://{}", nothing.display())).await.unwrap();
        assert_eq!((status.applied.len(), status.pending.is_empty()), (0, false));
        assert!(!nothing.exists(), "looking makes no store");
    }
}
