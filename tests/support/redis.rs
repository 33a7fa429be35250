//! A Redis server of a test's own: on a free port, with a directory of its own, gone when dropped.
#![allow(dead_code)] // each test binary uses a part of it

#[path = "install.rs"]
mod install;
#[path = "port.rs"]
mod port;

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// A server.
pub struct Redis {
    child: Option<Child>,
    dir: TempDir,
    args: Vec<String>,
    /// Where it listens.
    pub port: u16,
    tls: bool,
}

impl Redis {
    /// Starts a server.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with these arguments besides the usual ones; `{dir}` is its directory.
    pub fn start_with(args: &[&str]) -> Self {
        Self::start_in(TempDir::new().unwrap(), args)
    }

    /// Starts a server in a directory that may hold files for it.
    pub fn start_in(dir: TempDir, args: &[&str]) -> Self {
        let home = dir.path().to_string_lossy().into_owned();
        let args: Vec<_> = args.iter().map(|arg| arg.replace("{dir}", &home)).collect();
        let tls = args.iter().any(|arg| arg == "--tls-port");
        let mut redis = Self { child: None, dir, args, port: 0, tls };
        // Somebody else may take a port between its choice and its use.
        for _ in 0..5 {
            redis.port = port::free();
            if redis.launch() {
                return redis;
            }
        }
        panic!("redis-server does not start: {}", redis.log());
    }

    /// Starts it again, on the same port and files, after [`Redis::kill`].
    pub fn start_again(&mut self) {
        assert!(self.child.is_none());
        assert!(self.launch(), "redis-server does not start again: {}", self.log());
    }

    fn launch(&mut self) -> bool {
        let port = self.port.to_string();
        let (plain, secure) = if self.tls { ("0", port.as_str()) } else { (port.as_str(), "0") };
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let mut command = Command::new(install::folder(&install::REDIS).join("redis-server"));
        command.args(["--port", plain, "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]);
        command.arg("--dir").arg(self.dir.path());
        for arg in &self.args {
            command.arg(if arg == "{port}" { secure } else { arg });
        }
        command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
        let mut child = command.spawn().expect("redis-server");
        let began = Instant::now();
        loop {
            if self.tls && TcpStream::connect(("127.0.0.1", self.port)).is_ok() || self.answers() {
                self.child = Some(child);
                return true;
            }
            if child.try_wait().unwrap().is_some() || began.elapsed() > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether it is up and has read its files.
    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        let mut answer = [0; 7];
        let asked = stream.write_all(b"PING\r\n").and_then(|()| stream.read(&mut answer));
        asked.is_ok() && (answer.starts_with(b"+PONG") || answer.starts_with(b"-NOAUTH"))
    }

    /// Where it is.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "rediss" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// What it says to a command.
    pub fn say(&self, command: &[&str]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut sent = format!("*{}\r\n", command.len()).into_bytes();
        for word in command {
            sent.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        stream.write_all(&sent).unwrap();
        stream.write_all(b"QUIT\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        answer.strip_suffix("+OK\r\n").unwrap_or(&answer).to_owned()
    }

    /// The names of its keys that hold this text.
    pub fn keys(&self, text: &str) -> Vec<String> {
        let all = self.say(&["KEYS", "*"]);
        all.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }

    /// SIGSTOP: it neither answers nor hangs up.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Its directory.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
