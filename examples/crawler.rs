//! A crawler: an agent for each host, which fetches one page at a time and pauses in between. What is found
//! is submitted to the host that it belongs to, so that a crawl outlives its process at any moment.
//!
//! ```text
//! cargo run --example crawler -- run
//! cargo run --example crawler -- run --set app.crawl.pause_ms=1000
//! cargo run --example crawler -- agents state host/press.test
//! ```
//!
//! The web is a small one in this file: put an HTTP client in the tool's place for the other one.

use greenroom::prelude::*;
use std::collections::{BTreeSet, VecDeque};

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Visit {
    url: String,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Get {
    url: String,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Page {
    status: u16,
    links: Vec<String>,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Next {}

message! { Visit -> (); Get -> Page; Next -> () }

/// `app.crawl.*` of the configuration.
#[derive(Deserialize, JsonSchema)]
#[serde(default)]
struct Crawl {
    /// Who asks.
    user_agent: String,
    /// How long a host is left alone after a page.
    pause_ms: u64,
}

impl Default for Crawl {
    fn default() -> Self {
        Self { user_agent: "crawler-example".into(), pause_ms: 200 }
    }
}

impl Settings for Crawl {
    const SECTION: &'static str = "crawl";
    fn validate(&self) -> Result<()> {
        ensure!(!self.user_agent.is_empty(), "`user_agent` is to say who asks");
        Ok(())
    }
}

/// One for each host.
#[derive(Default, Serialize, Deserialize)]
struct Host {
    seen: BTreeSet<String>,
    queue: VecDeque<String>,
    /// A page is on its way, or the pause after one.
    busy: bool,
    fetched: u64,
    dead: u64,
}

impl Agent for Host {
    const KIND: &'static str = "host";
    type Messages = (Visit, Next, Done<Get>);
    fn policy() -> Policy {
        // A crawl meets many hosts: those with nothing to do leave memory.
        Policy::default().mailbox(4_096).idle_timeout(Duration::from_secs(30)).max_live(1_000)
    }
}

impl Handler<Visit> for Host {
    async fn handle(&mut self, v: Visit, turn: &Turn<Self>) -> Result<()> {
        if self.seen.insert(v.url.clone()) {
            self.queue.push_back(v.url);
        }
        if !self.busy {
            self.next(turn);
        }
        Ok(())
    }
}

impl Handler<Next> for Host {
    async fn handle(&mut self, _: Next, turn: &Turn<Self>) -> Result<()> {
        self.next(turn);
        Ok(())
    }
}

impl Handler<Done<Get>> for Host {
    async fn handle(&mut self, done: Done<Get>, turn: &Turn<Self>) -> Result<()> {
        match done.outcome {
            Outcome::Succeeded(page) if page.status == 200 => {
                self.fetched += 1;
                for url in page.links {
                    turn.agent::<Host>(host(&url)).submit(Visit { url });
                }
            }
            _ => self.dead += 1,
        }
        // `turn.timer` would be lost with the process, and `busy` would stay: this pause is a task.
        let pause = Duration::from_millis(turn.settings::<Crawl>().pause_ms);
        turn.agent::<Host>(turn.key()).submit(Next {}).run_in(pause);
        Ok(())
    }
}

impl Host {
    fn next(&mut self, turn: &Turn<Self>) {
        self.busy = match self.queue.pop_front() {
            Some(url) => {
                turn.tool::<Http>().submit(Get { url }).max_attempts(3).notify();
                true
            }
            None => false,
        };
    }
}

/// `press.test` of `https://press.test/news`.
fn host(url: &str) -> &str {
    url.split('/').nth(2).unwrap_or("nowhere")
}

struct Http;

impl Tool for Http {
    const NAME: &'static str = "http.get";
    const EFFECT: Effect = Effect::Idempotent;
    type Input = Get;
    fn limits(&self) -> greenroom::Limits {
        greenroom::Limits { concurrency: Some(64), ..Default::default() }
    }
    async fn run(&self, get: Get, call: &Call) -> Result<Page> {
        let found = WEB.iter().find(|(url, _)| *url == get.url);
        let (status, links) = found.map_or((404, &[][..]), |(_, links)| (200, *links));
        println!("{} {status} for {}", get.url, call.settings::<Crawl>().user_agent);
        Ok(Page { status, links: links.iter().map(|link| (*link).to_owned()).collect() })
    }
}

/// Pages, and where they lead.
const WEB: &[(&str, &[&str])] = &[
    ("https://press.test/", &["https://press.test/news", "https://shop.test/"]),
    ("https://press.test/news", &["https://press.test/", "https://press.test/gone"]),
    ("https://shop.test/", &["https://shop.test/tea", "https://press.test/"]),
    ("https://shop.test/tea", &["https://shop.test/"]),
];

async fn begin(handle: Handle) -> Result<()> {
    // Under a key: a process that is started again does not begin again.
    let first = Visit { url: "https://press.test/".into() };
    handle.agent::<Host>("press.test").submit(first).idempotency_key("begin").await?;
    Ok(())
}

fn program() -> greenroom::Builder {
    Runtime::builder().settings::<Crawl>().agent::<Host>().tool(Http)
}

fn main() -> ExitCode {
    program().on_ready(begin).main()
}

/// `cargo test --example crawler`: on a clock and a store of the test's own, and once more with a crash at
/// each place where a turn may be cut off.
#[cfg(test)]
mod tests {
    use super::*;
    use greenroom::testkit;

    #[test]
    fn a_crawl_that_is_cut_off_anywhere_fetches_each_page_once() -> Result<()> {
        testkit::for_each_crash_point(program, async |kit| {
            begin(kit.handle().clone()).await?;
            for _ in 0..5 {
                kit.advance(Duration::from_millis(200)).await;
            }
            for (host, seen, fetched) in [("press.test", 3, 2), ("shop.test", 2, 2)] {
                let host = kit.state::<Host>(host)?;
                assert_eq!(
                    (host.seen.len(), host.fetched, host.dead),
                    (seen, fetched, seen as u64 - fetched)
                );
                assert!(host.queue.is_empty() && !host.busy);
            }
            Ok(())
        })
    }
}
