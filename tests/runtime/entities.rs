//! Conversations and sessions in turns: written once or not at all, read as they are.

use futures_util::future::join_all;
use greenroom::{model::conversation::StoredMessage, prelude::*, runtime::operator::MessageQuery};
use serde_json::json;

use crate::{
    faulty::Faults,
    support::{Gate, World, outcome, soon, until},
};

/// An agent that keeps a conversation.
#[derive(Default, Serialize, Deserialize)]
struct Chat {
    talk: Option<ConversationId>,
    said: u64,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Say {
    text: String,
    end: End,
}
message!(Say -> u64);

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
enum End {
    Well,
    Failed,
    Crashed,
}

/// The newest messages, after one was appended that does not count yet.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct SayAndRead {
    text: String,
    n: usize,
}
message!(SayAndRead -> Vec<String>);

/// Before a place.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Before {
    seq: i64,
    n: usize,
}
message!(Before -> Vec<String>);

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Where {}
message!(Where -> ConversationId);

/// A query that tries to append.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Peek {}
message!(Peek -> u64);

/// Appends to a conversation that it is told.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct SayIn {
    talk: ConversationId,
    bytes: usize,
    role: String,
}
message!(SayIn -> ());

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Forget {}
message!(Forget -> ());

impl Agent for Chat {
    const KIND: &'static str = "chat";
    type Messages = (Say, SayAndRead, Before, Where, Peek, SayIn, Forget);
    fn policy() -> Policy {
        Policy::default().max_restarts(1_000, Duration::from_secs(60)).backoff(Duration::ZERO, Duration::ZERO)
    }
}

fn texts(messages: &[StoredMessage]) -> Vec<String> {
    messages.iter().map(|m| m.read().unwrap()).collect()
}

impl Handler<Say> for Chat {
    async fn handle(&mut self, say: Say, turn: &Turn<Self>) -> Result<u64> {
        let talk = turn.conversation(*self.talk.get_or_insert_with(ConversationId::fresh));
        talk.create().title(format!("chat of {}", turn.key()));
        talk.append("user", &say.text);
        self.said += 1;
        match say.end {
            End::Well => Ok(self.said),
            End::Failed => bail!("no"),
            End::Crashed => panic!("as told"),
        }
    }
}
impl Handler<SayAndRead> for Chat {
    async fn handle(&mut self, say: SayAndRead, turn: &Turn<Self>) -> Result<Vec<String>> {
        let talk = turn.conversation(*self.talk.get_or_insert_with(ConversationId::fresh));
        talk.create();
        talk.append("user", &say.text);
        let recent = talk.recent(say.n).await?;
        assert!(recent.windows(2).all(|two| two[0].seq + 1 == two[1].seq), "{recent:?}");
        let info = talk.info().await?;
        assert_eq!(info.map_or(0, |c| c.last_seq), recent.last().map_or(0, |m| m.seq));
        Ok(texts(&recent))
    }
}
impl Handler<Before> for Chat {
    async fn handle(&mut self, before: Before, turn: &Turn<Self>) -> Result<Vec<String>> {
        let talk = turn.conversation(self.talk.context("nothing was said")?);
        Ok(texts(&talk.history(before.seq, before.n).await?))
    }
}
impl Handler<Where> for Chat {
    async fn handle(&mut self, _: Where, _: &Turn<Self>) -> Result<ConversationId> {
        self.talk.context("nothing was said")
    }
}
impl Query<Peek> for Chat {
    async fn query(&self, _: Peek, turn: &Turn<Self>) -> Result<u64> {
        let talk = turn.conversation(self.talk.context("nothing was said")?);
        let n = talk.recent(1_000).await?.len();
        talk.append("user", "a query said this");
        Ok(n as u64)
    }
}
impl Handler<SayIn> for Chat {
    async fn handle(&mut self, say: SayIn, turn: &Turn<Self>) -> Result<()> {
        turn.conversation(say.talk).append(say.role, "x".repeat(say.bytes));
        self.said += 1;
        Ok(())
    }
}
impl Handler<Forget> for Chat {
    async fn handle(&mut self, _: Forget, turn: &Turn<Self>) -> Result<()> {
        turn.conversation(self.talk.context("nothing was said")?).delete();
        Ok(())
    }
}

/// An agent that counts in a session that others write too.
#[derive(Default, Serialize, Deserialize)]
struct Visits {
    turns: u64,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Visit {
    session: String,
    how: How,
}
message!(Visit -> u64);

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
enum How {
    ReadAndWrite,
    /// Waits between the two.
    ReadWaitAndWrite,
    WriteOnly,
    WriteTwice,
    Remove,
    TooLong,
    TooShort,
}

impl Agent for Visits {
    const KIND: &'static str = "visits";
    type Messages = Visit;
}
impl Handler<Visit> for Visits {
    async fn handle(&mut self, visit: Visit, turn: &Turn<Self>) -> Result<u64> {
        self.turns += 1;
        turn.resource::<Gate>().note(&visit.session);
        let session = turn.session(&visit.session);
        match visit.how {
            How::ReadAndWrite | How::ReadWaitAndWrite => {
                let n = session.get::<u64>().await?.unwrap_or(0) + 1;
                if visit.how == How::ReadWaitAndWrite {
                    let gate = turn.resource::<Gate>();
                    let again = gate.count(turn.idempotency_key()) > 0;
                    gate.note(if again { "the same key" } else { turn.idempotency_key() });
                    gate.wait().await;
                }
                session.put(n).ttl(Duration::from_secs(600));
                assert_eq!(session.get::<u64>().await?, Some(n), "a turn sees what it wrote");
                Ok(n)
            }
            How::WriteOnly => {
                session.put(1_000);
                Ok(1_000)
            }
            How::WriteTwice => {
                let n = session.get::<u64>().await?.unwrap_or(0);
                session.put("lost");
                session.remove();
                assert_eq!(session.get::<u64>().await?, None);
                session.put(n + 10);
                Ok(n + 10)
            }
            How::Remove => {
                session.remove();
                Ok(0)
            }
            How::TooLong => {
                session.put("x".repeat(2 << 20));
                Ok(0)
            }
            How::TooShort => {
                session.put(1).ttl(Duration::from_millis(1));
                Ok(0)
            }
        }
    }
}

/// The same without a state.
#[derive(Default, Serialize, Deserialize)]
struct Fleeting {}
impl Agent for Fleeting {
    const KIND: &'static str = "fleeting";
    type Messages = (Visit, SayIn);
    fn policy() -> Policy {
        Policy::default().persistence(greenroom::Persistence::Volatile)
    }
}
impl Handler<Visit> for Fleeting {
    async fn handle(&mut self, visit: Visit, turn: &Turn<Self>) -> Result<u64> {
        let session = turn.session(visit.session);
        let n = session.get::<u64>().await?.unwrap_or(0) + 1;
        session.put(n);
        Ok(n)
    }
}
impl Handler<SayIn> for Fleeting {
    async fn handle(&mut self, say: SayIn, turn: &Turn<Self>) -> Result<()> {
        turn.conversation(say.talk).append(say.role, "x".repeat(say.bytes));
        Ok(())
    }
}

fn program(gate: &Gate) -> greenroom::Builder {
    Runtime::builder().agent::<Chat>().agent::<Visits>().agent::<Fleeting>().resource(gate.clone())
}

fn say(text: impl Into<String>, end: End) -> Say {
    Say { text: text.into(), end }
}

/// All that was said, in order, with its places checked.
async fn said(world: &World, id: ConversationId) -> Vec<String> {
    let operator = world.handle().operator().clone();
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let query = MessageQuery { oldest_first: true, cursor, limit: Some(7) };
        let page = operator.messages(id, &query).await.unwrap();
        for message in &page.items {
            all.push(message.read().unwrap());
            assert_eq!(message.seq, all.len() as i64);
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return all;
        }
    }
}

async fn held(world: &World, session: &str) -> Option<serde_json::Value> {
    let found = world.handle().operator().session(session).await.ok()?;
    Some(serde_json::from_str(found.data.get()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_turn_says_is_said_once_or_not_at_all() {
    let gate = Gate::default();
    let mut world = World::start(program(&gate)).await;
    let chat = world.handle().agent::<Chat>("a");
    soon(chat.ask(say("first", End::Well))).await.unwrap();
    // Turns that fail and crash among turns that run ahead of the disk: their neighbours run again.
    let end = |n: usize| match n % 10 {
        3 => End::Failed,
        7 => End::Crashed,
        _ => End::Well,
    };
    let asks = join_all((0..200).map(|n| chat.ask(say(n.to_string(), end(n)))));
    let answers = soon(asks).await;
    let mut good = vec![(0, "first".to_owned())];
    for (n, answer) in answers.iter().enumerate() {
        match (answer, end(n)) {
            (Ok(place), End::Well) => good.push((*place, n.to_string())),
            (Err(AskError::Failed(_)), End::Failed | End::Crashed) => {}
            (other, _) => panic!("{n}: {other:?}"),
        }
    }
    good.sort();
    let good: Vec<String> = good.into_iter().map(|(_, text)| text).collect();
    assert_eq!(good.len(), 161);
    let id = soon(chat.ask(Where {})).await.unwrap();
    assert_eq!(said(&world, id).await, good, "in the order of the turns");
    let found = world.handle().operator().conversation(id).await.unwrap();
    assert_eq!((found.title.as_deref(), found.last_seq), (Some("chat of a"), 161));
    world.end().await;
    world.start_again(program(&gate)).await;
    assert_eq!(said(&world, id).await, good);
    let tasks = join_all((0..20).map(|n| chat_task(&world, n))).await;
    for task in tasks {
        outcome::<Say>(&world.handle(), task).await;
    }
    assert_eq!(said(&world, id).await.len(), 181);
}

async fn chat_task(world: &World, n: usize) -> greenroom::TaskId {
    soon(world.handle().agent::<Chat>("a").submit(say(n.to_string(), End::Well))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_reads_all_that_earlier_turns_said_and_nothing_of_its_own() {
    let world = World::start(program(&Gate::default()).set("cache.messages.keep", "10")).await;
    let chat = world.handle().agent::<Chat>("a");
    // All at once: they run one after the other, and each sees those before it, however far ahead they are.
    let asks = join_all((0..60).map(|n| chat.ask(SayAndRead { text: n.to_string(), n: 5 })));
    for (n, seen) in soon(asks).await.into_iter().enumerate() {
        let before: Vec<String> = (n.saturating_sub(5)..n).map(|n| n.to_string()).collect();
        assert_eq!(seen.unwrap(), before);
    }
    let asks = (60..90).map(|n| {
        let chat = chat.clone();
        async move {
            if n % 3 == 0 {
                chat.ask(SayAndRead { text: n.to_string(), n: 12 }).await.map(|seen| (n, seen))
            } else {
                chat.ask(say(n.to_string(), End::Well)).await.map(|_| (n, Vec::new()))
            }
        }
    });
    for answer in soon(join_all(asks)).await {
        let (n, seen) = answer.unwrap();
        if n % 3 == 0 {
            assert_eq!(seen, (n - 12..n).map(|n| n.to_string()).collect::<Vec<_>>());
        }
    }
    assert_eq!(soon(chat.ask(Before { seq: 4, n: 2 })).await.unwrap(), ["1", "2"]);
    assert_eq!(soon(chat.ask(Before { seq: 1, n: 2 })).await.unwrap(), [""; 0]);
    // Where nobody has just written, the list comes from the cache.
    let hits = async || {
        let cache = world.handle().operator().status().await.cache;
        cache["strategies"]["recent_messages"]["hits"].as_u64().unwrap()
    };
    let before = hits().await;
    until("a list comes from the cache", || async {
        chat.ask(SayAndRead { text: "x".into(), n: 5 }).await.unwrap();
        hits().await > before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_speaks_where_nothing_is_and_neighbours_do_not_notice() {
    let world = World::start(program(&Gate::default())).await;
    let chat = world.handle().agent::<Chat>("a");
    let nowhere = ConversationId::fresh();
    let bad = |n: usize| n % 7 == 5;
    let asks = (0..50).map(|n| {
        let chat = chat.clone();
        async move {
            if bad(n) {
                let say = SayIn { talk: nowhere, bytes: 1, role: "user".into() };
                chat.ask(say).await.map(|()| 0)
            } else {
                chat.ask(say(n.to_string(), End::Well)).await
            }
        }
    });
    for (n, answer) in soon(join_all(asks)).await.into_iter().enumerate() {
        match answer {
            Err(AskError::Failed(fault)) if bad(n) => {
                assert!(fault.message.contains(&nowhere.to_string()), "{fault}");
            }
            Ok(_) if !bad(n) => {}
            other => panic!("{n}: {other:?}"),
        }
    }
    let id = soon(chat.ask(Where {})).await.unwrap();
    assert_eq!(said(&world, id).await.len(), 43);
    // Deleted, it is nowhere; the same turn that makes another one speaks there.
    soon(chat.ask(Forget {})).await.unwrap();
    assert!(world.handle().operator().conversation(id).await.is_err());
    soon(chat.ask(say("x", End::Well))).await.unwrap_err();
    soon(chat.ask(SayAndRead { text: "x".into(), n: 1 })).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_said_fails_its_turn() {
    let world = World::start(program(&Gate::default()).set("limits.message_bytes", "10KiB")).await;
    let chat = world.handle().agent::<Chat>("a");
    soon(chat.ask(say("first", End::Well))).await.unwrap();
    let talk = soon(chat.ask(Where {})).await.unwrap();
    assert_eq!(soon(chat.ask(Peek {})).await.unwrap_err().code(), "handler_failed");
    for (bytes, role) in [(11 << 10, "user"), (1, ""), (1, "a\nb")] {
        let say = SayIn { talk, bytes, role: role.into() };
        assert_eq!(soon(chat.ask(say)).await.unwrap_err().code(), "handler_failed", "{role:?}");
    }
    assert_eq!(said(&world, talk).await, ["first"]);
    let visits = world.handle().agent::<Visits>("a");
    for (session, how) in [("a", How::TooLong), ("a", How::TooShort), ("a/b", How::WriteOnly)] {
        let visit = Visit { session: session.into(), how };
        assert_eq!(soon(visits.ask(visit)).await.unwrap_err().code(), "handler_failed", "{session}");
    }
    assert_eq!(held(&world, "a").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_read_a_session_never_undoes_what_another_wrote() {
    let gate = Gate::default();
    let mut world = World::start(program(&gate)).await;
    // Eight agents count in one session: each turn counts, though they all read and write at once.
    let visit = |how| Visit { session: "s".into(), how };
    let agents: Vec<_> = (0..8).map(|n| world.handle().agent::<Visits>(n.to_string())).collect();
    let asks = (0..160).map(|n| agents[n % 8].ask(visit(How::ReadAndWrite)));
    let mut counts: Vec<u64> = soon(join_all(asks)).await.into_iter().map(Result::unwrap).collect();
    counts.sort_unstable();
    assert_eq!(counts, (1..=160).collect::<Vec<_>>());
    assert!(gate.count("s") >= 160);
    world.end().await;
    world.start_again(program(&gate)).await;
    assert_eq!(held(&world, "s").await, Some(json!(160)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_whose_session_was_written_meanwhile_runs_again() {
    let gate = Gate::default();
    let world = World::start(program(&gate)).await;
    let agent = world.handle().agent::<Visits>("a");
    let visit = |how| Visit { session: "s".into(), how };
    assert_eq!(soon(agent.ask(visit(How::ReadAndWrite))).await, Ok(1));
    let waiting = tokio::spawn({
        let agent = agent.clone();
        async move { agent.ask(visit(How::ReadWaitAndWrite)).await }
    });
    gate.arrival().await;
    // Another one writes it while the turn waits.
    assert_eq!(soon(world.handle().agent::<Visits>("b").ask(visit(How::WriteOnly))).await, Ok(1_000));
    gate.open(2);
    assert_eq!(soon(waiting).await.unwrap(), Ok(1_001));
    assert_eq!((held(&world, "s").await, gate.count("s")), (Some(json!(1_001)), 4));
    assert_eq!(
        gate.count("the same key"),
        1,
        "what it called the first time it does not call under another key"
    );
    // What is written without having been read replaces what is there.
    assert_eq!(soon(agent.ask(visit(How::WriteOnly))).await, Ok(1_000));
    assert_eq!(soon(agent.ask(visit(How::WriteTwice))).await, Ok(1_010));
    assert_eq!(held(&world, "s").await, Some(json!(1_010)));
    soon(agent.ask(visit(How::Remove))).await.unwrap();
    assert_eq!(held(&world, "s").await, None);
    assert_eq!(soon(agent.ask(visit(How::ReadAndWrite))).await, Ok(1));
    let found = world.handle().operator().session("s").await.unwrap();
    assert_eq!(found.ttl, Duration::from_secs(600));
    // Something else than what is asked for is an error, not nothing.
    let wrong = Visit { session: "t".into(), how: How::ReadAndWrite };
    let request = serde_json::from_str(r#"{"data":"text"}"#).unwrap();
    world.handle().operator().put_session("t", request, Default::default()).await.unwrap();
    assert_eq!(soon(agent.ask(wrong)).await.unwrap_err().code(), "handler_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_state_writes_too() {
    let world = World::start(program(&Gate::default())).await;
    let agent = world.handle().agent::<Fleeting>("a");
    let asks = join_all((0..20).map(|_| agent.ask(Visit { session: "s".into(), how: How::ReadAndWrite })));
    let counts: Vec<u64> = soon(asks).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(counts, (1..=20).collect::<Vec<_>>());
    assert_eq!(held(&world, "s").await, Some(json!(20)));
    let (made, _) = world.handle().operator().create_conversation(Default::default(), None).await.unwrap();
    let say = |_| agent.ask(SayIn { talk: made.id, bytes: 1, role: "tool".into() });
    soon(join_all((0..50).map(say))).await.into_iter().for_each(|answer| answer.unwrap());
    assert_eq!(said(&world, made.id).await.len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_that_nobody_adds_to_are_forgotten_after_their_time() {
    let mut world = World::start(program(&Gate::default())).await;
    let chat = world.handle().agent::<Chat>("a");
    soon(chat.ask(say("x", End::Well))).await.unwrap();
    let id = soon(chat.ask(Where {})).await.unwrap();
    world.end().await;
    let short = program(&Gate::default()).set("conversations.retention", "1ms");
    world.start_again(short).await;
    let operator = world.handle().operator().clone();
    until("it is forgotten", || async { operator.conversation(id).await.is_err() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_reply_was_lost_says_and_writes_once() {
    let (gate, faults) = (Gate::default(), Faults::default());
    let world = World::start(faults.under(program(&gate))).await;
    let handle = world.handle();
    let (made, _) = handle.operator().create_conversation(Default::default(), None).await.unwrap();
    let (visits, fleeting) = (handle.agent::<Visits>("a"), handle.agent::<Fleeting>("a"));
    let visit = |session: &str| Visit { session: session.into(), how: How::ReadAndWrite };
    for n in 1..=10_i64 {
        faults.lose_replies(1);
        assert_eq!(soon(visits.ask(visit("s"))).await, Ok(n as u64));
        faults.lose_replies(1);
        assert_eq!(soon(fleeting.ask(visit("t"))).await, Ok(n as u64));
        faults.lose_replies(1);
        soon(fleeting.ask(SayIn { talk: made.id, bytes: 1, role: "tool".into() })).await.unwrap();
        faults.lose_replies(1);
        let request = serde_json::from_str(r#"{"role":"user","content":"x"}"#).unwrap();
        let (message, _) =
            soon(handle.operator().append(made.id, request, Some(&n.to_string()))).await.unwrap();
        assert_eq!(message.seq, n * 2);
    }
    assert_eq!((held(&world, "s").await, held(&world, "t").await), (Some(json!(10)), Some(json!(10))));
    assert_eq!(said(&world, made.id).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_readers_of_what_is_cold_cost_the_store_one_read_of_each() {
    let (gate, faults) = (Gate::default(), Faults::default());
    let mut world = World::start(program(&gate)).await;
    soon(world.handle().agent::<Chat>("a").ask(say("x", End::Well))).await.unwrap();
    let id = soon(world.handle().agent::<Chat>("a").ask(Where {})).await.unwrap();
    let request = serde_json::from_str(r#"{"data":1}"#).unwrap();
    world.handle().operator().put_session("s", request, Default::default()).await.unwrap();
    world.end().await;
    world.start_again(faults.under(program(&gate))).await;
    // They all come while the store takes its time.
    faults.hang(true);
    let operator = world.handle().operator().clone();
    let query = MessageQuery::default();
    let reads = join_all((0..1_000).map(|_| async {
        let page = operator.messages(id, &query).await.unwrap();
        (page.items.len(), operator.session("s").await.unwrap().data.get().to_owned())
    }));
    let mut reads = std::pin::pin!(reads);
    assert!(futures_util::poll!(&mut reads).is_pending());
    faults.hang(false);
    assert!(soon(reads).await.iter().all(|read| *read == (1, "1".to_owned())));
    assert_eq!(faults.reads(), 3, "one of the conversation, one of its messages, one of the session");
    // And while it is down, what is warm is served.
    faults.fail(Some("server closed the connection unexpectedly"));
    assert_eq!(operator.messages(id, &query).await.unwrap().items.len(), 1);
    assert_eq!(held(&world, "s").await, Some(json!(1)));
    faults.fail(None);
}
