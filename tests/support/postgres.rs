//! Postgres for tests: one server that all test processes of this tree share, and servers of a
//! test's own for those that stop, kill or freeze it.
//!
//! `let database = Database::new();` is an empty database on the shared server, which is started by
//! whoever comes first and stopped when the last process that uses it has gone. It does not sync
//! its files: tests of durability start a [`Server`].
#![allow(dead_code)] // each test binary uses a part of it

#[path = "install.rs"]
mod install;
#[path = "port.rs"]
pub mod port;

use std::{
    fs::{self, File},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// How long a server may take to come up, or to go down.
const PATIENCE: Duration = Duration::from_secs(60);

/// What makes a server fast whose data nobody will miss.
const CARELESS: &[&str] = &["fsync=off", "full_page_writes=off"];

/// What every server of ours runs with.
const SMALL: &[&str] = &[
    "shared_buffers=64MB",
    "max_connections=200",
    "wal_level=minimal",
    "max_wal_senders=0",
    "dynamic_shared_memory_type=posix",
    "logging_collector=off",
];

/// Runs a program of Postgres's as somebody who may.
fn program(name: &str) -> Command {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| install::folder(&install::POSTGRES));
    let mut command = Command::new(folder.join(name));
    command.env("LC_ALL", "C").env_remove("PGPASSWORD").env_remove("PGOPTIONS").stdin(Stdio::null());
    command
}

/// As `postgres` where we are root: a server refuses to run as root.
fn as_owner(command: &mut Command) -> &mut Command {
    if let Some((user, group)) = owner() {
        command.uid(user).gid(group).current_dir("/");
    }
    command
}

fn owner() -> Option<(u32, u32)> {
    static OWNER: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *OWNER.get_or_init(|| {
        install::is_root().then(|| {
            install::folder(&install::POSTGRES); // its package makes the user
            let id = |what| {
                install::id(&[what, "postgres"]).expect("there is no user `postgres` to run the server")
            };
            (id("-u"), id("-g"))
        })
    })
}

fn give(path: &Path) {
    if let Some((user, group)) = owner() {
        std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
    }
}

fn done(output: std::io::Result<Output>, what: &str) -> String {
    let output = output.unwrap_or_else(|e| panic!("{what}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{what}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The password of `postgres` where one is asked for.
pub const PASSWORD: &str = "s3cret";

/// Makes the files of a server that lets in by TCP as `auth` says, and by the socket whoever comes.
fn init(data: &Path, auth: &str) {
    let password = data.with_extension("password");
    fs::write(&password, PASSWORD).unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).unwrap();
    let mut command = program("initdb");
    command.args(["--no-sync", "-U", "postgres", "-E", "UTF8", "--locale=C", "--auth-local=trust"]);
    command.arg(format!("--auth-host={auth}")).arg("--pwfile").arg(&password).arg("-D").arg(data);
    done(as_owner(&mut command).output(), "initdb");
}

/// Waits until something is so, and says what it waited for where it never is.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn answers(folder: &Path, port: u16) -> bool {
    let mut command = program("pg_isready");
    command.args(["-q", "-p", &port.to_string(), "-h"]).arg(folder);
    command.status().is_ok_and(|s| s.success())
}

/// One statement, or several, on a server reached by its socket; what it printed.
fn psql(folder: &Path, port: u16, database: &str, sql: &str) -> Result<String, String> {
    let mut command = program("psql");
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database]);
    command.args(["-p", &port.to_string(), "-h"]).arg(folder).args(["-c", sql]);
    let output = command.output().map_err(|e| e.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The server that all share.
pub struct Shared {
    folder: PathBuf,
    port: u16,
    /// As long as a process holds it, the server stays.
    _used: File,
}

impl Shared {
    /// Started where it is not there.
    pub fn get() -> &'static Self {
        static SHARED: OnceLock<Shared> = OnceLock::new();
        SHARED.get_or_init(Self::join)
    }

    fn join() -> Self {
        // whom it belongs to stands in its name: a tree, and a user
        let tree = format!("{}:{:?}", env!("CARGO_MANIFEST_DIR"), install::id(&["-u"]));
        let name = format!("greenroom-pg-{:08x}", hash(tree.as_bytes()) as u32);
        let folder = std::env::temp_dir().join(&name);
        let lock = |what: &str| {
            let path = std::env::temp_dir().join(format!("{name}.{what}"));
            let file = File::options().create(true).truncate(false).write(true).read(true).open(&path);
            let file = file.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let _ = fs::set_permissions(&path, fs::Permissions::from_mode(0o666));
            (file, path)
        };
        // one starts it, the others wait; whoever stops it holds `used` alone
        let (start, _) = lock("start");
        start.lock().unwrap();
        let (used, used_path) = lock("used");
        used.lock_shared().unwrap();
        let port_file = folder.join("port");
        let known = fs::read_to_string(&port_file).ok().and_then(|text| text.parse().ok());
        let port = known.filter(|port| answers(&folder, *port)).unwrap_or_else(|| {
            // what a crash of the machine left
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir(&folder).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
            give(&folder);
            let (data, port) = (folder.join("data"), port::free());
            init(&data, "trust");
            let settings = [SMALL, CARELESS].concat();
            let mut start = program("pg_ctl");
            start.args(["start", "-w", "-s", "-t", "60", "-D"]).arg(&data).arg("-l").arg(folder.join("log"));
            start.arg("-o").arg(arguments(&folder, port, &settings));
            start.stdout(Stdio::null()).stderr(Stdio::null());
            let started = as_owner(&mut start).status();
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(started.is_ok_and(|s| s.success()), "the shared Postgres did not start: {log}");
            watch(&folder, &used_path);
            fs::write(&port_file, port.to_string()).unwrap();
            port
        });
        Self { folder, port, _used: used }
    }

    /// A statement in one of its databases; what it printed.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        psql(&self.folder, self.port, database, sql).unwrap_or_else(|e| panic!("{sql}: {e}"))
    }
}

/// FNV: names need no more.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

/// How a server is told its settings.
fn arguments(folder: &Path, port: u16, settings: &[&str]) -> String {
    let mut text = format!("-p {port} -h 127.0.0.1 -k {}", folder.display());
    for setting in settings {
        text.push_str(&format!(" -c {setting}"));
    }
    text
}

#[allow(clippy::zombie_processes, reason = "it outlives us: that is what it is for")]
/// Leaves a process behind that stops the server once nobody holds `used` any more.
fn watch(folder: &Path, used: &Path) {
    let script = "\"$0\" stop -s -m immediate -D \"$1/data\"; rm -rf \"$1\"";
    let lock: &[&str] = if cfg!(target_os = "macos") { &["lockf", "-k"] } else { &["flock", "-x"] };
    let mut command = Command::new(lock[0]);
    command.args(&lock[1..]).arg(used).args(["sh", "-c", script]);
    command.arg(program("pg_ctl").get_program()).arg(folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    as_owner(&mut command).spawn().unwrap_or_else(|e| panic!("{}: {e}", lock[0]));
}

/// A database of a test's own, on the shared server.
pub struct Database {
    name: String,
}

impl Database {
    /// An empty one.
    pub fn new() -> Self {
        Self::copy("template1")
    }

    /// A copy of a database that `make` fills, once for all tests, given its URL. Other `contents`
    /// are another database.
    pub fn like(name: &str, contents: &str, make: impl FnOnce(&str)) -> Self {
        let shared = Shared::get();
        let name = &format!("{name}_{:016x}", hash(contents.as_bytes()));
        let path = shared.folder.join(format!("{name}.lock"));
        let lock = File::create(&path).unwrap();
        lock.lock().unwrap();
        let there = format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'");
        if shared.psql("postgres", &there) == "0" {
            let half = format!("{name}_half");
            shared.psql("postgres", &format!("DROP DATABASE IF EXISTS {half} WITH (FORCE)"));
            shared.psql("postgres", &format!("CREATE DATABASE {half}"));
            make(&url(shared.port, &half));
            // who still has a connection would keep it from being copied
            let left = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ";
            shared.psql("postgres", &format!("{left} '{half}'"));
            until("the template's connections end", || {
                let rename = format!("ALTER DATABASE {half} RENAME TO {name}");
                psql(&shared.folder, shared.port, "postgres", &rename).is_ok()
            });
        }
        drop(lock);
        Self::copy(name)
    }

    fn copy(template: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let shared = Shared::get();
        let name = format!("t{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let version: u32 = shared.psql("postgres", "SHOW server_version_num").parse().unwrap();
        // from 15 on, the other strategy logs each page: slow where nothing is synced
        let strategy = if version >= 150_000 { "STRATEGY file_copy" } else { "" };
        shared.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE {template} {strategy}"));
        Self { name }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        url(Shared::get().port, &self.name)
    }

    /// Its URL by the socket.
    pub fn socket_url(&self) -> String {
        let shared = Shared::get();
        format!("postgres://postgres@/{}?host={}&port={}", self.name, shared.folder.display(), shared.port)
    }

    /// A statement in it; what it printed.
    pub fn psql(&self, sql: &str) -> String {
        Shared::get().psql(&self.name, sql)
    }
}

impl Default for Database {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let shared = Shared::get();
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let _ = psql(&shared.folder, shared.port, "postgres", &drop);
    }
}

fn url(port: u16, database: &str) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/{database}")
}

/// A server of a test's own.
pub struct Server {
    folder: tempfile::TempDir,
    port: u16,
    settings: Vec<String>,
    /// Stops the server when its input ends: when we say so, or when we are gone.
    keeper: Option<Child>,
}

impl Server {
    /// One that keeps what it acknowledges.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// One that does not sync its files.
    pub fn careless() -> Self {
        Self::start_with(CARELESS)
    }

    /// One with such settings, `name=value`.
    pub fn start_with(settings: &[&str]) -> Self {
        let mut server = Self::made(settings, "trust");
        server.go_on();
        server
    }

    /// Its files, not started. `auth` is how it lets in: `trust`, `scram-sha-256`.
    pub fn made(settings: &[&str], auth: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("greenroom-pg").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        give(folder.path());
        init(&folder.path().join("data"), auth);
        let settings = SMALL.iter().chain(settings).map(|s| (*s).to_owned()).collect();
        Self { folder, port: port::free(), settings, keeper: None }
    }

    /// Keeps what it logs before it writes (`pg_wal`) in another folder; before it is started.
    pub fn keep_log_in(&self, folder: &Path) {
        let (from, to) = (self.data().join("pg_wal"), folder.join("pg_wal"));
        let mut command = Command::new("cp");
        done(command.arg("-a").args([&from, &to]).output(), "cp");
        fs::remove_dir_all(&from).unwrap();
        std::os::unix::fs::symlink(&to, &from).unwrap();
    }

    /// One that lets nobody in by TCP but over TLS and with a password. Its certificate is for
    /// `localhost`, and signed by the authority that is in the file that it answers.
    pub fn with_tls() -> (Self, PathBuf) {
        let mut server = Self::made(CARELESS, "scram-sha-256");
        let data = server.data();
        let authority = Authority::new();
        let (cert, key) = authority.sign("localhost");
        for (name, text) in [("server.crt", cert), ("server.key", key)] {
            let path = data.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            give(&path);
        }
        let hba = data.join("pg_hba.conf");
        let rules = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(&hba, rules).unwrap();
        server.settings.push("ssl=on".to_owned());
        server.go_on();
        let root = server.folder.path().join("root.pem");
        fs::write(&root, authority.pem()).unwrap();
        (server, root)
    }

    /// Starts it again after a stop, on the same port, with the same files.
    pub fn go_on(&mut self) {
        let folder = self.folder.path().to_owned();
        let log = folder.join("log");
        let out = File::options().create(true).append(true).open(&log).unwrap();
        give(&log);
        let script = "\"$@\" & server=$!; cat >/dev/null; kill -QUIT $server; wait $server";
        let mut command = Command::new("sh");
        command
            .args(["-c", script, "sh"])
            .arg(program("postgres").get_program())
            .arg("-D")
            .arg(folder.join("data"));
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        command.args(arguments(&folder, self.port, &settings).split(' '));
        command.env("LC_ALL", "C").stdin(Stdio::piped());
        command.stdout(out.try_clone().unwrap()).stderr(out).process_group(0);
        self.keeper = Some(as_owner(&mut command).spawn().unwrap());
        let deadline = Instant::now() + PATIENCE;
        while !answers(&folder, self.port) {
            let log = || fs::read_to_string(&log).unwrap_or_default();
            assert!(Instant::now() < deadline, "Postgres did not start: {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it as `pg_ctl stop -m immediate` does: no checkpoint, connections cut.
    pub fn stop_immediate(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            self.signal("CONT");
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }

    /// Freezes it, with all that runs in it: connections stay open and nothing answers.
    pub fn sigstop(&self) {
        self.signal("STOP");
    }

    /// Thaws it.
    pub fn sigcont(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let Ok(text) = fs::read_to_string(self.folder.path().join("data/postmaster.pid")) else { return };
        let Some(main) = text.lines().next().map(str::to_owned) else { return };
        let of = |parent: &str| {
            let output = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output();
            let output = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
            let pairs = output.lines().filter_map(|line| {
                let mut words = line.split_whitespace().map(str::to_owned);
                Some((words.next()?, words.next()?))
            });
            pairs.filter(|(_, p)| p == parent).map(|(pid, _)| pid).collect::<Vec<_>>()
        };
        // the main process first, or it would start others meanwhile
        let send = |pids: &[String]| {
            let _ = Command::new("kill").arg(format!("-{name}")).args(pids).stderr(Stdio::null()).status();
        };
        send(std::slice::from_ref(&main));
        send(&of(&main));
    }

    /// The processor time of all its processes, of those that have ended too, in microseconds.
    pub fn processor_us(&self) -> f64 {
        let file = fs::read_to_string(self.folder.path().join("data/postmaster.pid")).unwrap_or_default();
        let main = file.lines().next().unwrap_or_default();
        let of = |entry: std::io::Result<fs::DirEntry>| {
            let entry = entry.ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let (_, rest) = stat.rsplit_once(") ")?;
            let words: Vec<&str> = rest.split(' ').collect();
            let is_main = entry.file_name().to_str() == Some(main);
            let times = match (is_main, words.get(1) == Some(&main)) {
                (true, _) => 11..15,
                (false, true) => 11..13,
                (false, false) => return None,
            };
            Some(words.get(times)?.iter().filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>())
        };
        // a tick is a hundredth of a second wherever Linux runs
        fs::read_dir("/proc").into_iter().flatten().filter_map(of).sum::<f64>() * 10_000.0
    }

    /// A statement; what it printed.
    pub fn psql(&self, sql: &str) -> String {
        self.psql_in("postgres", sql)
    }

    /// A statement in one of its databases; what it printed.
    pub fn psql_in(&self, database: &str, sql: &str) -> String {
        let began = Instant::now();
        loop {
            match psql(self.folder.path(), self.port, database, sql) {
                Ok(printed) => return printed,
                // A place that is kept for us may be held by somebody who is being turned away.
                Err(e) if e.contains("too many clients") && began.elapsed() < Duration::from_secs(10) => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(e) => panic!("{sql}: {e}"),
            }
        }
    }

    /// A statement that may fail; what it printed, or the error.
    pub fn try_psql(&self, sql: &str) -> Result<String, String> {
        psql(self.folder.path(), self.port, "postgres", sql)
    }

    /// A database of somebody who is nobody special, as a program's is; its URL. `more` is for the
    /// statement that makes it.
    pub fn of_somebody(&self, more: &str) -> String {
        self.psql("CREATE ROLE somebody LOGIN");
        self.psql(&format!("CREATE DATABASE somebody OWNER somebody {more}"));
        format!("postgres://somebody@127.0.0.1:{}/somebody", self.port)
    }

    /// How many connections somebody has.
    pub fn connections(&self) -> usize {
        self.psql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'somebody'").parse().unwrap()
    }

    /// Ends all connections of somebody's.
    pub fn terminate(&self) {
        self.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'somebody'");
    }

    /// A session that says this in somebody's database, and ends when it is dropped.
    pub fn session(&self, user: &str, sql: &str) -> Session {
        let mut command = program("psql");
        command.args(["-X", "-q", "-U", user, "-d", "somebody", "-p", &self.port.to_string()]);
        command.arg("-h").arg(self.folder.path()).args(["-c", sql]);
        command.env("PGAPPNAME", "held").stdout(Stdio::null()).stderr(Stdio::null());
        Session(command.spawn().unwrap())
    }

    /// Whether its main process is there.
    pub fn is_there(&self) -> bool {
        answers(self.folder.path(), self.port)
    }

    /// The port it listens on, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of its database.
    pub fn url(&self) -> String {
        url(self.port, "postgres")
    }

    /// Its files.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

/// A session of `psql`, under way.
pub struct Session(Child);

impl Session {
    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A small file system that a test can fill.
pub struct Disk {
    folder: tempfile::TempDir,
    rights: Vec<&'static str>,
}

impl Disk {
    /// One of so many megabytes; `None`: this user may not mount any.
    pub fn of(megabytes: usize) -> Option<Self> {
        let rights = install::rights("mount")?;
        let folder = tempfile::Builder::new().prefix("greenroom-disk").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let disk = Self { folder, rights };
        let size = format!("size={megabytes}m,mode=0777");
        let path = disk.folder.path().to_str()?;
        disk.run(&["mount", "-t", "tmpfs", "-o", &size, "tmpfs", path]).then_some(disk)
    }

    fn run(&self, words: &[&str]) -> bool {
        let whole: Vec<&str> = self.rights.iter().chain(words).copied().collect();
        let mut command = Command::new(whole[0]);
        command.args(&whole[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|s| s.success())
    }

    /// A folder on it for a server.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        give(&path);
        path
    }

    /// Leaves no room on it.
    pub fn fill(&self) {
        use std::io::Write as _;
        let mut file = File::create(self.folder.path().join("filler")).unwrap();
        for piece in [vec![0; 1 << 16], vec![0; 1 << 9]] {
            while file.write_all(&piece).is_ok() {}
        }
    }

    /// Makes room again.
    pub fn free(&self) {
        fs::remove_file(self.folder.path().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let path = self.folder.path().to_string_lossy().into_owned();
        self.run(&["umount", "-l", &path]);
    }
}

/// A certificate authority of a test's own.
pub struct Authority(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

impl Authority {
    /// A fresh one, that nobody knows.
    pub fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "a test's own authority");
        Self(rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a name, and its key.
    pub fn sign(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_immediate();
    }
}
