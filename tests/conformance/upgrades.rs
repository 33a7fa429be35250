//! A store of every earlier version is brought up to date with all that it holds, and goes on.

use std::{fs, path::Path};

use diesel::{connection::SimpleConnection, prelude::*};
use greenroom::{
    model::{
        conversation::{ConversationId, ConversationWrite, NewConversation},
        id::AgentId,
        topic::{Subscriber, SubscriptionWrite},
    },
    store::{self, AgentFilter, StoredStatus},
};

use crate::support::{postgres::Database, *};

/// The migrations of a database, oldest first: version, name, statements.
fn migrations(database: &str) -> Vec<(String, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(database);
    let names = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    let migration = |name: String| {
        let version = name.split('_').next().unwrap().to_owned();
        let sql = fs::read_to_string(root.join(&name).join("up.sql")).unwrap();
        (version, name, sql)
    };
    names.into_iter().map(migration).collect()
}

/// The store is up to date, holds what it held, and takes all that it can take now.
async fn goes_on(w: World) {
    assert_eq!(store::migration_status(&w.url).await.unwrap().pending, [""; 0]);
    let held = w.store.agents(&AgentFilter { limit: 9, ..AgentFilter::default() }).await.unwrap();
    assert_eq!(held.len(), 1);
    assert_eq!((&*held[0].key, held[0].status), ("old", StoredStatus::Paused));
    let id = AgentId::of("tally", "new");
    let subscriber = Subscriber { agent: id, kind: "tally".into(), key: "new".into(), message: "Add".into() };
    let mut unit = w.turn("new", 0, "1");
    unit.conversations = vec![ConversationWrite::Create(NewConversation::new(ConversationId::fresh()))];
    unit.subscriptions =
        vec![SubscriptionWrite { topic: "t".into(), subscriber: subscriber.clone(), subscribed: true }];
    w.must(unit).await;
    assert_eq!(w.store.subscribers("t", 9).await.unwrap().0, [subscriber]);
    let due = crate::schedules::schedule("new");
    assert!(w.store.put_schedule(&due, None).await.unwrap());
    w.must(crate::schedules::firing(&due)).await;
    assert_eq!(store::verify(&w.url).await.unwrap().problems, [""; 0]);
}

#[tokio::test]
async fn sqlite() {
    let all = migrations("sqlite");
    assert!(all.len() > 1);
    for n in 1..all.len() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("greenroom.db");
        let mut conn = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        let applied = "CREATE TABLE __diesel_schema_migrations (version VARCHAR(50) PRIMARY KEY NOT NULL, \
                       run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)";
        conn.batch_execute(applied).unwrap();
        for (version, _, sql) in &all[..n] {
            conn.batch_execute(sql).unwrap();
            let applied = format!("INSERT INTO __diesel_schema_migrations (version) VALUES ('{version}')");
            conn.batch_execute(&applied).unwrap();
        }
        let id = AgentId::of("tally", "old");
        let old = format!(
            "INSERT INTO greenroom_agents (id, partition, kind, key, status, epoch, version, schema_version, \
             created_at, updated_at, state) VALUES (x'{}', {}, 'tally', 'old', 1, 0, 0, 0, 0, 0, x''); \
             UPDATE greenroom_counts SET n = 1 WHERE id = 101",
            id.0.simple(),
            id.partition()
        );
        conn.batch_execute(&old).unwrap();
        drop(conn);
        goes_on(World::at(format!("sqlite://{}", path.display()), Some(dir), None).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres() {
    let all = migrations("postgres");
    assert!(all.len() > 1);
    for n in 1..all.len() {
        let database = Database::new();
        database.psql(
            "CREATE TABLE greenroom_migrations (version text PRIMARY KEY, name text NOT NULL, \
             applied_at timestamptz NOT NULL DEFAULT now())",
        );
        for (version, name, sql) in &all[..n] {
            database.psql(sql);
            let applied = "INSERT INTO greenroom_migrations (version, name) VALUES";
            database.psql(&format!("{applied} ('{version}', '{name}')"));
        }
        let id = AgentId::of("tally", "old");
        database.psql(&format!(
            "INSERT INTO greenroom_agents (id, partition, kind, key, status, epoch, version, schema_version, \
             state) VALUES ('{}', {}, 'tally', 'old', 1, 0, 0, 0, '')",
            id.0,
            id.partition()
        ));
        let url = database.url();
        goes_on(World::at(url, None, Some(database)).await).await;
    }
}
