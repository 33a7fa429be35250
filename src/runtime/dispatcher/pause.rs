//! Kinds and tools that are paused, or stopped on this node: what it has claimed of them and not begun goes back.

use std::{cmp::Reverse, collections::HashSet, sync::Arc};

use actix::prelude::*;
use tokio_util::sync::CancellationToken;

use super::Dispatcher;
use crate::model::task::{Claimed, Queue, queue_of};

impl Dispatcher {
    /// Nothing of these begins from now on. `true`: something of others may begin again.
    pub(super) fn pause(&mut self, paused: HashSet<String>, ctx: &mut Context<Self>) -> bool {
        let resumed = self.paused.iter().any(|queue| !paused.contains(queue));
        self.paused = paused;
        if self.paused.is_empty() {
            return resumed;
        }
        self.recalls().into_iter().for_each(CancellationToken::cancel);
        let mut back = Vec::new();
        for (target, waiting) in std::mem::take(&mut self.full) {
            match waiting.front().is_some_and(|claim| self.is_paused(claim)) {
                true => back.extend(waiting),
                false => drop(self.full.insert(target, waiting)),
            }
        }
        self.give_back(back, ctx);
        resumed
    }

    /// What has those go back of what is paused here that have not begun. The newest first: of an agent's tasks that
    /// begin meanwhile none was accepted after one that goes back.
    fn recalls(&self) -> Vec<&CancellationToken> {
        let paused = self.running.values().filter(|running| self.is_paused(&running.claim));
        let mut recalls: Vec<_> = paused.map(|running| (running.claim.seq, &running.recall)).collect();
        recalls.sort_by_key(|(seq, _)| Reverse(*seq));
        recalls.into_iter().map(|(_, recall)| recall).collect()
    }

    fn is_paused(&self, claim: &Claimed) -> bool {
        !self.paused.is_empty() && self.paused.contains(&queue_of(&claim.target))
    }

    /// Those that may begin; the others, claimed before anybody here knew of the pause, go back.
    pub(super) fn unless_paused(
        &mut self,
        claims: Vec<Arc<Claimed>>,
        ctx: &mut Context<Self>,
    ) -> Vec<Arc<Claimed>> {
        if self.paused.is_empty() {
            return claims;
        }
        let (paused, open) = claims.into_iter().partition(|claim| self.is_paused(claim));
        self.give_back(paused, ctx);
        open
    }

    /// Those of which something may be claimed.
    pub(super) fn open(&self, mut queues: Vec<Queue>) -> Vec<Queue> {
        queues.retain(|queue| !self.paused.contains(&queue.name));
        queues
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use serde::{Deserialize, Serialize};
    use tokio::sync::Semaphore;

    use super::*;
    use crate::{
        Agent, Query, Turn,
        agent::{
            Handler as Handles,
            counter::{Append, Ids, Length, List},
        },
        runtime::dispatcher::RunningTasks,
    };

    /// Keeps what is appended, as often as the gate lets it.
    #[derive(Default, Serialize, Deserialize)]
    struct Row {
        ids: Vec<String>,
    }
    impl Agent for Row {
        const KIND: &'static str = "row";
        type Messages = (Append, List);
    }
    impl Handles<Append> for Row {
        async fn handle(&mut self, append: Append, turn: &Turn<Self>) -> anyhow::Result<Length> {
            turn.resource::<Arc<Semaphore>>().acquire().await?.forget();
            self.ids.push(append.id);
            Ok(Length { len: self.ids.len() as u64 })
        }
    }
    impl Query<List> for Row {
        async fn query(&self, _: List, _: &Turn<Self>) -> anyhow::Result<Ids> {
            Ok(Ids { ids: self.ids.clone() })
        }
    }

    /// Has the first one go back of all that are to, and comes to a halt there.
    #[derive(Message)]
    #[rtype(result = "()")]
    struct RecallOne {
        is_recalled: mpsc::Sender<()>,
        go_on: mpsc::Receiver<()>,
    }
    impl Handler<RecallOne> for Dispatcher {
        type Result = ();
        fn handle(&mut self, halt: RecallOne, _: &mut Self::Context) {
            self.paused = HashSet::from([Row::KIND.to_owned()]);
            let recalls = self.recalls();
            let (first, others) = recalls.split_first().unwrap();
            first.cancel();
            halt.is_recalled.send(()).unwrap();
            halt.go_on.recv_timeout(Duration::from_secs(60)).unwrap();
            others.iter().for_each(|recall| recall.cancel());
        }
    }

    async fn soon<T>(work: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(60), work).await.unwrap()
    }

    /// The agent works on while its tasks go back, one after the other: none may be overtaken by a later one.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_task_that_goes_back_is_not_overtaken_by_a_later_one() {
        const ALL: usize = 50;
        let (dir, gate) = (tempfile::tempdir().unwrap(), Arc::new(Semaphore::new(0)));
        let program = crate::Runtime::builder().agent::<Row>().resource(gate.clone());
        let program =
            program.set("node.data_dir", &dir.path().to_string_lossy()).set("log.level", "critical");
        let runtime = program.start().await.unwrap();
        let (row, node) = (runtime.handle().agent::<Row>("r"), runtime.handle().operator().node.clone());
        let name = |n: usize| format!("{n:02}");
        for n in 0..ALL {
            row.submit(Append { id: name(n) }).await.unwrap();
        }
        let dispatcher = node.actors().unwrap().dispatcher.clone();
        let all_begin = async {
            while dispatcher.send(RunningTasks).await.unwrap().len() < ALL {
                tokio::task::yield_now().await;
            }
        };
        soon(all_begin).await;

        let ((is_recalled, recalled), (go_on, go)) = (mpsc::channel(), mpsc::channel());
        dispatcher.do_send(RecallOne { is_recalled, go_on: go });
        tokio::task::spawn_blocking(move || recalled.recv()).await.unwrap().unwrap();
        gate.add_permits(ALL);
        // It is asked after all of them.
        let begun = row.ask(List {}).await.unwrap().ids;
        assert_eq!(
            begun,
            (0..ALL - 1).map(name).collect::<Vec<_>>(),
            "all but the last one, which goes back"
        );

        go_on.send(()).unwrap();
        let all_end = async {
            while row.ask(List {}).await.unwrap().ids.len() < ALL {
                node.wake_dispatcher(true);
            }
        };
        soon(all_end).await;
        assert_eq!(row.ask(List {}).await.unwrap().ids, (0..ALL).map(name).collect::<Vec<_>>());
        runtime.shutdown().await.unwrap();
    }
}
