//! The node: a child process that is started, killed, and started again on the same data.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::{Failure, client::Client, ground::Ground, stop::Stop};

/// How long a node may take to be ready, or to end.
const NODE_TIMEOUT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);
/// The exit code of a node whose data directory is in use.
const IN_USE: i32 = 4;

/// What a node writes into its data directory when it is ready.
#[derive(Deserialize)]
struct Announced {
    url: String,
    pid: u32,
    boot: String,
}

/// The node. Dies with this value.
pub(super) struct Node {
    command: Vec<String>,
    data: PathBuf,
    child: Option<Child>,
    stop: Stop,
    /// How much of its log has been shown.
    shown: u64,
    /// How to reach it.
    pub client: Client,
}

impl Node {
    /// Starts a node, after ending one that an earlier demo left behind.
    pub fn start(ground: &Ground, stop: &Stop) -> Result<Self, Failure> {
        let patience = if end_stray(ground, stop) { NODE_TIMEOUT } else { Duration::from_secs(3) };
        let roots = serde_json::to_string(&[&ground.dir]).context("the directory's name is not UTF-8")?;
        let command = vec![
            "run".to_owned(),
            format!("--data-dir={}", ground.data.display()),
            format!("--set=tools.fs.roots={roots}"),
            "--set=node.probe=true".to_owned(),
            format!("--set=http.bind=127.0.0.1:{}", free_port()?),
        ];
        let (child, client) = launch(&command, &ground.data, stop, patience)?;
        let shown = fs::metadata(ground.data.join(LOG)).map_or(0, |log| log.len());
        Ok(Self { command, data: ground.data.clone(), child: Some(child), stop: stop.clone(), shown, client })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.data.join(LOG)
    }

    /// Whether its process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same data; says how long it took to be ready.
    pub fn start_again(&mut self) -> Result<Duration, Failure> {
        self.kill();
        let start = Instant::now();
        let (child, client) = launch(&self.command, &self.data, &self.stop, Duration::from_secs(3))?;
        (self.child, self.client) = (Some(child), client);
        Ok(start.elapsed())
    }

    /// An orderly end; by force if it takes too long.
    pub fn end(&mut self) {
        if self.client.stop_node().is_ok() {
            let start = Instant::now();
            while !self.has_ended() && start.elapsed() < NODE_TIMEOUT / 4 {
                std::thread::sleep(PAUSE);
            }
        }
        self.kill();
    }

    /// What its log says since the last time this was asked.
    pub fn news(&mut self) -> Vec<String> {
        let text = read_from(&self.log(), self.shown).unwrap_or_default();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.shown += whole as u64;
        text.get(..whole).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The node's log in its data directory.
const LOG: &str = "demo-node.log";

/// Starts the node; waits with patience while another one has the data directory.
fn launch(
    command: &[String],
    data: &Path,
    stop: &Stop,
    patience: Duration,
) -> Result<(Child, Client), Failure> {
    let start = Instant::now();
    let log = File::options().create(true).append(true).open(data.join(LOG)).context("the node's log")?;
    let own = std::env::current_exe().context("cannot find this program")?;
    loop {
        let mut child = Command::new(&own)
            .args(command)
            .current_dir(data) // no configuration file of the user's is read
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("the node's log")?)
            .stderr(log.try_clone().context("the node's log")?)
            .process_group(0) // the terminal's Ctrl-C is for the demo, which ends the node in order
            .without_configuration()
            .spawn()
            .context("cannot start the node")?;
        match ready(&mut child, data, stop, start) {
            Ok(Some(client)) => return Ok((child, client)),
            // The process before is still on its way out.
            Ok(None) if stop.wait(PAUSE * 10) => return Err(Failure::Interrupted),
            Ok(None) if start.elapsed() < patience => {}
            Ok(None) => return Err(Failure::InUse(format!("another node works in {}", data.display()))),
            Err(failure) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failure);
            }
        }
    }
}

/// Waits until the node can be talked to; `None`: its data directory is in use.
fn ready(child: &mut Child, data: &Path, stop: &Stop, since: Instant) -> Result<Option<Client>, Failure> {
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for the node")? {
            if status.code() == Some(IN_USE) {
                return Ok(None);
            }
            let log = read_from(&data.join(LOG), 0).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(12).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            return Err(anyhow::anyhow!("the node ended: {status}\n{}", last.join("\n")).into());
        }
        if let Some(there) = announced(data).filter(|there| there.pid == child.id())
            && let Ok(client) = Client::new(&there.url, data, stop.clone())
            && client.is_ready()
        {
            return Ok(Some(client));
        }
        if stop.wait(PAUSE) {
            return Err(Failure::Interrupted);
        }
        if since.elapsed() > NODE_TIMEOUT {
            let log = data.join(LOG);
            return Err(anyhow::anyhow!("the node is not ready after a minute: see {}", log.display()).into());
        }
    }
}

/// Ends the node that a demo left behind when it was killed whole; true: it is on its way out.
fn end_stray(ground: &Ground, stop: &Stop) -> bool {
    let Some(there) = announced(&ground.data) else { return false };
    let Ok(client) = Client::new(&there.url, &ground.data, stop.clone()) else { return false };
    // Another boot id: it is gone, and somebody else has its port.
    client.boot().as_deref() == Some(&there.boot) && client.stop_node().is_ok()
}

fn announced(data: &Path) -> Option<Announced> {
    serde_json::from_slice(&fs::read(data.join("node.json")).ok()?).ok()
}

/// The usual port, or a free one.
fn free_port() -> anyhow::Result<u16> {
    let usual = TcpListener::bind((Ipv4Addr::LOCALHOST, 7710));
    let listener = usual.or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

fn read_from(path: &Path, at: u64) -> anyhow::Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(4 << 20).read_to_end(&mut bytes)?;
    if bytes.is_empty() {
        bail!("nothing new");
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

trait WithoutConfiguration {
    /// Takes away what in the environment would configure the node.
    fn without_configuration(&mut self) -> &mut Self;
}

impl WithoutConfiguration for Command {
    fn without_configuration(&mut self) -> &mut Self {
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("GREENROOM_") || text == "DATABASE_URL" || text == "REDIS_URL" {
                self.env_remove(&name);
            }
        }
        self
    }
}
