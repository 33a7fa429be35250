//! What happens, while it happens: `GET /api/v1/events`.

use std::{
    io::{BufRead as _, BufReader, Read, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::Node;

/// How long an event may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Default, PartialEq)]
struct Frame {
    id: String,
    event: String,
    data: Value,
}

/// An open stream.
struct Events {
    lines: Box<dyn Iterator<Item = std::io::Result<String>>>,
}

impl Events {
    fn open(node: &Node, query: &str, last_id: Option<&str>) -> Self {
        let config = ureq::Agent::config_builder().timeout_recv_body(Some(PATIENCE)).proxy(None).build();
        let mut request = config
            .new_agent()
            .get(format!("{}/api/v1/events{query}", node.url))
            .header("Authorization", format!("Bearer {}", node.token));
        if let Some(id) = last_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = request.call().unwrap();
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
        assert_eq!(header("content-type"), Some("text/event-stream"));
        assert_eq!((header("cache-control"), header("x-accel-buffering")), (Some("no-store"), Some("no")));
        let mut lines = BufReader::new(response.into_body().into_reader()).lines();
        assert!(lines.next().unwrap().unwrap().starts_with("retry: "));
        Self { lines: Box::new(lines) }
    }

    /// The next event; `None` at the end.
    fn next(&mut self) -> Option<Frame> {
        let mut frame = Frame::default();
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            match line.split_once(": ") {
                Some(("id", id)) => frame.id = id.to_owned(),
                Some(("event", event)) => frame.event = event.to_owned(),
                Some(("data", data)) => frame.data = serde_json::from_str(data).unwrap(),
                _ if line.is_empty() && !frame.event.is_empty() => return Some(frame),
                _ => {}
            }
        }
        None
    }

    fn until(&mut self, event: &str) -> Frame {
        std::iter::from_fn(|| self.next())
            .find(|frame| frame.event == event)
            .unwrap_or_else(|| panic!("{event}"))
    }

    fn rest(mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

fn submit(node: &Node, message: &str, input: Value) -> String {
    let body = json!({"target": "counter/a", "message": message, "input": input, "max_attempts": 1});
    let task = node.post("/api/v1/tasks", &body.to_string()).json["id"].as_str().unwrap().to_owned();
    node.get(&format!("/api/v1/tasks/{task}?wait=30s"));
    task
}

#[test]
fn a_stream_tells_of_agents_and_tasks_whatever_the_log_says() {
    let node = Node::start(&["log.level=error"]);
    let mut all = Events::open(&node, "", None);
    let mut agents = Events::open(&node, "?event=agent.*,restart.planned&subject=counter/*", None);
    let task = submit(&node, "Add", json!({"n": 1}));
    let subject = format!("task:{task}");
    for event in ["task.accepted", "task.started", "task.succeeded"] {
        let frame = all.until(event);
        assert_eq!((&frame.data["subject"], &frame.data["event"]), (&json!(subject), &json!(event)));
        assert_eq!((&frame.data["level"], &frame.data["target"]), (&json!("debug"), &json!("counter/a")));
        let (boot, number) = frame.id.rsplit_once(':').unwrap();
        assert_eq!(frame.data["boot"], boot);
        assert!(number.parse::<u64>().unwrap() > 0 && frame.data["ts"].is_u64());
    }
    node.ask("a", "Crash", r#"{"message":"boom"}"#);
    let names = ["agent.started", "agent.crashed", "restart.planned"];
    let seen = names.map(|_| agents.next().unwrap());
    assert_eq!(seen.each_ref().map(|frame| frame.event.as_str()), names);
    assert!(seen.iter().all(|frame| frame.data["subject"] == "counter/a"), "{seen:?}");
    assert_eq!(seen[1].data["reason"]["message"], "boom");
    assert!(!node.log().contains("task.succeeded") && node.log().contains("agent.crashed"));
}

#[test]
fn whoever_comes_back_has_missed_nothing_or_is_told() {
    let mut node = Node::start(&[]);
    let mut stream = Events::open(&node, "?event=task.accepted", None);
    submit(&node, "Add", json!({"n": 1}));
    let seen = stream.until("task.accepted").id;
    drop(stream);
    let missed = submit(&node, "Add", json!({"n": 1}));
    for (query, header) in [
        ("?event=task.accepted".to_owned(), Some(seen.as_str())),
        (format!("?event=task.accepted&after={seen}"), None),
    ] {
        let frame = Events::open(&node, &query, header).next().unwrap();
        assert_eq!(
            (frame.event.as_str(), &frame.data["subject"]),
            ("task.accepted", &json!(format!("task:{missed}")))
        );
    }
    // An id of the future, of another boot, or of nobody.
    let (boot, _) = seen.rsplit_once(':').unwrap();
    for unknown in [format!("{boot}:999999"), "0190:1".to_owned(), "nonsense".to_owned()] {
        let mut frames = Events::open(&node, "?follow=false", Some(&unknown)).rest();
        assert_eq!(frames.remove(0).event, "gap", "{unknown}");
        assert_eq!(frames[0].event, "node.started", "it goes on with what is there");
    }
    node.terminate();
    node.start_again();
    let mut again = Events::open(&node, "", Some(&seen));
    assert_eq!([again.next(), again.next()].map(|frame| frame.unwrap().event), ["gap", "node.started"]);
}

#[test]
fn what_is_kept_is_read_without_following() {
    let node = Node::start(&[]);
    for key in ["a", "b", "c"] {
        node.ask(key, "Crash", "{}");
    }
    let crashes = |query: &str| {
        let frames = Events::open(&node, &format!("?follow=false&event=agent.crashed{query}"), None).rest();
        frames.iter().map(|frame| frame.data["subject"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(crashes(""), ["counter/a", "counter/b", "counter/c"]);
    assert_eq!(crashes("&tail=2"), ["counter/b", "counter/c"]);
    assert_eq!(crashes("&subject=counter/b"), ["counter/b"]);
    assert_eq!(crashes("&subject=shelf/*"), [""; 0]);
    assert_eq!(
        Events::open(&node, "?tail=1&event=agent.crashed", None).next().unwrap().data["subject"],
        "counter/c"
    );
    for bad in ["tail=x", "follow=perhaps", "event=a&event=b"] {
        node.get(&format!("/api/v1/events?{bad}")).is_problem(400, "malformed");
    }
    let head = node.send("HEAD", "/api/v1/events", &[], None);
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    node.send_bare("GET", "/api/v1/events", &[], None).is_problem(401, "unauthorized");
}

#[test]
fn tasks_that_nobody_is_notified_of_are_told_to_have_been_cancelled() {
    let node = Node::start(&[]);
    let mut stream = Events::open(&node, "?event=task.cancelled", None);
    let task = |name: &str, key: &str, after: Value| {
        json!({"name": name, "target": format!("counter/{key}"), "message": "Fail", "input": {"message": "no"},
               "max_attempts": 1, "after": after})
    };
    let tasks = [
        task("root", "a", json!([])),
        task("child", "b", json!(["root"])),
        task("grandchild", "c", json!(["child"])),
    ];
    let answer = node.post("/api/v1/tasks/batch", &json!({"tasks": tasks}).to_string());
    let ids: Vec<&str> =
        answer.json["items"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap()).collect();
    for (id, key) in [(ids[1], "b"), (ids[2], "c")] {
        let told = stream.next().unwrap().data;
        assert_eq!(told["subject"], format!("task:{id}"), "{told}");
        assert_eq!(told["target"], format!("counter/{key}"));
        assert_eq!(told["reason"], "a task that it came after did not succeed");
    }
}

#[test]
fn an_open_stream_hears_of_the_end_and_does_not_hold_it_up() {
    let mut node = Node::start(&[]);
    let mut stream = Events::open(&node, "?event=node.*", None);
    let began = Instant::now();
    assert!(node.terminate().success());
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(stream.next().unwrap().event, "node.stopping");
    // The last word is heard as well where it comes in time.
    let last = stream.next();
    assert!(last.as_ref().is_none_or(|last| last.event == "node.stopped"), "{last:?}");
    assert!(last.is_none() || stream.next().is_none());
}

#[test]
fn a_reader_that_does_not_keep_up_is_told_and_goes_on_with_the_newest() {
    let node = Node::start(&["log.level=error"]);
    let mut slow = TcpStream::connect(node.url.trim_start_matches("http://")).unwrap();
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "GET /api/v1/events?event=task.* HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        node.token
    );
    slow.write_all(request.as_bytes()).unwrap();
    slow.read_exact(&mut [0; 1]).unwrap();
    // More than the ring, the connection and both its ends hold; nothing of it runs.
    assert_eq!(node.post("/api/v1/kinds/counter/pause", "").status, 202);
    let one = r#"{"target":"counter/a","message":"Add","input":{"n":1}}"#;
    let batch = format!(r#"{{"tasks":[{}]}}"#, vec![one; 1_000].join(","));
    for _ in 0..25 {
        assert_eq!(node.post("/api/v1/tasks/batch", &batch).status, 202);
    }
    let (mut text, mut chunk) = (String::new(), vec![0; 1 << 16]);
    while !text.contains("event: gap") {
        let n = slow.read(&mut chunk).unwrap();
        assert!(n > 0, "the stream goes on");
        text.push_str(&String::from_utf8_lossy(&chunk[..n]));
    }
    let after = node.post("/api/v1/tasks", one);
    let (mut rest, wanted) =
        (String::new(), format!("\"subject\":\"task:{}\"", after.json["id"].as_str().unwrap()));
    while !rest.contains(&wanted) {
        let n = slow.read(&mut chunk).unwrap();
        assert!(n > 0, "the stream goes on");
        rest.push_str(&String::from_utf8_lossy(&chunk[..n]));
    }
}
