//! Clients that go on when their node dies, and write down what was acknowledged.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::Node;

/// One of two sizes.
pub fn sized(ci: usize, full: usize) -> usize {
    if std::env::var("GREENROOM_RECOVERY").is_ok_and(|size| size == "full") { full } else { ci }
}

/// Where the node is now.
#[derive(Clone, Default)]
pub struct Place(Arc<Mutex<(String, String)>>);

impl Place {
    /// The node has (again) been started.
    pub fn is(&self, node: &Node) {
        *self.0.lock().unwrap() = (node.url.clone(), node.token.clone());
    }

    /// Its URL and token.
    pub fn get(&self) -> (String, String) {
        self.0.lock().unwrap().clone()
    }
}

/// What was acknowledged.
#[derive(Default)]
pub struct Acknowledged {
    /// An id that was appended, with the length that was answered.
    pub appended: Vec<(String, String, u64)>,
    /// A task that was accepted: its id, the agent, what it appends.
    pub tasks: Vec<(String, String, String)>,
    /// What was answered with neither success nor a reason to try again.
    pub odd: Vec<(u16, String)>,
}

/// Clients under way.
pub struct Clients {
    /// How many acknowledgements so far.
    pub count: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Acknowledged>>,
}

impl Clients {
    /// Starts so many, spread over so many agents.
    pub fn start(place: &Place, threads: usize, agents: usize, prefix: &str) -> Self {
        let (count, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let threads = (0..threads)
            .map(|n| {
                let (place, count, over) = (place.clone(), count.clone(), over.clone());
                let prefix = format!("{prefix}{n}");
                std::thread::spawn(move || client(&place, &prefix, agents, &count, &over))
            })
            .collect();
        Self { count, over, threads }
    }

    /// Waits for so many more acknowledgements.
    pub fn wait_for(&self, more: usize) {
        let (from, began) = (self.count.load(SeqCst), Instant::now());
        while self.count.load(SeqCst) < from + more {
            assert!(began.elapsed() < Duration::from_secs(120), "there is no progress");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends them, and tells what was acknowledged.
    pub fn end(self) -> Acknowledged {
        self.over.store(true, SeqCst);
        let mut all = Acknowledged::default();
        for thread in self.threads {
            let one = thread.join().unwrap();
            all.appended.extend(one.appended);
            all.tasks.extend(one.tasks);
            all.odd.extend(one.odd);
        }
        all
    }
}

fn client(
    place: &Place,
    prefix: &str,
    agents: usize,
    count: &AtomicUsize,
    over: &AtomicBool,
) -> Acknowledged {
    let mut all = Acknowledged::default();
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .proxy(None)
        .build();
    let agent = config.new_agent();
    let post = |path: &str, key: &str, body: &Value| -> Option<(u16, Value)> {
        let (url, token) = place.get();
        let mut request =
            agent.post(format!("{url}{path}")).header("Authorization", format!("Bearer {token}"));
        if !key.is_empty() {
            request = request.header("Idempotency-Key", key);
        }
        let mut answer = request.send(body.to_string()).ok()?;
        let text = answer.body_mut().read_to_string().ok()?;
        Some((answer.status().as_u16(), serde_json::from_str(&text).unwrap_or_default()))
    };
    for n in 0.. {
        if over.load(SeqCst) {
            break;
        }
        let id = format!("{prefix}-{n}");
        let key = format!("k{}", fastrand::usize(..agents));
        // A third asks once, a third asks under a key until it is answered, a third submits.
        let (path, idempotency_key, body) = match n % 3 {
            0 => (format!("/api/v1/agents/counter/{key}/messages/Append"), "", json!({"id": id})),
            1 => (format!("/api/v1/agents/counter/{key}/messages/Append"), &*id, json!({"id": id})),
            _ => {
                let body =
                    json!({"target": format!("counter/{key}"), "message": "Append", "input": {"id": id}});
                ("/api/v1/tasks".to_owned(), &*id, body)
            }
        };
        loop {
            match post(&path, idempotency_key, &body) {
                Some((200, reply)) => {
                    let len = reply["len"].as_u64().unwrap();
                    all.appended.push((key.clone(), id.clone(), len));
                    count.fetch_add(1, SeqCst);
                }
                Some((202, task)) => {
                    all.tasks.push((task["id"].as_str().unwrap().to_owned(), key.clone(), id.clone()));
                    count.fetch_add(1, SeqCst);
                }
                // Nobody is there, it goes down, or it does not know: the same again, where that is safe.
                None | Some((503 | 504, _)) if !idempotency_key.is_empty() && !over.load(SeqCst) => {
                    std::thread::sleep(Duration::from_millis(3));
                    continue;
                }
                None | Some((503 | 504, _)) => std::thread::sleep(Duration::from_millis(3)),
                Some((status, body)) => all.odd.push((status, body.to_string())),
            }
            break;
        }
    }
    all
}

/// Checks that everything is there, once.
pub fn check(node: &Node, all: &Acknowledged) {
    assert!(all.odd.is_empty(), "{:?}", &all.odd[..all.odd.len().min(5)]);
    for (task, ..) in &all.tasks {
        let view = node.get(&format!("/api/v1/tasks/{task}?wait=30s"));
        assert_eq!(view.json["state"], "succeeded", "{view:?}");
    }
    let mut lists: HashMap<&str, Vec<String>> = HashMap::new();
    let keys = all.appended.iter().map(|(key, ..)| key).chain(all.tasks.iter().map(|(_, key, _)| key));
    for key in keys {
        lists.entry(key).or_insert_with(|| {
            let list = node.ask(key, "List", "{}");
            assert_eq!(list.status, 200, "{list:?}");
            list.json["ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
        });
    }
    for (key, list) in &lists {
        let mut sorted = list.clone();
        sorted.sort_unstable();
        let before = sorted.len();
        sorted.dedup();
        assert_eq!(sorted.len(), before, "counter/{key} has something twice");
    }
    for (key, id, len) in &all.appended {
        // The answer told its place, and there it is: no turn in between was lost or done again.
        assert_eq!(lists[key.as_str()].get(*len as usize - 1), Some(id), "counter/{key} at {len}");
    }
    for (task, key, id) in &all.tasks {
        assert!(lists[key.as_str()].contains(id), "task {task} left nothing in counter/{key}");
    }
}
