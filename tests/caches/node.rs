//! A whole node with Redis as its cache: it needs it for nothing, and is faster with it.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{
    node_support::{Node, cli_alone},
    support::{PATIENCE, Redis},
};

/// A node that puts agents away soon.
fn node(redis: &Redis) -> Node {
    let url = format!("cache.url={}", redis.url());
    Node::start(&[&url, "agents.default.idle_timeout=50ms"])
}

#[track_caller]
fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn status(node: &Node) -> Value {
    node.get("/api/v1/status").json
}

fn add(node: &Node, n: u32) -> u64 {
    let answer = node.ask("a", "Add", &format!("{{\"n\":{n}}}"));
    answer.json["total"].as_u64().unwrap_or_else(|| panic!("{answer:?}"))
}

/// Waits until the agent is away and its state in Redis.
fn put_away(node: &Node, redis: &Redis, version: u64) {
    until("put away", || {
        let agent = node.get("/api/v1/agents/counter/a").json;
        assert_eq!(agent["version"], version, "{agent}");
        agent["status"] == "passivated" && !redis.keys("state:").is_empty()
    });
}

fn hits(node: &Node) -> u64 {
    status(node)["cache"]["strategies"]["agent_state"]["hits"].as_u64().unwrap()
}

#[test]
fn a_node_starts_without_redis_says_so_and_finds_it_later() {
    let mut redis = Redis::start();
    redis.kill();
    let node = node(&redis);
    assert_eq!(add(&node, 1), 1);
    until("degraded", || status(&node)["verdict"] == "degraded");
    let told = status(&node);
    let reason = &told["reasons"][0];
    assert_eq!(reason["code"], "cache_down", "{told}");
    assert!(reason["remedy"].as_str().unwrap().contains("cache.url"), "{told}");
    let cache = &told["cache"];
    assert_eq!((&cache["kind"], &cache["up"]), (&Value::from("redis"), &Value::from(false)));
    assert!(cache["since"].is_string() && cache["reason"].is_string(), "{cache}");
    assert_eq!(node.get("/health/ready").status, 200);
    assert!(node.get("/metrics").text.contains("greenroom_cache_up 0"));

    redis.start_again();
    until("well again", || status(&node)["verdict"] == "ok");
    assert!(node.get("/metrics").text.contains("greenroom_cache_up 1"));
    assert_eq!(add(&node, 1), 2);
    until("told", || node.log().contains("cache.recovered"));
    for event in ["cache.degraded", "cache.recovered"] {
        assert_eq!(node.log().matches(event).count(), 1, "{}", node.log());
    }
}

#[test]
fn a_state_in_redis_is_used_by_the_next_process() {
    let redis = Redis::start();
    let mut node = node(&redis);
    assert_eq!(add(&node, 5), 5);
    put_away(&node, &redis, 1);
    node.kill();
    node.start_again();
    until("the cache", || status(&node)["cache"]["up"] == true);
    assert_eq!((add(&node, 1), hits(&node)), (6, 1));
}

#[test]
fn a_state_that_is_spoilt_in_redis_is_a_miss() {
    let redis = Redis::start();
    let mut node = node(&redis);
    assert_eq!(add(&node, 5), 5);
    put_away(&node, &redis, 1);
    node.kill();
    redis.say(&["SETRANGE", &redis.keys("state:")[0], "60", "spoilt"]);
    node.start_again();
    until("the cache", || status(&node)["cache"]["up"] == true);
    assert_eq!(add(&node, 1), 6);
    assert_eq!(status(&node)["agents"]["quarantined"], Value::Null);
}

#[test]
fn an_emptied_or_older_redis_changes_no_answer() {
    let mut redis = Redis::start_with(&["--dbfilename", "dump.rdb"]);
    let mut node = node(&redis);
    assert_eq!(add(&node, 1), 1);
    put_away(&node, &redis, 1);
    assert_eq!(redis.say(&["SAVE"]), "+OK\r\n");
    redis.say(&["FLUSHALL"]);
    assert_eq!(add(&node, 1), 2);
    put_away(&node, &redis, 2);
    // The node and Redis end; Redis is back with what it held at version 1.
    node.kill();
    redis.kill();
    redis.start_again();
    assert!(!redis.keys("state:").is_empty(), "the backup was not read");
    node.start_again();
    until("the cache", || status(&node)["cache"]["up"] == true);
    assert_eq!(add(&node, 1), 3);
    assert_eq!(node.get("/api/v1/agents/counter/a").json["version"], 3);
}

#[test]
fn redis_may_hang_at_any_moment_and_nobody_is_told_an_error() {
    let redis = Redis::start();
    let node = node(&redis);
    let mut total = 0;
    for round in 0..6 {
        if round % 2 == 1 {
            redis.freeze();
        }
        for _ in 0..5 {
            total += 1;
            assert_eq!(add(&node, 1), total);
            std::thread::sleep(Duration::from_millis(30));
        }
        redis.thaw();
    }
}

#[test]
fn a_cache_that_nobody_knows_is_a_wrong_setting() {
    for url in ["memcached://h", "redis://", "rediss://h/#insecure"] {
        let said = cli_alone(&["run", "--set", &format!("cache.url={url}")]);
        assert_eq!(said.code, 9, "{said:?}");
    }
    let said = cli_alone(&["config", "check", "--set", "cache.url=memcached://h"]);
    assert_eq!(said.code, 9, "{said:?}");
    assert!(said.err.contains("cache.url") && said.err.contains("redis://"), "{said:?}");
}
