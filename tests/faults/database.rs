//! The node or its Postgres is killed under load.

use std::time::{Duration, Instant};

use crate::{
    clients::{sized, survives},
    postgres::{Database, Server},
    support::Node,
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
