//! An agent in a process: it loads, runs turns ahead of its one commit, crashes, is stopped, is fenced.

mod service;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use greenroom::{
    model::{
        id::{AgentId, Target, TaskId},
        snapshot::{self, Codec, Header},
        supervision::{Budget, Decision, RestartPolicy, decide},
        task::{Advice, NewBatch, NewTask, Notify},
    },
    store::{FinishOutcome, KeyWrite, Refusal, StateWrite, StoredStatus, Unit},
};
use jiff::Timestamp;

use crate::{
    dispatcher::{finish, settle},
    node::{Process, Then, Timer, partition},
    op::{Answer, Op, Said},
    work::{KIND, Script, Via, Work, joined, task},
    world::{Event, World},
    writer::{Outcome, Ticket},
};

/// At most so many turns run ahead of a commit.
const WINDOW: usize = 4;
/// How often a load is tried before what waits is turned away.
const LOAD_TRIES: u32 = 5;

/// How often an agent may be restarted.
pub fn policy() -> RestartPolicy {
    RestartPolicy { max_restarts: 2, within: Duration::from_secs(4), ..RestartPolicy::default() }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Loading,
    Active,
    /// It has crashed, and waits for its back-off.
    Restarting,
    /// It was fenced, and waits for the truth about its partition.
    Asking,
    /// Another node has its partition; its last commit is under way.
    Leaving,
    Stopped,
}

/// How a turn went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ran {
    Done,
    /// With this code, and this advice.
    Failed(&'static str, Option<Advice>),
}

struct Flight {
    entries: Vec<(Work, Ran)>,
    /// Whether it makes a version.
    writes: bool,
}

/// An agent.
pub struct Cell {
    /// Of this activation or load: what comes for another one is ignored.
    serial: u64,
    phase: Phase,
    epoch: i64,
    version: i64,
    /// With all turns that have run.
    state: Vec<u32>,
    lane: VecDeque<Work>,
    turn: Option<Work>,
    window: Vec<(Work, Ran)>,
    /// What the turns in the window submit.
    outbox: Vec<NewTask>,
    batches: Vec<NewBatch>,
    flight: Option<Flight>,
    budget: Budget,
    streak: u32,
}

impl Cell {
    fn new() -> Self {
        Self {
            serial: 0,
            phase: Phase::Loading,
            epoch: 0,
            version: 0,
            state: Vec::new(),
            lane: VecDeque::new(),
            turn: None,
            window: Vec::new(),
            outbox: Vec::new(),
            batches: Vec::new(),
            flight: None,
            budget: Budget::new(),
            streak: 0,
        }
    }

    /// All that it holds.
    fn works(&self) -> impl Iterator<Item = &Work> {
        let flight = self.flight.iter().flat_map(|f| &f.entries);
        let ran = flight.chain(&self.window).map(|(work, _)| work);
        ran.chain(&self.lane).chain(&self.turn)
    }

    /// Whether it holds this task.
    pub fn has(&self, id: TaskId) -> bool {
        self.works().filter_map(Work::claim).any(|claim| claim.id == id)
    }

    pub fn is_open(&self) -> bool {
        self.phase != Phase::Stopped
    }

    /// Nothing of what its turns submitted leaves.
    fn forget_outbox(&mut self) {
        self.outbox.clear();
        self.batches.clear();
    }

    /// A turn submits what it submits.
    fn submits(&mut self, world: &mut World, script: Script) {
        match script {
            Script::Submits(effect) => {
                let target = world.ledger.target(effect);
                self.outbox.push(task(TaskId(world.draw()), target, effect));
            }
            Script::FansOut(first, n) => {
                let batch = TaskId(world.draw());
                for effect in first..first + n {
                    let target = world.ledger.target(effect);
                    let new = task(TaskId(world.draw()), target, effect);
                    self.outbox.push(NewTask { batch: Some(batch), ..new });
                }
                let target = world.ledger.target(first + n);
                let notify = Some(Notify { target, message: joined(first + n) });
                self.batches.push(NewBatch { id: batch, size: u64::from(n), notify: notify.map(Into::into) });
            }
            _ => {}
        }
    }
}

impl Process {
    /// A message reaches an agent.
    pub fn deliver(&mut self, world: &mut World, work: Work) {
        let key = work.key;
        if self.epoch(key) == 0 {
            return self.refuse(world, work);
        }
        let is_new = !self.cells.contains_key(key);
        self.cells.entry(key).or_insert_with(Cell::new).lane.push_back(work);
        if is_new {
            world.ledger.pardons(self.me.pid, key);
            self.restore(world, key);
        }
        self.pump(world, key);
    }

    /// Nothing of it happened; a task's turn comes again.
    fn refuse(&mut self, world: &mut World, work: Work) {
        match work.via {
            Via::Ask => world.ledger.denied(work.effect),
            Via::Keyed | Via::Call(..) => {}
            Via::Task(claim) => self.turn_away(world, claim),
        }
    }

    /// Looks whether what is asked under a key has happened before.
    pub fn look_up(&mut self, world: &mut World, work: Work) {
        let op = Op::Key(AgentId::of(KIND, work.key), work.asked_under().unwrap_or_default());
        self.call(world, op, Then::Known(work));
    }

    pub fn looked_up(&mut self, world: &mut World, work: Work, answer: Answer) {
        let holds = |cell: &Cell| cell.works().any(|held| held.effect == work.effect);
        match answer {
            Ok(Said::Known(true)) => answer_again(world, &work),
            // whoever asks while the first one is under way waits for that
            Ok(Said::Known(false)) if !self.cells.get(work.key).is_some_and(holds) => {
                self.deliver(world, work)
            }
            _ => {}
        }
    }

    /// Reads an agent from the store.
    fn restore(&mut self, world: &mut World, key: &'static str) {
        let epoch = self.epoch(key);
        let Some(cell) = self.cells.get_mut(key) else { return };
        if epoch == 0 {
            return self.leave(world, key);
        }
        cell.serial = world.rng.u64(..);
        (cell.phase, cell.epoch) = (Phase::Loading, epoch);
        let serial = cell.serial;
        self.load(world, key, serial, 0);
    }

    pub fn load(&mut self, world: &mut World, key: &'static str, serial: u64, tries: u32) {
        let op = Op::Load(AgentId::of(KIND, key));
        self.call(world, op, Then::Loaded { key, serial, tries });
    }

    fn cell(&mut self, key: &str, serial: u64) -> Option<&mut Cell> {
        self.cells.get_mut(key).filter(|cell| cell.serial == serial)
    }

    pub fn loaded(&mut self, world: &mut World, key: &'static str, serial: u64, tries: u32, answer: Answer) {
        let Some(cell) = self.cell(key, serial) else { return };
        let Ok(Said::Row(row)) = answer else {
            if tries < LOAD_TRIES {
                let wait = Duration::from_millis(20 << tries);
                return self.wake(world, wait, Timer::Load { key, serial, tries: tries + 1 });
            }
            return self.leave(world, key);
        };
        let (version, status, state) = row.map_or((0, StoredStatus::Normal, Vec::new()), |row| {
            let state = if row.version == 0 { Vec::new() } else { read(&row.bytes) };
            (row.version, row.status, state)
        });
        (cell.version, cell.state) = (version, state);
        let is_stopped = status == StoredStatus::Stopped;
        cell.phase = if is_stopped { Phase::Stopped } else { Phase::Active };
        self.pump(world, key);
    }

    /// Starts the next turn, if it may.
    pub fn pump(&mut self, world: &mut World, key: &'static str) {
        let in_doubt = self.in_doubt(world);
        let Some(cell) = self.cells.get_mut(key) else { return };
        if cell.phase == Phase::Stopped {
            let works = std::mem::take(&mut cell.lane);
            for work in works {
                match work.via {
                    Via::Ask => world.ledger.denied(work.effect),
                    Via::Keyed | Via::Call(..) => {}
                    Via::Task(claim) => self.record(world, claim, FinishOutcome::Parked),
                }
            }
            return;
        }
        let may = cell.phase == Phase::Active && cell.turn.is_none() && cell.window.len() < WINDOW;
        if !may || in_doubt {
            return;
        }
        let Some(work) = cell.lane.pop_front() else { return };
        let wall = world.wall(self.wall_off);
        if let Some(claim) = work.claim().filter(|claim| claim.has_expired(|| wall)).cloned() {
            self.give_back(world, claim);
            return self.pump(world, key);
        }
        if let Some(claim) = work.claim() {
            world.ledger.starts(claim.id, world.wall(0));
        }
        cell.turn = Some(work);
        let serial = cell.serial;
        world.ledger.runs(self.me.pid, partition(key), world.now);
        let takes = world.millis(1, 30);
        self.wake(world, takes, Timer::Turn { key, serial });
    }

    pub fn turn_ended(&mut self, world: &mut World, key: &'static str, serial: u64) {
        let now = self.now(world);
        let Some(cell) = self.cell(key, serial) else { return };
        let Some(work) = cell.turn.take() else { return };
        if work.script == Script::Poison {
            self.is_over = true;
            return;
        }
        let failed = work.script.error(work.attempt());
        let ran = failed.map_or(Ran::Done, |(code, advice)| Ran::Failed(code, advice));
        if ran == Ran::Done {
            cell.streak = 0;
            cell.state.push(work.effect);
            cell.submits(world, work.script);
        }
        let crashed = matches!(ran, Ran::Failed("handler_crashed", _));
        cell.window.push((work, ran));
        if crashed {
            cell.streak += 1;
            let jitter = 0.5 + world.rng.f64() / 2.0;
            match decide(&policy(), &mut cell.budget, cell.streak, now, jitter) {
                Decision::Restart { delay, .. } => {
                    cell.phase = Phase::Restarting;
                    world.tell(|| format!("p{} {key} restarts in {delay:?}", self.me.pid));
                    world.ledger.restarts(self.me.pid, key, now);
                    self.wake(world, delay, Timer::Restarted { key, serial });
                }
                Decision::Exceeded { .. } | Decision::Leave => {
                    cell.phase = Phase::Stopped;
                    self.stop(world, key, serial);
                }
            }
        }
        self.flush(world, key);
        self.pump(world, key);
    }

    pub fn restarted(&mut self, world: &mut World, key: &'static str, serial: u64) {
        let Some(cell) = self.cell(key, serial).filter(|cell| cell.phase == Phase::Restarting) else {
            return;
        };
        cell.phase = Phase::Active;
        self.pump(world, key);
    }

    /// Hands the window to the writer.
    fn flush(&mut self, world: &mut World, key: &'static str) {
        let wall_off = self.wall_off;
        let Some(cell) = self.cells.get_mut(key) else { return };
        if cell.flight.is_some() || cell.window.is_empty() {
            return;
        }
        let entries = std::mem::take(&mut cell.window);
        let mut unit = Unit {
            owner: Some((AgentId::of(KIND, key).partition(), cell.epoch)),
            accepted: std::mem::take(&mut cell.outbox),
            batches: std::mem::take(&mut cell.batches),
            ..Unit::default()
        };
        for (work, ran) in &entries {
            unit.keys.extend(work.asked_under().map(|asked| key_row(key, asked, world.wall(0))));
            let Some(claim) = work.claim() else { continue };
            let outcome = match ran {
                Ran::Done => FinishOutcome::Succeeded { result: work.effect.to_string().into_bytes() },
                Ran::Failed(code, advice) => settle(world, wall_off, claim, (code, *advice)),
            };
            unit.finished.push(finish(claim, outcome));
        }
        let changed = entries.iter().any(|(_, ran)| *ran == Ran::Done);
        let outputs = !unit.finished.is_empty() || !unit.accepted.is_empty();
        let writes = changed || (outputs && cell.version > 0);
        if writes {
            unit.state = Some(write(key, cell.epoch, cell.version, &cell.state));
        }
        let serial = cell.serial;
        if writes || outputs {
            cell.flight = Some(Flight { entries, writes });
            return self.write(world, unit, Ticket::Cell { key, serial });
        }
        entries.into_iter().for_each(|(work, _)| world.ledger.denied(work.effect));
    }

    /// The commit under way has ended.
    pub fn landed(&mut self, world: &mut World, key: &'static str, serial: u64, outcome: Outcome) {
        let Some(cell) = self.cell(key, serial) else { return };
        let Some(flight) = cell.flight.take() else { return };
        let is_leaving = cell.phase == Phase::Leaving;
        if let Outcome::Durable = outcome {
            cell.version += i64::from(flight.writes);
            for (work, ran) in flight.entries {
                match (&work.via, ran) {
                    (Via::Task(claim), _) => self.end(world, claim),
                    (Via::Keyed | Via::Call(..), _) => answer_again(world, &work),
                    (Via::Ask, Ran::Done) => world.ledger.acknowledged(work.effect),
                    (Via::Ask, Ran::Failed(..)) => world.ledger.denied(work.effect),
                }
            }
            if is_leaving {
                return self.restore(world, key);
            }
            self.flush(world, key);
            return self.pump(world, key);
        }
        self.lost(world, key, flight.entries, &outcome);
    }

    /// The commit under way did not happen: nothing that ran since did.
    fn lost(&mut self, world: &mut World, key: &'static str, flight: Vec<(Work, Ran)>, outcome: &Outcome) {
        let Some(cell) = self.cells.get_mut(key) else { return };
        let (is_leaving, is_stopped) = (cell.phase == Phase::Leaving, cell.phase == Phase::Stopped);
        let window = std::mem::take(&mut cell.window);
        let turn = cell.turn.take();
        cell.forget_outbox();
        cell.serial = world.rng.u64(..);
        let serial = cell.serial;
        let ran = flight.into_iter().map(|(work, _)| work);
        let since: Vec<Work> = window.into_iter().map(|(work, _)| work).chain(turn).collect();
        let is_fenced = matches!(outcome, Outcome::Unknown | Outcome::Refused(Refusal::Fenced));
        if let Outcome::Refused(refusal) = outcome
            && !is_fenced
        {
            let lost_claim = |work: &Work| matches!((refusal, work.claim()), (Refusal::ClaimLost(id), Some(c)) if c.id == *id);
            // whose claim was lost: somebody else has ended the task
            let (lost, again): (Vec<Work>, Vec<Work>) = ran.chain(since).partition(lost_claim);
            let (keyed, again): (Vec<Work>, Vec<Work>) =
                again.into_iter().partition(|work| work.asked_under().is_some());
            again.into_iter().rev().for_each(|work| cell.lane.push_front(work));
            keyed.into_iter().for_each(|work| self.look_up(world, work));
            for claim in lost.iter().filter_map(Work::claim) {
                self.give_back(world, Arc::clone(claim));
            }
        } else {
            for work in ran {
                match (&work.via, outcome) {
                    // its client is told that nobody knows
                    (Via::Ask, Outcome::Unknown) => {}
                    _ => self.refuse(world, work),
                }
            }
            since.into_iter().for_each(|work| self.refuse(world, work));
        }
        if is_stopped {
            return self.stop(world, key, serial);
        }
        if is_fenced && !is_leaving {
            if let Some(cell) = self.cells.get_mut(key) {
                cell.phase = Phase::Asking;
            }
            return self.ask_again(world, key, serial);
        }
        self.restore(world, key);
    }

    pub fn waited_for_the_truth(&mut self, world: &mut World, key: &'static str, serial: u64) {
        if self.cell(key, serial).is_some_and(|cell| cell.phase == Phase::Asking) {
            self.restore(world, key);
        }
    }

    /// The store has told who owns what.
    pub fn hear_the_truth(&mut self, world: &mut World) {
        let asking = self.cells.iter().filter(|(_, cell)| cell.phase == Phase::Asking);
        let asking: Vec<&'static str> = asking.map(|(key, _)| *key).collect();
        asking.into_iter().for_each(|key| self.restore(world, key));
    }

    /// An agent is another node's now, or cannot be read.
    pub fn leave(&mut self, world: &mut World, key: &'static str) {
        let Some(mut cell) = self.cells.remove(key) else { return };
        let window = std::mem::take(&mut cell.window).into_iter().map(|(work, _)| work);
        let works: Vec<Work> = window.chain(cell.turn.take()).chain(std::mem::take(&mut cell.lane)).collect();
        works.into_iter().for_each(|work| self.refuse(world, work));
        if cell.flight.is_some() {
            cell.forget_outbox();
            cell.phase = Phase::Leaving;
            self.cells.insert(key, cell);
        }
    }

    /// Takes a task out of a lane, if its turn has not begun.
    pub fn withdraw(&mut self, key: &str, task: TaskId) -> bool {
        let Some(cell) = self.cells.get_mut(key) else { return false };
        let before = cell.lane.len();
        cell.lane.retain(|work| work.claim().is_none_or(|claim| claim.id != task));
        cell.lane.len() < before
    }
}

/// Tells whoever asks under a key that it has happened.
fn answer_again(world: &mut World, work: &Work) {
    world.ledger.heard(work.effect);
    if let Via::Call(pid, run, _) = work.via {
        let takes = world.millis(1, 8);
        let timer = Timer::Replied(run, work.effect);
        world.after(takes, Event::Timer { to: pid, timer });
    }
}

/// The write of a state upon `base`.
fn write(key: &str, epoch: i64, base: i64, state: &[u32]) -> StateWrite {
    let id = AgentId::of(KIND, key);
    let mut bytes = Vec::new();
    let header = Header { codec: Codec::Json, agent: id, version: base + 1, epoch, schema_version: 1 };
    snapshot::begin(&header, &mut bytes);
    serde_json::to_writer(&mut bytes, state).expect("numbers are JSON");
    snapshot::seal(&mut bytes).expect("it fits");
    StateWrite {
        id,
        kind: KIND.into(),
        key: key.into(),
        epoch,
        base_version: base,
        schema_version: 1,
        bytes: Arc::new(bytes),
        keeps_base: false,
    }
}

/// The row that says that what was asked under a key has happened.
fn key_row(key: &str, asked: String, now: Timestamp) -> KeyWrite {
    KeyWrite {
        scope: AgentId::of(KIND, key).0,
        key: asked,
        request: [0; 16],
        task: None,
        reply: Some(Vec::new()),
        expires_at: now + Duration::from_secs(86_400),
    }
}

/// A state as it is stored.
pub fn read(bytes: &[u8]) -> Vec<u32> {
    let (_, body) = snapshot::open(bytes).expect("it is a snapshot");
    serde_json::from_slice(body).expect("it is a state")
}

/// The target of an agent's tasks.
pub fn agent(key: &str) -> Target {
    Target::agent(KIND, key)
}
