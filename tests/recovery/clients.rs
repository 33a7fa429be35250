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
    /// An id that was appended: to which agent, with the length and the version that were answered.
    pub appended: Vec<(String, String, u64, u64)>,
    /// A task that was accepted: its id, the agent, what it appends.
    pub tasks: Vec<(String, String, String)>,
    /// What was answered with neither success nor a reason to try again.
    pub odd: Vec<(u16, String)>,
    /// How often there was no answer, or one to try again.
    pub refused: usize,
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
        progress(&self.count, more);
    }

    /// Ends them, and tells what was acknowledged.
    pub fn end(mut self) -> Acknowledged {
        self.over.store(true, SeqCst);
        let mut all = Acknowledged::default();
        for thread in std::mem::take(&mut self.threads) {
            let one = thread.join().unwrap();
            all.appended.extend(one.appended);
            all.tasks.extend(one.tasks);
            all.odd.extend(one.odd);
            all.refused += one.refused;
        }
        all
    }
}

/// Those of a test that has failed must not keep the machine from the others.
impl Drop for Clients {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
    }
}

/// Waits until a count has risen by so much, however slow the machine is.
pub fn progress(count: &AtomicUsize, more: usize) {
    let from = count.load(SeqCst);
    let (mut last, mut since) = (from, Instant::now());
    while last < from + more {
        assert!(since.elapsed() < Duration::from_secs(60), "there is no progress");
        std::thread::sleep(Duration::from_millis(2));
        let now = count.load(SeqCst);
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}

/// How nodes are asked that may not be there.
pub fn patient() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .proxy(None)
        .build();
    config.new_agent()
}

fn client(
    place: &Place,
    prefix: &str,
    agents: usize,
    count: &AtomicUsize,
    over: &AtomicBool,
) -> Acknowledged {
    let mut all = Acknowledged::default();
    let agent = patient();
    let post = |path: &str, key: &str, body: &Value| -> Option<(u16, u64, Value)> {
        let (url, token) = place.get();
        let mut request =
            agent.post(format!("{url}{path}")).header("Authorization", format!("Bearer {token}"));
        if !key.is_empty() {
            request = request.header("Idempotency-Key", key);
        }
        let mut answer = request.send(body.to_string()).ok()?;
        let version = answer.headers().get("Greenroom-Version").and_then(|v| v.to_str().ok()?.parse().ok());
        let text = answer.body_mut().read_to_string().ok()?;
        let body = serde_json::from_str(&text).unwrap_or_default();
        Some((answer.status().as_u16(), version.unwrap_or(0), body))
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
            let answer = post(&path, idempotency_key, &body);
            all.refused += usize::from(matches!(answer, None | Some((503 | 504 | 507, ..))));
            match answer {
                Some((200, version, reply)) => {
                    let len = reply["len"].as_u64().unwrap();
                    all.appended.push((key.clone(), id.clone(), len, version));
                    count.fetch_add(1, SeqCst);
                }
                Some((202, _, task)) => {
                    all.tasks.push((task["id"].as_str().unwrap().to_owned(), key.clone(), id.clone()));
                    count.fetch_add(1, SeqCst);
                }
                // Nobody is there, it goes down, it has no room, or it does not know: the same again, where
                // that is safe.
                None | Some((503 | 504 | 507, ..)) if !idempotency_key.is_empty() && !over.load(SeqCst) => {
                    std::thread::sleep(Duration::from_millis(3));
                    continue;
                }
                None | Some((503 | 504 | 507, ..)) => std::thread::sleep(Duration::from_millis(3)),
                Some((status, _, body)) => all.odd.push((status, body.to_string())),
            }
            break;
        }
    }
    all
}

/// Loads a node, does `disturb` to it again and again, and once more when the load has ended (the number
/// of rounds tells it to leave things in order); checks that nothing acknowledged was lost or done twice,
/// neither before nor after a last restart.
pub fn survives(node: &mut Node, rounds: usize, mut disturb: impl FnMut(&mut Node, usize)) {
    let place = Place::default();
    place.is(node);
    let clients = Clients::start(&place, sized(16, 64), sized(100, 1_000), "c");
    for round in 0..rounds {
        clients.wait_for(sized(400, 5_000));
        disturb(node, round);
        place.is(node);
    }
    clients.wait_for(sized(200, 2_000));
    let all = clients.end();
    disturb(node, rounds);
    assert!(all.appended.len() > rounds * sized(200, 2_500) && all.tasks.len() > rounds * sized(75, 500));
    check(node, &all);
    // What is there is there to stay.
    node.kill();
    node.start_again();
    check(node, &all);
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
        let mut first: HashMap<&str, usize> = HashMap::new();
        for (at, id) in list.iter().enumerate() {
            if let Some(before) = first.insert(id, at) {
                let told = all.appended.iter().filter(|(k, ..)| k == key).collect::<Vec<_>>();
                panic!(
                    "counter/{key} has {id} at {before} and at {at}: {list:?}; told: {told:?}\n{}",
                    node.log()
                );
            }
        }
    }
    for (key, id, len, _) in &all.appended {
        // The answer told its place, and there it is: no turn in between was lost or done again.
        assert_eq!(lists[key.as_str()].get(*len as usize - 1), Some(id), "counter/{key} at {len}");
    }
    versions_have_no_gaps(all);
    for (task, key, id) in &all.tasks {
        assert!(lists[key.as_str()].contains(id), "task {task} left nothing in counter/{key}");
    }
}

/// Each commit raises the version by one and covers at least one append: between two answers there are
/// never more versions than appends, and never fewer where a later answer names a later one.
fn versions_have_no_gaps(all: &Acknowledged) {
    let mut answers: HashMap<&str, Vec<(u64, u64)>> = HashMap::new();
    // a replayed answer names no version
    for (key, _, len, version) in all.appended.iter().filter(|(.., version)| *version > 0) {
        answers.entry(key).or_default().push((*len, *version));
    }
    for (key, mut answers) in answers {
        answers.sort_unstable();
        answers.insert(0, (0, 0));
        for pair in answers.windows(2) {
            let ((len, version), (later, next)) = (pair[0], pair[1]);
            assert!(
                next >= version && next - version <= later - len,
                "counter/{key}: version {version} at {len}, version {next} at {later}"
            );
        }
    }
}
