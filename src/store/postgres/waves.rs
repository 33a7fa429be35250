//! Units that do not touch each other may go in one statement: the others go one after the other.

use hashbrown::{HashMap, hash_map::Entry};
use uuid::Uuid;

use crate::store::Unit;

/// What a unit touches, so that no two units of a wave touch the same.
#[derive(PartialEq, Eq, Hash)]
enum Touched<'a> {
    Agent(Uuid),
    Task(Uuid),
    Batch(Uuid),
    Key(Uuid, &'a str),
    Conversation(Uuid),
    Session(&'a str),
}

fn touched(unit: &Unit) -> impl Iterator<Item = Touched<'_>> {
    let tasks = unit.finished.iter().map(|f| f.task.0);
    let tasks = tasks.chain(unit.accepted.iter().map(|t| t.id.0));
    let tasks = tasks.chain(unit.journal.iter().map(|write| write.task.0));
    let tasks = tasks.chain(unit.accepted.iter().flat_map(|t| t.after.iter().map(|p| p.0)));
    let agent = unit.state.iter().map(|s| Touched::Agent(s.id.0));
    let agent = agent.chain(unit.subscriptions.iter().map(|s| Touched::Agent(s.subscriber.agent.0)));
    let batches = unit.batches.iter().map(|b| Touched::Batch(b.id.0));
    let keys = unit.keys.iter().map(|k| Touched::Key(k.scope, &k.key));
    let talks = unit.conversations.iter().map(|w| w.id().0);
    let talks = talks.chain(unit.messages.iter().map(|m| m.conversation.0)).map(Touched::Conversation);
    let sessions = unit.sessions.iter().map(|s| Touched::Session(&s.id));
    agent.chain(tasks.map(Touched::Task)).chain(batches).chain(keys).chain(talks).chain(sessions)
}

/// The waves, each a list of indices: a unit comes in the first wave after all that it shares
/// anything with.
pub(super) fn waves(units: &[Unit]) -> Vec<Vec<usize>> {
    let mut last: HashMap<Touched<'_>, usize> = HashMap::with_capacity(units.len());
    let mut waves: Vec<Vec<usize>> = Vec::new();
    for (n, unit) in units.iter().enumerate() {
        let wave = touched(unit).filter_map(|t| last.get(&t)).map(|wave| wave + 1).max().unwrap_or(0);
        for t in touched(unit) {
            match last.entry(t) {
                Entry::Occupied(mut seen) => *seen.get_mut() = wave.max(*seen.get()),
                Entry::Vacant(new) => drop(new.insert(wave)),
            }
        }
        match waves.get_mut(wave) {
            Some(wave) => wave.push(n),
            None => waves.push(vec![n]),
        }
    }
    waves
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{id::Target, task::NewTask};

    fn task() -> NewTask {
        let input = serde_json::value::RawValue::from_string("{}".to_owned()).unwrap();
        NewTask::new(Target::agent("tally", "a"), "Add", input, 5)
    }

    fn accepting(task: NewTask) -> Unit {
        Unit { accepted: vec![task], ..Unit::default() }
    }

    #[test]
    fn units_that_share_nothing_go_together_and_others_keep_their_order() {
        let parent = task();
        let child = NewTask { after: vec![parent.id], ..task() };
        let grandchild = NewTask { after: vec![child.id], ..task() };
        let units = [
            accepting(grandchild.clone()),
            accepting(task()),
            accepting(child),
            accepting(parent),
            accepting(grandchild),
        ];
        assert_eq!(waves(&units), [vec![0, 1], vec![2], vec![3, 4]]);
        assert_eq!(waves(&[]), Vec::<Vec<usize>>::new());
    }
}
