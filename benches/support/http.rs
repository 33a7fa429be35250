//! Durable asks through HTTP, of the program as it is run: what a caller outside of it gets. The callers
//! share the machine with it, over connections that stay open.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use greenroom::http::Announcement;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    ground::directory,
    measure::{Better, Plan, Row, Unit, median, p50},
};

const CALLERS: usize = 64;

/// How the row of a store is called.
pub fn name(store: &str) -> String {
    format!("{store}durable asks through HTTP, {CALLERS} callers, {CALLERS} agents")
}

/// On SQLite.
pub fn measure(plan: &mut Plan) -> anyhow::Result<()> {
    row(plan, "", None)
}

/// One row; `url`: of a Postgres.
pub fn row(plan: &mut Plan, store: &str, url: Option<String>) -> anyhow::Result<()> {
    let name = name(store);
    if !plan.wants(&name) {
        return Ok(());
    }
    let data = directory()?;
    let program = Program::start(data.path(), url)?;
    let callers = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut rates, mut waits) = (Vec::new(), Vec::new());
    for round in 0..=plan.rounds() {
        let begun = Instant::now();
        let took = callers.block_on(program.asked(begun + plan.stretch() * 2))?;
        // the first one warms up
        if round > 0 {
            rates.push(took.len() as f64 / begun.elapsed().as_secs_f64());
            waits.push(p50(took));
        }
    }
    let note = format!("p50 {:.1} ms", median(waits) / 1e3);
    plan.add(Row {
        name,
        unit: Unit::PerSecond,
        better: Better::More,
        peers: Vec::new(),
        ours: rates,
        goal: None,
        note,
    });
    Ok(())
}

/// The program, run as anybody runs it.
struct Program {
    child: Child,
    address: String,
    token: String,
}

impl Program {
    fn start(data: &Path, url: Option<String>) -> anyhow::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_greenroom"));
        command.args(["run", "--set", "http.bind=127.0.0.1:0", "--set", "node.probe=true", "--data-dir"]);
        command.arg(data).env_remove("DATABASE_URL").env_remove("REDIS_URL").current_dir(data);
        if let Some(url) = url {
            command.args(["--set", &format!("store.url={url}")]);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let begun = Instant::now();
        let announced = loop {
            if let Some(announced) = Announcement::read(&PathBuf::from(data)) {
                break announced;
            }
            ensure!(
                child.try_wait()?.is_none() && begun.elapsed() < Duration::from_secs(30),
                "it does not start"
            );
            std::thread::sleep(Duration::from_millis(5));
        };
        let address = announced.url.strip_prefix("http://").context("no HTTP")?.to_owned();
        let token = std::fs::read_to_string(data.join("token"))?.trim().to_owned();
        Ok(Self { child, address, token })
    }

    /// How long each ask took that was answered until then.
    async fn asked(&self, until: Instant) -> anyhow::Result<Vec<Duration>> {
        let callers = (0..CALLERS).map(|n| self.caller(n, until));
        Ok(futures_util::future::try_join_all(callers).await?.concat())
    }

    async fn caller(&self, n: usize, until: Instant) -> anyhow::Result<Vec<Duration>> {
        let mut stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let body = r#"{"n":1}"#;
        let request = format!(
            "POST /api/v1/agents/counter/{n}/messages/Add HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            self.token,
            body.len()
        );
        let (mut took, mut answer) = (Vec::new(), Vec::new());
        let mut now = Instant::now();
        while now < until {
            stream.write_all(request.as_bytes()).await?;
            answer.clear();
            while !is_whole(&answer) {
                ensure!(stream.read_buf(&mut answer).await? > 0, "the connection ended");
            }
            if !answer.starts_with(b"HTTP/1.1 200") {
                bail!("{}", String::from_utf8_lossy(&answer));
            }
            let then = Instant::now();
            took.push(then - now);
            now = then;
        }
        Ok(took)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether an answer has come to its end.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.to_ascii_lowercase();
    let length = length.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    body.len() >= length.unwrap_or(0)
}
