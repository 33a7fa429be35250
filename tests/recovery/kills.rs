//! SIGKILL and SIGTERM under load.

use std::time::{Duration, Instant};

use crate::{
    clients::{Clients, Place, check, sized, survives},
    poison,
    support::Node,
    talk, tasks,
};

#[test]
fn nothing_acknowledged_is_lost_or_done_twice_when_the_process_is_killed() {
    let mut node = Node::start(&[]);
    survives(&mut node, sized(4, 20), |node, _| {
        node.kill();
        node.start_again();
    });
}

#[test]
fn every_task_ends_and_takes_effect_once_when_the_process_is_killed_again_and_again() {
    let mut node = Node::start(&[]);
    tasks::end_whatever_happens(&mut node, sized(2_000, 100_000), |node, _| {
        node.kill();
        node.start_again();
    });
}

#[test]
fn a_message_that_aborts_the_process_is_found_and_its_neighbours_succeed() {
    poison::is_found(Node::start(&["tasks.slots=256"]));
}

#[test]
fn a_message_that_was_acknowledged_is_there_once_and_in_its_place() {
    talk::outlives_kills(&mut Node::start(&[]));
}

#[test]
fn a_terminated_node_ends_well_under_load_and_loses_nothing() {
    let mut node = Node::start(&[]);
    let place = Place::default();
    place.is(&node);
    let clients = Clients::start(&place, sized(16, 64), sized(50, 1_000), "t");
    for _ in 0..2 {
        clients.wait_for(sized(300, 5_000));
        let began = Instant::now();
        let status = node.terminate();
        assert_eq!(status.code(), Some(0), "{}", node.log());
        assert!(began.elapsed() < Duration::from_secs(30));
        node.start_again();
        place.is(&node);
    }
    clients.wait_for(100);
    let all = clients.end();
    check(&node, &all);
    for (task, ..) in &all.tasks {
        let view = node.get(&format!("/api/v1/tasks/{task}"));
        assert!(view.json["lost"].as_u64().unwrap_or(0) == 0, "an orderly end loses no claim: {view:?}");
    }
}

#[test]
fn a_second_process_on_the_same_data_is_refused() {
    let node = Node::start(&[]);
    node.ask("a", "Add", r#"{"n":2}"#);
    let data = node.data_dir().to_string_lossy().into_owned();
    let second = node.cli_unaided(&["run", "--data-dir", &data, "--set", "http.bind=127.0.0.1:0"]);
    assert_eq!(second.code, 4, "{second:?}");
    assert!(second.err.contains("in use"), "{second:?}");
    assert_eq!(node.ask("a", "Add", r#"{"n":2}"#).json["total"], 4, "the first one goes on");
}

#[test]
fn a_killed_process_holds_no_lock() {
    let mut node = Node::start(&[]);
    node.ask("a", "Add", r#"{"n":2}"#);
    node.kill();
    let began = Instant::now();
    node.start_again();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(node.ask("a", "Get", "").json["total"], 2);
}
