//! Delivery of publications: by the publisher, or by a courier.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    audience::{Audience, Group, MAX_SUBSCRIBERS},
    index::{Step, Way},
};
use crate::{
    agent::{
        Agent, AskError,
        host::{Host as _, NOT_TAKEN},
        topic::Publication,
    },
    model::{
        event::{self, Event, Level},
        id::AgentId,
    },
    runtime::{crashes::guard, kind::Kind, node::Node},
    store::StoreError,
};

/// After so many a courier lets others have their turn.
const SLICE: usize = 256;
/// How long a store may take to say who is subscribed; the wait for one's turn to ask it counts.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

impl Node {
    /// Tells a topic's subscribers, or has them told.
    pub(crate) fn publish_to(&self, topic: Arc<str>, publication: Publication) {
        if let Some(probe) = &self.probe {
            probe.published(&topic, &publication);
        }
        let way = self.topics.index.lock().post(&topic, publication, Instant::now());
        match way {
            Way::Now(publication, audience) => {
                for group in audience.groups() {
                    self.tell_group(&topic, group, &mut group.members.iter(), &publication);
                }
                self.leave_out(&topic, &audience, &publication);
                finish(publication, Ok(()));
            }
            Way::Courier => self.send_courier(|node| carry(node, topic)),
            Way::Waits => {}
            Way::Full(publication) => self.lost(&topic, [publication], &crowded()),
        }
    }

    /// Tells the running agents of a kind, or has them told.
    pub(crate) fn broadcast_to(&self, kind: &'static str, publication: Publication) {
        let Some((_, there)) = self.kind(kind) else {
            let why = AskError::NotFound(format!("the kind `{kind}` is not registered"));
            return finish(publication, Err(why));
        };
        let way = self.topics.index.lock().post_to_kind(kind, there.running(), publication);
        match way {
            Way::Now(publication, _) => {
                let keys = there.running_keys();
                there.tell_each(&mut keys.iter(), publication.name, &*publication.body);
                finish(publication, Ok(()));
            }
            Way::Courier => self.send_courier(|node| carry_to_kind(node, kind)),
            Way::Waits => {}
            Way::Full(publication) => {
                self.untold(kind, kind, publication.name, 1, &crowded().to_string());
                finish(publication, Err(crowded()));
            }
        }
    }

    fn send_courier<F>(&self, courier: impl FnOnce(Arc<Node>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if let Some(node) = self.me.upgrade() {
            self.runtime.spawn(courier(node));
        }
    }

    /// Tells some members of a group.
    fn tell_group<'m>(
        &self,
        topic: &str,
        group: &Group,
        members: &mut dyn Iterator<Item = (&'m AgentId, &'m Arc<str>)>,
        publication: &Publication,
    ) {
        let Publication { name, body, .. } = publication;
        let kind = self.kind(&group.kind).filter(|_| *group.message == **name);
        let Some((_, kind)) = kind else {
            let why = format!("{} is not here, or has subscribed to `{}`", group.kind, group.message);
            return self.untold(&subject(topic), &group.kind, name, members.count(), &why);
        };
        let mut elsewhere = 0;
        let mut here = members.filter_map(|(id, key)| {
            let ours = self.epoch(*id) != 0;
            elsewhere += usize::from(!ours);
            ours.then_some(key)
        });
        kind.tell_each(&mut here, name, &**body);
        if elsewhere > 0 {
            self.untold(&subject(topic), &group.kind, name, elsewhere, "another node owns them");
        }
    }

    /// So many agents of a kind could not be told.
    fn untold(&self, subject: &str, kind: &str, message: &'static str, n: usize, why: &str) {
        self.metrics.tells_dropped(kind, n);
        let event = Event::new(Level::Warn, event::MESSAGE_DEAD_LETTER, subject);
        let event = event.field("message_type", message).field("kind", kind.to_owned());
        self.logger.emit(event.field("dropped", n).field("reason", why.to_owned()));
    }

    /// Counts those past the bound.
    fn leave_out(&self, topic: &str, audience: &Audience, publication: &Publication) {
        let beyond = usize::try_from(audience.beyond()).unwrap_or(usize::MAX);
        if beyond > 0 {
            self.untold(&subject(topic), &label(topic), publication.name, beyond, "too many are subscribed");
        }
    }

    /// Publications to a topic of which nobody is told: how many would have been is not known.
    fn lost(&self, topic: &str, publications: impl IntoIterator<Item = Publication>, why: &AskError) {
        for publication in publications {
            self.untold(&subject(topic), &label(topic), publication.name, 1, &why.to_string());
            finish(publication, Err(why.clone()));
        }
    }

    async fn read_topic(&self, topic: &str) -> Result<Audience, StoreError> {
        let read = async {
            let _one_of_few = self.topics.reads.acquire().await;
            self.store.subscribers(topic, MAX_SUBSCRIBERS).await
        };
        let read = tokio::time::timeout(STORE_TIMEOUT, read).await;
        let found =
            read.unwrap_or_else(|_| Err(StoreError::NotDone("it did not answer in time".to_owned())))?;
        if found.1 > 0 {
            let event = Event::new(Level::Warn, "topic.crowded", subject(topic));
            let event = event.field("told", found.0.len()).field("left_out", found.1);
            self.logger.emit(event.hint("spread its subscribers over keyed topics"));
        }
        Ok(Audience::of(found))
    }
}

/// A topic as events and figures name it.
fn subject(topic: &str) -> String {
    format!("topic:{topic}")
}

/// The same without its key: figures have no ids.
fn label(topic: &str) -> String {
    subject(topic.split('/').next().unwrap_or(topic))
}

fn crowded() -> AskError {
    AskError::Overloaded {
        what: "too many publications wait to be handed out".to_owned(),
        retry_after: Duration::from_secs(1),
    }
}

/// A publication has come to its end.
fn finish(mut publication: Publication, outcome: Result<(), AskError>) {
    if let Some(done) = publication.done.take() {
        done.send(outcome);
    }
}

/// The courier of a topic.
async fn carry(node: Arc<Node>, topic: Arc<str>) {
    loop {
        let (step, spent) = {
            let mut index = node.topics.index.lock();
            (index.next(&topic, Instant::now()), index.take_spent())
        };
        drop(spent);
        match step {
            Step::Read => match node.read_topic(&topic).await {
                Ok(found) => node.topics.index.lock().read(&topic, found, Instant::now()),
                Err(e) => {
                    let left = node.topics.index.lock().unread(&topic, Instant::now());
                    node.lost(&topic, left, &AskError::Unavailable(e.to_string()));
                }
            },
            Step::HandOut(publication, audience) => {
                hand_out(&node, &topic, &audience, &publication).await;
                finish(publication, Ok(()));
            }
            Step::End => return,
        }
    }
}

async fn hand_out(node: &Node, topic: &str, audience: &Audience, publication: &Publication) {
    for group in audience.groups() {
        let mut members = group.members.iter();
        while members.len() > 0 {
            node.tell_group(topic, group, &mut members.by_ref().take(SLICE), publication);
            tokio::task::yield_now().await;
        }
    }
    node.leave_out(topic, audience, publication);
}

/// The courier of a kind.
async fn carry_to_kind(node: Arc<Node>, kind: &'static str) {
    let Some((_, there)) = node.kind(kind) else { return };
    loop {
        let next = node.topics.index.lock().next_to_kind(kind);
        let Some(publication) = next else { return };
        for keys in there.running_keys().chunks(SLICE) {
            there.tell_each(&mut keys.iter(), publication.name, &*publication.body);
            tokio::task::yield_now().await;
        }
        finish(publication, Ok(()));
    }
}

impl<A: Agent> Kind<A> {
    /// Tells each of these a copy of a message. What is not taken is counted.
    pub(in super::super) fn copy_to_each(
        &self,
        keys: &mut dyn Iterator<Item = &Arc<str>>,
        message: &'static str,
        body: &(dyn Any + Send + Sync),
    ) {
        let (Some(node), Some(directory)) = (self.node.upgrade(), self.directory.get()) else { return };
        let entry = self.door.find(message);
        for key in keys {
            // Making the copy is user code, and so is dropping one that is not taken.
            let taken = guard(|| {
                let letter = (entry?.copy)(body)?;
                directory.lane(key).ok()?.push(letter).ok()
            });
            if !matches!(taken, Ok(Some(()))) {
                node.tells_dropped(A::KIND, key, message, 1, NOT_TAKEN);
            }
        }
    }
}
