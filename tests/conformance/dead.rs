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
            w.store.tasks(&filter).await.unwrap().into_iter().map(|view| view.id).collect::<Vec<_>>()
        };
        assert_eq!(listed("night").await, [second, first.id]);
        assert_eq!(listed("eu").await, [first.id]);
        assert_eq!(listed("a\"night").await.len(), 1);
        assert_eq!(listed("nigh").await, []);
        assert_eq!(w.view(first.id).await.tags, ["eu", "night"]);
    }
}
