//! What clients and persons do: they ask, submit, cancel, send signals, and see to what waits for them.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use greenroom::{
    model::{
        id::{Target, TaskId},
        journal::Signal,
        task::{NewTask, OnParentFailed, TaskState},
    },
    store::Schedules as _,
};

use crate::{
    cell::agent,
    errand::Errand,
    ledger::Source,
    schedules::{self, NAMES},
    simulation::Simulation,
    work::{FLOW, KEYS, Plan, SIGNALS, Script, Step, TOOL, Via, Work, input, task, tool},
    world::{Event, Fate, Pid, World},
};

impl Simulation {
    /// A process, that of the owner rather.
    pub fn somebody(&mut self, key: Option<&str>) -> Option<Pid> {
        let processes = || self.machines.iter().filter_map(|m| m.process.as_ref());
        let owner = key.and_then(|key| processes().find(|p| !p.is_paused && p.epoch(key) != 0));
        let others: Vec<Pid> = processes().map(|p| p.me.pid).collect();
        let owner = owner.map(|p| p.me.pid);
        if owner.is_some() && !self.world.chance(if self.world.is_healed { 0 } else { 200 }) {
            return owner;
        }
        let n = self.world.rng.usize(0..others.len().max(1));
        others.get(n).copied()
    }

    /// Sends somebody on an errand.
    pub fn send(&mut self, errand: Errand) {
        let key = if let Errand::Open(key) = errand { Some(key) } else { None };
        if let Some(to) = self.somebody(key) {
            self.world.after(Duration::from_millis(1), Event::Sent { to, errand });
        }
    }

    /// A client asks an agent.
    pub fn ask(&mut self, key: &'static str, script: Option<Script>) -> u32 {
        let effect = self.world.ledger.plan(agent(key), Source::Asked);
        let script = script.unwrap_or_else(|| draw_script(&mut self.world, effect, false));
        if let Some(to) = self.somebody(Some(key)) {
            let work = Work { key, effect, script, via: Via::Ask };
            self.world.after(Duration::from_millis(1), Event::Asked { to, work });
        }
        effect
    }

    /// A client asks an agent under an idempotency key, until it has heard.
    pub fn insist(&mut self, key: &'static str) {
        let effect = self.world.ledger.plan(agent(key), Source::Asked);
        self.world.ledger.insists(effect);
        self.ask_again(key, effect);
    }

    pub fn ask_again(&mut self, key: &'static str, effect: u32) {
        if self.world.ledger.was_acknowledged(effect) {
            return;
        }
        let wait = self.world.millis(20, 1_500);
        self.world.after(wait, Event::Fate(Fate::AskAgain(key, effect)));
        if let Some(to) = self.somebody(Some(key)) {
            let work = Work { key, effect, script: Script::Plain, via: Via::Keyed };
            self.world.after(Duration::from_millis(1), Event::Asked { to, work });
        }
    }

    /// A client submits a task, or a family of them; or one that comes after what was submitted before.
    pub fn submit(&mut self) {
        let world = &mut self.world;
        let n = if world.chance(250) { world.rng.usize(2..5) } else { 1 };
        let mut tasks: Vec<NewTask> = (0..n).map(|_| draw_task(world)).collect();
        for child in 1..n {
            let parents = world.rng.usize(1..3);
            for _ in 0..parents {
                let parent = tasks[world.rng.usize(0..child)].id;
                tasks[child].after.push(parent);
            }
        }
        if n == 1 && world.chance(250) {
            let known: Vec<TaskId> = world.ledger.known_tasks().map(|(id, _)| id).collect();
            tasks[0].after.extend(pick(world, &known));
        }
        // a parent may stand behind its child
        world.rng.shuffle(&mut tasks);
        self.send(Errand::Submit(Arc::new(tasks)));
    }

    /// Somebody cancels one of the tasks that have not ended.
    pub fn cancel(&mut self) {
        let open = self.world.ledger.known_tasks().filter(|(_, ended)| ended.is_none());
        let mut open: Vec<TaskId> = open.map(|(id, _)| id).collect();
        if self.world.chance(700) {
            // one that runs rather
            let run: Vec<TaskId> =
                open.iter().copied().filter(|id| self.world.ledger.runs_now(*id)).collect();
            open = if run.is_empty() { open } else { run };
        }
        if let Some(task) = pick(&mut self.world, &open) {
            self.send(Errand::Cancel(task));
        }
    }

    /// Somebody brings a dead letter back.
    pub fn retry(&mut self) {
        let dead = |ended| matches!(ended, Some(TaskState::Failed | TaskState::Cancelled));
        let ledger = &self.world.ledger;
        let dead = ledger.known_tasks().filter(|(id, ended)| dead(*ended) && !ledger.may_be_paid(*id));
        let dead: Vec<TaskId> = dead.map(|(id, _)| id).collect();
        if let Some(task) = pick(&mut self.world, &dead) {
            self.send(Errand::Retry(task));
        }
    }

    /// Somebody sends a task function a signal that it waits for, or will.
    pub fn signal(&mut self) {
        let waits = |step: &Step| step.waits_for().is_some();
        let ledger = &self.world.ledger;
        let open = ledger.known_tasks().filter(|(_, ended)| ended.is_none());
        let of = |id| ledger.effect_of(id).and_then(|effect| ledger.steps(effect));
        let open: Vec<TaskId> =
            open.map(|(id, _)| id).filter(|id| of(*id).is_some_and(|s| s.iter().any(waits))).collect();
        if let Some(task) = pick(&mut self.world, &open) {
            let effect = self.world.ledger.effect_of(task).unwrap_or(0);
            let names: Vec<&str> =
                self.world.ledger.steps(effect).into_iter().flatten().filter_map(|s| s.waits_for()).collect();
            let name = pick(&mut self.world, &names).unwrap_or_default();
            self.send_signal(task, name);
        }
    }

    fn send_signal(&mut self, task: TaskId, name: &str) {
        let id = self.world.draw();
        let body = input(u32::try_from(id.as_u64_pair().1 & 0xffff_ffff).unwrap_or(0));
        let signal = Signal { id, name: name.to_owned(), body };
        let n = self.world.ledger.sends(task, signal);
        self.signal_again(n);
    }

    pub fn signal_again(&mut self, n: usize) {
        let Some(sent) = self.world.ledger.sent(n).filter(|sent| !sent.heard) else { return };
        let errand = Errand::Signal(sent.task, sent.signal.clone());
        let wait = self.world.millis(20, 1_500);
        self.world.after(wait, Event::Fate(Fate::SignalAgain(n)));
        self.send(errand);
    }

    /// A person starts all agents again that are stopped.
    pub fn operate(&mut self) {
        KEYS.into_iter().for_each(|key| self.send(Errand::Open(key)));
    }

    /// When nothing fails any more: a person says what became of what was interrupted, and sends the signals
    /// that tasks wait for without end.
    pub fn see_to_what_waits(&mut self) {
        for queue in self.world.ledger.paused() {
            self.send(Errand::Queue(queue, false));
        }
        let world = &mut self.world;
        for id in world.ledger.those_that_are(&world.store, TaskState::Waiting) {
            if let Some(name) = self.world.ledger.wants(id).map(str::to_owned) {
                self.send_signal(id, &name);
            }
        }
        let world = &mut self.world;
        for id in world.ledger.those_that_are(&world.store, TaskState::OutcomeUnknown) {
            let Some(effect) = self.world.ledger.begun(id).or(self.world.ledger.effect_of(id)) else {
                continue;
            };
            let errand = match self.world.ledger.was_paid(effect) {
                true => Errand::Resolve(id, true),
                false if self.world.chance(500) => Errand::Resolve(id, false),
                false => Errand::Retry(id),
            };
            self.send(errand);
        }
    }

    /// A world has schedules, or not.
    pub fn make_schedules(&mut self) {
        for name in NAMES {
            if !self.world.chance(250) {
                continue;
            }
            let schedule = schedules::draw(&mut self.world, name);
            let put = self.world.store.put_schedule(&schedule, None).now_or_never();
            self.world.ledger.must(matches!(put, Some(Ok(true))), || format!("{name} cannot be made"));
            self.world.ledger.knows(name, &schedule);
        }
    }

    /// A person holds all schedules up, or lets all go on; `true`: so it is.
    pub fn hold_all(&mut self, held: bool) -> bool {
        let others = self.world.ledger.schedules().into_iter().filter(|name| self.is_held(name) != held);
        let others: Vec<&'static str> = others.collect();
        others.iter().for_each(|name| self.send(Errand::Hold(name, held)));
        others.is_empty()
    }

    fn is_held(&self, name: &str) -> bool {
        let found = self.world.store.schedule(name).now_or_never();
        found.and_then(Result::ok).flatten().is_none_or(|schedule| schedule.paused)
    }
}

fn pick<T: Clone>(world: &mut World, all: &[T]) -> Option<T> {
    let n = world.rng.usize(0..all.len().max(1));
    all.get(n).cloned()
}

fn any_agent(world: &mut World) -> Target {
    agent(KEYS[world.rng.usize(0..KEYS.len())])
}

/// A task that a client submits.
fn draw_task(world: &mut World) -> NewTask {
    let target = match world.rng.u8(0..10) {
        0 | 1 => tool(TOOL),
        2..5 => tool(FLOW),
        _ => any_agent(world),
    };
    let effect = world.ledger.plan(target.clone(), Source::Submitted);
    if target == tool(FLOW) {
        let plan = draw_plan(world, effect);
        world.ledger.set_plan(effect, plan);
    } else if target != tool(TOOL) {
        let script = draw_script(world, effect, true);
        world.ledger.set_script(effect, script);
    }
    let mut new = task(TaskId(world.draw()), target, effect);
    let anyway = world.rng.bool();
    new.on_parent_failed = if anyway { OnParentFailed::Run } else { OnParentFailed::Cancel };
    let soon = |world: &mut World| Some(world.wall(0) + world.millis(0, 3_000));
    if world.chance(100) {
        new.run_at = soon(world);
    } else if world.chance(60) {
        new.expires_at = soon(world);
    }
    new
}

/// What a task function does.
fn draw_plan(world: &mut World, effect: u32) -> Plan {
    let n = world.rng.usize(1..6);
    let steps: Vec<Step> = (0..n).map(|_| draw_step(world, effect)).collect();
    let errs = if world.chance(200) { world.rng.u32(1..4) } else { 0 };
    Plan { at: world.rng.usize(0..=steps.len()), steps, errs }
}

fn draw_step(world: &mut World, of: u32) -> Step {
    let name = SIGNALS[world.rng.usize(0..SIGNALS.len())];
    match world.rng.u8(0..18) {
        0 | 1 => Step::Reads,
        2 | 3 => Step::Calls(world.ledger.plan(tool(TOOL), Source::Called(of))),
        4 | 5 => Step::Pays(world.ledger.plan(tool(TOOL), Source::Called(of))),
        6 | 7 => {
            let key = KEYS[world.rng.usize(0..KEYS.len())];
            Step::Asks(key, world.ledger.plan(agent(key), Source::Called(of)))
        }
        8 | 9 => {
            let target = any_agent(world);
            Step::Submits(world.ledger.plan(target, Source::Child(of)))
        }
        10 | 11 | 16 => Step::Waits(name, None),
        12 => Step::Waits(name, Some(world.millis(0, 3_000))),
        13 => Step::Waits(name, Some(Duration::ZERO)),
        14 | 17 => Step::Needs(name, world.millis(0, 3_000)),
        _ => Step::Kills(1),
    }
}

/// How the handling of a message is to go that has this effect.
fn draw_script(world: &mut World, effect: u32, is_task: bool) -> Script {
    let plan = |world: &mut World| {
        let target = any_agent(world);
        world.ledger.plan(target, Source::Turn(effect))
    };
    match world.rng.u8(0..24) {
        0 | 1 => Script::Errs(world.rng.u32(1..5)),
        2 | 3 => Script::Panics(world.rng.u32(1..5)),
        4 if is_task => Script::Poison,
        5..8 => Script::Submits(plan(world)),
        8 | 9 => {
            let n = world.rng.u32(1..4);
            let first = plan(world);
            for _ in 0..n {
                plan(world);
            }
            Script::FansOut(first, n)
        }
        10 | 11 => Script::Later(world.rng.u32(1..4)),
        12 => Script::Never,
        _ => Script::Plain,
    }
}
