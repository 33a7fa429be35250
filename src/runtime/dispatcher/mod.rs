//! The dispatcher: promotes due tasks, claims ready ones in batches, and hands them to lanes and
//! tools in the order of their acceptance. It claims no more than lanes and slots have room for.

mod ended;
mod hand_out;
mod newborns;
mod pause;
mod reconcile;
mod room;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actix::{fut::wrap_future, prelude::*};
use tokio_util::sync::CancellationToken;

use super::{cleaning, doomed_tasks, node::Node};
use crate::{
    clock,
    model::{
        id::{Target, TaskId},
        task::{Claimed, Claims, Shares, queue_of, runs},
    },
    store::{Promoted, StoreError},
};
pub(crate) use ended::{Ended, Endings, How};
pub(crate) use newborns::Newborns;
use room::{Alone, Left};

/// The backstop: how often the store is asked although nobody woke the dispatcher.
const POLL: Duration = Duration::from_secs(5);
/// How long a full lane is left alone.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// A wake-up is on its way.
pub(crate) const CLAIM: u8 = 1;
/// It must look at due, expired and orphaned tasks too.
pub(crate) const PROMOTE: u8 = 2;
/// Tasks that have been lost before were rescued: they run alone.
pub(crate) const SUSPECTS: u8 = 4;

/// Something may be ready.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Wake;

/// Asks a running task to end. `false`: it does not run here.
#[derive(Message)]
#[rtype(result = "bool")]
pub(crate) struct Cancel(pub TaskId);

/// Claims nothing more, and gives back what has not begun.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Quiesce;

/// Asks what runs: id, target, attempt.
#[derive(Message)]
#[rtype(result = "Vec<(TaskId, String, u32)>")]
pub(crate) struct RunningTasks;

/// Asks how many claims are held: running, waiting for room, or about to be recorded.
#[derive(Message)]
#[rtype(result = "usize")]
pub(crate) struct Held;

struct Running {
    claim: Arc<Claimed>,
    cancel: CancellationToken,
    /// It goes back, if it has not begun.
    recall: CancellationToken,
}

/// The dispatcher actor.
pub(crate) struct Dispatcher {
    node: Arc<Node>,
    running: HashMap<TaskId, Running>,
    /// All that is claimed: running, waiting for room, or about to be recorded or given back.
    claims: Claims,
    /// Claimed tasks by agent, kind and tool, running or waiting for room, and whose turn it is.
    shares: Shares,
    /// It comes back when a rate lets the next one begin.
    paced: bool,
    agent_claims: usize,
    tool_claims: usize,
    /// Kinds and tools of which nothing begins: paused, as the store was last seen, or stopped here.
    paused: HashSet<String>,
    /// Claimed for tools, and about to be handed over.
    coming: VecDeque<Arc<Claimed>>,
    /// The next of them are, in a moment.
    handing: bool,
    /// Claimed, and their lane is full: in the order of their acceptance.
    full: HashMap<String, VecDeque<Arc<Claimed>>>,
    /// They are tried again in a moment.
    retrying: bool,
    claiming: bool,
    again: bool,
    /// Claims of which nobody here knows are to be looked for as soon as nothing is being claimed.
    overdue: bool,
    /// The store may hold ready tasks that have not been claimed.
    ready: bool,
    /// The last claim left none.
    drained: bool,
    /// How many tasks for tools the claim under way may bring.
    asked: usize,
    /// The next claim looks far behind those of agents that have no room.
    looks_far: bool,
    promoting: bool,
    promote_again: bool,
    /// Tasks lost twice or more wait to run alone.
    suspects: bool,
    /// The one that does, and how long its turn has been waited for.
    alone: Alone,
    draining: bool,
    cleaning: bool,
    due: Option<SpawnHandle>,
}

impl Dispatcher {
    pub(crate) fn new(node: Arc<Node>, suspects: bool) -> Self {
        Self {
            shares: room::shares(&node),
            paced: false,
            node,
            running: HashMap::new(),
            claims: Claims::default(),
            agent_claims: 0,
            tool_claims: 0,
            paused: HashSet::new(),
            coming: VecDeque::new(),
            handing: false,
            full: HashMap::new(),
            retrying: false,
            claiming: false,
            again: false,
            overdue: false,
            ready: true,
            drained: false,
            asked: 0,
            looks_far: false,
            promoting: false,
            promote_again: false,
            suspects,
            alone: Alone::default(),
            draining: false,
            cleaning: false,
            due: None,
        }
    }

    /// Makes due tasks ready, looks whether some are to run alone and which kinds are paused, and comes back when the
    /// next one is due.
    ///
    /// Nobody tells of a suspect that is ready again after a retry or a return, or that was ready when its
    /// partition was taken over.
    fn promote(&mut self, ctx: &mut Context<Self>) {
        if self.promoting {
            self.promote_again = true;
            return;
        }
        self.promoting = true;
        let node = self.node.clone();
        let work = async move {
            let promoted = doomed_tasks::promote(&node).await?;
            let ended = doomed_tasks::end_all_doomed(&node).await?;
            let suspects = node.store.suspects(node.boot).await?;
            Ok::<_, StoreError>((promoted, ended, suspects, node.store.paused().await?))
        };
        ctx.spawn(wrap_future::<_, Self>(work).map(|result, this, ctx| {
            this.promoting = false;
            let again = std::mem::take(&mut this.promote_again);
            match result {
                Ok((Promoted { ready, next, .. }, ended, suspects, paused)) => {
                    let paused = paused.into_iter().map(|(queue, _)| queue);
                    let paused = paused.chain(this.node.stopped_queues()).collect();
                    let resumed = this.pause(paused, ctx);
                    let now = this.node.uptime();
                    let suspects = suspects
                        .iter()
                        .map(queue_of)
                        .any(|queue| !this.paused.contains(&queue) && this.shares.may_begin(&queue, now));
                    this.suspects = suspects;
                    if let Some(old) = this.due.take() {
                        ctx.cancel_future(old);
                    }
                    if again || ended {
                        this.promote(ctx);
                    } else if let Some(next) = next {
                        let wait = clock::now().duration_until(next);
                        let wait = Duration::try_from(wait)
                            .unwrap_or_default()
                            .clamp(Duration::from_millis(5), POLL);
                        this.due = Some(ctx.run_later(wait, Self::promote));
                    }
                    if ready > 0 || suspects || resumed {
                        this.ready = true;
                        this.claim(ctx);
                    }
                }
                Err(e) => {
                    this.store_failed(&e);
                    ctx.run_later(Duration::from_millis(500), Self::promote);
                }
            }
        }));
    }

    fn store_failed(&self, error: &StoreError) {
        self.node.outage.failed(error);
    }

    /// Claims what there is room for.
    fn claim(&mut self, ctx: &mut Context<Self>) {
        // What is claimed in doubt could not begin; whoever ends the doubt wakes the dispatcher.
        if self.draining || self.node.draining.is_on() || self.node.is_troubled(false) {
            return;
        }
        if self.claiming {
            self.again = true;
            return;
        }
        self.keep_pace(ctx);
        let Some(request) = self.request() else { return };
        self.claiming = true;
        self.asked = request.tools;
        self.again = false;
        let node = self.node.clone();
        let runtime = node.runtime.clone();
        // The store works on it while this thread hands over what the claim before has brought.
        let work = runtime.spawn(async move { (node.store.claim(node.boot, &request).await, request) });
        ctx.spawn(wrap_future::<_, Self>(work).map(move |answer, this, ctx| {
            this.claiming = false;
            // the threads end, and so does the node
            let Ok((result, request)) = answer else { return };
            this.asked = 0;
            this.drained = false;
            match result {
                Ok(claims) => {
                    if request.alone {
                        this.alone.runs = claims.first().map(|claim| claim.id);
                        this.suspects &= !claims.is_empty();
                        this.again |= claims.is_empty();
                    }
                    let left = Left::by(&request, &claims);
                    let used_up = room::used_up(&request, &claims);
                    this.again |= left == Left::More;
                    this.ready = left != Left::Nothing || this.again;
                    this.drained = left == Left::Nothing && !request.alone;
                    let claims = this.count(claims.into_iter().map(Arc::new).collect());
                    // Several may have been for one agent: then there are places left.
                    let now = this.node.uptime();
                    this.again |= used_up.iter().any(|kind| this.shares.has_places(kind, now));
                    this.offer();
                    if room::overflows(&request, left, this.free_slots()) {
                        this.node.tell_of_overflow();
                    }
                    if std::mem::take(&mut this.overdue) {
                        // it goes on claiming
                        this.reconcile(ctx);
                    } else if std::mem::take(&mut this.again) {
                        this.claim(ctx);
                    }
                    this.hand_out(claims, ctx);
                }
                Err(e) => {
                    this.offer();
                    this.store_failed(&e);
                    // What was claimed may be claimed, although no answer came.
                    ctx.run_later(reconcile::LATER, Self::reconcile);
                }
            }
        }));
    }

    /// Hears of what has ended, and claims what may be ready: then, when it knows of all the room.
    fn look(&mut self, ctx: &mut Context<Self>) {
        self.ready = true;
        match self.node.endings.take() {
            ended if ended.is_empty() => self.claim(ctx),
            ended => self.ended(ended, ctx),
        }
    }

    /// Takes claimed tasks in, in their order.
    fn take_in(&mut self, claims: Vec<Arc<Claimed>>, ctx: &mut Context<Self>) {
        let claims = self.count(claims);
        self.hand_out(claims, ctx);
    }

    /// Counts claimed tasks until they have ended, and says which of them may begin.
    fn count(&mut self, mut claims: Vec<Arc<Claimed>>) -> Vec<Arc<Claimed>> {
        claims.retain(|claim| self.claims.take_in(claim));
        let now = self.node.uptime();
        for (target, n) in runs(claims.iter().map(|claim| &claim.target)) {
            self.shares.claimed(target, n, now);
            match target {
                Target::Agent { .. } => self.agent_claims += n,
                Target::Tool(_) => self.tool_claims += n,
            }
        }
        claims
    }
}

impl Actor for Dispatcher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(16_384);
        self.promote(ctx);
        self.claim(ctx);
        ctx.run_interval(POLL, |this, ctx| {
            this.promote(ctx);
            this.looks_far = true;
            this.look(ctx);
        });
        ctx.run_interval(self.node.settings.load().node.lease / 3, |this, ctx| this.reconcile(ctx));
        let clean = |this: &mut Self, ctx: &mut Self::Context| {
            if std::mem::replace(&mut this.cleaning, true) {
                return;
            }
            let node = this.node.clone();
            let work = wrap_future::<_, Self>(async move { cleaning::clean(&node).await });
            ctx.spawn(work.map(|(), this, _| this.cleaning = false));
        };
        clean(self, ctx);
        ctx.run_interval(cleaning::CLEANING_INTERVAL, clean);
    }
}

impl Handler<Wake> for Dispatcher {
    type Result = ();
    fn handle(&mut self, _: Wake, ctx: &mut Self::Context) {
        let bits = self.node.waking.swap(0, Ordering::AcqRel);
        self.suspects |= bits & SUSPECTS != 0;
        if bits & PROMOTE != 0 {
            self.promote(ctx);
        }
        self.look(ctx);
    }
}

impl Handler<Cancel> for Dispatcher {
    type Result = bool;
    fn handle(&mut self, Cancel(id): Cancel, ctx: &mut Self::Context) -> bool {
        self.cancel(id, ctx)
    }
}

impl Dispatcher {
    /// Asks a running task to end, or ends one that waits for room. `false`: it does not run here.
    fn cancel(&mut self, id: TaskId, ctx: &mut Context<Self>) -> bool {
        if let Some(running) = self.running.get(&id) {
            running.cancel.cancel();
            return true;
        }
        let waiting = self.full.values_mut().chain([&mut self.coming]).find_map(|queue| {
            let at = queue.iter().position(|claim| claim.id == id)?;
            queue.remove(at)
        });
        match waiting {
            Some(claim) => {
                self.end_cancelled(claim, ctx);
                true
            }
            None => false,
        }
    }
}

impl Handler<RunningTasks> for Dispatcher {
    type Result = MessageResult<RunningTasks>;
    fn handle(&mut self, _: RunningTasks, _: &mut Self::Context) -> Self::Result {
        let row = |r: &Running| (r.claim.id, r.claim.target.to_string(), r.claim.attempt);
        MessageResult(self.running.values().take(1_000).map(row).collect())
    }
}

impl Handler<Quiesce> for Dispatcher {
    type Result = ();
    fn handle(&mut self, _: Quiesce, ctx: &mut Self::Context) {
        self.draining = true;
        self.offer();
        // agents' lanes give theirs back themselves, in their order
        let of_tools =
            self.running.values().filter(|running| matches!(running.claim.target, Target::Tool(_)));
        of_tools.for_each(|running| running.recall.cancel());
        let waiting = std::mem::take(&mut self.full).into_values().chain([std::mem::take(&mut self.coming)]);
        self.give_back(waiting.flatten().collect(), ctx);
    }
}

impl Handler<Held> for Dispatcher {
    type Result = usize;
    fn handle(&mut self, _: Held, _: &mut Self::Context) -> usize {
        // A claim on its way may bring tasks that are to be given back.
        self.agent_claims + self.tool_claims + usize::from(self.claiming) + self.node.newborns.coming()
    }
}
