//! What end-to-end tests share: a node as a process of its own, its API and its command line.
//!
//! `let node = Node::start(&[]);` runs the binary on a free port, with a data directory of its own
//! and the probe `counter`, and waits until it is ready. Dropped, it is killed and its directory goes.
#![allow(dead_code)] // each test binary uses a part of it

pub mod contract;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

pub use contract::Contract;
use serde_json::Value;
use tempfile::TempDir;

/// How long a node may take to be ready, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node.
pub struct Node {
    child: Option<Child>,
    home: Home,
    /// Where its API is.
    pub url: String,
    /// What it wants to be shown.
    pub token: String,
    sets: Vec<String>,
    contract: OnceLock<Contract>,
    /// Whom requests to it believe to be it.
    pub trust: ureq::tls::TlsConfig,
}

/// A directory with the node's data, its log, and nothing of anybody else's.
struct Home(TempDir);

impl Home {
    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// The binary, in this directory, with an environment that says nothing.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_greenroom"));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("GREENROOM_") || text == "DATABASE_URL" || text == "REDIS_URL" {
                command.env_remove(&name);
            }
        }
        command.args(args).current_dir(self.0.path()).env("NO_COLOR", "1");
        command
    }
}

/// What the API answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body as it came.
    pub text: String,
    /// The body as JSON; null where it is none.
    pub json: Value,
}

impl Answer {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Checks that it is this problem, as a document.
    #[track_caller]
    pub fn is_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.json["code"].as_str()), (status, Some(code)), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.json["status"], status);
        for member in ["type", "title", "detail"] {
            assert!(self.json[member].is_string(), "no {member}: {self:?}");
        }
        assert_eq!(self.header("retry-after").is_some(), matches!(status, 429 | 503 | 507), "{self:?}");
    }
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Said {
    /// The exit code.
    pub code: i32,
    /// Its stdout.
    pub out: String,
    /// Its stderr.
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    /// Its stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Waits until it is so.
#[track_caller]
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The certificate authority of `tests/support/tls`.
pub const CA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/tls/ca.pem");

/// Believes those whose certificate is signed with that of a PEM file.
pub fn trusting(ca: impl AsRef<Path>) -> ureq::tls::TlsConfig {
    use ureq::tls::{Certificate, RootCerts, TlsConfig};
    let root = Certificate::from_pem(&fs::read(ca).unwrap()).unwrap();
    TlsConfig::builder()
        .root_certs(RootCerts::Specific(vec![root].into()))
        .unversioned_rustls_crypto_provider(rustls::crypto::ring::default_provider().into())
        .build()
}

/// Runs the binary once, without a node, in a directory of its own.
pub fn cli_alone(args: &[&str]) -> Said {
    let home = Home(TempDir::new().unwrap());
    home.command(args).stdin(Stdio::null()).output().unwrap().into()
}

impl Node {
    /// Starts a node with these settings besides the usual ones, and waits until it is ready.
    pub fn start(sets: &[&str]) -> Self {
        let sets = sets.iter().map(|set| (*set).to_owned()).collect();
        let home = Home(TempDir::new().unwrap());
        let mut node = Self {
            child: None,
            home,
            url: String::new(),
            token: String::new(),
            sets,
            trust: trusting(CA),
            contract: OnceLock::new(),
        };
        node.start_again();
        node
    }

    /// Starts it on the same data, after [`Node::kill`] or [`Node::terminate`].
    pub fn start_again(&mut self) {
        let _ = fs::remove_file(self.data_dir().join("node.json"));
        let data = self.data_dir().to_string_lossy().into_owned();
        let mut command = self.home.command(&["run", "--data-dir", &data]);
        for set in ["http.bind=127.0.0.1:0", "node.probe=true", "store.durability=relaxed"] {
            command.args(["--set", set]);
        }
        for set in &self.sets {
            command.args(["--set", set]);
        }
        let log = fs::File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let began = Instant::now();
        let announced = loop {
            if let Some(announced) = greenroom::http::Announcement::read(&self.data_dir()) {
                break announced;
            }
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the node ended with {status}:\n{}", self.log());
            }
            if began.elapsed() > PATIENCE {
                let _ = child.kill();
                panic!("the node is not ready after {PATIENCE:?}:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(announced.pid, child.id());
        self.url = announced.url;
        let own = || fs::read_to_string(self.data_dir().join("token")).unwrap().trim().to_owned();
        let set = self.sets.iter().find_map(|set| set.strip_prefix("http.token="));
        self.token = set.map_or_else(own, str::to_owned);
        self.child = Some(child);
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.home.data()
    }

    /// The directory in which its commands run.
    pub fn dir(&self) -> &Path {
        self.home.0.path()
    }

    fn log_path(&self) -> PathBuf {
        self.home.0.path().join("log")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// What it has logged so far of these events, where it logs as JSON.
    pub fn told(&self, events: &[&str]) -> Vec<Value> {
        let log = self.log();
        let records = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records.filter(|r| events.iter().any(|event| r["event"] == *event)).collect()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Whether its process has ended by itself.
    pub fn is_over(&mut self) -> bool {
        let over = self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some());
        if over {
            self.child = None;
        }
        over
    }

    /// `GET`; `None`: nobody answers.
    pub fn try_get(&self, path: &str) -> Option<Value> {
        let bearer = format!("Bearer {}", self.token);
        let sent = ureq::get(format!("{}{path}", self.url)).header("Authorization", &bearer).call();
        sent.ok()?.body_mut().read_to_string().ok().and_then(|text| serde_json::from_str(&text).ok())
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.wait_for_end()
    }

    /// Waits until it has ended by itself.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if began.elapsed() > PATIENCE {
                let _ = child.kill();
                panic!("the node has not ended after {PATIENCE:?}:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A request with the token and these headers.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let all: Vec<(&str, &str)> =
            [("Authorization", bearer.as_str())].into_iter().chain(headers.iter().copied()).collect();
        self.send_bare(method, path, &all, body)
    }

    /// A request with these headers alone.
    pub fn send_bare(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Answer {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .max_redirects(0)
            .timeout_global(Some(PATIENCE * 2))
            .proxy(None)
            .tls_config(self.trust.clone())
            .build();
        let agent = config.new_agent();
        let contract = self.contract.get_or_init(|| {
            let document = agent.get(format!("{}/api/v1/openapi.json", self.url)).call().unwrap();
            Contract::new(serde_json::from_reader(document.into_body().into_reader()).unwrap())
        });
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = match body {
            Some(body) => agent.run(request.body(body.to_owned()).unwrap()),
            None => agent.run(request.body(()).unwrap()),
        };
        let mut response = sent.unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.log()));
        let headers = response.headers().iter();
        let headers = headers
            .map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned()))
            .collect();
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().unwrap();
        let answer = Answer { status, headers, json: serde_json::from_str(&text).unwrap_or_default(), text };
        contract.holds(method, path, &answer);
        answer
    }

    /// `GET`.
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None)
    }

    /// `POST`.
    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, &[], Some(body))
    }

    /// Asks `counter/KEY`.
    pub fn ask(&self, key: &str, message: &str, body: &str) -> Answer {
        self.post(&format!("/api/v1/agents/counter/{key}/messages/{message}"), body)
    }

    /// A client command against this node, not started yet.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(args);
        command.env("GREENROOM_URL", &self.url).env("GREENROOM_TOKEN", &self.token).stdin(Stdio::null());
        command
    }

    /// A client command against this node, and its input.
    pub fn cli_with(&self, args: &[&str], input: &str) -> Said {
        use std::io::Write as _;
        let mut command = self.home.command(args);
        command.env("GREENROOM_URL", &self.url).env("GREENROOM_TOKEN", &self.token);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A command that reads nothing may have ended by now.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap().into()
    }

    /// A client command against this node.
    pub fn cli(&self, args: &[&str]) -> Said {
        self.cli_with(args, "")
    }

    /// A command in this node's directory that has to find everything by itself.
    pub fn cli_unaided(&self, args: &[&str]) -> Said {
        self.home.command(args).stdin(Stdio::null()).output().unwrap().into()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // What a killed program has run does not count as covered.
        if self.child.is_some()
            && std::env::var_os("LLVM_PROFILE_FILE").is_some()
            && !std::thread::panicking()
        {
            self.terminate();
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the node's log:\n{}", self.log());
        }
    }
}
