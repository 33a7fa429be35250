//! Dead letters: looked at, brought back by the many, and kept longer than what ended otherwise.

use diesel::prelude::*;
use greenroom::{
    TaskId,
    model::{
        id::Target,
        task::{Claimed, DeadTask, NewTask, TaskState},
    },
    store::{FinishOutcome, Past, TaskFilter},
};
use jiff::{Timestamp, ToSpan};

use crate::support::*;

/// What succeeded is past, what failed is not.
fn only_ended() -> Past {
    Past { ended: Timestamp::now() + 1.hour(), failed: Timestamp::now() - 1.hour() }
}

fn all_past() -> Past {
    Past::before(Timestamp::now() + 1.hour())
}

impl World {
    /// Ends these tasks, a hundred at once.
    async fn end_all(&self, claimed: &[Claimed], outcome: fn() -> FinishOutcome) {
        for some in claimed.chunks(100) {
            let units: Vec<_> = some.iter().map(|claim| ending(claim, outcome())).collect();
            self.commit(&units).await;
        }
    }

    /// Submits so many tasks and ends them so, in the order of their acceptance.
    async fn ended(&self, n: usize, outcome: fn() -> FinishOutcome) -> Vec<TaskId> {
        self.must(accepting((0..n).map(|_| task("a")))).await;
        let mut ids = Vec::new();
        while ids.len() < n {
            let claimed = self.claim(1_000).await;
            self.end_all(&claimed, outcome).await;
            ids.extend(claimed.iter().map(|claim| claim.id));
        }
        ids
    }

    async fn dead(&self) -> Vec<DeadTask> {
        self.store.dead(None, 1_000).await.unwrap()
    }

    /// Cleans until there is nothing to clean; says how much that was.
    async fn cleaned(&self, past: Past) -> u64 {
        let mut all = 0;
        loop {
            match self.store.clean(Timestamp::now(), past).await.unwrap() {
                0 => return all,
                n => all += n,
            }
        }
    }

    /// How many rows a table has, where it can be told.
    fn rows(&self, table: &str) -> Option<i64> {
        #[derive(QueryableByName)]
        struct Count {
            #[diesel(sql_type = diesel::sql_types::BigInt)]
            n: i64,
        }
        let counting = format!("SELECT count(*) AS n FROM {table}");
        if self.url.is_empty() {
            return None;
        }
        if self.url.starts_with("postgres") {
            return Some(self.psql(&counting).parse().unwrap());
        }
        let mut conn = SqliteConnection::establish(self.path().to_str().unwrap()).unwrap();
        Some(diesel::sql_query(counting).get_result::<Count>(&mut conn).unwrap().n)
    }
}

rules! {
    async fn what_has_ended_leaves_the_table_of_unfinished_work(w: &mut World) {
        w.ended(300, ok).await;
        w.ended(20, failed).await;
        let cancelled = w.submit(task("b")).await;
        w.must(ending_idle(cancelled, FinishOutcome::Cancelled)).await;
        let open = w.submit(task("c")).await;
        assert_eq!(w.rows("greenroom_tasks").unwrap_or(1), 1);
        assert_eq!(w.rows("greenroom_task_archive").unwrap_or(321), 321);
        assert_eq!(w.claim(1_000).await.iter().map(|c| c.id).collect::<Vec<_>>(), [open]);
    }

    async fn dead_letters_are_kept_longer_than_what_ended_otherwise(w: &mut World) {
        let dead = w.ended(1, failed).await[0];
        let done = w.ended(1, ok).await[0];
        let cancelled = w.submit(task("b")).await;
        w.must(ending_idle(cancelled, FinishOutcome::Cancelled)).await;
        assert_eq!(w.cleaned(only_ended()).await, 2);
        assert!(w.store.task(done).await.unwrap().is_none() && w.store.task(cancelled).await.unwrap().is_none());
        assert_eq!(w.state_of(dead).await, TaskState::Failed);
        assert!(!w.store.history(dead).await.unwrap().is_empty());
        assert_eq!(w.counts().await, [(TaskState::Failed, 1)]);
        assert_eq!(w.cleaned(all_past()).await, 1);
        assert!(w.store.task(dead).await.unwrap().is_none());
        assert_eq!(w.counts().await, []);
    }

    async fn many_dead_letters_that_stay_hold_up_no_clean_up(w: &mut World) {
        w.ended(1_200, failed).await;
        w.ended(30, ok).await;
        assert_eq!(w.cleaned(only_ended()).await, 30);
        w.ended(30, ok).await;
        assert_eq!(w.cleaned(only_ended()).await, 30, "nor the next one");
        // Those that come back and end well are like all others, wherever they stand then.
        while let dead @ [_, ..] = &w.dead().await[..] {
            assert_eq!(w.store.retry_many(dead).await.unwrap(), dead.len() as u64);
        }
        let mut left = 1_200;
        while left > 0 {
            let claimed = w.claim(1_000).await;
            w.end_all(&claimed, ok).await;
            left -= claimed.len();
        }
        assert_eq!(w.cleaned(only_ended()).await, 1_200);
        assert_eq!(w.counts().await, []);
    }

    async fn dead_letters_are_looked_at_newest_first(w: &mut World) {
        let tags = vec!["eu".to_owned(), "a \"b\"".to_owned()];
        let tagged = w.running(NewTask { tags: tags.clone(), ..task("t") }).await;
        w.must(ending(&tagged, failed())).await;
        w.ended(2, ok).await;
        let mut ids = vec![tagged.id];
        ids.extend(w.ended(5, failed).await);
        let cancelled = w.submit(task("c")).await;
        w.must(ending_idle(cancelled, FinishOutcome::Cancelled)).await;
        ids.push(cancelled);
        w.submit(task("open")).await;
        ids.sort();
        ids.reverse();
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let some = w.store.dead(before, 3).await.unwrap();
            let Some(last) = some.last() else { break };
            (before, _) = (Some(last.id), assert!(some.len() <= 3));
            seen.extend(some);
        }
        assert_eq!(seen.iter().map(|task| task.id).collect::<Vec<_>>(), ids);
        let oldest = seen.iter().find(|task| task.id == tagged.id).unwrap();
        assert_eq!((oldest.state, &oldest.target), (TaskState::Failed, &Target::agent("tally", "t")));
        assert_eq!(oldest.tags, tags);
        assert_eq!(seen.iter().filter(|task| task.state == TaskState::Cancelled).count(), 1);
    }

    async fn of_many_those_come_back_that_stand_as_they_were_seen(w: &mut World) {
        let ids = w.ended(4, failed).await;
        let dead = w.dead().await;
        assert_eq!(dead.len(), 4);
        // One has come back by itself; one has come back and was cancelled.
        assert_eq!(w.store.retry(ids[0]).await.unwrap(), Some(Ok(())));
        assert_eq!(w.store.retry(ids[1]).await.unwrap(), Some(Ok(())));
        w.must(ending_idle(ids[1], FinishOutcome::Cancelled)).await;
        let unknown = DeadTask { id: TaskId::fresh(), ..dead[0].clone() };
        let asked: Vec<_> = dead.iter().cloned().chain([unknown]).collect();
        assert_eq!(w.store.retry_many(&asked).await.unwrap(), 2);
        assert_eq!(w.store.retry_many(&asked).await.unwrap(), 0, "once is enough");
        assert_eq!(w.store.retry_many(&[]).await.unwrap(), 0);
        assert_eq!(w.counts().await, [(TaskState::Ready, 3), (TaskState::Cancelled, 1)]);
        let claimed = w.claim(9).await;
        assert!(claimed.iter().all(|claim| (claim.attempt, claim.lost) == (1, 0)));
        let history = w.store.history(ids[2]).await.unwrap();
        assert!(history.iter().any(|event| event.event == "retried"), "{history:?}");
    }

    async fn what_is_dismissed_is_cancelled_and_its_history_keeps_both_ends(w: &mut World) {
        let ids = w.ended(4, failed).await;
        let dead = w.dead().await;
        assert!(dead.iter().all(|task| task.code.as_deref() == Some("handler_failed")), "{dead:?}");
        // One came back and was cancelled, one came back; one is not there at all.
        assert_eq!(w.store.retry(ids[0]).await.unwrap(), Some(Ok(())));
        w.must(ending_idle(ids[0], FinishOutcome::Cancelled)).await;
        assert_eq!(w.store.retry(ids[1]).await.unwrap(), Some(Ok(())));
        let unknown = DeadTask { id: TaskId::fresh(), ..dead[0].clone() };
        let asked: Vec<_> = dead.iter().cloned().chain([unknown]).collect();
        let failed_at = w.view(ids[2]).await.finished_at.unwrap();
        assert_eq!(w.store.dismiss_many(&asked).await.unwrap(), 2);
        assert_eq!(w.store.dismiss_many(&asked).await.unwrap(), 0, "once is enough");
        assert_eq!(w.store.dismiss_many(&[]).await.unwrap(), 0);
        assert_eq!(w.counts().await, [(TaskState::Ready, 1), (TaskState::Cancelled, 3)]);
        let view = w.view(ids[2]).await;
        assert_eq!(view.state, TaskState::Cancelled);
        assert_eq!(view.error.unwrap().message, "it does not work", "why is still known");
        assert!(view.finished_at.unwrap() >= failed_at);
        let history = w.store.history(ids[2]).await.unwrap();
        let told: Vec<_> =
            history.iter().map(|line| (line.event.as_str(), line.detail.as_deref().unwrap_or_default())).collect();
        let ends = [("failed", "it does not work"), ("cancelled", "an operator dismissed the dead letter")];
        assert_eq!(told[told.len() - 2..], ends, "{told:?}");
        assert_eq!(history[history.len() - 2].at, failed_at);
        // It is kept as what was cancelled today, and can be brought back.
        assert_eq!(w.cleaned(Past::before(failed_at)).await, 0);
        assert_eq!(w.store.retry(ids[2]).await.unwrap(), Some(Ok(())));
        assert_eq!(w.cleaned(all_past()).await, 2);
        assert_eq!(w.counts().await, [(TaskState::Ready, 2)]);
    }

    async fn what_an_error_holds_keeps_nobody_from_dismissing_it(w: &mut World) {
        let claimed = w.running(task("a")).await;
        w.must(ending(&claimed, FinishOutcome::Failed { error: error("a\0b \u{1F600}") })).await;
        let dead = w.dead().await;
        assert_eq!(w.store.dismiss_many(&dead).await.unwrap(), 1);
        assert_eq!(w.state_of(claimed.id).await, TaskState::Cancelled);
    }

    async fn a_page_looks_at_no_more_than_it_should_and_says_how_far(w: &mut World) {
        let first = w.submit(task("needle")).await;
        for _ in 0..11 {
            w.must(accepting((0..1_000).map(|_| task("hay")))).await;
        }
        let page = async |target: &str, before| {
            let target = Some(target.parse().unwrap());
            let filter = TaskFilter { target, before, limit: 9, ..TaskFilter::default() };
            w.store.tasks(&filter).await.unwrap()
        };
        assert_eq!(page("tally/hay", None).await.items.len(), 9);
        let mut found = page("tally/needle", None).await;
        if !w.url.is_empty() {
            assert_eq!((found.items.len(), found.looked_to.is_some()), (0, true));
            found = page("tally/needle", found.looked_to).await;
        }
        assert_eq!((found.items.len(), found.items[0].id, found.looked_to), (1, first, None));
        let all = TaskFilter { limit: 9, ..TaskFilter::default() };
        assert_eq!(w.store.tasks(&all).await.unwrap().looked_to, None, "nothing is left out there");
    }

    async fn tasks_are_listed_by_their_labels(w: &mut World) {
        let labelled = |tags: &[&str]| NewTask {
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..task("a")
        };
        let first = w.running(labelled(&["eu", "night"])).await;
        w.must(ending(&first, failed())).await;
        let second = w.submit(labelled(&["night"])).await;
        w.submit(labelled(&["nights", "EU", "a\"night"])).await;
        w.submit(task("a")).await;
        let listed = async |tag: &str| {
            let filter = TaskFilter { tag: Some(tag.to_owned()), limit: 9, ..TaskFilter::default() };
            w.store.tasks(&filter).await.unwrap().items.into_iter().map(|view| view.id).collect::<Vec<_>>()
        };
        assert_eq!(listed("night").await, [second, first.id]);
        assert_eq!(listed("eu").await, [first.id]);
        assert_eq!(listed("a\"night").await.len(), 1);
        assert_eq!(listed("nigh").await, []);
        assert_eq!(w.view(first.id).await.tags, ["eu", "night"]);
    }
}
