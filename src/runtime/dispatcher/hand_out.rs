//! Claimed tasks on their way to lanes and tools.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use actix::{fut::wrap_future, prelude::*};
use tokio_util::sync::CancellationToken;

use super::{Dispatcher, Ended, FULL_PAUSE, How, Running};
use crate::{
    agent::{AskError, letter::Meta, slot::slot},
    clock,
    model::{
        id::Target,
        task::{Claimed, TaskError},
    },
    runtime::{
        kind::PostError,
        task_cell::{TURNED_AWAY, TaskCell, Times, cancel_unbegun, record},
    },
    store::FinishOutcome,
    tool::{CallMeta, Effect, Waits},
};

/// So many tasks for tools are handed over before others on the thread have their turn.
const AT_A_TIME: usize = 64;

impl Dispatcher {
    /// Hands claimed tasks over, in their order.
    pub(super) fn hand_out(&mut self, claims: Vec<Arc<Claimed>>, ctx: &mut Context<Self>) {
        if self.draining {
            return self.give_back(claims, ctx);
        }
        for claim in self.unless_paused(claims, ctx) {
            if matches!(claim.target, Target::Tool(_)) {
                self.coming.push_back(claim);
                continue;
            }
            match self.lane_that_is_full(&claim.target) {
                Some(waiting) => waiting.push_back(claim),
                None => self.hand_over(claim, ctx),
            }
        }
        if !self.handing {
            self.hand_on(ctx);
        }
    }

    /// Hands some of those over that are for tools, and in a moment the next: what has begun comes to its end
    /// meanwhile, on the same thread, so that the store has the first ends before the last of a claim have begun.
    fn hand_on(&mut self, ctx: &mut Context<Self>) {
        let some = self.coming.drain(..self.coming.len().min(AT_A_TIME)).collect();
        for claim in self.unless_paused(some, ctx) {
            self.hand_over(claim, ctx);
        }
        self.handing = !self.coming.is_empty();
        if self.handing {
            let others_turn = wrap_future::<_, Self>(tokio::task::yield_now());
            ctx.spawn(others_turn.map(|(), this, ctx| this.hand_on(ctx)));
        }
    }

    /// Those that wait for the lane of a target, where it is full.
    fn lane_that_is_full(&mut self, target: &Target) -> Option<&mut VecDeque<Arc<Claimed>>> {
        match self.full.is_empty() {
            true => None,
            false => self.full.get_mut(&target.to_string()),
        }
    }

    /// Hands a task to its lane or tool.
    fn hand_over(&mut self, claim: Arc<Claimed>, ctx: &mut Context<Self>) {
        if claim.has_expired(clock::now) {
            return self.give_back(vec![claim], ctx);
        }
        let (tx, rx) = slot();
        let (cancel, recall) = (CancellationToken::new(), CancellationToken::new());
        let waits = Waits::default();
        let posted = match &claim.target {
            Target::Agent { kind, key } => match self.node.kind(kind) {
                None => Err(gone("unknown_kind", format!("no kind `{kind}` is registered"))),
                Some((_, kind)) => {
                    let meta = Meta {
                        claim: Some(claim.clone()),
                        cancel: Some(cancel.clone()),
                        recall: Some(recall.clone()),
                        bytes: claim.input.get().len(),
                        ..Meta::default()
                    };
                    match kind.post(key, &claim.message, &claim.input, Some(tx), Some(Box::new(meta))) {
                        Ok(()) => Ok(()),
                        Err(PostError::Full) => {
                            self.full.entry(claim.target.to_string()).or_default().push_back(claim);
                            if !std::mem::replace(&mut self.retrying, true) {
                                ctx.run_later(FULL_PAUSE, Self::retry_full);
                            }
                            return;
                        }
                        Err(PostError::UnknownMessage) => {
                            let kind = kind.name().to_owned();
                            return self.unknown_message(claim, kind, ctx);
                        }
                        Err(PostError::Ask(AskError::Unavailable(_))) => {
                            return self.give_back(vec![claim], ctx);
                        }
                        Err(PostError::Ask(error)) => Err(self.node.settle(&claim, Err(error))),
                    }
                }
            },
            Target::Tool(name) => match self.node.tools.get(name.as_str()) {
                None => Err(gone("not_found", format!("no tool `{name}` is registered"))),
                // It may have begun before the node died: a person must say what happened.
                Some(tool) if tool.effect() == Effect::Once && claim.lost > 0 => {
                    Err(FinishOutcome::OutcomeUnknown {
                        error: AskError::<crate::JsonRefusal>::Unknown.to_task_error(),
                    })
                }
                Some(tool) => {
                    let meta = CallMeta {
                        key: claim.id.to_string(),
                        attempt: claim.attempt,
                        task: Some(claim.clone()),
                        waits: waits.clone(),
                        timeout: claim.timeout,
                        ..CallMeta::default()
                    };
                    tool.invoke(&claim.input, meta, tx).map_err(|error| self.node.settle(&claim, Err(error)))
                }
            },
        };
        if let Err(outcome) = posted {
            return self.end_at_once(claim, outcome, ctx);
        }
        self.running.insert(
            claim.id,
            Running { claim: claim.clone(), cancel: cancel.clone(), recall: recall.clone() },
        );
        let (node, dispatcher) = (self.node.clone(), ctx.address());
        TaskCell { node, dispatcher, claim, rx: Some(rx), waits, cancel, recall }.start();
    }

    /// Ends a task that cannot begin.
    fn end_at_once(&mut self, claim: Arc<Claimed>, outcome: FinishOutcome, ctx: &mut Context<Self>) {
        let (node, there) = (self.node.clone(), claim.clone());
        self.end_unbegun(claim, ctx, async move {
            record(&node, &there, outcome, Times::of(&there, Instant::now())).await
        });
    }

    /// Ends a task that was cancelled before it has begun.
    pub(super) fn end_cancelled(&mut self, claim: Arc<Claimed>, ctx: &mut Context<Self>) {
        let (node, there) = (self.node.clone(), claim.clone());
        self.end_unbegun(claim, ctx, async move { cancel_unbegun(&node, &there).await });
    }

    fn end_unbegun(
        &mut self,
        claim: Arc<Claimed>,
        ctx: &mut Context<Self>,
        end: impl Future<Output = How> + 'static,
    ) {
        let work = async move {
            match end.await {
                How::BrokenOff => How::Unsettled, // it has not begun
                how => how,
            }
        };
        ctx.spawn(
            wrap_future::<_, Self>(work)
                .map(move |how, this, ctx| this.ended(vec![Ended { claim, how, report: None }], ctx)),
        );
    }

    /// Ends a task whose message nobody takes. While another living node does, as in the middle of an upgrade, it goes
    /// back, and after a while comes again: its agent may be that node's by then.
    fn unknown_message(&mut self, claim: Arc<Claimed>, kind: String, ctx: &mut Context<Self>) {
        let (node, there) = (self.node.clone(), claim.clone());
        let work = async move {
            if node.is_taken_elsewhere(&kind, &there.message).await {
                tokio::time::sleep(TURNED_AWAY).await;
                return How::Unsettled;
            }
            let outcome = gone("unknown_message", format!("`{kind}` takes no message `{}`", there.message));
            record(&node, &there, outcome, Times::of(&there, Instant::now())).await
        };
        ctx.spawn(
            wrap_future::<_, Self>(work)
                .map(move |how, this, ctx| this.ended(vec![Ended { claim, how, report: None }], ctx)),
        );
    }

    /// Tries the lanes that were full.
    pub(super) fn retry_full(&mut self, ctx: &mut Context<Self>) {
        self.retrying = false;
        let full = std::mem::take(&mut self.full);
        for (_, mut waiting) in full {
            while let Some(claim) = waiting.pop_front() {
                let target = claim.target.to_string();
                self.hand_over(claim, ctx);
                if let Some(queue) = self.full.get_mut(&target) {
                    queue.append(&mut waiting);
                }
            }
        }
    }
}

fn gone(code: &str, message: String) -> FinishOutcome {
    let error =
        TaskError { code: code.to_owned(), message, chain: Vec::new(), crash_id: None, refusal: None };
    FinishOutcome::Failed { error }
}
