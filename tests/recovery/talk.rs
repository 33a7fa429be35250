//! Speakers who go on when their node dies: messages that were acknowledged are there, once, each in its
//! place.

#![allow(dead_code)] // each test binary uses a part of it

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    clients::{Place, patient, progress, sized},
    support::Node,
};

/// What was acknowledged: the text, and its place.
type Said = Vec<(String, u64)>;

/// Speakers under way, all in one conversation.
pub struct Speakers {
    path: String,
    count: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    gone: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Said>>,
}

impl Speakers {
    /// Starts so many.
    pub fn start(node: &Node, place: &Place, threads: usize) -> Self {
        let made = node.post("/api/v1/conversations", "").json;
        let path = format!("/api/v1/conversations/{}", made["id"].as_str().unwrap());
        let mut speakers = Self {
            path,
            count: Arc::default(),
            refused: Arc::default(),
            over: Arc::default(),
            gone: Arc::default(),
            threads: Vec::new(),
        };
        for name in 0..threads {
            let speaker = Speaker {
                place: place.clone(),
                path: speakers.path.clone(),
                name,
                count: speakers.count.clone(),
                refused: speakers.refused.clone(),
                over: speakers.over.clone(),
                gone: speakers.gone.clone(),
            };
            speakers.threads.push(std::thread::spawn(move || speaker.speak()));
        }
        speakers
    }

    /// Waits for so many more acknowledgements.
    pub fn wait_for(&self, more: usize) {
        progress(&self.count, more);
    }

    /// How often one of them was not answered as it should.
    pub fn refused(&self) -> usize {
        self.refused.load(SeqCst)
    }

    /// Ends them, and checks that everything is there, once, and nothing else.
    pub fn end(mut self, node: &Node) {
        self.over.store(true, SeqCst);
        let said: Said =
            std::mem::take(&mut self.threads).into_iter().flat_map(|s| s.join().unwrap()).collect();
        let (mut all, mut cursor) = (Vec::new(), 0);
        loop {
            let page = node.get(&format!("{}/messages?order=asc&limit=500&cursor={cursor}", self.path)).json;
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
}

/// As of [`crate::clients::Clients`].
impl Drop for Speakers {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        self.gone.store(true, SeqCst);
    }
}

struct Speaker {
    place: Place,
    path: String,
    name: usize,
    count: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    /// Nobody asks any more what was said.
    gone: Arc<AtomicBool>,
}

impl Speaker {
    /// Says one thing after the other, each until it is acknowledged, and looks whether it is there.
    fn speak(&self) -> Said {
        let agent = patient();
        let mut said = Said::new();
        while !self.over.load(SeqCst) {
            let text = format!("{}-{}", self.name, said.len());
            let body = json!({"role": "user", "content": text}).to_string();
            let seq = loop {
                let (url, token) = self.place.get();
                let sent = agent
                    .post(format!("{url}{}/messages", self.path))
                    .header("Authorization", format!("Bearer {token}"))
                    .header("Idempotency-Key", &text)
                    .send(&body);
                match read(sent) {
                    _ if self.gone.load(SeqCst) => return said,
                    None | Some((503 | 504, _)) => {
                        self.refused.fetch_add(1, SeqCst);
                        std::thread::sleep(Duration::from_millis(3));
                    }
                    Some((201, answer)) => break answer["seq"].as_u64().unwrap(),
                    Some(other) => panic!("{other:?}"),
                }
            };
            let (url, token) = self.place.get();
            let newest = agent
                .get(format!("{url}{}/messages?limit=3", self.path))
                .header("Authorization", format!("Bearer {token}"))
                .call();
            match read(newest) {
                Some((200, page)) => {
                    let newest = page["items"][0]["seq"].as_u64().unwrap();
                    assert!(newest >= seq, "whoever was answered sees it: {newest} is older than {seq}");
                }
                _ => {
                    self.refused.fetch_add(1, SeqCst);
                }
            }
            said.push((text, seq));
            self.count.fetch_add(1, SeqCst);
        }
        said
    }
}

fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Option<(u16, Value)> {
    let mut answer = answer.ok()?;
    let text = answer.body_mut().read_to_string().ok()?;
    Some((answer.status().as_u16(), serde_json::from_str(&text).unwrap_or_default()))
}

/// Has a node killed under speakers again and again.
pub fn outlives_kills(node: &mut Node) {
    let place = Place::default();
    place.is(node);
    let speakers = Speakers::start(node, &place, sized(8, 32));
    for _ in 0..sized(3, 20) {
        speakers.wait_for(sized(150, 3_000));
        node.kill();
        node.start_again();
        place.is(node);
    }
    speakers.wait_for(50);
    speakers.end(node);
}
