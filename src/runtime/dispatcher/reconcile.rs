//! Claims to give back: those that did not start, and those that nothing here runs.

use std::{sync::Arc, time::Duration};

use actix::{fut::wrap_future, prelude::*};

use super::{Dispatcher, Ended, How};
use crate::{
    clock,
    model::{
        id::TaskId,
        task::{ClaimId, Claimed, returns_again},
    },
};

/// After what could not be heard, it is asked so much later.
pub(super) const LATER: Duration = Duration::from_millis(500);
/// The longest pause between two tries of a node that goes down to give a claim back; then it gives up.
const GIVE_UP: Duration = Duration::from_secs(1);

impl Dispatcher {
    /// Gives back what the store says runs here, and nobody here knows: the answer to its claim was lost. Cancels what
    /// was flagged through another node.
    pub(super) fn reconcile(&mut self, ctx: &mut Context<Self>) {
        if self.draining {
            return;
        }
        if self.claiming {
            self.overdue = true;
            return;
        }
        self.claiming = true;
        let node = self.node.clone();
        let work = async move { node.store.running(node.boot).await };
        ctx.spawn(wrap_future::<_, Self>(work).map(|result, this, ctx| {
            let strays: Vec<(TaskId, ClaimId)> = match result {
                Ok(mut running) => {
                    for held in running.iter().filter(|held| held.cancel) {
                        this.cancel(held.id, ctx);
                    }
                    running.retain(|held| !this.node.newborns.expects(held.id));
                    this.claims.strays(&running)
                }
                Err(e) => {
                    this.claiming = false;
                    this.store_failed(&e);
                    ctx.run_later(LATER, Self::reconcile);
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
                    ctx.run_later(LATER, Self::reconcile);
                    return;
                }
                this.ready = true;
                this.claim(ctx);
            }));
        }));
    }

    /// Gives claims back that did not start. What has expired meanwhile is ended as such, as if it had not been claimed.
    pub(super) fn give_back(&mut self, claims: Vec<Arc<Claimed>>, ctx: &mut Context<Self>) {
        self.return_claims(claims, false, ctx);
    }

    /// Gives claims back that may have started.
    pub(super) fn break_off(&mut self, claims: Vec<Arc<Claimed>>, ctx: &mut Context<Self>) {
        self.return_claims(claims, true, ctx);
    }

    fn return_claims(&mut self, claims: Vec<Arc<Claimed>>, begun: bool, ctx: &mut Context<Self>) {
        if claims.is_empty() {
            return;
        }
        // A suspect that goes back is not claimed again at once, and again, before all others: the next
        // promotion finds it.
        self.ready |= std::mem::take(&mut self.suspects);
        let node = self.node.clone();
        let back: Vec<(TaskId, ClaimId)> = claims.iter().map(|claim| (claim.id, claim.claim)).collect();
        let work = async move {
            let mut pause = Duration::from_millis(10);
            loop {
                let given = match begun {
                    true => node.store.break_off(node.boot, &back).await,
                    false => node.store.give_back(node.boot, &back).await,
                };
                match given {
                    Err(_) if returns_again(node.is_closing()) && pause < GIVE_UP => {
                        tokio::time::sleep(pause).await
                    }
                    given => return given,
                }
                pause = (pause * 2).min(GIVE_UP);
            }
        };
        ctx.spawn(wrap_future::<_, Self>(work).map(move |given, this, ctx| {
            if let Err(e) = given {
                this.store_failed(&e);
                ctx.run_later(LATER, Self::reconcile);
            }
            let now = clock::now();
            if claims.iter().any(|claim| claim.has_expired(|| now)) {
                this.promote(ctx);
            }
            this.ended(
                claims.into_iter().map(|claim| Ended { claim, how: How::Settled, report: None }).collect(),
                ctx,
            );
        }));
    }
}
