//! A link: one period of being connected. It begins with a server that answers and an empty near level, and ends
//! for good with the first sign of trouble.

use std::{
    future::Future,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use redis::{
    Cmd, ErrorKind, FromRedisValue, PushInfo, PushKind, RedisError, ScriptInvocation, Value,
    aio::MultiplexedConnection,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    dial::Server,
    scripts::{LATE, PUT, REMOVE},
    wire::{ANY, Notice, Place, removed},
};
use crate::cache::{memory::Shared, options::CacheOptions};

/// How often a quiet link is looked at.
const BEAT: Duration = Duration::from_millis(100);

/// What ended a link, and what its users do about it.
#[derive(Debug)]
pub(super) struct Broken(OnceLock<(String, Timestamp)>, CancellationToken);

impl Broken {
    fn new() -> Arc<Self> {
        Arc::new(Self(OnceLock::new(), CancellationToken::new()))
    }

    /// The first reason counts.
    pub(super) fn set(&self, reason: impl Into<String>) {
        let _ = self.0.set((reason.into(), Timestamp::now()));
        self.1.cancel();
    }

    pub(super) fn is_set(&self) -> bool {
        self.1.is_cancelled()
    }

    /// Why and when.
    pub(super) fn get(&self) -> Option<&(String, Timestamp)> {
        self.0.get()
    }

    pub(super) async fn wait(&self) -> String {
        self.1.cancelled().await;
        self.0.get().map(|(reason, _)| reason.clone()).unwrap_or_default()
    }
}

/// Why a call has no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// The link is broken, by this call or before it.
    Broken,
    /// The server refuses this one thing.
    Refused(String),
}

/// Connections to a server, and what this node holds of what is there.
pub(super) struct Link {
    connection: MultiplexedConnection,
    listener: MultiplexedConnection,
    broken: Arc<Broken>,
    timeout: Duration,
    /// The server's clock in ms, less what `born` has elapsed.
    clock: AtomicI64,
    born: Instant,
    origin: Uuid,
    /// What the names of entries begin with that are only good for this run of the server.
    space: String,
    prefix: String,
    channel: String,
    /// The server's version, where it says so.
    version: Option<String>,
    /// Copies of what others may change too; `None` where it was asked for that there be none.
    near: Option<Shared>,
}

impl Link {
    /// Connects, listens, and finds out which run of the server this is.
    pub(super) async fn open(server: &Server, options: &CacheOptions, origin: Uuid) -> Result<Self, String> {
        let broken = Broken::new();
        let near = options.near.then(|| Shared::new(options, Some(super::NEAR)));
        let on_push = {
            let (broken, near) = (broken.clone(), near.clone());
            Arc::new(move |push| pushed(push, origin, near.as_ref(), &broken))
        };
        let connection = server.connect(on_push.clone()).await?;
        let listener = server.connect(on_push).await?;
        let mut link = Self {
            connection,
            listener,
            broken,
            timeout: options.timeout,
            clock: AtomicI64::new(0),
            born: Instant::now(),
            origin,
            space: String::new(),
            prefix: options.prefix.clone(),
            channel: String::new(),
            version: None,
            near,
        };
        link.beat().await?;
        let known = link.learn_run().await?;
        link.channel = format!("{}changes", link.space);
        let mut listener = link.listener.clone();
        match tokio::time::timeout(link.timeout, listener.subscribe(link.channel.as_str())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(format!("it does not let this node listen: {error}")),
            Err(_) => return Err(link.silent()),
        }
        if !known {
            link.purge().await?;
        }
        link.try_writing().await?;
        Ok(link)
    }

    /// A server that takes nothing (it is full, a replica, or this user may not) is no cache.
    async fn try_writing(&self) -> Result<(), String> {
        let mut script = PUT.key(format!("{}probe", self.space));
        let mark = removed();
        script.arg(self.deadline()).arg(mark).arg(1_000).arg(self.channel.as_str()).arg("");
        match self.write(&script).await {
            Ok(()) => Ok(()),
            Err(Failed::Refused(why)) => Err(format!("it takes nothing: {why}")),
            Err(Failed::Broken) => Err(self.broken.wait().await),
        }
    }

    /// What lies on a server may be older than what was last written there: it was started from a
    /// backup, or a replica took over. Each run of a server therefore has names of its own. A user
    /// who may not ask which run it is (`+info`) starts with empty shelves instead: `false`.
    async fn learn_run(&mut self) -> Result<bool, String> {
        let answer: Result<String, Failed> = self.call(redis::cmd("INFO").arg("server")).await;
        let info = match answer {
            Ok(info) => info,
            Err(Failed::Refused(_)) => String::new(),
            Err(Failed::Broken) => return Err(self.broken.wait().await),
        };
        let of = |name: &str| info.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::to_owned);
        let run = of("run_id:");
        self.version = of("redis_version:");
        let known = run.is_some();
        self.space = format!("{}{}:", self.prefix, run.as_deref().unwrap_or("any"));
        Ok(known)
    }

    /// Takes everything off the shared shelves.
    pub(super) async fn purge(&self) -> Result<(), String> {
        let ended = |failed| match failed {
            Failed::Refused(why) => why,
            Failed::Broken => "the connection was lost".to_owned(),
        };
        let pattern: String = self
            .space
            .chars()
            .flat_map(|c| "\\*?[]".contains(c).then_some('\\').into_iter().chain([c]))
            .collect();
        let mut cursor = "0".to_owned();
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(format!("{pattern}*")).arg("COUNT").arg(1_000);
            let (next, keys): (String, Vec<Vec<u8>>) = self.call(&scan).await.map_err(ended)?;
            if !keys.is_empty() {
                let _: i64 = self.call(redis::cmd("UNLINK").arg(keys)).await.map_err(ended)?;
            }
            if next == "0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Whether it may be used.
    pub(super) fn is_good(&self) -> bool {
        !self.broken.is_set()
    }

    /// The server's version, where it says so.
    pub(super) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    pub(super) fn broken(&self) -> &Broken {
        &self.broken
    }

    pub(super) fn near(&self) -> Option<&Shared> {
        self.near.as_ref()
    }

    /// The key of a place. States are good for any run: whoever uses one asks the store first.
    pub(super) fn key(&self, place: &Place) -> String {
        place.key(if matches!(place, Place::State(_)) { &self.prefix } else { &self.space })
    }

    /// Where others are told, and what; nothing for states, which need no telling.
    pub(super) fn notice(&self, place: &Place, version: i64) -> (&str, Vec<u8>) {
        match place {
            Place::State(_) => ("", Vec::new()),
            _ => (&self.channel, Notice { place: place.clone(), version }.write(self.origin)),
        }
    }

    /// The server's clock, in ms.
    pub(super) fn now(&self) -> i64 {
        self.clock.load(Ordering::Relaxed) + millis(self.born.elapsed())
    }

    /// Until when a write that is sent now is good.
    pub(super) fn deadline(&self) -> i64 {
        self.now() + millis(self.timeout)
    }

    /// Calls a command. Its timeout, or a connection that ends, breaks the link.
    pub(super) async fn call<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Failed> {
        let mut connection = self.connection.clone();
        self.settle(command.query_async(&mut connection)).await
    }

    /// Runs a script.
    pub(super) async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, Failed> {
        let mut connection = self.connection.clone();
        self.settle(script.invoke_async(&mut connection)).await
    }

    async fn settle<T>(&self, call: impl Future<Output = Result<T, RedisError>>) -> Result<T, Failed> {
        // `timeout` polls the call first: an answer that is there is taken, however late its
        // reader comes, because the thread that it runs on was busy.
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if refused(&error) => Err(Failed::Refused(error.to_string())),
            Ok(Err(error)) => {
                self.broken.set(format!("the connection failed: {error}"));
                Err(Failed::Broken)
            }
            Err(_) => {
                self.broken.set(self.silent());
                Err(Failed::Broken)
            }
        }
    }

    /// Forgets what stands at a place, here and on other nodes.
    pub(super) async fn forget(&self, place: &Place) -> Result<(), Failed> {
        if let Some(near) = &self.near {
            drop_near(near, place, ANY);
        }
        let (channel, notice) = self.notice(place, ANY);
        let mut script = REMOVE.key(self.key(place));
        script.arg("").arg(0).arg(channel).arg(notice);
        self.run::<i64>(&script).await.map(|_| ())
    }

    /// A write's answer: what was not carried out in time has failed.
    pub(super) async fn write(&self, script: &ScriptInvocation<'_>) -> Result<(), Failed> {
        match self.run::<i64>(script).await? {
            LATE => Err(Failed::Refused("it came too late".to_owned())),
            _ => Ok(()),
        }
    }

    /// Looks whether both connections live, and reads the server's clock.
    pub(super) async fn beat(&self) -> Result<(), String> {
        let (mut listener, time, ping) = (self.listener.clone(), redis::cmd("TIME"), redis::cmd("PING"));
        let asked = self.born.elapsed();
        let time = self.call::<(i64, i64)>(&time);
        let ping = tokio::time::timeout(self.timeout, ping.query_async::<Value>(&mut listener));
        let reason = match tokio::join!(time, ping) {
            (Ok((seconds, micros)), Ok(Ok(_))) => {
                // As of the middle between question and answer: wrong by half the way at most.
                let then = (asked + self.born.elapsed()) / 2;
                self.clock.store(seconds * 1_000 + micros / 1_000 - millis(then), Ordering::Relaxed);
                return Ok(());
            }
            (Err(Failed::Refused(why)), _) => why,
            (Err(Failed::Broken), _) => return Err(self.broken.wait().await),
            (_, Ok(Err(error))) => format!("the connection failed: {error}"),
            (_, Err(_)) => self.silent(),
        };
        self.broken.set(reason.clone());
        Err(reason)
    }

    /// Watches the link until it is broken; tells why.
    pub(super) async fn watch(&self) -> String {
        loop {
            tokio::select! {
                reason = self.broken.wait() => return reason,
                () = tokio::time::sleep(self.timeout.min(BEAT)) => {}
            }
            let _ = self.beat().await;
        }
    }

    fn silent(&self) -> String {
        format!("it does not answer within {:?}", self.timeout)
    }
}

/// Whether the server has answered, though not as one would like; else the link is no good.
fn refused(error: &RedisError) -> bool {
    use redis::ServerErrorKind::{BusyLoading, MasterDown, NoScript, ReadOnly, TryAgain};
    match error.kind() {
        ErrorKind::Server(BusyLoading | MasterDown | ReadOnly | TryAgain | NoScript) => false,
        ErrorKind::Server(_) | ErrorKind::Extension => true,
        // What stands there is not of the kind that it should be.
        ErrorKind::UnexpectedReturnType | ErrorKind::Parse => true,
        _ => false,
    }
}

/// What a connection says unasked.
fn pushed(push: PushInfo, me: Uuid, near: Option<&Shared>, broken: &Broken) {
    match push.kind {
        PushKind::Disconnection => broken.set("it closed the connection"),
        PushKind::Message => {
            let (Some(near), Some(Value::BulkString(notice))) = (near, push.data.get(1)) else { return };
            if let Some((_, notice)) = Notice::read(notice).filter(|(origin, _)| *origin != me) {
                drop_near(near, &notice.place, notice.version);
            }
        }
        _ => {}
    }
}

/// Forgets what this node holds that is older than `version`.
fn drop_near(near: &Shared, place: &Place, version: i64) {
    match place {
        Place::State(_) => {}
        Place::Document(shelf, id) if version == ANY => near.shelf(*shelf).forget(id),
        Place::Document(shelf, id) => near.shelf(*shelf).at_least(id, version),
        Place::Tail(id) => near.tails.drop(id),
    }
}

fn millis(d: Duration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX / 4)
}
