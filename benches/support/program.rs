//! The program as anybody runs it, and one connection to it.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use greenroom::http::Announcement;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// The program, as a process of its own; it is killed with this.
pub struct Program {
    child: Child,
    pub address: String,
    token: String,
}

impl Program {
    /// Starts it and waits until it listens; `url`: of a Postgres.
    pub fn start(data: &Path, url: Option<String>) -> anyhow::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_greenroom"));
        command.args(["run", "--set", "http.bind=127.0.0.1:0", "--set", "node.probe=true", "--data-dir"]);
        command.arg(data).env_remove("DATABASE_URL").env_remove("REDIS_URL").current_dir(data);
        if let Some(url) = url {
            command.args(["--set", &format!("store.url={url}")]);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let begun = Instant::now();
        let announced = loop {
            if let Some(announced) = Announcement::read(data) {
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

    /// How many files and connections it has open.
    pub fn open_files(&self) -> anyhow::Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }

    /// A request to it, as it is written.
    pub fn request(&self, line: &str, body: &str) -> String {
        format!(
            "{line} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            self.token,
            body.len()
        )
    }

    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, answer: Vec::new() })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection that stays open.
pub struct Connection {
    pub stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    /// Sends a request and reads its answer, which has to be 200.
    pub async fn ask(&mut self, request: &str) -> anyhow::Result<()> {
        self.stream.write_all(request.as_bytes()).await?;
        self.answer.clear();
        while !is_whole(&self.answer) {
            ensure!(self.stream.read_buf(&mut self.answer).await? > 0, "the connection ended");
        }
        self.is_good()
    }

    /// As [`Connection::ask`], of an answer that goes on: its head has come.
    pub async fn open(&mut self, request: &str) -> anyhow::Result<()> {
        self.stream.write_all(request.as_bytes()).await?;
        self.answer.clear();
        while !self.answer.windows(4).any(|four| four == b"\r\n\r\n") {
            ensure!(self.stream.read_buf(&mut self.answer).await? > 0, "the connection ended");
        }
        self.is_good()
    }

    fn is_good(&self) -> anyhow::Result<()> {
        if !self.answer.starts_with(b"HTTP/1.1 200") {
            bail!("{}", String::from_utf8_lossy(&self.answer));
        }
        Ok(())
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
