//! Schedules: at each nominal time a task, submitted in the commit that moves the schedule on.
//!
//! Every node looks for what is due, and all of them may try to fire it: that commit is guarded by the
//! nominal time, so one of them does. What a node that dies leaves behind is due for the others, or for
//! itself when it starts again.

mod declare;

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub(crate) use declare::{Declared, MAX_INPUT_BYTES, Takes, check, retire, takes, write};

use super::{millis, node::Node, persistence::Outcome};
use crate::{
    clock,
    model::{
        event::{self, Event, Level},
        id::TaskId,
        schedule::{Firing, Last, Overlap, Schedule, ScheduleMove, Spec, decide},
        task::{NewTask, OnParentFailed},
    },
    store::{Refusal, StoreError, Unit},
};

/// How often a node looks although nothing was due and nobody told it: a clock may have been set, or a hint
/// of another node been lost.
const POLL: Duration = Duration::from_secs(5);
/// The shortest pause.
const LEAST: Duration = Duration::from_millis(1);
/// Until a store that failed is asked again.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// That schedules were written, to whoever fires them.
#[derive(Default)]
pub(crate) struct Signal {
    /// Those that the program declares.
    pub declared: Vec<Declared>,
    here: Notify,
    elsewhere: Notify,
}

impl Signal {
    /// Of a program that declares these.
    pub(crate) fn of(declared: Vec<Declared>) -> Self {
        Self { declared, ..Self::default() }
    }

    /// This node has written one.
    pub(crate) fn changed(&self) {
        self.here.notify_one();
        self.elsewhere.notify_one();
    }

    /// Another node has.
    pub(crate) fn heard(&self) {
        self.here.notify_one();
    }

    /// Completes when other nodes are to be told.
    pub(crate) async fn news(&self) {
        self.elsewhere.notified().await;
    }
}

/// Whom the events of a schedule are about.
pub(crate) fn subject(name: &str) -> String {
    format!("schedule:{name}")
}

/// Fires what is due, until `end`.
pub(crate) async fn keep(node: Arc<Node>, end: CancellationToken) {
    loop {
        let pause = match look(&node).await {
            Ok(pause) => pause,
            Err(error) => {
                node.outage.failed(&error);
                Some(RETRY_DELAY)
            }
        };
        let pause = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = end.cancelled() => return,
            () = node.schedules.here.notified() => {}
            () = pause => {}
        }
    }
}

/// Fires what is due; tells when to look again, and `None` where somebody will tell.
async fn look(node: &Arc<Node>) -> Result<Option<Duration>, StoreError> {
    if node.is_closing() {
        return Ok(None);
    }
    let now = clock::now();
    let (due, next) = node.store.due_schedules(now).await?;
    let moved = join_all(due.iter().map(|schedule| fire(node, schedule, now))).await;
    let moved = moved.into_iter().collect::<Result<Vec<bool>, _>>()?;
    if moved.contains(&true) {
        return Ok(Some(Duration::ZERO));
    }
    let until = next.map(|next| Duration::try_from(now.duration_until(next)).unwrap_or_default());
    let alone = node.store.shared().is_none() && due.is_empty();
    Ok(match until {
        None if alone => None,
        until => Some(until.unwrap_or(POLL).clamp(LEAST, POLL)),
    })
}

/// Does what is to be done about one whose time has come; `false`: nothing could be.
async fn fire(node: &Arc<Node>, schedule: &Schedule, now: Timestamp) -> Result<bool, StoreError> {
    let Some(nominal) = schedule.next_at else { return Ok(false) };
    let spec: Spec = match schedule.definition.spec.parse() {
        Ok(spec) => spec,
        Err(error) => {
            let event = Event::new(Level::Error, event::SCHEDULE_FAILED, subject(&schedule.name));
            node.logger.emit(event.field("error", error.to_string()).hint("remove it, and add it anew"));
            return Ok(false);
        }
    };
    let policies = (schedule.definition.overlap, schedule.definition.misfire);
    let last = last(node, schedule).await?;
    let Some(firing) = decide(&spec, nominal, now, policies, last) else { return Ok(false) };
    let task = firing.fire.map(|at| {
        let mut task = schedule.task(at, &node.terms_of(&schedule.definition.target));
        task.after.extend(firing.behind);
        task.on_parent_failed = OnParentFailed::Run;
        (at, task)
    });
    let to = ScheduleMove {
        name: schedule.name.clone(),
        revision: schedule.revision,
        from: nominal,
        next_at: firing.next,
        fired: task.as_ref().map(|(at, task)| (*at, task.id)),
    };
    let task: Option<NewTask> = task.map(|(_, task)| task);
    let unit = Unit { accepted: task.iter().cloned().collect(), schedule: Some(to), ..Unit::default() };
    match node.persistence.commit(TaskId::fresh().0, unit).await {
        Outcome::Durable => {
            tell(node, schedule, &firing, task.as_ref().map(|task| task.id), now);
            node.tasks_accepted(task.as_slice());
            Ok(true)
        }
        // Another node was first, a person has changed it, or what it would wait for has been forgotten.
        Outcome::Refused(Refusal::ScheduleMoved(_) | Refusal::ParentUnknown(_)) | Outcome::Unknown => {
            Ok(true)
        }
        Outcome::Refused(refusal) => Err(StoreError::NotDone(refusal.to_string())),
        Outcome::Full(why) | Outcome::Failed(why) => Err(StoreError::NotDone(why)),
    }
}

/// How far the last task is, where that matters.
async fn last(node: &Node, schedule: &Schedule) -> Result<Last, StoreError> {
    let Some(id) = schedule.last_task.filter(|_| schedule.definition.overlap != Overlap::Allow) else {
        return Ok(Last::Ended);
    };
    let task = node.store.task(id).await?;
    Ok(Last::of(task.map(|task| (id, task.state))))
}

fn tell(node: &Node, schedule: &Schedule, firing: &Firing, task: Option<TaskId>, now: Timestamp) {
    let event = |level, name| Event::new(level, name, subject(&schedule.name));
    let definition = &schedule.definition;
    if let Some(first) = firing.missed {
        let event = event(Level::Warn, event::SCHEDULE_MISSED).field("since", first.to_string());
        node.logger.emit(event.field("misfire", definition.misfire.name()));
    }
    if let Some(at) = firing.overlapped {
        let event = event(Level::Info, event::SCHEDULE_SKIPPED).field("nominal", at.to_string());
        let last = schedule.last_task.map(|task| task.to_string());
        node.logger.emit(event.field("overlap", definition.overlap.name()).field_opt("unfinished", last));
    }
    if let (Some(at), Some(task)) = (firing.fire, task) {
        let late = Duration::try_from(at.duration_until(now)).unwrap_or_default();
        let event = event(Level::Debug, event::SCHEDULE_FIRED).field("nominal", at.to_string());
        node.logger.emit(event.field("task", task.to_string()).field("late_ms", millis(late)));
    }
}
