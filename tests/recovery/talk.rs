//! Messages that were acknowledged are there, once, each in its place.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    clients::{Place, sized},
    support::Node,
};

/// What was acknowledged: the text, and its place.
type Said = Vec<(String, u64)>;

/// Says one thing after the other, each until it is acknowledged.
fn speaker(place: &Place, path: &str, name: usize, count: &AtomicUsize, over: &AtomicBool) -> Said {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .proxy(None)
        .build();
    let agent = config.new_agent();
    let mut said = Said::new();
    while !over.load(SeqCst) {
        let text = format!("{name}-{}", said.len());
        let body = json!({"role": "user", "content": text}).to_string();
        let answer = loop {
            let (url, token) = place.get();
            let sent = agent
                .post(format!("{url}{path}/messages"))
                .header("Authorization", format!("Bearer {token}"))
                .header("Idempotency-Key", &text)
                .send(&body);
            let read = sent.ok().and_then(|mut answer| {
                let text = answer.body_mut().read_to_string().ok()?;
                Some((answer.status().as_u16(), serde_json::from_str::<Value>(&text).unwrap_or_default()))
            });
            match read {
                None | Some((503 | 504, _)) => std::thread::sleep(Duration::from_millis(3)),
                Some((201, answer)) => break answer,
                Some(other) => panic!("{other:?}"),
            }
        };
        said.push((text, answer["seq"].as_u64().unwrap()));
        count.fetch_add(1, SeqCst);
    }
    said
}

#[test]
fn a_message_that_was_acknowledged_is_there_once_and_in_its_place() {
    let mut node = Node::start(&[]);
    let place = Place::default();
    place.is(&node);
    let made = node.post("/api/v1/conversations", "").json;
    let path = format!("/api/v1/conversations/{}", made["id"].as_str().unwrap());
    let (count, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let said: Said = std::thread::scope(|scope| {
        let speakers: Vec<_> = (0..sized(8, 32))
            .map(|n| {
                let (place, path, count, over) = (&place, &path, &count, &over);
                scope.spawn(move || speaker(place, path, n, count, over))
            })
            .collect();
        let wait_for = |more: usize| {
            let (from, began) = (count.load(SeqCst), Instant::now());
            while count.load(SeqCst) < from + more {
                assert!(began.elapsed() < Duration::from_secs(120), "there is no progress");
                std::thread::sleep(Duration::from_millis(2));
            }
        };
        for _ in 0..sized(3, 20) {
            wait_for(sized(150, 3_000));
            node.kill();
            node.start_again();
            place.is(&node);
        }
        wait_for(50);
        over.store(true, SeqCst);
        speakers.into_iter().flat_map(|s| s.join().unwrap()).collect()
    });
    let (mut all, mut cursor) = (Vec::new(), 0);
    loop {
        let page = node.get(&format!("{path}/messages?order=asc&limit=500&cursor={cursor}")).json;
        for message in page["items"].as_array().unwrap() {
            all.push(message["content"].as_str().unwrap().to_owned());
            assert_eq!(message["seq"].as_u64(), Some(all.len() as u64), "a gap");
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.parse().unwrap(),
            None => break,
        }
    }
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len(), "something is there twice");
    for (text, seq) in &said {
        assert_eq!(all.get(*seq as usize - 1), Some(text), "{text} is not at {seq}");
    }
    assert_eq!(all.len(), said.len(), "each was said until it was acknowledged");
}
