//! One world from its seed to its rest: machines, their fates, and a failure's report.

use std::{
    fmt,
    ops::AddAssign,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use greenroom::model::id::Target;
use uuid::Uuid;

use crate::{
    cell::agent,
    node::Process,
    work::{KEYS, Script, TOOL, Via, Work},
    world::{Event, Fate, Pid, World},
};

/// For how long things fail.
const STORM: Duration = Duration::from_secs(12);
/// By when everything must have come to rest.
const PATIENCE: Duration = Duration::from_secs(180);
/// After this long nothing arrives any more that was sent while things failed.
const LATE: Duration = Duration::from_secs(4);
/// How many machines there are.
const MACHINES: usize = 3;

/// What went wrong in a world.
pub struct Failure {
    seed: u64,
    pub what: String,
    trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.trace.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        writeln!(f, "seed {}: {}", self.seed, self.what)?;
        write!(f, "alone: GREENROOM_SEED={} cargo test --locked --test simulator nothing_is_lost", self.seed)
    }
}

/// How much happened.
#[derive(Default)]
pub struct Busy {
    pub durable: u64,
    pub rescued: u64,
    pub takeovers: u64,
    pub kills: u64,
}

impl AddAssign for Busy {
    fn add_assign(&mut self, other: Self) {
        self.durable += other.durable;
        self.rescued += other.rescued;
        self.takeovers += other.takeovers;
        self.kills += other.kills;
    }
}

/// Runs the world of a seed to its rest; once more where something is wrong, to tell what happened.
pub fn run(seed: u64) -> Result<(), Failure> {
    let Some(what) = Simulation::new(seed, false).ends().0 else { return Ok(()) };
    let trace = Simulation::new(seed, true).ends().1;
    Err(Failure { seed, what, trace })
}

/// The end of what happens in the world of a seed.
pub fn trace(seed: u64) -> Vec<String> {
    Simulation::new(seed, true).ends().1
}

/// How much happens in the world of a seed.
pub fn busy(seed: u64) -> Busy {
    let mut simulation = Simulation::new(seed, false);
    simulation.come_to_rest();
    let ledger = &simulation.world.ledger;
    Busy {
        durable: ledger.durable,
        rescued: ledger.rescued,
        takeovers: ledger.takeovers,
        kills: simulation.kills,
    }
}

struct Machine {
    /// What its data directory keeps.
    instance: Uuid,
    process: Option<Process>,
    wall_off: i64,
    /// It is about to boot.
    boots: bool,
}

struct Simulation {
    world: World,
    machines: Vec<Machine>,
    next_pid: Pid,
    kills: u64,
}

impl Simulation {
    fn new(seed: u64, told: bool) -> Self {
        let mut world = World::new(seed, told);
        let mut machines = Vec::new();
        for n in 0..MACHINES {
            machines.push(Machine { instance: world.draw(), process: None, wall_off: 0, boots: true });
            let wait = world.millis(0, 600);
            world.after(wait, Event::Fate(Fate::Boot(n)));
        }
        let mut simulation = Self { world, machines, next_pid: 0, kills: 0 };
        simulation.draw_fates();
        simulation
    }

    /// Runs to its rest: what is broken, and what happened last.
    fn ends(mut self) -> (Option<String>, Vec<String>) {
        let ran = catch_unwind(AssertUnwindSafe(|| self.come_to_rest()));
        let broken = self.world.ledger.broken.take();
        let what = if ran.is_ok() { broken } else { Some("it panicked".to_owned()) };
        (what, self.world.told().cloned().collect())
    }

    /// Draws what befalls the machines, and when clients have ideas.
    fn draw_fates(&mut self) {
        let world = &mut self.world;
        let some = |world: &mut World, most: u64, fate: &dyn Fn(&mut World, usize) -> Fate| {
            for _ in 0..world.rng.u64(0..=most) {
                let (at, n) = (world.millis(300, 12_000), world.rng.usize(0..MACHINES));
                let fate = fate(world, n);
                world.after(at, Event::Fate(fate));
            }
        };
        some(world, 3, &|_, n| Fate::Kill(n));
        some(world, 3, &|_, n| Fate::Pause(n));
        some(world, 1, &|world, n| Fate::Sleep(n, world.millis(500, 6_000)));
        some(world, 2, &|world, n| Fate::SetClock(n, world.rng.i64(-5_000..5_000)));
        some(world, 2, &|_, _| Fate::StoreDown);
        some(world, 2, &|_, _| Fate::Operate);
        for _ in 0..world.rng.u64(4..16) {
            let at = world.millis(300, 12_000);
            world.after(at, Event::Fate(Fate::Ask));
        }
        for _ in 0..world.rng.u64(4..16) {
            let at = world.millis(300, 12_000);
            world.after(at, Event::Fate(Fate::Submit));
        }
    }

    /// Lets things fail for a while, then no more, until nothing is left to do.
    fn come_to_rest(&mut self) {
        while self.world.now < STORM {
            if !self.step() {
                return;
            }
        }
        self.heal();
        // Of each agent, what a client asked when all else was done: in the end all are at work.
        let mut asked = KEYS.map(|key| (key, Vec::new()));
        let (mut look, until) = (self.world.now + LATE, self.world.now + PATIENCE);
        loop {
            if !self.step() {
                return;
            }
            if self.world.now < look {
                continue;
            }
            look = self.world.now + Duration::from_millis(500);
            self.operate();
            if !self.is_at_rest() {
                self.must_rest(until);
                continue;
            }
            let mut all = true;
            for (key, effects) in &mut asked {
                if !effects.iter().any(|effect| self.world.ledger.was_acknowledged(*effect)) {
                    effects.push(self.ask(key, Some(Script::Plain)));
                    all = false;
                }
            }
            if all {
                let world = &mut self.world;
                return world.ledger.at_rest(&world.store);
            }
            self.must_rest(until);
        }
    }

    fn must_rest(&mut self, until: Duration) {
        let world = &mut self.world;
        if world.now > until {
            let unfinished = world.ledger.unfinished(&world.store);
            world.ledger.must(false, || format!("it does not come to rest: {unfinished:?}"));
        }
    }

    fn is_at_rest(&self) -> bool {
        self.world.ledger.have_heard() && self.world.ledger.unfinished(&self.world.store).is_empty()
    }

    /// From now on nothing fails.
    fn heal(&mut self) {
        self.world.tell(|| "nothing fails from now on".to_owned());
        self.world.is_healed = true;
        self.world.is_down = false;
        for n in 0..MACHINES {
            self.befall(Fate::SetClock(n, 0));
            self.befall(Fate::Resume(n));
        }
    }

    /// The next event; `false`: something is broken, or nothing is left.
    fn step(&mut self) -> bool {
        let Some(event) = self.world.next() else {
            self.world.ledger.must(false, || "nothing happens any more".to_owned());
            return false;
        };
        match event {
            Event::Arrive { from, op, reply } => self.world.arrive(from, op, reply),
            Event::Fate(fate) => self.befall(fate),
            Event::Reply { to, .. }
            | Event::Timer { to, .. }
            | Event::Asked { to, .. }
            | Event::Submitted { to, .. }
            | Event::Operated { to, .. } => self.give(to, event),
        }
        self.world.ledger.broken.is_none()
    }

    /// A process does what an event asks of it, if it lives, once it is not paused.
    fn give(&mut self, to: Pid, event: Event) {
        let lives = |m: &&mut Machine| m.process.as_ref().is_some_and(|p| p.me.pid == to);
        let Some(machine) = self.machines.iter_mut().find(lives) else { return };
        let Some(process) = machine.process.as_mut() else { return };
        if process.is_paused {
            return process.stash.push(event);
        }
        process.handle(&mut self.world, event);
        if process.is_over {
            let n = self.machines.iter().position(|m| m.process.as_ref().is_some_and(|p| p.me.pid == to));
            self.befall(Fate::Kill(n.unwrap_or(0)));
        }
    }

    fn befall(&mut self, fate: Fate) {
        self.world.tell(|| format!("fate    {fate:?}"));
        let world = &mut self.world;
        match fate {
            Fate::Kill(n) => {
                let machine = &mut self.machines[n];
                let Some(process) = machine.process.take() else { return };
                world.ledger.dies(process.me.pid);
                self.kills += 1;
                if !std::mem::replace(&mut machine.boots, true) {
                    let longest = if world.is_healed { 500 } else { 5_000 };
                    let wait = world.millis(50, longest);
                    world.after(wait, Event::Fate(Fate::Boot(n)));
                }
            }
            Fate::Boot(n) => {
                let machine = &mut self.machines[n];
                machine.boots = false;
                let pid = self.next_pid;
                self.next_pid += 1;
                machine.process = Some(Process::boot(world, pid, machine.instance, machine.wall_off));
            }
            Fate::Pause(n) => {
                let Some(process) = &mut self.machines[n].process else { return };
                process.is_paused = true;
                let wait = world.millis(200, 8_000);
                world.after(wait, Event::Fate(Fate::Resume(n)));
            }
            Fate::Sleep(n, slept) => {
                let Some(process) = self.machines[n].process.as_mut().filter(|p| !p.is_paused) else {
                    return;
                };
                process.sleep(world);
                world.after(slept, Event::Fate(Fate::Resume(n)));
            }
            Fate::Resume(n) => {
                let Some(process) = &mut self.machines[n].process else { return };
                let (pid, stash) = (process.me.pid, process.resume(world));
                stash.into_iter().for_each(|event| self.give(pid, event));
            }
            Fate::SetClock(n, off) => {
                let machine = &mut self.machines[n];
                machine.wall_off = off;
                machine.process.iter_mut().for_each(|p| p.wall_off = off);
            }
            Fate::StoreDown => {
                world.is_down = !world.is_healed;
                let wait = world.millis(100, 4_500);
                world.after(wait, Event::Fate(Fate::StoreUp));
            }
            Fate::StoreUp => world.is_down = false,
            Fate::Ask => {
                let key = KEYS[world.rng.usize(0..KEYS.len())];
                if world.chance(250) {
                    self.insist(key);
                } else {
                    self.ask(key, None);
                }
            }
            Fate::AskAgain(key, effect) => self.ask_again(key, effect),
            Fate::Submit => self.submit(),
            Fate::Operate => self.operate(),
        }
    }

    /// A process, that of the owner rather.
    fn somebody(&mut self, key: Option<&str>) -> Option<Pid> {
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

    /// A client asks an agent.
    fn ask(&mut self, key: &'static str, script: Option<Script>) -> u32 {
        let effect = self.world.ledger.plan(agent(key), false, None);
        let script = script.unwrap_or_else(|| draw_script(&mut self.world, effect, false));
        if let Some(to) = self.somebody(Some(key)) {
            let work = Work { key, effect, script, via: Via::Ask };
            self.world.after(Duration::from_millis(1), Event::Asked { to, work });
        }
        effect
    }

    /// A client asks an agent under an idempotency key, until it has heard.
    fn insist(&mut self, key: &'static str) {
        let effect = self.world.ledger.plan(agent(key), false, None);
        self.world.ledger.insists(effect);
        self.ask_again(key, effect);
    }

    fn ask_again(&mut self, key: &'static str, effect: u32) {
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

    /// A client submits a task.
    fn submit(&mut self) {
        let world = &mut self.world;
        let is_tool = world.chance(200);
        let target = if is_tool { Target::Tool(TOOL.into()) } else { any_agent(world) };
        let effect = world.ledger.plan(target, true, None);
        if !is_tool {
            let script = draw_script(world, effect, true);
            world.ledger.set_script(effect, script);
        }
        if let Some(to) = self.somebody(None) {
            self.world.after(Duration::from_millis(1), Event::Submitted { to, effect });
        }
    }

    /// A person starts all agents again that are stopped.
    fn operate(&mut self) {
        for key in KEYS {
            if let Some(to) = self.somebody(Some(key)) {
                self.world.after(Duration::from_millis(1), Event::Operated { to, key });
            }
        }
    }
}

fn any_agent(world: &mut World) -> Target {
    agent(KEYS[world.rng.usize(0..KEYS.len())])
}

/// How the handling of a message is to go that has this effect.
fn draw_script(world: &mut World, effect: u32, is_task: bool) -> Script {
    match world.rng.u8(0..20) {
        0 | 1 => Script::Errs(world.rng.u32(1..5)),
        2 | 3 => Script::Panics(world.rng.u32(1..5)),
        4 if is_task => Script::Poison,
        5..9 => {
            let target = any_agent(world);
            Script::Submits(world.ledger.plan(target, true, Some(effect)))
        }
        _ => Script::Plain,
    }
}
