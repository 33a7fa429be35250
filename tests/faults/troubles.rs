//! The server of a node's store is there, and does not do what it is asked.

use std::time::{Duration, Instant};

use crate::{
    clients::{Clients, Place, check},
    postgres::{Disk, Server, Session},
    support::{Answer, Node},
};

/// How long something may take on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(30);

/// Within it everybody is answered, which is a second where the machine has nothing else to do.
const SOON: Duration = Duration::from_secs(3);

/// Asks an agent that nobody else asks.
fn ask(node: &Node, n: usize, timeout: &str) -> (Answer, Duration) {
    let began = Instant::now();
    let path = format!("/api/v1/agents/counter/trouble-{n}/messages/Append?timeout={timeout}");
    (node.post(&path, r#"{"id":"x"}"#), began.elapsed())
}

fn until(what: &str, node: &Node, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "{what}:\n{}", node.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Loads a node, brings it into trouble and out of it: callers hear of it soon, people hear of it once and
/// by its name, and nothing that was acknowledged is lost.
fn survives(node: Node, cause: &str, bring: impl FnOnce(), end: impl FnOnce()) {
    let (status, code) = if cause == "disk_full" { (507, "full") } else { (503, "unavailable") };
    let pid = node.pid();
    let place = Place::default();
    place.is(&node);
    let clients = Clients::start(&place, 8, 50, "c");
    clients.wait_for(100);
    bring();
    let (brought, mut n) = (Instant::now(), 0);
    until("nobody is told", &node, || {
        n += 1;
        // one whose commit is under way learns nothing: the next one asks soon
        ask(&node, n, "100ms").0.status == status
    });
    println!("{cause}: told {:?} after it came", brought.elapsed());
    assert!(brought.elapsed() < SOON, "{:?}", brought.elapsed());
    until("it is not logged", &node, || !node.told(&["store.down"]).is_empty());
    // it stays so for a while, and is told once
    let (held, mut refused) = (Instant::now(), 0);
    while held.elapsed() < Duration::from_secs(1) {
        n += 1;
        let (answer, took) = ask(&node, n, "10s");
        assert!(took < SOON, "{took:?}: {answer:?}");
        if answer.status == status {
            answer.is_problem(status, code);
            refused += 1;
        } else {
            // what needs no room is done
            assert!(status == 507 && answer.status == 200, "{answer:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(refused > 0);
    let ready = node.get("/health/ready");
    ready.is_problem(503, "unavailable");
    assert_eq!(ready.json["reasons"][0]["code"], "store_down", "{ready:?}");
    assert!(ready.text.contains(cause), "{ready:?}");
    let status = node.get("/api/v1/status");
    assert_eq!((status.status, status.json["verdict"].as_str()), (200, Some("down")), "{status:?}");
    end();
    let ended = Instant::now();
    until("it does not recover", &node, || {
        n += 1;
        ask(&node, n, "10s").0.status == 200
    });
    println!("{cause}: served again {:?} after its end", ended.elapsed());
    assert!(ended.elapsed() < Duration::from_secs(5), "{:?}", ended.elapsed());
    clients.wait_for(200);
    until("it is not ready", &node, || node.get("/health/ready").status == 200);
    until("its end is not logged", &node, || !node.told(&["store.up"]).is_empty());
    let all = clients.end();
    check(&node, &all);
    assert_eq!(node.pid(), pid);
    let told = node.told(&["store.down", "store.up"]);
    let told: Vec<_> = told.iter().map(|r| (r["event"].as_str(), r["cause"].as_str())).collect();
    assert_eq!(told, [(Some("store.down"), Some(cause)), (Some("store.up"), Some(cause))], "{}", node.log());
}

fn node(url: &str) -> Node {
    Node::start(&[&format!("store.url={url}"), "log.format=json"])
}

#[test]
fn a_server_that_turns_read_only_is_recognised_told_once_and_recovered_from() {
    let server = Server::careless();
    let node = node(&server.of_somebody(""));
    let set = |how: &str| {
        server.psql(&format!("ALTER SYSTEM {how}"));
        server.psql("SELECT pg_reload_conf()");
    };
    survives(
        node,
        "read_only",
        || set("SET default_transaction_read_only = on"),
        || set("RESET default_transaction_read_only"),
    );
}

/// A standby takes the place of the server: connections are cut, and new ones find it read-only.
#[test]
fn a_role_that_may_only_read_is_recognised_told_once_and_recovered_from() {
    let server = Server::careless();
    let node = node(&server.of_somebody(""));
    survives(
        node,
        "read_only",
        || {
            server.psql("ALTER ROLE somebody SET default_transaction_read_only = on");
            server.terminate();
        },
        || drop(server.psql("ALTER ROLE somebody RESET default_transaction_read_only")),
    );
}

#[test]
fn a_server_without_connections_to_spare_is_recognised_told_once_and_recovered_from() {
    // more than the node wants, or it would be short of some without a crowd
    let server = Server::start_with(&["fsync=off", "max_connections=24", "superuser_reserved_connections=3"]);
    let node = node(&server.of_somebody(""));
    server.psql("CREATE ROLE crowd LOGIN");
    let crowd = std::cell::RefCell::new(Vec::<Session>::new());
    survives(
        node,
        "too_many_connections",
        || {
            // nobody of the node's comes back between the end of its connections and the crowd's coming
            server.psql("ALTER ROLE somebody CONNECTION LIMIT 0");
            server.terminate();
            crowd.borrow_mut().extend((0..22).map(|_| server.session("crowd", "SELECT pg_sleep(600)")));
            let there = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'crowd'";
            let began = Instant::now();
            while server.psql(there) != "21" {
                assert!(began.elapsed() < PATIENCE, "{} of the crowd are there", server.psql(there));
                // one may have met a place that somebody of the node's held while being refused
                crowd.borrow_mut().push(server.session("crowd", "SELECT pg_sleep(600)"));
                std::thread::sleep(Duration::from_millis(20));
            }
            server.psql("ALTER ROLE somebody CONNECTION LIMIT -1");
            assert_eq!(server.connections(), 0);
        },
        || {
            server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'crowd'");
            crowd.borrow_mut().clear();
        },
    );
}

#[test]
fn a_statement_timeout_of_the_servers_is_recognised_told_once_and_recovered_from() {
    let server = Server::careless();
    let url = server.of_somebody("");
    server.psql("ALTER ROLE somebody SET statement_timeout = '200ms'");
    let node = node(&url);
    let lock = std::cell::RefCell::new(None);
    survives(
        node,
        "statement_timeout",
        || {
            let sql = "BEGIN; LOCK TABLE greenroom_agents IN EXCLUSIVE MODE; SELECT pg_sleep(600)";
            *lock.borrow_mut() = Some(server.session("postgres", sql));
        },
        || {
            let held =
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'held'";
            server.psql(held);
            *lock.borrow_mut() = None;
        },
    );
}

fn disk(megabytes: usize) -> Option<Disk> {
    let disk = Disk::of(megabytes);
    if disk.is_none() {
        println!("NOT TESTED: a full disk, for this user may not mount a small one");
    }
    disk
}

/// The store's verdict: since when it is down, if it is.
fn down_since(node: &Node) -> Option<String> {
    let status = node.get("/api/v1/status");
    let reasons = status.json["reasons"].as_array().unwrap();
    let down = reasons.iter().find(|reason| reason["code"] == "store_down")?;
    assert!(down["message"].as_str().unwrap().contains("disk_full"), "{status:?}");
    Some(down["since"].as_str().unwrap().to_owned())
}

/// A disk that was found full is told until something was written again, however long nobody writes; and then it
/// is not, although nobody has written but the node itself.
fn is_told_until_something_was_written(node: &Node, disk: &Disk) {
    until("it does not serve", node, || ask(node, 0, "10s").0.status == 200);
    disk.fill();
    let mut n = 0;
    until("it finds room", node, || {
        n += 1;
        ask(node, n, "10s").0.status == 507
    });
    let since = down_since(node).unwrap();
    // the node tries it every two seconds, and finds none
    let held = Instant::now();
    while held.elapsed() < Duration::from_secs(5) {
        assert_eq!(down_since(node), Some(since.clone()), "after {:?}", held.elapsed());
        std::thread::sleep(Duration::from_millis(200));
    }
    node.get("/health/ready").is_problem(503, "unavailable");
    disk.free();
    until("it is full for ever", node, || down_since(node).is_none());
    until("it is not ready", node, || node.get("/health/ready").status == 200);
    assert_eq!(ask(node, 0, "10s").0.status, 200);
    until("its end is not logged", node, || !node.told(&["store.up"]).is_empty());

    disk.fill();
    until("it finds room", node, || {
        n += 1;
        ask(node, n, "10s").0.status == 507
    });
    assert!(down_since(node).unwrap() > since, "another spell has another beginning");
    disk.free();
}

#[test]
fn a_full_disk_under_sqlite_is_told_until_something_was_written_again() {
    let Some(disk) = disk(48) else { return };
    let url = format!("store.url=sqlite://{}/greenroom.db", disk.folder("data").display());
    is_told_until_something_was_written(&Node::start(&[&url, "log.format=json"]), &disk);
}

#[test]
fn a_full_disk_under_postgres_is_told_until_something_was_written_again() {
    let Some(disk) = disk(48) else { return };
    let server = Server::careless();
    let folder = disk.folder("tables");
    server.psql(&format!("CREATE TABLESPACE small LOCATION '{}'", folder.display()));
    is_told_until_something_was_written(&node(&server.of_somebody("TABLESPACE small")), &disk);
}

#[test]
fn a_full_disk_is_recognised_told_once_and_recovered_from() {
    let Some(disk) = disk(48) else { return };
    let server = Server::careless();
    let folder = disk.folder("tables");
    server.psql(&format!("CREATE TABLESPACE small LOCATION '{}'", folder.display()));
    let node = node(&server.of_somebody("TABLESPACE small"));
    survives(node, "disk_full", || disk.fill(), || disk.free());
}

/// Where the log of the server finds no room it gives up: all connections end, and it does not come up
/// before there is room again.
#[test]
fn a_server_that_dies_of_a_full_disk_loses_nothing() {
    let Some(disk) = disk(80) else { return };
    let mut server = Server::made(&["min_wal_size=32MB", "max_wal_size=48MB"], "trust");
    server.keep_log_in(&disk.folder("log"));
    server.go_on();
    let mut node = Node::start(&[&format!("store.url={}", server.url())]);
    let pid = node.pid();
    crate::clients::survives(&mut node, 1, |node, round| {
        if round == 1 {
            assert_eq!(node.pid(), pid, "it was never restarted");
            return;
        }
        disk.fill();
        let began = Instant::now();
        while server.is_there() {
            assert!(began.elapsed() < PATIENCE, "{}", server.log());
            // what is left of the present piece of its log is not to be waited for
            let _ = server.try_psql("SELECT pg_switch_wal()");
        }
        until("nobody is told", node, || ask(node, 0, "100ms").0.status == 503);
        disk.free();
        server.stop_immediate();
        server.go_on();
    });
    assert!(server.log().contains("PANIC"), "{}", server.log());
}

/// A frozen server says nothing, and its connections stay: whoever asks hears of it soon all the same,
/// also who had asked before.
#[test]
fn a_frozen_server_is_noticed_within_a_second() {
    let server = Server::careless();
    let node = node(&server.of_somebody(""));
    let task = r#"{"target":"counter/known","message":"Append","input":{"id":"x"}}"#;
    let id = node.post("/api/v1/tasks", task).json["id"].as_str().unwrap().to_owned();
    let (mut first, mut later) = (Duration::MAX, Duration::MAX);
    for round in 0..3 {
        let name = format!("frozen-{round}");
        until("it does not serve", &node, || node.ask(&name, "Get", "").status == 200);
        server.sigstop();
        let began = Instant::now();
        // one whose commit is under way, an agent that is not in memory, a key, a task's view
        let answers: Vec<(Answer, Duration)> = std::thread::scope(|scope| {
            let timed = |answer: Answer| (answer, began.elapsed());
            let (node, name, id) = (&node, &name, &id);
            let writer = scope.spawn(move || node.ask(name, "Append", r#"{"id":"1"}"#));
            let calls = [
                scope.spawn(move || timed(node.ask(&format!("{name}-new"), "Append", r#"{"id":"1"}"#))),
                scope.spawn(move || {
                    let key = [("Idempotency-Key", "k")];
                    timed(node.send("POST", "/api/v1/tasks", &key, Some(task)))
                }),
                scope.spawn(move || timed(node.get(&format!("/api/v1/tasks/{id}")))),
            ];
            let answers = calls.into_iter().map(|call| call.join().unwrap()).collect();
            for n in 0..20 {
                let began = Instant::now();
                let answer = node.ask(&format!("{name}-{n}"), "Append", r#"{"id":"1"}"#);
                answer.is_problem(503, "unavailable");
                later = later.min(began.elapsed());
            }
            let ready = node.get("/health/ready");
            ready.is_problem(503, "unavailable");
            assert!(ready.text.contains("unreachable"), "{ready:?}");
            server.sigcont();
            let written = writer.join().unwrap();
            assert_eq!(
                written.json["len"], 1,
                "its commit was under way, and is done in the end: {written:?}"
            );
            answers
        });
        for (answer, took) in &answers {
            answer.is_problem(503, "unavailable");
            assert!(*took < SOON * 2, "{took:?}: {answer:?}");
        }
        first = first.min(answers.iter().map(|(_, took)| *took).max().unwrap());
    }
    println!("under way: {first:?}, known: {later:?}");
    assert!(first < Duration::from_millis(1_200), "{first:?}");
    assert!(later < Duration::from_millis(200), "{later:?}");
    until("it does not serve", &node, || node.ask("frozen-0-new", "Append", r#"{"id":"2"}"#).status == 200);
    assert_eq!(
        node.ask("frozen-0-new", "List", "").json["ids"],
        serde_json::json!(["2"]),
        "who was turned away"
    );
}

/// A server that works on a statement for long, and answers meanwhile, is waited for.
#[test]
fn a_slow_statement_is_no_outage() {
    let server = Server::careless();
    let url = server.of_somebody("");
    let node = node(&url);
    assert_eq!(node.ask("a", "Append", r#"{"id":"1"}"#).status, 200);
    let sql = "BEGIN; LOCK TABLE greenroom_agents IN EXCLUSIVE MODE; SELECT pg_sleep(3)";
    let mut lock = server.session("postgres", sql);
    let locked = "SELECT count(*) FROM pg_locks WHERE mode = 'ExclusiveLock' AND relation IS NOT NULL";
    until("it is not locked", &node, || server.psql(locked) != "0");
    let began = Instant::now();
    let answer = node.ask("a", "Append", r#"{"id":"2"}"#);
    assert_eq!((answer.status, answer.json["len"].as_u64()), (200, Some(2)), "{answer:?}");
    assert!(began.elapsed() > Duration::from_secs(1), "nothing was in its way: {:?}", began.elapsed());
    until("the lock stays", &node, || lock.has_ended());
    assert_eq!(node.told(&["store.down"]), Vec::<serde_json::Value>::new());
}
