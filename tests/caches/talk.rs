//! A program that keeps conversations and sessions, with Redis as its cache: a turn never decides on an
//! older copy, and nobody is told an error.

use std::{future::Future, time::Duration};

use greenroom::{prelude::*, runtime::operator::MessageQuery};
use tempfile::TempDir;

use crate::support::{PATIENCE, Redis};

#[derive(Default, Serialize, Deserialize)]
struct Chat {
    talk: Option<ConversationId>,
}

/// Answers with what was said before, and how often the session was written.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Say {
    text: String,
}
message!(Say -> (Vec<String>, u64));

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Where {}
message!(Where -> ConversationId);

impl Agent for Chat {
    const KIND: &'static str = "chat";
    type Messages = (Say, Where);
}
impl Handler<Say> for Chat {
    async fn handle(&mut self, say: Say, turn: &Turn<Self>) -> Result<(Vec<String>, u64)> {
        let talk = turn.conversation(*self.talk.get_or_insert_with(ConversationId::fresh));
        talk.create();
        let before = talk.recent(20).await?.iter().map(|m| m.read()).collect::<Result<_, _>>()?;
        talk.append("user", say.text);
        let session = turn.session("s");
        let n = session.get::<u64>().await?.unwrap_or(0);
        session.put(n + 1);
        Ok((before, n))
    }
}
impl Handler<Where> for Chat {
    async fn handle(&mut self, _: Where, _: &Turn<Self>) -> Result<ConversationId> {
        self.talk.context("nothing was said")
    }
}

/// The program on its data.
struct Program {
    dir: TempDir,
    runtime: Option<Runtime>,
    said: u64,
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it hangs")
}

impl Program {
    async fn start(redis: &Redis) -> Self {
        let mut program = Self { dir: TempDir::new().unwrap(), runtime: None, said: 0 };
        program.start_again(redis).await;
        program
    }

    async fn start_again(&mut self, redis: &Redis) {
        self.start_over(&redis.url()).await;
    }

    async fn start_over(&mut self, cache: &str) {
        if let Some(runtime) = self.runtime.take() {
            soon(runtime.shutdown()).await.unwrap();
        }
        let program = Runtime::builder()
            .agent::<Chat>()
            .set("node.data_dir", &self.dir.path().to_string_lossy())
            .set("store.durability", "relaxed")
            .set("log.level", "critical")
            .set("cache.url", cache);
        self.runtime = Some(soon(program.start()).await.unwrap());
    }

    fn handle(&self) -> Handle {
        self.runtime.as_ref().unwrap().handle()
    }

    /// Says something, and checks that the turn saw everything that was said before.
    async fn say(&mut self) {
        let agent = self.handle().agent::<Chat>("a");
        let (before, n) = soon(agent.ask(Say { text: self.said.to_string() })).await.unwrap();
        let all: Vec<String> = (self.said.saturating_sub(20)..self.said).map(|n| n.to_string()).collect();
        assert_eq!((before, n), (all, self.said));
        self.said += 1;
    }

    async fn talk(&self) -> ConversationId {
        soon(self.handle().agent::<Chat>("a").ask(Where {})).await.unwrap()
    }

    /// What a reader from outside sees: the newest message, the number of messages, the session.
    async fn seen(&self) -> (String, i64, String) {
        let (operator, id) = (self.handle().operator().clone(), self.talk().await);
        let query = MessageQuery { limit: Some(3), ..MessageQuery::default() };
        let page = soon(operator.messages(id, &query)).await.unwrap();
        let conversation = soon(operator.conversation(id)).await.unwrap();
        let session = soon(operator.session("s")).await.unwrap();
        (page.items[0].read().unwrap(), conversation.last_seq, session.data.get().to_owned())
    }

    async fn up(&self) {
        let began = std::time::Instant::now();
        while self.handle().operator().status().await.cache["up"] != true {
            assert!(began.elapsed() < PATIENCE, "Redis is not found");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Waits until Redis holds something.
async fn kept(redis: &Redis) {
    let began = std::time::Instant::now();
    while redis.keys("").is_empty() {
        assert!(began.elapsed() < PATIENCE, "nothing in Redis");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_answered_sees_what_was_done() {
    let redis = Redis::start();
    let mut program = Program::start(&redis).await;
    program.up().await;
    for n in 1..=40 {
        program.say().await;
        let last = (n - 1).to_string();
        assert_eq!(program.seen().await, (last, n, n.to_string()));
    }
    // When nothing is written, readers are served from the cache.
    let began = std::time::Instant::now();
    loop {
        program.seen().await;
        let cache = program.handle().operator().status().await.cache;
        let hit = |s: &str| cache["strategies"][s]["hits"].as_u64() > Some(0);
        if ["conversation", "recent_messages", "session"].iter().all(|s| hit(s)) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "no hits: {cache}");
    }
}

/// As if the node had ended between its commits and the cache.
#[tokio::test(flavor = "multi_thread")]
async fn a_turn_reads_nothing_from_a_cache_that_missed_a_commit() {
    let redis = Redis::start();
    let mut program = Program::start(&redis).await;
    program.up().await;
    for _ in 0..5 {
        program.say().await;
    }
    for kept in ["messages:", "session:", "conversation:"] {
        while redis.keys(kept).is_empty() {
            program.seen().await;
        }
    }
    program.start_over("memory://").await;
    for _ in 0..5 {
        program.say().await;
    }
    program.start_again(&redis).await;
    program.up().await;
    assert!(!redis.keys("messages:").is_empty(), "there is no older list");
    for _ in 0..5 {
        program.say().await;
        let n = program.said;
        assert_eq!(program.seen().await, ((n - 1).to_string(), n as i64, n.to_string()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_reads_nothing_from_an_older_or_spoilt_redis() {
    let mut redis = Redis::start_with(&["--dbfilename", "dump.rdb"]);
    let mut program = Program::start(&redis).await;
    program.up().await;
    for _ in 0..5 {
        program.say().await;
        program.seen().await;
    }
    kept(&redis).await;
    assert_eq!(redis.say(&["SAVE"]), "+OK\r\n");
    for _ in 0..5 {
        program.say().await;
    }
    // Both end; Redis is back with what it held at the fifth message.
    redis.kill();
    redis.start_again();
    assert!(!redis.keys("").is_empty(), "the backup was not read");
    program.start_again(&redis).await;
    program.up().await;
    for _ in 0..5 {
        program.say().await;
    }
    for key in redis.keys("") {
        redis.say(&["DEL", &key]);
        redis.say(&["SET", &key, "spoilt"]);
    }
    program.start_again(&redis).await;
    program.up().await;
    for _ in 0..5 {
        program.say().await;
    }
    assert_eq!(program.seen().await, ("19".into(), 20, "20".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_may_hang_or_go_and_nobody_is_told_an_error() {
    let mut redis = Redis::start();
    let mut program = Program::start(&redis).await;
    for round in 0..6 {
        match round {
            1 | 3 => redis.freeze(),
            4 => redis.kill(),
            _ => {}
        }
        for _ in 0..5 {
            program.say().await;
            let n = program.said;
            assert_eq!(program.seen().await, ((n - 1).to_string(), n as i64, n.to_string()));
        }
        match round {
            4 => redis.start_again(),
            _ => redis.thaw(),
        }
    }
}
