//! One world from its seed to its rest: machines, their fates, and a failure's report.

use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use uuid::Uuid;

use crate::{
    errand::Errand,
    node::Process,
    schedules,
    work::{FLOW, KEYS, KIND, Script, TOOL},
    world::{Event, Fate, Pid, World},
};

/// For how long things fail.
const STORM: Duration = Duration::from_secs(12);
/// By when everything must have come to rest.
const PATIENCE: Duration = Duration::from_secs(180);
/// After this long nothing arrives any more that was sent while things failed.
const LATE: Duration = Duration::from_secs(4);
/// After this long every machine has booted and taken over what it takes over.
const SETTLED: Duration = Duration::from_secs(8);
/// For how long schedules go on then.
const SCHEDULED: Duration = Duration::from_secs(4);
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

/// How often what happens in the world of a seed.
pub fn busy(seed: u64) -> BTreeMap<&'static str, u64> {
    let mut simulation = Simulation::new(seed, false);
    simulation.come_to_rest();
    simulation.world.ledger.busy
}

pub struct Machine {
    /// What its data directory keeps.
    instance: Uuid,
    pub process: Option<Process>,
    wall_off: i64,
    /// It is about to boot.
    boots: bool,
}

pub struct Simulation {
    pub world: World,
    pub machines: Vec<Machine>,
    next_pid: Pid,
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
        let mut simulation = Self { world, machines, next_pid: 0 };
        simulation.make_schedules();
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
        some(world, 6, &|_, _| Fate::Cancel);
        some(world, 4, &|_, _| Fate::Retry);
        some(world, 14, &|_, _| Fate::Signal);
        let queues = [KIND, TOOL, FLOW];
        some(world, 1, &|world, n| Fate::Queue(queues[n % queues.len()], world.rng.u8(0..3) > 0));
        let names = schedules::NAMES;
        some(world, 2, &|world, n| Fate::Hold(names[n % names.len()], world.rng.bool()));
        for _ in 0..world.rng.u64(4..14) {
            let at = world.millis(300, 12_000);
            world.after(at, Event::Fate(Fate::Ask));
        }
        for _ in 0..world.rng.u64(4..14) {
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
        let mut scheduled = Some(self.world.now + SETTLED);
        loop {
            if !self.step() {
                return;
            }
            if self.world.now < look {
                continue;
            }
            look = self.world.now + Duration::from_millis(500);
            self.operate();
            self.see_to_what_waits();
            if !self.have_had_their_time(&mut scheduled) || !self.is_at_rest() {
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

    /// Lets all schedules go on for a while, in which each nominal time comes; then they are held up. `since`
    /// is since when they go on; `None`: it is over. `true`: all are held up.
    fn have_had_their_time(&mut self, since: &mut Option<Duration>) -> bool {
        let now = self.world.now;
        match *since {
            Some(_) if self.world.ledger.schedules().is_empty() => true,
            Some(from) if now < from + SCHEDULED => {
                let all_go_on = self.hold_all(false);
                *since = Some(if all_go_on { from } else { from.max(now) });
                false
            }
            from => {
                from.into_iter().for_each(|from| self.world.ledger.fired_all(from, now));
                *since = None;
                self.hold_all(true)
            }
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
        let ledger = &self.world.ledger;
        ledger.have_heard() && ledger.unfinished(&self.world.store).is_empty()
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
            Event::Routed(work) => {
                if let Some(to) = self.somebody(Some(work.key)) {
                    self.world.after(Duration::from_millis(1), Event::Asked { to, work });
                }
            }
            Event::Reply { to, .. }
            | Event::Timer { to, .. }
            | Event::Asked { to, .. }
            | Event::Sent { to, .. } => self.give(to, event),
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
                world.ledger.sets_clock(off);
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
            Fate::Cancel => self.cancel(),
            Fate::Retry => self.retry(),
            Fate::Signal => self.signal(),
            Fate::SignalAgain(n) => self.signal_again(n),
            Fate::Queue(queue, paused) => self.send(Errand::Queue(queue.to_owned(), paused)),
            Fate::Hold(name, held) => self.send(Errand::Hold(name, held)),
        }
    }
}
