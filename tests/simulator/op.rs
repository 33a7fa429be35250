//! The calls of the store, and what it says to them.

use std::{fmt, sync::Arc};

use futures_util::FutureExt as _;
use greenroom::{
    model::{
        id::{AgentId, TaskId},
        journal::{Journal, Signal},
        schedule::Schedule,
        task::{ClaimId, Claimed, HeldClaim, TaskState},
    },
    store::{
        AgentRow, CancelFound, ClaimRequest, Doom, Journals as _, Member, MemoryStore, Ownership,
        Schedules as _, SignalFound, Store as _, StoreError, StoredStatus, Unit, Verdict,
    },
};
use jiff::Timestamp;
use uuid::Uuid;

use crate::work::KIND;

/// A call of the store.
#[derive(Debug, Clone)]
pub enum Op {
    Join(Member),
    Renew(Member),
    Commit(Arc<Vec<Unit>>),
    Load(AgentId),
    Key(AgentId, String),
    Claim(ClaimRequest),
    Promote(Timestamp),
    Doomed,
    GiveBack(Vec<(TaskId, ClaimId)>),
    Running,
    Suspects,
    Park(String, bool),
    SetStatus(&'static str, i64, StoredStatus),
    Journal(TaskId),
    Signal(TaskId, Signal),
    Pause(String, bool),
    Cancel(TaskId),
    Retry(TaskId),
    State(TaskId),
    Due(Timestamp),
    Schedule(&'static str),
    PutSchedule(Box<Schedule>, Box<Schedule>),
}

/// What the store says.
#[derive(Debug)]
pub enum Said {
    Owned(Box<Option<Ownership>>),
    Verdicts(Vec<Verdict>),
    Row(Box<Option<AgentRow>>),
    Known(bool),
    Claims(Vec<Claimed>),
    Promoted(u64, Option<Timestamp>),
    Doomed(Vec<(TaskId, Doom)>),
    Running(Vec<HeldClaim>),
    Count(u64),
    Journal(Journal),
    Signalled(Option<SignalFound>),
    Cancel(Option<CancelFound>),
    Retried(Option<Result<(), TaskState>>),
    State(Option<TaskState>),
    Due(Vec<Schedule>, Option<Timestamp>),
    Schedule(Box<Option<Schedule>>),
    Put(bool),
    Done,
}

pub type Answer = Result<Said, StoreError>;

impl Op {
    /// Carries the call out.
    pub fn carry_out(&self, store: &MemoryStore, boot: Uuid) -> Answer {
        let work = async {
            Ok(match self {
                Self::Join(member) => Said::Owned(Box::new(Some(store.join(member).await?))),
                Self::Renew(member) => Said::Owned(Box::new(store.renew(member).await?)),
                Self::Commit(units) => Said::Verdicts(store.commit(boot, units).await?),
                Self::Load(id) => Said::Row(Box::new(store.load(&[*id]).await?.pop().flatten())),
                Self::Key(scope, key) => Said::Known(store.key(scope.0, key).await?.is_some()),
                Self::Claim(request) => Said::Claims(store.claim(boot, request).await?),
                Self::Promote(now) => {
                    let promoted = store.promote(*now).await?;
                    Said::Promoted(promoted.ready, promoted.next)
                }
                Self::Doomed => Said::Doomed(store.doomed().await?),
                Self::GiveBack(claims) => {
                    store.give_back(boot, claims).await?;
                    Said::Done
                }
                Self::Running => Said::Running(store.running(boot).await?),
                Self::Suspects => Said::Count(store.suspects(boot).await?.len() as u64),
                Self::Park(target, park) => Said::Count(store.park(target, *park).await?),
                Self::SetStatus(key, epoch, status) => {
                    store.set_status(AgentId::of(KIND, key), KIND, key, *epoch, *status, None).await?;
                    Said::Done
                }
                Self::Journal(task) => Said::Journal(store.journal(*task).await?),
                Self::Signal(task, signal) => Said::Signalled(store.signal(*task, signal).await?),
                Self::Pause(queue, paused) => {
                    store.pause(queue, *paused).await?;
                    Said::Done
                }
                Self::Cancel(task) => Said::Cancel(store.cancel(*task).await?),
                Self::Retry(task) => Said::Retried(store.retry(*task).await?),
                Self::State(task) => Said::State(store.task(*task).await?.map(|view| view.state)),
                Self::Due(now) => {
                    let (due, next) = store.due_schedules(*now).await?;
                    Said::Due(due, next)
                }
                Self::Schedule(name) => Said::Schedule(Box::new(store.schedule(name).await?)),
                Self::PutSchedule(schedule, over) => {
                    Said::Put(store.put_schedule(schedule, Some(over)).await?)
                }
            })
        };
        work.now_or_never().expect("a store in memory answers at once")
    }
}

/// The last digits of an id, which tell it apart; 0 for one that the product has drawn.
pub fn short(id: Uuid) -> u64 {
    let (time, rest) = id.as_u64_pair();
    if time >> 16 == 0 { rest & 0xffff_ffff } else { 0 }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Join(_) => write!(f, "join"),
            Self::Renew(_) => write!(f, "renew"),
            Self::Commit(units) => {
                write!(f, "commit")?;
                units.iter().try_for_each(|unit| write!(f, " [{} ]", told(unit)))
            }
            Self::Load(_) => write!(f, "load"),
            Self::Key(_, key) => write!(f, "key {key}"),
            Self::Claim(r) => write!(f, "claim{}", if r.alone { " alone" } else { "" }),
            Self::Promote(_) => write!(f, "promote"),
            Self::Doomed => write!(f, "doomed"),
            Self::GiveBack(claims) => {
                write!(f, "give back")?;
                claims.iter().try_for_each(|(id, n)| write!(f, " t{}#{}", short(id.0), n.0))
            }
            Self::Running => write!(f, "running"),
            Self::Suspects => write!(f, "suspects"),
            Self::Park(target, park) => write!(f, "{} {target}", if *park { "park" } else { "unpark" }),
            Self::SetStatus(key, epoch, status) => write!(f, "set {key} e{epoch} {status:?}"),
            Self::Journal(task) => write!(f, "journal t{}", short(task.0)),
            Self::Signal(task, signal) => {
                write!(f, "signal t{} {} {}", short(task.0), signal.name, signal.body.get())
            }
            Self::Pause(queue, paused) => {
                write!(f, "{} {queue}", if *paused { "pause" } else { "resume" })
            }
            Self::Cancel(task) => write!(f, "cancel t{}", short(task.0)),
            Self::Retry(task) => write!(f, "retry t{}", short(task.0)),
            Self::State(task) => write!(f, "state t{}", short(task.0)),
            Self::Due(_) => write!(f, "due"),
            Self::Schedule(name) => write!(f, "schedule {name}"),
            Self::PutSchedule(schedule, _) => {
                write!(f, "{} {}", if schedule.paused { "hold up" } else { "let go on" }, schedule.name)
            }
        }
    }
}

/// What a unit does.
fn told(unit: &Unit) -> String {
    let mut told = String::new();
    if let Some(s) = &unit.state {
        told += &format!(" {} v{} e{}", s.key, s.base_version + 1, s.epoch);
    }
    for end in &unit.finished {
        let how = format!("{:?}", end.outcome);
        let how = how.split([' ', '{']).next().unwrap_or_default();
        told += &format!(" {how} t{} {:?}", short(end.task.0), end.guard);
    }
    for new in &unit.accepted {
        told += &format!(" +t{}", short(new.id.0));
    }
    if let Some(write) = &unit.journal {
        told += &format!(" journal t{}#{}", short(write.task.0), write.claim.0);
        for entry in &write.entries {
            let how = if entry.answer.is_some() { "answered" } else { "begun" };
            told += &format!(" {} {how}", entry.target);
        }
        write.undone.iter().for_each(|_| told += " undone");
        write.waits.iter().for_each(|wait| told += &format!(" waits for {}", wait.name));
    }
    if let Some(to) = &unit.schedule {
        told += &format!(" {} from {}", to.name, to.from);
    }
    told
}

/// What the store has said, in a line.
pub fn brief(answer: &Answer) -> String {
    match answer {
        Ok(Said::Owned(owned)) => match owned.as_ref() {
            Some(o) => {
                let n = o.epochs.iter().filter(|e| **e != 0).count();
                let epoch = o.epochs.iter().max().copied().unwrap_or(0);
                format!("{n} partitions, e{epoch}, {} rescued", o.rescued)
            }
            None => "ended".to_owned(),
        },
        Ok(Said::Row(row)) => row.as_ref().as_ref().map_or("none".to_owned(), |r| format!("v{}", r.version)),
        Ok(Said::Claims(claims)) => {
            claims.iter().map(|c| format!("t{}#{} ", short(c.id.0), c.attempt)).collect()
        }
        Ok(Said::Running(running)) => {
            running.iter().map(|held| format!("t{}#{} ", short(held.id.0), held.claim.0)).collect()
        }
        Ok(Said::Doomed(doomed)) => {
            doomed.iter().map(|(id, doom)| format!("t{} {doom:?} ", short(id.0))).collect()
        }
        Ok(Said::Journal(j)) => {
            format!("{} entries, {} waits, {} signals", j.entries.len(), j.waits.len(), j.signals.len())
        }
        Ok(Said::Due(due, _)) => due.iter().map(|s| format!("{} ", s.name)).collect(),
        Ok(Said::Schedule(_)) => "read".to_owned(),
        other => format!("{other:?}").chars().take(160).collect(),
    }
}
