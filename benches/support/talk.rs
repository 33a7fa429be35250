//! Durable turns that append a message to a conversation, against what one would write without
//! Greenroom, and against turns that append nothing.

use std::cell::RefCell;

use greenroom::prelude::*;

use super::{
    bare::Bare,
    doc::{Bump, Doc},
    durable::{Spent, asks},
    ground::{Ground, directory},
    measure::{Better, Disk, Peer, Plan, Row, Unit, probed, rounds},
};

/// How many call, each its own agent.
const AGENTS: usize = 256;
/// How many turns the batching peer writes in one transaction.
const BATCH: usize = 200;

/// What is said in a turn.
pub const TEXT: &str = "I looked at the three invoices from March: two are paid, the last one is due on \
                        Tuesday. Should I write to the customer, or wait for the delivery first?";

/// A document that talks.
#[derive(Default, Clone, Serialize, Deserialize)]
pub struct Chat {
    doc: Doc,
    talk: Option<ConversationId>,
}

/// A turn that appends a message.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Say {}
message!(Say -> u64);

impl Agent for Chat {
    const KIND: &'static str = "chat";
    type Messages = (Bump, Say);
    fn policy() -> Policy {
        Policy::default().idle_timeout(Duration::from_secs(3_600)).mailbox(1_024)
    }
}

impl Handler<Bump> for Chat {
    async fn handle(&mut self, _: Bump, _: &Turn<Self>) -> Result<u64> {
        Ok(self.doc.bump())
    }
}

impl Handler<Say> for Chat {
    async fn handle(&mut self, _: Say, turn: &Turn<Self>) -> Result<u64> {
        let new = self.talk.is_none();
        let talk = turn.conversation(*self.talk.get_or_insert_with(ConversationId::fresh));
        if new {
            talk.create();
        }
        talk.append("assistant", TEXT);
        Ok(self.doc.bump())
    }
}

/// On SQLite.
pub fn measure(plan: &mut Plan) -> anyhow::Result<()> {
    let peers = ["bare loop, one commit each", "bare loop, 200 to a commit"];
    let names = peers.map(|peer| name("", &format!("the {peer}")));
    if !names.iter().any(|name| plan.wants(name)) && !plan.wants(&name("", SILENT)) {
        return Ok(());
    }
    let data = directory()?;
    let ground = Ground::new(&data.path().join("node"))?;
    let mut bare = Bare::new(&data.path().join("bare.db"), AGENTS)?;
    let content = serde_json::to_vec(TEXT)?;
    let disk = RefCell::new(Disk::new(data.path())?);
    let stretch = plan.stretch();
    for ((name, peer), batch) in names.into_iter().zip(peers).zip([1, BATCH]) {
        let mut theirs = || probed(&mut disk.borrow_mut(), || bare.saying(&content, batch, stretch));
        row(plan, &ground, name, (peer, &mut theirs), &|| disk.borrow_mut().note())?;
    }
    silent(plan, &ground, "")?;
    ground.end()
}

const SILENT: &str = "turns that append nothing";

/// How a row is called.
pub fn name(store: &str, peer: &str) -> String {
    format!("{store}turns that append a message, {AGENTS} callers, {AGENTS} agents, against {peer}")
}

/// Where the talking agents are.
fn chats(ground: &Ground) -> Vec<greenroom::AgentRef<Chat>> {
    (0..AGENTS).map(|n| ground.handle.agent::<Chat>(n.to_string())).collect()
}

/// One row against a peer.
pub fn row(
    plan: &mut Plan,
    ground: &Ground,
    name: String,
    (peer, theirs): (&'static str, &mut dyn FnMut() -> anyhow::Result<f64>),
    note: &dyn Fn() -> String,
) -> anyhow::Result<()> {
    if !plan.wants(&name) {
        return Ok(());
    }
    let (chats, stretch, mut spent) = (chats(ground), plan.stretch(), Spent::default());
    let (theirs, ours) = rounds(plan.rounds(), theirs, || {
        asks(ground, &chats, AGENTS, stretch, &mut spent, |chat| async move { chat.ask(Say {}).await })
    })?;
    let (unit, better, peers) = (Unit::PerSecond, Better::More, vec![Peer::new(peer, theirs, None)]);
    let note = [spent.told(), note()].into_iter().filter(|n| !n.is_empty()).collect::<Vec<_>>().join("; ");
    plan.add(Row { name, unit, better, peers, ours, goal: None, note });
    Ok(())
}

/// What a message costs: the same turns without one.
pub fn silent(plan: &mut Plan, ground: &Ground, store: &str) -> anyhow::Result<()> {
    let (chats, stretch) = (chats(ground), plan.stretch());
    let mut theirs = || {
        let mut spent = Spent::default();
        asks(ground, &chats, AGENTS, stretch, &mut spent, |chat| async move { chat.ask(Bump {}).await })
    };
    row(plan, ground, name(store, SILENT), (SILENT, &mut theirs), &String::new)
}
