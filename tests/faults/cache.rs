//! The Redis of a node under load is gone, hung, emptied, older, or hard to reach: that costs time, and no
//! caller hears of it.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    clients::{Clients, Place, check, sized},
    postgres::Database,
    redis::Redis,
    support::Node,
    talk::Speakers,
    weather::{Proxy, Weather},
};

fn cache(node: &Node) -> Value {
    node.get("/api/v1/status").json["cache"].clone()
}

fn until(what: &str, node: &Node, so: impl Fn() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}: {}\n{}", cache(node), node.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How often something was told, or counted in place of it.
fn times(node: &Node, event: &str) -> u64 {
    let suppressed = node.told(&["log.suppressed"]).into_iter().filter(|r| r["of"] == event);
    node.told(&[event]).len() as u64 + suppressed.map(|r| r["count"].as_u64().unwrap()).sum::<u64>()
}

/// Writes a session as it was seen, again and again, from the number that stands there: one that the cache
/// had an older copy of would be refused, or count wrongly.
fn count_in_a_session(node: &Node, from: u64, times: u64) {
    let path = "/api/v1/sessions/visitor";
    for n in from..from + times {
        let seen = node.get(path);
        assert_eq!((seen.status, &seen.json["data"]), (200, &json!(n)), "{seen:?}");
        let tag = [("If-Match", seen.header("etag").unwrap())];
        let written = node.send("PUT", path, &tag, Some(&json!({"data": n + 1}).to_string()));
        assert_eq!(written.status, 200, "{written:?}");
    }
}

#[test]
fn whatever_becomes_of_redis_no_caller_hears_of_it_and_nothing_old_is_built_on() {
    let mut redis = Redis::start_with(&["--dbfilename", "dump.rdb"]);
    let proxy = Proxy::new(([127, 0, 0, 1], redis.port).into());
    let database = Database::new();
    let mut node = Node::start(&[
        &format!("store.url={}", database.url()),
        &format!("cache.url=redis://{}", proxy.address()),
        // states go to Redis and come back all the time
        "agents.default.idle_timeout=50ms",
        "log.format=json",
    ]);
    let place = Place::default();
    place.is(&node);
    node.send("PUT", "/api/v1/sessions/visitor", &[], Some(r#"{"data":0}"#));
    let clients = Clients::start(&place, 8, sized(100, 1_000), "c");
    let speakers = Speakers::start(&node, &place, 2);
    let mut counted = 0;
    let mut load = || {
        clients.wait_for(sized(100, 500));
        speakers.wait_for(sized(20, 50));
        count_in_a_session(&node, counted, 3);
        counted += 3;
    };
    for _ in 0..sized(1, 3) {
        load();
        until("it is not connected", &node, || cache(&node)["up"] == true);
        assert_eq!(redis.say(&["SAVE"]), "+OK\r\n");
        let older = fs::read(redis.dir().join("dump.rdb")).unwrap();
        load();
        redis.kill();
        until("nobody notices that it is gone", &node, || cache(&node)["up"] == false);
        load();
        fs::write(redis.dir().join("dump.rdb"), older).unwrap();
        redis.start_again();
        assert!(!redis.keys("").is_empty(), "the backup was not read");
        until("nobody notices that it is back", &node, || cache(&node)["up"] == true);
        load();
        redis.freeze();
        load();
        until("nobody notices that it hangs", &node, || cache(&node)["up"] == false);
        redis.thaw();
        until("it stays away", &node, || cache(&node)["up"] == true);
        load();
        redis.say(&["FLUSHALL"]);
        redis.say(&["SCRIPT", "FLUSH"]);
        load();
        for weather in [
            Weather::Slow(Duration::from_millis(20)),
            Weather::Slow(Duration::from_millis(150)),
            Weather::Swallow(20),
            Weather::Down,
            Weather::Dark,
        ] {
            proxy.set(weather);
            load();
            // what it swallowed leaves gaps that nobody would get over
            proxy.set(Weather::Down);
            proxy.set(Weather::Fair);
            load();
        }
        until("it stays away", &node, || cache(&node)["up"] == true);
    }
    let hits = cache(&node)["strategies"]["agent_state"]["hits"].as_u64().unwrap();
    assert!(hits > 0, "nothing was read from it: {}", cache(&node));
    assert_eq!(speakers.refused(), 0, "{}", node.log());
    speakers.end(&node);
    let all = clients.end();
    assert_eq!(all.refused, 0, "{}", node.log());
    check(&node, &all);
    assert_eq!(node.told(&["agent.crashed", "store.down"]), Vec::<Value>::new());
    // its last words say how often it kept to itself what it had said often enough
    assert!(node.terminate().success(), "{}", node.log());
    let (gone, back) = (times(&node, "cache.degraded"), times(&node, "cache.recovered"));
    assert!(gone == back && gone >= 2, "{gone}, {back}: {}", node.log());
}
