//! States of earlier programs: tried dry when a node starts, so that nobody is surprised by a quarantine.

use std::path::PathBuf;

use greenroom::{Accepts, Builder, prelude::*};
use serde_json::Value;

use crate::{
    postgres::Database,
    support::{World, soon, status, until},
};

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Put {
    sku: String,
}
message!(Put -> u64);

/// A kind of cart, as one version of the program has it.
macro_rules! cart {
    ($cart:ident, $version:literal, $fields:tt, |$me:ident, $put:ident| $run:expr, $migrate:expr) => {
        #[derive(Default, Serialize, Deserialize)]
        struct $cart $fields
        impl Agent for $cart {
            const KIND: &'static str = "cart";
            type Messages = Put;
            const VERSION: u32 = $version;
            fn migrate(old: Stored) -> Result<Self> {
                let migrate: fn(Stored) -> Result<Self> = $migrate;
                migrate(old)
            }
            async fn on_start(&mut self, _: &Turn<Self>) -> Result<()> {
                assert!(self.validate().is_ok());
                Ok(())
            }
        }
        impl Handler<Put> for $cart {
            async fn handle(&mut self, put: Put, _: &Turn<Self>) -> Result<u64> {
                let ($me, $put) = (self, put);
                $run
            }
        }
    };
}

cart!(Cart1, 1, { skus: Vec<String> }, |me, put| {
    me.skus.push(put.sku);
    Ok(me.skus.len() as u64)
}, |old| old.refuse());
cart!(Cart2, 2, { lines: Vec<(String, u64)> }, |me, put| {
    me.lines.push((put.sku, 1));
    Ok(me.lines.len() as u64)
}, |old| match old.version() {
    1 => {
        let old: Cart1 = old.parse()?;
        Ok(Self { lines: old.skus.into_iter().map(|sku| (sku, 1)).collect() })
    }
    _ => old.refuse(),
});
cart!(Cart3, 3, { lines: Vec<(String, u64)>, total: u64 }, |me, put| {
    me.lines.push((put.sku, 1));
    me.total += 1;
    Ok(me.total)
}, |old| {
    let old = match old.version() {
        1 => Cart2::migrate(old)?,
        2 => old.parse()?,
        _ => return old.refuse(),
    };
    Ok(Self { total: old.lines.iter().map(|(_, n)| n).sum(), lines: old.lines })
});
// as the third one, by somebody who has forgotten the first.
cart!(Careless, 3, { lines: Vec<(String, u64)>, total: u64 }, |me, _put| Ok(me.total), |old| match old.version() {
    1 => panic!("nobody has that any more"),
    _ => old.refuse(),
});

/// A store, and the log of the node that runs on it.
struct Stage {
    world: World,
    logs: tempfile::TempDir,
    database: Option<Database>,
}

impl Stage {
    fn new(database: Option<Database>) -> Self {
        Self { world: World::idle(), logs: tempfile::tempdir().unwrap(), database }
    }

    fn log(&self) -> PathBuf {
        self.logs.path().join("log.jsonl")
    }

    /// Starts a program on the same data, with a log of its own.
    async fn start<A: Agent>(&mut self) {
        let _ = std::fs::remove_file(self.log());
        let mut program: Builder = Runtime::builder().agent::<A>();
        if let Some(database) = &self.database {
            program = program.set("store.url", &database.url());
        }
        let file = self.log().to_string_lossy().into_owned();
        let program = program.set("log.file.path", &file).set("log.format", "compact");
        self.world.start_telling(program.set("log.level", "debug")).await;
    }

    fn told(&self, event: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records.filter(|record| record["event"] == event).collect()
    }

    /// Waits until the sample has been tried; how many, and how many could not be read.
    async fn tried(&self) -> (u64, u64) {
        until("the sample is tried", || async { !self.told("state.tried").is_empty() }).await;
        let told = self.told("state.tried").remove(0);
        (told["tried"].as_u64().unwrap(), told["unreadable"].as_u64().unwrap())
    }

    async fn put<A: Accepts<Put, I>, I>(&self, key: &str) -> u64 {
        soon(self.world.handle().agent::<A>(key).ask(Put { sku: "tea".into() })).await.unwrap()
    }
}

async fn old_states_are_tried_when_a_node_starts(mut stage: Stage) {
    stage.start::<Cart1>().await;
    assert_eq!(stage.tried().await, (0, 0));
    for n in 0..40 {
        stage.put::<Cart1, _>(&format!("k{n}")).await;
    }
    stage.world.end().await;

    // The chain of migrations reads them all, and what is read so is not written.
    stage.start::<Cart3>().await;
    assert_eq!(stage.tried().await, (32, 0));
    assert!(stage.told("state.unreadable").is_empty());
    let seen = stage.world.handle().operator().state("cart", "k1", None).await.unwrap();
    assert_eq!((seen.version, seen.schema_version), (1, 1));
    assert_eq!(stage.put::<Cart3, _>("k1").await, 2);
    stage.world.end().await;

    // A program that cannot read them starts, says so at once, and harms none of them.
    stage.start::<Careless>().await;
    assert_eq!(stage.tried().await, (33, 32));
    let told = stage.told("state.unreadable");
    assert_eq!(told.len(), 1, "once for a kind and version: {told:?}");
    let record = &told[0];
    assert_eq!((&record["level"], &record["kind"]), (&"warn".into(), &"cart".into()), "{record}");
    assert_eq!(
        (&record["schema_version"], &record["known"], &record["count"]),
        (&1.into(), &3.into(), &32.into())
    );
    assert_eq!(record["agent"], "cart/k0");
    assert!(record["error"].as_str().unwrap().contains("nobody has that any more"), "{record}");
    assert!(record.to_string().contains("db verify"), "{record}");
    assert_eq!(status(&stage.world.handle(), "cart", "k0").await, "passivated");
    assert_eq!(stage.put::<Careless, _>("k1").await, 2);
    stage.world.end().await;

    // An older program than the states are of says what to do.
    stage.start::<Cart2>().await;
    assert_eq!(stage.tried().await, (32, 1));
    let told = stage.told("state.unreadable");
    assert_eq!((&told[0]["schema_version"], &told[0]["agent"]), (&3.into(), &"cart/k1".into()));
    assert!(told[0].to_string().contains("upgrade the program"), "{}", told[0]);
    stage.world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_states_in_a_file_are_tried_when_a_node_starts() {
    old_states_are_tried_when_a_node_starts(Stage::new(None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_states_on_postgres_are_tried_when_a_node_starts() {
    old_states_are_tried_when_a_node_starts(Stage::new(Some(Database::new()))).await;
}
