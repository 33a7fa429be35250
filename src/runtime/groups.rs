//! Groups at run time: their members, and what the orchestrator does when one has crashed.

use std::{sync::Arc, time::Duration};

use actix::prelude::*;

use super::{kind::AnyKind, millis, node::Node, orchestrator::Orchestrator};
use crate::{
    config::Settings,
    model::{
        event::{self, Event, Level},
        group::{GroupPolicy, Verdict, judge},
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
}

/// A member of a group has crashed, and is restarting by itself unless it `gave_up`.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct MemberCrashed {
    pub group: String,
    pub kind: &'static str,
    pub key: Arc<str>,
    pub gave_up: bool,
}

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
        let place = node.kinds.iter().position(|kind| kind.name() == crashed.kind);
        let place = (place.unwrap_or_default(), &*crashed.key);
        match judge(policy, budget, crashed.gave_up, node.uptime()) {
            Verdict::Restart { attempt } => {
                let restarted = renew(&node, group, |member| policy.strategy.takes_along(place, member));
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
                        let restarted = renew(&node, group, |_| true);
                        let event = planned(&subject, "whole_group", attempt, &root);
                        node.logger.emit(event.field("members", restarted));
                    }
                    Verdict::Escalate { .. } => node.fail(
                        format!("the group `{}` cannot be kept up", group.name),
                        "look at `greenroom crashes ls`: what crashes in the group has to be mended first",
                    ),
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

/// Restarts those of these places: the number of the kind, and the key.
fn renew(node: &Node, group: &Group, which: impl Fn((usize, &str)) -> bool) -> usize {
    let kinds = node.kinds.iter().enumerate().filter(|(_, kind)| group.has(&***kind));
    kinds
        .flat_map(|(at, kind)| kind.members(&|key| which((at, key))))
        .map(|(_, inbox)| inbox.tell(super::inbox::Control::Renew))
        .count()
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
