//! The schedules of the program: checked before it runs, written when it starts.

use std::collections::BTreeSet;

use serde_json::value::RawValue;

use super::subject;
use crate::{
    agent::{
        Invalid, Message, Shape,
        schedule::{ScheduleOptions, Target},
    },
    clock,
    log::Logger,
    model::{
        event::{self, Event, Level},
        id::{self, check_key},
        schedule::{Definition, MAX_SCHEDULES, Origin, Schedule, Spec, check_schedule},
    },
    store::{Store, StoreError},
};

/// The largest input of a schedule: all of them are read together.
pub(crate) const MAX_INPUT_BYTES: usize = 64 << 10;

/// Says whether an input can be taken.
pub(crate) type Takes = fn(&RawValue) -> Result<(), Invalid>;

/// Whether an input can be taken as `M`: by its schema, its type and its own check.
pub(crate) fn takes<M: Message>(input: &RawValue) -> Result<(), Invalid> {
    let value = serde_json::from_str(input.get()).map_err(|e| Invalid::at("", e.to_string()))?;
    let shape = Shape::of::<M>(false);
    shape.check(&value)?;
    shape.read(input)
}

/// A schedule as the program declares it.
pub(crate) struct Declared {
    name: &'static str,
    definition: Definition,
    /// Known when it has been checked.
    spec: Option<Spec>,
    takes: Takes,
    /// Why its input is none.
    unwritten: Option<String>,
}

impl Declared {
    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn of<M: Message>(
        name: &'static str,
        spec: &str,
        to: Target<M>,
        message: &M,
        options: ScheduleOptions,
    ) -> Self {
        let (input, unwritten) = match serde_json::value::to_raw_value(message) {
            Ok(input) => (input, None),
            Err(error) => (Box::<RawValue>::default(), Some(error.to_string())),
        };
        let message = match to.to {
            id::Target::Agent { .. } => M::NAME.to_owned(),
            id::Target::Tool(_) => String::new(),
        };
        let ScheduleOptions { overlap, misfire, priority, max_attempts, timeout, tags } = options;
        let definition = Definition {
            spec: spec.split_whitespace().collect::<Vec<_>>().join(" "),
            target: to.to,
            message,
            input,
            priority,
            max_attempts,
            timeout,
            tags,
            overlap,
            misfire,
        };
        Self { name, definition, spec: None, takes: takes::<M>, unwritten }
    }

    /// What is wrong with it.
    fn check(&mut self, kinds: &BTreeSet<&str>, tools: &[(&'static str, Takes)]) -> Vec<String> {
        let mut wrong = Vec::new();
        let Definition { spec, target, input, .. } = &self.definition;
        wrong.extend(check_schedule(self.name).err().map(|e| e.to_string()));
        match spec.parse() {
            Ok(spec) => self.spec = Some(spec),
            Err(error) => wrong.push(error.to_string()),
        }
        let mut takers = vec![self.takes];
        match target {
            id::Target::Agent { kind, key } => {
                wrong.extend(check_key(key).err().map(|e| e.to_string()));
                if !kinds.contains(kind.as_str()) {
                    wrong.push(format!(
                        "its target is of the kind `{kind}`, which the program does not register"
                    ));
                }
            }
            id::Target::Tool(name) => match tools.iter().find(|(tool, _)| tool == name) {
                Some((_, takes)) => takers.push(*takes),
                None => wrong
                    .push(format!("its target is the tool `{name}`, which the program does not register")),
            },
        }
        match &self.unwritten {
            Some(why) => wrong.push(format!("its input cannot be written as JSON: {why}")),
            None if input.get().len() > MAX_INPUT_BYTES => {
                wrong.push(format!("its input has more than {MAX_INPUT_BYTES} bytes"));
            }
            None => wrong.extend(
                takers.iter().find_map(|takes| Some(format!("its input is {}", takes(input).err()?))),
            ),
        }
        wrong.into_iter().map(|why| format!("schedule `{}`: {why}", self.name)).collect()
    }

    /// What is to be written over what is there; `None`: nothing.
    fn over(&self, there: Option<&Schedule>) -> Option<Schedule> {
        let (spec, now) = (self.spec.as_ref()?, clock::now());
        match there {
            None => {
                let (name, definition) = (self.name.to_owned(), self.definition.clone());
                Some(Schedule::new(name, definition, spec, Origin::Program, now))
            }
            Some(old) if old.origin == Origin::Program && old.definition == self.definition => None,
            Some(old) => Some(old.redefined(self.definition.clone(), spec, Origin::Program, now)),
        }
    }
}

/// Checks what the program declares.
///
/// Returns everything that is wrong, at once.
pub(crate) fn check(
    all: &mut [Declared],
    kinds: &BTreeSet<&str>,
    tools: &[(&'static str, Takes)],
) -> Vec<String> {
    let (mut wrong, mut names) = (Vec::new(), BTreeSet::new());
    if all.len() > MAX_SCHEDULES {
        wrong.push(format!("there are {} schedules: at most {MAX_SCHEDULES} can be", all.len()));
    }
    for declared in all {
        if !names.insert(declared.name) {
            wrong.push(format!("schedule `{}`: it is declared twice", declared.name));
        }
        wrong.append(&mut declared.check(kinds, tools));
    }
    wrong
}

/// Writes what the program declares. What a person holds up stays so; what a person made is left alone, unless the
/// program takes its name.
///
/// # Errors
/// Those of the store; it may be called again.
pub(crate) async fn write(store: &dyn Store, logger: &Logger, all: &[Declared]) -> Result<(), StoreError> {
    let there = store.schedules().await?;
    let changed = |schedule: &Schedule, action: &str| {
        let event = Event::new(Level::Info, event::SCHEDULE_CHANGED, subject(&schedule.name));
        let next = schedule.next_at.map(|at| at.to_string());
        logger.emit(event.field("action", action).field("origin", "program").field_opt("next_at", next));
    };
    for declared in all {
        let mut old = there.iter().find(|s| s.name == declared.name).cloned();
        // another node that starts may be at the same
        while let Some(new) = declared.over(old.as_ref()) {
            if store.put_schedule(&new, old.as_ref()).await? {
                match old.map(|old| old.origin) {
                    None => changed(&new, "added"),
                    Some(Origin::Program) => changed(&new, "changed"),
                    Some(Origin::Operator) => changed(&new, "taken over"),
                }
                break;
            }
            old = store.schedule(declared.name).await?;
        }
    }
    Ok(())
}

/// Removes what a program has declared once, and this one does not any more: unless another living node's does, as in
/// the middle of an upgrade. `false`: something stays for others, and is to be looked at again when they may have gone.
///
/// # Errors
/// Those of the store; it may be called again.
pub(crate) async fn retire(
    store: &dyn Store,
    logger: &Logger,
    declared: &[Declared],
) -> Result<bool, StoreError> {
    // Before it is asked who declares what: who has written one is there, though he may not have said so.
    let there = store.schedules().await?;
    let is_own = |schedule: &Schedule| declared.iter().any(|own| own.name == schedule.name);
    let gone: Vec<_> = there.iter().filter(|s| s.origin == Origin::Program && !is_own(s)).collect();
    if gone.is_empty() {
        return Ok(true);
    }
    let elsewhere = match store.shared() {
        None => Vec::new(),
        Some(shared) => match shared.announced().await? {
            Some(names) => names,
            // one does not say what it declares, or has not yet
            None => return Ok(false),
        },
    };
    let (kept, gone): (Vec<_>, Vec<_>) =
        gone.into_iter().partition(|s| elsewhere.contains(&subject(&s.name)));
    let mut all = kept.is_empty();
    for gone in gone {
        let is_removed = store.remove_schedule(&gone.name, gone.revision).await?;
        // else it has changed meanwhile
        all &= is_removed;
        if is_removed {
            let event = Event::new(Level::Warn, event::SCHEDULE_REMOVED, subject(&gone.name));
            logger.emit(event.field("reason", "the program does not declare it any more"));
        }
    }
    Ok(all)
}
