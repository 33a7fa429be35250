//! Groups at run time: their members, and what the orchestrator does when one has crashed.

use std::{sync::Arc, time::Duration};

use actix::prelude::*;

use super::{
    kind::AnyKind,
    millis,
    node::Node,
    orchestrator::Orchestrator,
    restart_order::{self, Lead, Member},
};
use crate::{
    config::Settings,
    model::{
        event::{self, Event, Level},
        group::{GroupPolicy, Strategy, Verdict, judge},
        supervision::Budget,
    },
};

/// A group, as it was declared.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub name: String,
    pub policy: GroupPolicy,
}

/// The groups that the program and its configuration declare; the configuration overrides the program.
pub(crate) fn declared(code: Vec<Group>, settings: &Settings) -> Vec<Group> {
    let mut groups = code;
    for (name, over) in &settings.supervision.groups {
        if groups.iter().all(|g| g.name != *name) {
            let base = &settings.supervision;
            let policy = GroupPolicy {
                strategy: Default::default(),
                max_restarts: base.max_restarts,
                within: base.within,
            };
            groups.push(Group { name: name.clone(), policy });
        }
        if let Some(group) = groups.iter_mut().find(|g| g.name == *name) {
            let policy = &mut group.policy;
            policy.strategy = over.strategy.unwrap_or(policy.strategy);
            policy.max_restarts = over.max_restarts.unwrap_or(policy.max_restarts);
            policy.within = over.within.unwrap_or(policy.within);
        }
    }
    groups
}

/// The crash budgets of the groups, and the root's own.
#[derive(Default)]
pub(crate) struct Budgets {
    groups: Vec<Budget>,
    root: Budget,
    /// Members of groups that cannot be kept up: they wait until the node has ended.
    given_up: Vec<Lead>,
}

/// A member of a group has crashed, and is restarting by itself unless it `gave_up`.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct MemberCrashed {
    pub group: String,
    pub kind: &'static str,
    pub key: Arc<str>,
    pub gave_up: bool,
    /// It waits for its place among those that restart with it. Dropped, it waits no longer.
    pub place: Option<Lead>,
}

/// A member's place in its group: the number of its kind, and its key.
type Place = (usize, Arc<str>);

impl Handler<MemberCrashed> for Orchestrator {
    type Result = ();
    fn handle(&mut self, crashed: MemberCrashed, _: &mut Self::Context) {
        let node = self.node.clone();
        let Some(at) = node.groups.iter().position(|g| g.name == crashed.group) else { return };
        let Some(group) = node.groups.get(at) else { return };
        self.budgets.groups.resize_with(node.groups.len(), Budget::new);
        let Some(budget) = self.budgets.groups.get_mut(at) else { return };
        let (policy, subject) = (&group.policy, format!("group:{}", group.name));
        let because_of = format!("{}/{}", crashed.kind, crashed.key);
        let at = node.kinds.iter().position(|kind| kind.name() == crashed.kind);
        let place: Place = (at.unwrap_or_default(), crashed.key);
        let waits = crashed.place.map(|lead| (place.clone(), lead));
        match judge(policy, budget, crashed.gave_up, node.uptime()) {
            // It restarts alone, and by itself.
            Verdict::Restart { .. } if policy.strategy == Strategy::OneForOne => {}
            Verdict::Restart { attempt } => {
                let takes_along = |member: &Place| policy.strategy.takes_along(&place, member);
                let restarted = restart(&node, group, waits, takes_along);
                if restarted > 0 {
                    let event = planned(&subject, policy.strategy.name(), attempt, policy);
                    node.logger.emit(event.field("members", restarted).field("because_of", because_of));
                }
            }
            Verdict::Escalate { attempts } => {
                budget.reset();
                let settings = node.settings.load();
                let supervision = &settings.supervision;
                let root = GroupPolicy {
                    strategy: Default::default(),
                    max_restarts: supervision.max_restarts,
                    within: supervision.within,
                };
                let event = Event::new(Level::Error, event::RESTART_EXCEEDED, &*subject)
                    .field("attempts", attempts)
                    .field("max", policy.max_restarts)
                    .field("within_ms", millis(policy.within))
                    .field("because_of", because_of)
                    .field("escalated_to", "orchestrator");
                node.logger.emit(event);
                match judge(&root, &mut self.budgets.root, false, node.uptime()) {
                    Verdict::Restart { attempt } => {
                        if let Some(kind) = node.kinds.get(place.0) {
                            kind.forgive(&place.1);
                        }
                        let is_led = waits.is_some();
                        let restarted = restart(&node, group, waits, |member| !is_led || *member != place);
                        let event = planned(&subject, "whole_group", attempt, &root);
                        node.logger.emit(event.field("members", restarted));
                    }
                    Verdict::Escalate { .. } => {
                        self.budgets.given_up.extend(waits.map(|(_, lead)| lead));
                        node.fail(
                            format!("the group `{}` cannot be kept up", group.name),
                            "look at `greenroom crashes ls`: what crashes in the group has to be mended first",
                        );
                    }
                }
            }
        }
    }
}

fn planned(subject: &str, strategy: &str, attempt: u32, policy: &GroupPolicy) -> Event {
    Event::new(Level::Warn, event::RESTART_PLANNED, subject)
        .field("strategy", strategy)
        .field("attempt", attempt)
        .field("max", policy.max_restarts)
        .field("within_ms", millis(policy.within))
        .field("delay_ms", millis(Duration::ZERO))
}

/// Restarts those of its members of which this holds, and who `waits` among them, in their order. How many others
/// there are.
fn restart(
    node: &Node,
    group: &Group,
    waits: Option<(Place, Lead)>,
    which: impl Fn(&Place) -> bool,
) -> usize {
    let kinds = node.kinds.iter().enumerate().filter(|(_, kind)| group.has(&***kind));
    let members = kinds.flat_map(|(at, kind)| {
        let (members, stop_timeout) = (kind.members(&|_| true).into_iter(), kind.policy().stop_timeout);
        members.map(move |(key, inbox)| ((at, key), Member::Runs(inbox, stop_timeout)))
    });
    let mut members: Vec<(Place, Member)> = members.filter(|(place, _)| which(place)).collect();
    let others = members.len();
    if others > 0 {
        members.extend(waits.map(|(place, lead)| (place, Member::Waits(lead))));
        members.sort_by(|a, b| a.0.cmp(&b.0));
        node.runtime.spawn(restart_order::restart(members.into_iter().map(|(_, member)| member).collect()));
    }
    others
}

impl Group {
    fn has(&self, kind: &dyn AnyKind) -> bool {
        kind.policy().group.as_ref() == Some(&self.name)
    }
}

impl Node {
    /// The kinds of a group that take a message.
    pub(crate) fn members(&self, group: &str, message: &str) -> Vec<&'static str> {
        let Some(group) = self.groups.iter().find(|known| known.name == group) else { return Vec::new() };
        let kinds = self.kinds.iter().filter(|kind| group.has(&***kind));
        kinds.filter(|kind| kind.shape(message).is_some()).map(|kind| kind.name()).collect()
    }
}
