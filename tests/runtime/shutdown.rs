//! The end of a node: nothing that was acknowledged is lost, and nobody waits for ever.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use greenroom::prelude::*;

use crate::support::{World, outcome, soon};

#[derive(Default, Serialize, Deserialize)]
struct Book {
    lines: Vec<u64>,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Write {
    line: u64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Read {}
message! { Write -> u64; Read -> Vec<u64> }

impl Agent for Book {
    const KIND: &'static str = "book";
    type Messages = (Write, Read);
}
impl Handler<Write> for Book {
    async fn handle(&mut self, write: Write, _: &Turn<Self>) -> Result<u64> {
        self.lines.push(write.line);
        Ok(self.lines.len() as u64)
    }
}
impl Query<Read> for Book {
    async fn query(&self, _: Read, _: &Turn<Self>) -> Result<Vec<u64>> {
        Ok(self.lines.clone())
    }
}

fn program() -> greenroom::Builder {
    Runtime::builder().agent::<Book>()
}

fn key(n: u64) -> String {
    format!("k{}", n % 20)
}

/// Asks and submits until it is told that the node has gone; what was acknowledged.
async fn load(handle: Handle, base: u64, over: Arc<AtomicBool>) -> (Vec<u64>, Vec<TaskId>) {
    let (mut asked, mut submitted) = (Vec::new(), Vec::new());
    for n in base.. {
        if over.load(SeqCst) {
            break;
        }
        let book = handle.agent::<Book>(key(n));
        if n % 5 == 0 {
            if let Ok(id) = soon(book.submit(Write { line: n })).await {
                submitted.push(id);
                asked.push(n);
            }
        } else if soon(book.ask(Write { line: n })).await.is_ok() {
            asked.push(n);
        }
    }
    (asked, submitted)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_under_load_loses_nothing_that_was_acknowledged() {
    let mut world = World::start(program()).await;
    let mut all: Vec<(Vec<u64>, Vec<TaskId>)> = Vec::new();
    for round in 0..3u64 {
        let over = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..16u64)
            .map(|n| tokio::spawn(load(world.handle(), (round * 100 + n) * 1_000_000, over.clone())))
            .collect();
        crate::support::until("there is load", || async {
            world.handle().operator().commits().units.load(SeqCst) > 300
        })
        .await;
        world.end().await;
        over.store(true, SeqCst);
        for client in clients {
            all.push(soon(client).await.unwrap());
        }
        world.start_again(program()).await;
    }
    let handle = world.handle();
    for id in all.iter().flat_map(|(_, ids)| ids) {
        assert!(matches!(outcome::<Write>(&handle, *id).await, Outcome::Succeeded(_)));
        assert_eq!(handle.operator().task(*id).await.unwrap().lost, 0, "an orderly end loses no claim");
    }
    let mut books: HashMap<u64, u32> = HashMap::new();
    for n in 0..20 {
        for line in soon(handle.agent::<Book>(key(n)).ask(Read {})).await.unwrap() {
            *books.entry(line).or_default() += 1;
        }
    }
    assert!(books.values().all(|n| *n == 1), "something happened twice");
    let acknowledged: Vec<u64> = all.iter().flat_map(|(lines, _)| lines).copied().collect();
    assert!(acknowledged.len() > 500, "{}", acknowledged.len());
    let lost: Vec<_> = acknowledged.iter().filter(|line| !books.contains_key(line)).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), acknowledged.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_to_a_node_that_has_ended_says_so() {
    let mut world = World::start(program()).await;
    let handle = world.handle();
    let known = handle.agent::<Book>("known");
    soon(known.ask(Write { line: 1 })).await.unwrap();
    world.end().await;
    for book in [known, handle.agent::<Book>("known"), handle.agent::<Book>("never spoken to")] {
        assert_eq!(soon(book.ask(Write { line: 1 })).await.unwrap_err().code(), "unavailable");
        assert_eq!(soon(book.ask(Read {})).await.unwrap_err().code(), "unavailable");
        assert!(book.try_tell(Write { line: 1 }).is_err());
        assert!(soon(book.tell(Write { line: 1 })).await.is_err());
        assert_eq!(soon(book.submit(Write { line: 1 })).await.unwrap_err().code(), "unavailable");
    }
    let json = soon(handle.ask_json("book/another", "Read", serde_json::json!({}))).await;
    assert_eq!(json.unwrap_err().code(), "unavailable");
    let _ = soon(handle.operator().status()).await;
    let _ = soon(handle.operator().tree()).await;
    let _ = soon(handle.operator().act("book", "known", greenroom::runtime::views::Action::Stop)).await;
}
