//! The node or its Postgres is killed under load.

use std::{
    fs,
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use crate::{
    clients::{Clients, Place, check, sized, survives},
    poison,
    postgres::{Database, Server},
    support::{self, Node},
    talk, tasks,
};

#[test]
fn nothing_acknowledged_is_lost_when_a_node_on_postgres_is_killed() {
    let database = Database::new();
    let mut node = Node::start(&[&format!("store.url={}", database.url())]);
    survives(&mut node, sized(4, 20), |node, _| {
        node.kill();
        node.start_again();
    });
}

#[test]
fn a_message_that_aborts_the_process_is_found_on_postgres_and_its_neighbours_succeed() {
    let database = Database::new();
    poison::is_found(Node::start(&["tasks.slots=256", &format!("store.url={}", database.url())]));
}

#[test]
fn every_task_ends_and_takes_effect_once_when_node_and_postgres_die_in_turn() {
    let mut server = Server::start();
    let mut node = Node::start(&[&format!("store.url={}", server.url())]);
    tasks::end_whatever_happens(&mut node, sized(1_000, 100_000), |node, round| {
        if round % 2 == 0 {
            node.kill();
            node.start_again();
        } else {
            server.stop_immediate();
            server.go_on();
            is_well_again(node);
        }
    });
}

/// Waits until a node knows that its Postgres is back.
fn is_well_again(node: &Node) {
    let began = Instant::now();
    while node.get("/health/ready").status != 200 {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", node.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn messages_on_postgres_are_there_once_and_in_their_place_when_the_node_is_killed() {
    let database = Database::new();
    talk::outlives_kills(&mut Node::start(&[&format!("store.url={}", database.url())]));
}

#[test]
fn nothing_acknowledged_is_lost_when_postgres_is_stopped_at_once() {
    let mut server = Server::start();
    let mut node = Node::start(&[&format!("store.url={}", server.url())]);
    let pid = node.pid();
    let rounds = sized(4, 20);
    survives(&mut node, rounds, |node, round| {
        if round == rounds {
            assert_eq!(node.pid(), pid, "it was never restarted");
            return;
        }
        server.stop_immediate();
        if round % 2 == 1 {
            refuses_quickly(node);
        }
        server.go_on();
    });
}

/// More than ever somebody may want to see more in the log.
#[test]
fn files_are_read_again_while_postgres_is_down() {
    let mut server = Server::start();
    let node = Node::start(&[&format!("store.url={}", server.url()), "log.format=json"]);
    let kept = node.send("PATCH", "/api/v1/config", &[], Some(r#"{"tasks":{"slots":3}}"#));
    assert_eq!(kept.status, 200, "{kept:?}");
    server.stop_immediate();
    fs::write(node.dir().join("greenroom.toml"), "[log.levels]\n\"greenroom\" = \"debug\"\n").unwrap();
    let pid = node.pid().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    support::until("it is told", || node.told(&["config.changed"]).iter().any(|told| told["by"] == "SIGHUP"));
    let items = node.get("/api/v1/config").json["items"].as_array().unwrap().clone();
    let value = |key: &str| items.iter().find(|item| item["key"] == key).unwrap()["value"].clone();
    assert_eq!((value("log.levels.greenroom"), value("tasks.slots")), ("debug".into(), 3.into()));
}

#[test]
fn a_node_that_starts_waits_for_its_postgres() {
    let mut server = Server::start();
    let mut node = Node::start(&[&format!("store.url={}", server.url()), "log.format=json"]);
    let log = node.dir().join("log");
    node.kill();
    server.stop_immediate();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let began = Instant::now();
            while !fs::read_to_string(&log).unwrap().contains("store.down") {
                assert!(began.elapsed() < Duration::from_secs(20), "nobody is told what it waits for");
                std::thread::sleep(Duration::from_millis(5));
            }
            server.go_on();
        });
        node.start_again();
    });
    let told: Vec<_> = node.told(&["store.down", "store.up"]).iter().map(|r| r["event"].clone()).collect();
    assert_eq!(told, ["store.down", "store.up"], "{}", node.log());
}

/// At least half of what it did before, within seconds of the server's return: no back-off that has grown
/// meanwhile, and no herd, stands in the way.
#[test]
fn a_node_is_back_at_its_rate_soon_after_postgres_is() {
    let mut server = Server::start();
    let node = Node::start(&[&format!("store.url={}", server.url())]);
    let place = Place::default();
    place.is(&node);
    let clients = Clients::start(&place, 16, 100, "r");
    clients.wait_for(200);
    let rate = |window: Duration| {
        let (from, began) = (clients.count.load(SeqCst), Instant::now());
        std::thread::sleep(window);
        (clients.count.load(SeqCst) - from) as f64 / began.elapsed().as_secs_f64()
    };
    for _ in 0..sized(1, 3) {
        let before = rate(Duration::from_secs(1));
        server.stop_immediate();
        // long enough for whatever backs off to have backed off
        std::thread::sleep(Duration::from_secs(3));
        server.go_on();
        let back = Instant::now();
        let (mut after, mut took) = (0.0, Duration::ZERO);
        while after < before / 2.0 {
            assert!(
                back.elapsed() < Duration::from_secs(5),
                "{after:.0}/s of {before:.0}/s:\n{}",
                node.log()
            );
            took = back.elapsed();
            after = rate(Duration::from_millis(500));
        }
        println!("{before:.0}/s before, {after:.0}/s from {took:?} after the server's return");
    }
    check(&node, &clients.end());
}

/// Without its database a node answers that it cannot, soon, and says when to come back.
fn refuses_quickly(node: &Node) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let began = Instant::now();
        let answer = node.post("/api/v1/agents/counter/outage/messages/Append?timeout=5s", r#"{"id":"x"}"#);
        if answer.status == 503 && began.elapsed() < Duration::from_secs(1) {
            return answer.is_problem(503, "unavailable");
        }
        assert!(Instant::now() < deadline, "after {:?}: {answer:?}", began.elapsed());
    }
}

fn signal(node: &Node, name: &str) {
    let pid = node.pid().to_string();
    assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
}

/// Asks again until it is answered so, and tells the answer.
fn until(what: &str, node: &Node, status: u16) -> crate::support::Answer {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let answer = node.ask("moved", "Append", &format!(r#"{{"id":"{what}"}}"#));
        if answer.status == status {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: {answer:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A node is frozen under load for three leases, of which another one takes over in the first, and thawed: it
/// commits nothing any more, of agents and of a tool's task that it had in hand, and says who does.
#[test]
fn a_frozen_node_that_comes_back_after_a_takeover_commits_nothing() {
    let database = Database::new();
    let url = format!("store.url={}", database.url());
    let first = Node::start(&[&url, "node.lease=3s", "log.format=json", "log.level=debug"]);
    let place = Place::default();
    place.is(&first);
    let clients = Clients::start(&place, 8, 50, "f");
    clients.wait_for(200);
    let second = Node::start(&[&url, "node.lease=3s"]);
    // it may answer before it has looked round
    let began = Instant::now();
    while until("elsewhere", &second, 503).json["owner"] != first.url.as_str() {
        assert!(began.elapsed() < Duration::from_secs(20), "{}", second.log());
    }
    let hold = |ms: u32| {
        let task = format!(r#"{{"target":"tool:probe.hold","input":{{"ms":{ms}}}}}"#);
        first.post("/api/v1/tasks", &task).json["id"].as_str().unwrap().to_owned()
    };
    let told = |id: &str| {
        let ended = first.told(&["task.succeeded"]);
        ended.iter().any(|event| event["subject"] == format!("task:{id}"))
    };
    let soon_over = hold(1);
    support::until("it tells of what it has ended", || told(&soon_over));
    let held = hold(6_000);
    let state_of_held = || second.get(&format!("/api/v1/tasks/{held}")).json["state"].clone();
    let in_hand = || first.get("/api/v1/tree").json.to_string().contains(&held);
    support::until("it has the task in hand", || in_hand() && state_of_held() == "running");
    signal(&first, "-STOP");
    let frozen = Instant::now();
    until("second", &second, 200);
    for n in 0.. {
        assert_eq!(second.ask(&format!("meanwhile{n}"), "Append", r#"{"id":"m"}"#).status, 200);
        if frozen.elapsed() > 3 * Duration::from_secs(3) {
            break;
        }
    }
    support::until("nobody knows whether the call was made", || state_of_held() == "outcome_unknown");
    signal(&first, "-CONT");
    let back = until("back", &first, 503);
    back.is_problem(503, "unavailable");
    place.is(&second);
    clients.wait_for(200);
    let all = clients.end();
    check(&second, &all);
    let list = second.ask("moved", "List", "{}");
    assert_eq!(list.json["ids"], serde_json::json!(["second"]), "the first one wrote after the takeover");
    support::until("the first one has done with the call", || !in_hand());
    assert_eq!(state_of_held(), "outcome_unknown", "the first one ended it after the takeover");
    assert!(!told(&held), "it tells of an end that was not recorded");
    // its owner is known by now
    let deadline = Instant::now() + Duration::from_secs(20);
    while until("owner", &first, 503).json["owner"] != second.url.as_str() {
        assert!(Instant::now() < deadline, "{}", first.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A node hears of its tasks from the one that took them: it does not come upon them at its next look
/// at the store, seconds later.
#[test]
fn a_task_of_another_nodes_agent_runs_at_once() {
    let database = Database::new();
    let url = format!("store.url={}", database.url());
    let owner = Node::start(&[&url]);
    let other = Node::start(&[&url]);
    // It knows the other by now: it names it.
    assert_eq!(until("known", &other, 503).json["owner"], owner.url.as_str());
    let began = Instant::now();
    for n in 1..=12 {
        let task = format!(r#"{{"target":"counter/told","message":"Append","input":{{"id":"{n}"}}}}"#);
        let accepted = other.post("/api/v1/tasks", &task);
        let id = accepted.json["id"].as_str().unwrap_or_else(|| panic!("{accepted:?}"));
        let done = other.get(&format!("/api/v1/tasks/{id}?wait=20s"));
        assert_eq!((done.status, done.json["state"].as_str()), (200, Some("succeeded")), "{done:?}");
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}: one look at the store a task");
}
