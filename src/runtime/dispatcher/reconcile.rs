//! What the store says runs here against what is known here.

use std::time::Duration;

use actix::{fut::wrap_future, prelude::*};

use super::Dispatcher;
use crate::model::id::TaskId;

impl Dispatcher {
    /// Gives back what the store says runs here, and nobody here knows: the answer to its claim was lost.
    pub(super) fn reconcile(&mut self, ctx: &mut Context<Self>) {
        if self.draining || self.claiming {
            return;
        }
        self.claiming = true;
        let node = self.node.clone();
        let work = async move { node.store.running(node.boot).await };
        ctx.spawn(wrap_future::<_, Self>(work).map(|result, this, ctx| {
            let strays: Vec<(TaskId, u32)> = match result {
                Ok(running) => running.into_iter().filter(|(id, _)| !this.held.contains(id)).collect(),
                Err(e) => {
                    this.claiming = false;
                    this.store_failed(&e);
                    ctx.run_later(Duration::from_millis(500), Self::reconcile);
                    return;
                }
            };
            let node = this.node.clone();
            let work = async move {
                match strays.is_empty() {
                    true => Ok(()),
                    false => node.store.give_back(node.boot, &strays).await,
                }
            };
            ctx.spawn(wrap_future::<_, Self>(work).map(|result, this, ctx| {
                this.claiming = false;
                if let Err(e) = result {
                    this.store_failed(&e);
                    ctx.run_later(Duration::from_millis(500), Self::reconcile);
                    return;
                }
                this.ready = true;
                this.claim(ctx);
            }));
        }));
    }
}
