//! Redis gone, hung, emptied, restored from a backup, spoilt: slower, never wrong.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use greenroom::{
    cache::{self, CacheOptions, Recent, Shelf},
    model::id::AgentId,
};
use parking_lot::Mutex;

use crate::proxy::Proxy;
use crate::support::{PATIENCE, Redis, World, bytes, document, item, options, tail};

const SHELVES: [Shelf; 2] = [Shelf::Conversations, Shelf::Sessions];

/// As a node has it: no answer within 100 ms is none.
fn impatient() -> CacheOptions {
    CacheOptions { timeout: CacheOptions::default().timeout, ..options() }
}

/// Runs a test with and without the near level.
async fn both(test: impl AsyncFn(World), options: CacheOptions) {
    for near in [false, true] {
        test(World::over(Redis::start(), CacheOptions { near, ..options.clone() }).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_left_alone_within_250_ms() {
    let world = World::over(Redis::start(), impatient()).await;
    let (cache, server) = (&world.cache, world.server.as_ref().unwrap());
    cache.put(Shelf::Conversations, "a", document(1, "x")).await;
    // The machine may be busy with other tests: one time in three must do.
    let mut took = Vec::new();
    for _ in 0..3 {
        server.freeze();
        let began = Instant::now();
        while cache.health().up {
            assert!(began.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        took.push(began.elapsed());
        // From here on nobody waits.
        let began = Instant::now();
        for n in 0..1_000 {
            assert_eq!(cache.get(Shelf::Conversations, &n.to_string()).await, None);
            cache.append_recent(&n.to_string(), 0, item(1)).await;
        }
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        server.thaw();
        world.up(true).await;
    }
    println!("the breaker opened after {took:?}");
    assert!(took.iter().any(|took| *took < Duration::from_millis(250)), "{took:?}");
    assert_eq!(cache.get(Shelf::Conversations, "a").await, Some(document(1, "x")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_of_a_server_that_hangs_wait_no_longer_than_the_timeout() {
    let world = World::over(Redis::start(), CacheOptions { near: false, ..impatient() }).await;
    world.cache.put(Shelf::Sessions, "a", document(1, "x")).await;
    world.server.as_ref().unwrap().freeze();
    let began = Instant::now();
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let cache = world.cache.clone();
            tokio::spawn(async move { cache.get(Shelf::Sessions, "a").await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), None);
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_and_comes_back_is_told_once_each() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let on_change = {
        let told = told.clone();
        Arc::new(move |up, reason: Option<&str>| told.lock().push((up, reason.is_some())))
    };
    let mut world =
        World::over(Redis::start(), CacheOptions { on_change: Some(on_change), ..impatient() }).await;
    assert!(told.lock().is_empty(), "to be connected for the first time is no news");
    let before = world.cache.health().since;
    world.server.as_mut().unwrap().kill();
    world.up(false).await;
    let health = world.cache.health();
    assert!(health.reason.is_some() && health.since > before, "{health:?}");
    // Several attempts fail meanwhile.
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(world.cache.get_state(AgentId::of("tally", "a")).await, None);
    world.server.as_mut().unwrap().start_again();
    world.up(true).await;
    let health = world.cache.health();
    assert_eq!(health.reason, None);
    assert!(health.version.is_some_and(|version| version.split('.').count() == 3), "it says what it is");
    let told = told.lock().clone();
    assert_eq!(told, [(false, true), (true, false)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_begins_without_its_server() {
    let mut server = Redis::start();
    server.kill();
    let cache = cache::open(&server.url(), &impatient()).unwrap();
    assert_eq!(cache.get(Shelf::Sessions, "a").await, None);
    let mut world = World { cache, server: Some(server) };
    let began = Instant::now();
    while world.cache.health().reason.is_none() {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    world.cache.put(Shelf::Sessions, "a", document(1, "x")).await;
    world.server.as_mut().unwrap().start_again();
    world.up(true).await;
    assert_eq!(world.cache.get(Shelf::Sessions, "a").await, None);
    world.cache.put(Shelf::Sessions, "a", document(2, "y")).await;
    assert_eq!(world.cache.get(Shelf::Sessions, "a").await, Some(document(2, "y")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_hung_server_did_not_take_is_not_found_there_later() {
    both(
        async |world| {
            let (cache, server) = (&world.cache, world.server.as_ref().unwrap());
            for shelf in SHELVES {
                cache.put(shelf, "written", document(1, "old")).await;
                cache.put(shelf, "removed", document(1, "old")).await;
            }
            world.fill("appended", 1, 3).await;
            world.fill("dropped", 1, 3).await;
            let late = world.ticket("late").await;
            server.freeze();
            // These reach the socket of the server, which answers too late, …
            tokio::join!(
                cache.put(Shelf::Conversations, "written", document(2, "late")),
                cache.put(Shelf::Sessions, "written", document(2, "late")),
                cache.append_recent("appended", 3, item(4)),
                cache.fill_recent("late", late, tail(1, 3)),
            );
            assert!(!cache.health().up);
            // … and these find the breaker open.
            for shelf in SHELVES {
                cache.put(shelf, "written", document(3, "missed")).await;
                cache.remove(shelf, "removed").await;
            }
            cache.append_recent("appended", 4, item(5)).await;
            cache.append_recent("late", 3, item(4)).await;
            cache.drop_recent("dropped").await;
            server.thaw();
            world.up(true).await;
            // Also what lies in the socket of the old connection comes to nothing.
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(300) {
                for shelf in SHELVES {
                    assert_eq!(cache.get(shelf, "written").await, None);
                    assert_eq!(cache.get(shelf, "removed").await, None);
                }
                for conversation in ["appended", "dropped", "late"] {
                    assert!(matches!(cache.get_recent(conversation, 1).await, Recent::Miss(_)));
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            cache.put(Shelf::Sessions, "written", document(4, "new")).await;
            assert_eq!(cache.get(Shelf::Sessions, "written").await, Some(document(4, "new")));
        },
        impatient(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_long_under_way_does_not_take_place() {
    let server = Redis::start();
    let proxy = Proxy::before(server.port);
    let cache = cache::open(&format!("redis://127.0.0.1:{}", proxy.port), &impatient()).unwrap();
    let world = World { cache, server: Some(server) };
    world.up(true).await;
    proxy.hold();
    for shelf in SHELVES {
        world.cache.put(shelf, "a", document(2, "late")).await;
    }
    assert!(!world.cache.health().up);
    for shelf in SHELVES {
        world.cache.put(shelf, "a", document(3, "missed")).await;
    }
    world.up(true).await;
    proxy.release();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(300) {
        for shelf in SHELVES {
            assert_eq!(world.cache.get(shelf, "a").await, None);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_can_be_noted_during_an_outage_is_forgotten_all_the_same() {
    let world = World::over(Redis::start(), impatient()).await;
    let (cache, server) = (&world.cache, world.server.as_ref().unwrap());
    for id in ["0", "untouched"] {
        cache.put(Shelf::Conversations, id, document(1, "old")).await;
    }
    server.freeze();
    world.up(false).await;
    for n in 0..10_100 {
        cache.put(Shelf::Conversations, &n.to_string(), document(2, "missed")).await;
    }
    server.thaw();
    world.up(true).await;
    assert_eq!(cache.get(Shelf::Conversations, "0").await, None);
    assert_eq!(cache.get(Shelf::Conversations, "untouched").await, None);
    assert_eq!(server.keys("conversation:"), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_restored_from_a_backup_brings_nothing_old_back() {
    let id = AgentId::of("tally", "a");
    let mut world = World::over(
        Redis::start_with(&["--dbfilename", "dump.rdb"]),
        CacheOptions { near: false, ..impatient() },
    )
    .await;
    for shelf in SHELVES {
        world.cache.put(shelf, "a", document(1, "old")).await;
    }
    world.fill("c", 1, 3).await;
    world.cache.put_state(id, 1, 1, bytes("old")).await;
    assert_eq!(world.server.as_ref().unwrap().say(&["SAVE"]), "+OK\r\n");
    for shelf in SHELVES {
        world.cache.put(shelf, "a", document(2, "new")).await;
    }
    world.append("c", 4).await;
    world.cache.put_state(id, 1, 2, bytes("new")).await;
    let server = world.server.as_mut().unwrap();
    server.kill();
    server.start_again();
    assert!(!server.keys("session:a").is_empty(), "the backup was not read");
    world.up(false).await;
    world.up(true).await;
    for shelf in SHELVES {
        assert_eq!(world.cache.get(shelf, "a").await, None);
    }
    assert_eq!(world.seqs("c", 1).await, None);
    // States may be old: whoever uses one asks the store first.
    assert!(world.cache.get_state(id).await.is_some_and(|state| !state.is(1, 2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_server_is_filled_again() {
    both(
        async |world| {
            let (cache, server) = (&world.cache, world.server.as_ref().unwrap());
            let id = AgentId::of("tally", "a");
            cache.put_state(id, 1, 1, bytes("x")).await;
            cache.put(Shelf::Conversations, "a", document(1, "x")).await;
            let ticket = world.ticket("c").await;
            server.say(&["FLUSHALL"]);
            server.say(&["SCRIPT", "FLUSH"]);
            assert!(cache.get(Shelf::Conversations, "a").await.is_none_or(|found| found.version == 1));
            cache.fill_recent("c", ticket, tail(1, 3)).await;
            assert_eq!(world.seqs("c", 1).await, None);
            world.fill("c", 1, 3).await;
            assert_eq!(world.seqs("c", 1).await, Some(vec![3]));
            cache.put(Shelf::Conversations, "a", document(2, "y")).await;
            assert_eq!(cache.get(Shelf::Conversations, "a").await, Some(document(2, "y")));
            cache.put_state(id, 1, 2, bytes("y")).await;
            assert!(cache.get_state(id).await.unwrap().is(1, 2));
            assert!(cache.health().up);
        },
        options(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spoilt_entries_are_misses_and_go() {
    let world = World::redis().await;
    let (cache, server) = (&world.cache, world.server.as_ref().unwrap());
    let id = AgentId::of("tally", "a");
    cache.put_state(id, 1, 1, bytes("state")).await;
    cache.put(Shelf::Conversations, "a", document(1, "text")).await;
    cache.put(Shelf::Sessions, "a", document(1, "text")).await;
    world.fill("c", 1, 3).await;
    for (kind, spoil) in [("state:", "x"), ("conversation:", "x"), ("session:", "")] {
        let key = &server.keys(kind)[0];
        server.say(&["SETRANGE", key, "33", "!"]);
        if spoil.is_empty() {
            server.say(&["SET", key, "short"]);
        }
    }
    let list = &server.keys("messages:")[0];
    server.say(&["LSET", list, "1", "what is this"]);
    assert_eq!(cache.get_state(id).await, None);
    for shelf in SHELVES {
        assert_eq!(cache.get(shelf, "a").await, None);
    }
    assert_eq!(world.seqs("c", 1).await, None);
    for kind in ["state:", "conversation:", "session:", "messages:"] {
        assert_eq!(server.keys(kind), [""; 0]);
    }
    // Nor does a value of another kind stop anybody.
    cache.put(Shelf::Conversations, "b", document(1, "text")).await;
    let key = &server.keys("conversation:b")[0];
    server.say(&["DEL", key]);
    server.say(&["RPUSH", key, "a"]);
    assert_eq!(cache.get(Shelf::Conversations, "b").await, None);
    cache.put(Shelf::Conversations, "b", document(2, "text")).await;
    cache.put(Shelf::Conversations, "b", document(3, "text")).await;
    assert_eq!(cache.get(Shelf::Conversations, "b").await, Some(document(3, "text")));
    assert!(cache.health().up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_used_all_the_time_is_read_from_the_store_again_in_the_end() {
    let world = World::redis().await;
    let (cache, server) = (&world.cache, world.server.as_ref().unwrap());
    cache.put(Shelf::Sessions, "a", document(1, "x")).await;
    assert_eq!(cache.get(Shelf::Sessions, "a").await, Some(document(1, "x")));
    // As if it had been written long ago.
    server.say(&["SETRANGE", &server.keys("session:")[0], "16", "\0\0\0\0\0\0\0\u{1}"]);
    assert_eq!(cache.get(Shelf::Sessions, "a").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_full_forgets_what_it_cannot_replace() {
    let world = World::redis().await;
    let (cache, server) = (&world.cache, world.server.as_ref().unwrap());
    cache.put(Shelf::Conversations, "a", document(1, "old")).await;
    server.say(&["CONFIG", "SET", "maxmemory", "1"]);
    cache.put(Shelf::Conversations, "a", document(2, "new")).await;
    assert_eq!(cache.get(Shelf::Conversations, "a").await, None);
    server.say(&["CONFIG", "SET", "maxmemory", "0"]);
    world.up(true).await;
    cache.put(Shelf::Conversations, "a", document(3, "newer")).await;
    assert_eq!(cache.get(Shelf::Conversations, "a").await, Some(document(3, "newer")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_thread_does_not_open_the_breaker() {
    let world = World::over(Redis::start(), CacheOptions { near: false, ..impatient() }).await;
    world.cache.put(Shelf::Conversations, "a", document(1, "x")).await;
    // The server answers at once; whoever asked is held up by a handler that does not yield.
    let get = loop {
        let mut get = world.cache.get(Shelf::Conversations, "a");
        // now and then the answer is there before we have looked
        if futures_util::poll!(&mut get).is_pending() {
            break get;
        }
    };
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(get.await, Some(document(1, "x")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_is_dropped_leaves_no_connections() {
    let world = World::tiered().await;
    let server = world.server.unwrap();
    let clients = || server.say(&["CLIENT", "LIST"]).lines().filter(|l| l.contains(" fd=")).count();
    assert_eq!(clients(), 3, "{}", server.say(&["CLIENT", "LIST"]));
    drop(world.cache);
    let began = Instant::now();
    // The one that asks is left.
    while clients() > 1 {
        assert!(began.elapsed() < PATIENCE, "{}", server.say(&["CLIENT", "LIST"]));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
