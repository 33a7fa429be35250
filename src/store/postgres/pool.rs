//! Connections, kept: a pool for the reads, one for the writers, and a small one for the lease and
//! for control, which no load on the others can starve.
//!
//! A connection comes back to its pool only when the server says that its session is idle, and no
//! statement is left whose future was dropped. Else it is mended or closed: however its user was
//! cancelled, the next one starts clean.

use std::{
    fmt,
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use deadpool::{
    Runtime,
    managed::{Manager, Metrics, Object, Pool, PoolError, QueueMode, RecycleError, RecycleResult, Timeouts},
};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{
    connect::{Link, Server, Source},
    doctor,
    url::Url,
    wire::Session,
};
use crate::store::{Durability, PoolStatus, StoreError};

/// How long a caller waits for a connection: within a second it has an answer, if only a no.
const WAIT: Duration = Duration::from_millis(800);

/// How long the first connection may take: a database that sleeps (Neon's do) has to wake up.
const FIRST: Duration = Duration::from_secs(15);

/// How long is waited for what a cancelled user left.
const MEND: Duration = Duration::from_secs(1);

/// Connections for the lease and for control.
const CONTROL: usize = 2;

/// Connections for the group commits.
const WRITERS: usize = 2;

/// The pools of one store.
#[derive(Clone)]
pub(super) struct Pools {
    source: Arc<Source>,
    server: Server,
    reads: Kept,
    control: Kept,
    writers: Kept,
}

impl Pools {
    /// Makes the first connection, which is checked as all later ones are. Call it on the runtime
    /// that is to be the connections' home.
    ///
    /// # Errors
    /// [`StoreError::Refused`] where the server would lose what it acknowledges or is too old;
    /// [`StoreError::NotDone`] where it cannot be reached, or does not take writes now.
    pub(super) async fn open(url: Url, durability: Durability, size: usize) -> Result<Self, StoreError> {
        let source = Arc::new(Source::new(url, durability)?);
        let first = tokio::time::timeout(FIRST, source.link()).await.map_err(|_| {
            StoreError::NotDone(format!("the server cannot be reached: no answer within {FIRST:?}"))
        })??;
        let server = first.server.clone();
        let reads = Kept::new(&source, size)?;
        reads.pool.manager().spares.lock().push(first);
        let control = Kept::new(&source, CONTROL)?;
        let writers = Kept::new(&source, WRITERS)?;
        doctor::begin(&source);
        Ok(Self { source, server, reads, control, writers })
    }

    /// A connection for reads and claims.
    pub(super) async fn get(&self) -> Result<Conn, StoreError> {
        self.reads.get().await
    }

    /// A connection for the lease and for control: few wait here, whatever the load.
    pub(super) async fn control(&self) -> Result<Conn, StoreError> {
        self.control.get().await
    }

    /// A connection for a group commit.
    pub(super) async fn writer(&self) -> Result<Conn, StoreError> {
        self.writers.get().await
    }

    /// Makes the connections for group commits where there are none, so that the first commits need not wait for them.
    /// Does not wait; where they cannot be made, the first commit says so.
    pub(super) fn expect_commits(&self) {
        if self.writers.pool.status().size > 0 {
            return;
        }
        let writers = self.writers.clone();
        let all = futures_util::future::join_all((0..WRITERS).map(move |_| {
            let writers = writers.clone();
            async move { writers.get().await.ok() }
        }));
        self.source.home().spawn(all);
    }

    /// Where connections come from, for those who need one of their own.
    pub(super) fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// What the server said of itself at the first connection.
    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// How the pools fare, together.
    pub(super) fn status(&self) -> PoolStatus {
        let mut sum = PoolStatus::default();
        for kept in [&self.reads, &self.control, &self.writers] {
            let status = kept.pool.status();
            sum.max += status.max_size;
            sum.size += status.size;
            sum.idle += status.available;
            sum.waiting += status.waiting;
            let figures = &kept.pool.manager().figures;
            sum.taken += figures.taken.load(Ordering::Relaxed);
            sum.wait_us += figures.wait_us.load(Ordering::Relaxed);
            sum.made += figures.made.load(Ordering::Relaxed);
            sum.failed += figures.failed.load(Ordering::Relaxed);
            sum.dropped += figures.dropped.load(Ordering::Relaxed);
        }
        sum
    }
}

/// One pool.
#[derive(Clone)]
struct Kept {
    pool: Pool<Maker>,
}

impl Kept {
    fn new(source: &Arc<Source>, size: usize) -> Result<Self, StoreError> {
        let size = size.max(1);
        let maker = Maker {
            source: Arc::clone(source),
            under_way: Arc::new(Semaphore::new(size)),
            spares: Arc::default(),
            figures: Arc::default(),
        };
        let pool = Pool::builder(maker)
            .max_size(size)
            // the last one used is the one that is warm
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts { wait: Some(WAIT), create: Some(WAIT), recycle: Some(WAIT) })
            .build()
            .map_err(|e| StoreError::Refused(e.to_string()))?;
        Ok(Self { pool })
    }

    async fn get(&self) -> Result<Conn, StoreError> {
        let began = Instant::now();
        let figures = &self.pool.manager().figures;
        let got = tokio::time::timeout(WAIT, self.pool.get()).await;
        figures.wait_us.fetch_add(micros(began.elapsed()), Ordering::Relaxed);
        let failure = match got {
            Ok(Ok(object)) => {
                figures.taken.fetch_add(1, Ordering::Relaxed);
                let home = self.pool.manager().source.home().clone();
                return Ok(Conn { object: ManuallyDrop::new(object), home });
            }
            Ok(Err(PoolError::Backend(error))) => error,
            Ok(Err(PoolError::Timeout(_))) | Err(_) => {
                let status = self.pool.status();
                StoreError::NotDone(if status.available == 0 && status.size >= status.max_size {
                    format!("all {} connections were in use for {WAIT:?}", status.max_size)
                } else {
                    format!("the server cannot be reached: no answer within {WAIT:?}")
                })
            }
            Ok(Err(error)) => StoreError::NotDone(error.to_string()),
        };
        figures.failed.fetch_add(1, Ordering::Relaxed);
        Err(failure)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[derive(Default)]
struct Figures {
    taken: AtomicU64,
    wait_us: AtomicU64,
    made: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

/// Makes connections for one pool.
pub(super) struct Maker {
    source: Arc<Source>,
    /// As many as the pool holds may be under way: callers who give up leave theirs to come.
    under_way: Arc<Semaphore>,
    /// Connections that came too late for whoever wanted them.
    spares: Arc<Mutex<Vec<Link>>>,
    figures: Arc<Figures>,
}

impl Manager for Maker {
    type Type = Link;
    type Error = StoreError;

    /// Made by a task of its own at the connections' home. A caller who gives up does not stop it,
    /// or a server far away would never be reached at all.
    async fn create(&self) -> Result<Link, StoreError> {
        let failed = |e: &dyn fmt::Display| StoreError::NotDone(format!("no connection was made: {e}"));
        let permit = Arc::clone(&self.under_way).acquire_owned().await.map_err(|e| failed(&e))?;
        while let Some(spare) = self.take_spare() {
            if !spare.wire.is_closed() {
                return Ok(spare);
            }
        }
        let (source, spares, figures) =
            (Arc::clone(&self.source), Arc::clone(&self.spares), Arc::clone(&self.figures));
        let (answer, told) = tokio::sync::oneshot::channel();
        self.source.home().spawn(async move {
            let _permit = permit;
            let made = source.link().await;
            if made.is_ok() {
                figures.made.fetch_add(1, Ordering::Relaxed);
            }
            if let Err(Ok(late)) = answer.send(made) {
                let mut spares = spares.lock();
                spares.retain(|spare| !spare.wire.is_closed());
                if spares.is_empty() {
                    spares.push(late);
                }
            }
        });
        told.await.unwrap_or_else(|e| Err(failed(&e)))
    }

    async fn recycle(&self, link: &mut Link, _: &Metrics) -> RecycleResult<StoreError> {
        if link.wire.is_closed() || link.wire.session() != Session::Idle {
            return Err(RecycleError::message("closed"));
        }
        Ok(())
    }
}

impl Maker {
    fn take_spare(&self) -> Option<Link> {
        self.spares.lock().pop()
    }
}

/// A connection, lent.
pub(super) struct Conn {
    object: ManuallyDrop<Object<Maker>>,
    home: tokio::runtime::Handle,
}

impl Deref for Conn {
    type Target = AsyncPgConnection;

    fn deref(&self) -> &AsyncPgConnection {
        &self.object.conn
    }
}

impl DerefMut for Conn {
    fn deref_mut(&mut self) -> &mut AsyncPgConnection {
        &mut self.object.conn
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        // SAFETY: taken once, here, and `self` is not used afterwards.
        #[allow(unsafe_code)]
        let mut object = unsafe { ManuallyDrop::take(&mut self.object) };
        let wire = Arc::clone(&object.wire);
        if wire.is_closed() || is_in_transaction(&mut object.conn) {
            close(object);
        } else if wire.is_abandoned() || wire.session() != Session::Idle {
            self.home.spawn(mend(object));
        }
    }
}

/// Waits for what is under way, rolls back what is open, and gives the connection back if the
/// server then calls it idle. Statements are served in turn: when this one is answered, so are all
/// before it, those of a dropped future too.
async fn mend(mut object: Object<Maker>) {
    let wire = Arc::clone(&object.wire);
    let idle = tokio::time::timeout(MEND, async {
        if wire.settle().await != Session::Idle || wire.is_abandoned() {
            object.conn.batch_execute("ROLLBACK").await.ok()?;
        }
        (wire.settle().await == Session::Idle && !wire.is_closed()).then_some(())
    });
    if idle.await == Ok(Some(())) {
        wire.forget();
    } else {
        close(object);
    }
}

/// Whether diesel believes that a transaction is open, or has lost count.
fn is_in_transaction(conn: &mut AsyncPgConnection) -> bool {
    use diesel_async::{AnsiTransactionManager, TransactionManager};
    AnsiTransactionManager::is_broken_transaction_manager(conn)
}

/// Takes it from its pool for good; the server rolls back what was open.
fn close(object: Object<Maker>) {
    if let Some(pool) = Object::pool(&object) {
        pool.manager().figures.dropped.fetch_add(1, Ordering::Relaxed);
    }
    drop(Object::take(object));
}

#[cfg(test)]
mod tests {
    use diesel::{dsl::sql, select, sql_types::Integer};
    use diesel_async::{AsyncConnection, RunQueryDsl};
    use futures_util::FutureExt;

    use super::{super::server, *};

    async fn pools(url: &str, size: usize) -> Pools {
        Pools::open(Url::parse(url).unwrap(), Durability::Relaxed, size).await.unwrap()
    }

    /// An error in a transaction that began earlier, and in one that failed.
    const CLEAN: &str = "DO $$BEGIN IF now() <> statement_timestamp() THEN RAISE 'a transaction is open'; \
                         END IF; END$$";

    async fn one(conn: &mut AsyncPgConnection) -> diesel::QueryResult<i32> {
        select(sql::<Integer>("1")).get_result(conn).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_connection_is_made_once_and_used_again() {
        let database = server::Database::new();
        for url in [database.url(), database.socket_url()] {
            let pools = pools(&url, 3).await;
            for _ in 0..50 {
                assert_eq!(one(&mut pools.get().await.unwrap()).await.unwrap(), 1);
            }
            let status = pools.status();
            assert_eq!((status.max, status.size, status.idle), (3 + CONTROL + WRITERS, 1, 1), "{status:?}");
            assert_eq!((status.taken, status.failed, status.dropped), (50, 0, 0), "{status:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_first_commits_find_their_connections_made() {
        let database = server::Database::new();
        let pools = pools(&database.url(), 1).await;
        pools.expect_commits();
        until(|| pools.writers.pool.status().available == WRITERS).await;
        let mut held = vec![pools.writer().await.unwrap(), pools.writer().await.unwrap()];
        for conn in &mut held {
            assert_eq!(one(conn).await.unwrap(), 1);
        }
        assert_eq!(pools.status().made, WRITERS as u64);
    }

    /// However its user was cancelled, a connection comes back clean or not at all.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_connection_comes_back_with_a_transaction_open() {
        let database = server::Database::new();
        database.psql("CREATE TABLE t (n int)");
        let pools = pools(&database.url(), 8).await;
        let rounds: u32 = 10_000;
        let workers = (0..8_u64).map(|seed| {
            let pools = pools.clone();
            tokio::spawn(async move {
                let mut dice = fastrand::Rng::with_seed(seed);
                for _ in 0..rounds / 8 {
                    let mut conn = pools.get().await.unwrap();
                    conn.batch_execute(CLEAN).await.unwrap();
                    let polls = dice.u32(..14);
                    let style = dice.u8(..3);
                    let work = async move {
                        match style {
                            0 => {
                                conn.transaction(async |conn| {
                                    one(conn).await?;
                                    conn.batch_execute("INSERT INTO t VALUES (1)").await?;
                                    one(conn).await?;
                                    diesel::QueryResult::Ok(())
                                })
                                .await
                            }
                            1 => {
                                conn.batch_execute("BEGIN").await?;
                                one(&mut conn).await?;
                                conn.batch_execute("COMMIT").await
                            }
                            _ => {
                                one(&mut conn).await?;
                                // an error in a transaction that nobody ends
                                conn.batch_execute("BEGIN; SELECT 1/0").await
                            }
                        }
                    };
                    // dropped after so many polls
                    let mut work = Box::pin(work);
                    for _ in 0..polls {
                        if work.as_mut().now_or_never().is_some() {
                            break;
                        }
                        tokio::task::yield_now().await;
                    }
                }
            })
        });
        for worker in workers.collect::<Vec<_>>() {
            worker.await.unwrap();
        }
        let status = pools.status();
        assert!(status.dropped > 1_000, "few were cancelled half-way: {status:?}");
        assert!(status.taken >= u64::from(rounds) && status.failed == 0, "{status:?}");
        // what was closed has rolled back, what is kept is idle
        let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                    AND state LIKE 'idle in transaction%'";
        let deadline = Instant::now() + Duration::from_secs(10);
        while database.psql(open) != "0" {
            assert!(Instant::now() < deadline, "a transaction is open: {}", database.psql(open));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The server is gone: whoever asks has an answer within a second; it is back: within five, so
    /// is all else.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_server_that_goes_and_comes_back_is_noticed_both_times() {
        let mut server = server::Server::careless();
        let pools = pools(&server.url(), 4).await;
        for round in 0..3 {
            let mut held = pools.get().await.unwrap();
            let waiting = tokio::spawn(async move { held.batch_execute("SELECT pg_sleep(60)").await });
            until(|| {
                server.psql(
                    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%sleep(60)%' \
                                  AND pid <> pg_backend_pid()",
                ) == "1"
            })
            .await;
            server.stop_immediate();
            let began = Instant::now();
            assert!(waiting.await.unwrap().is_err());
            let refused = pools.get().await.err().map(|e| e.to_string());
            assert!(began.elapsed() < Duration::from_secs(1), "{round}: {:?}", began.elapsed());
            assert!(refused.as_deref().is_some_and(|why| why.contains("cannot be reached")), "{refused:?}");
            server.go_on();
            let began = Instant::now();
            assert_eq!(one(&mut pools.get().await.unwrap()).await.unwrap(), 1);
            assert!(began.elapsed() < Duration::from_secs(5), "{round}: {:?}", began.elapsed());
        }
    }

    /// A frozen server keeps its connections open and says nothing.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_frozen_server_is_noticed_and_a_slow_statement_is_waited_for() {
        let server = server::Server::careless();
        let pools = pools(&server.url(), 4).await;
        let mut slow = pools.get().await.unwrap();
        slow.batch_execute("SELECT pg_sleep(3)").await.unwrap();
        drop(slow);
        server.sigstop();
        let began = Instant::now();
        let all = (0..20).map(|_| async {
            match pools.get().await {
                Ok(mut conn) => one(&mut conn).await.is_err(),
                Err(_) => true,
            }
        });
        assert!(futures_util::future::join_all(all).await.into_iter().all(|failed| failed));
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        let began = Instant::now();
        assert!(pools.get().await.is_err());
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        server.sigcont();
        let began = Instant::now();
        until_ok(&pools).await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        for _ in 0..20 {
            assert_eq!(one(&mut pools.get().await.unwrap()).await.unwrap(), 1);
        }
    }

    async fn until(mut so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !so() {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_ok(pools: &Pools) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while pools.get().await.is_err() {
            assert!(Instant::now() < deadline);
        }
    }

    /// Load on the reads leaves the control pool alone, and waits are told from outages.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn load_cannot_starve_the_lease() {
        let database = server::Database::new();
        let pools = pools(&database.url(), 2).await;
        let held = (pools.get().await.unwrap(), pools.get().await.unwrap());
        let began = Instant::now();
        let refused = pools.get().await.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(refused.contains("all 2 connections were in use"), "{refused}");
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        assert_eq!(one(&mut pools.control().await.unwrap()).await.unwrap(), 1);
        assert_eq!(one(&mut pools.writer().await.unwrap()).await.unwrap(), 1);
        drop(held);
        assert_eq!(one(&mut pools.get().await.unwrap()).await.unwrap(), 1);
    }

    /// What the server says of itself, for real.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_server_that_would_lose_commits_is_refused_unless_that_is_wanted() {
        let database = server::Database::new(); // the shared server does not sync
        let open = |url: String, durability| async move {
            Pools::open(Url::parse(&url).unwrap(), durability, 1).await.err().map(|e| e.to_string())
        };
        let why = open(database.url(), Durability::Full).await.unwrap();
        assert!(why.contains("fsync"), "{why}");
        assert_eq!(open(database.url(), Durability::Relaxed).await, None);
        let server = server::Server::start();
        assert_eq!(open(server.url(), Durability::Full).await, None);
        let weak = format!("{}?options=-c%20synchronous_commit%3Doff", server.url());
        let why = open(weak, Durability::Full).await.unwrap();
        assert!(why.contains("synchronous_commit"), "{why}");
        server.psql("ALTER SYSTEM SET default_transaction_read_only = on");
        server.psql("SELECT pg_reload_conf()");
        until(|| server.psql("SHOW default_transaction_read_only") == "on").await;
        let why = open(server.url(), Durability::Full).await.unwrap();
        assert!(why.contains("read-only"), "{why}");
    }

    /// Through the wire, whatever the server's language: the code stands in front.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn errors_come_with_their_code() {
        use super::super::error::{Cause, cause, of_statement};
        let database = server::Database::new();
        let pools = pools(&database.url(), 2).await;
        let mut conn = pools.get().await.unwrap();
        let known = [
            ("SELECT 1/0", Cause::Given, "22012"),
            ("SELECT 'x'::int", Cause::Given, "22P02"),
            ("SELECT * FROM nothing", Cause::Other, "42P01"),
            ("BEGIN READ ONLY; CREATE TABLE a (b int)", Cause::ReadOnly, "25006"),
            ("ROLLBACK; SET statement_timeout = 10; SELECT pg_sleep(9)", Cause::TimedOut, "57014"),
            ("DO $$BEGIN RAISE 'no room' USING ERRCODE = '53100'; END$$", Cause::Full, "53100"),
            ("DO $$BEGIN RAISE 'again' USING ERRCODE = '40P01'; END$$", Cause::Race, "40P01"),
        ];
        for (statement, expected, code) in known {
            let error = conn.batch_execute(statement).await.unwrap_err();
            assert_eq!(cause(&error), expected, "{error}");
            assert!(error.to_string().starts_with(&format!("[{code}] ")), "{error}");
        }
        // a long one, cut into many reads, and then the connection is as good as before
        let long = "DO $$BEGIN RAISE '%', repeat('x', 50000) USING ERRCODE = '22023'; END$$";
        let error = conn.batch_execute(long).await.unwrap_err();
        assert!(error.to_string().starts_with("[22023] xxx") && error.to_string().len() > 50_000);
        assert_eq!(one(&mut conn).await.unwrap(), 1);
        // the end of the session, from outside
        let me =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(30%'";
        let waiting = tokio::spawn(async move { conn.batch_execute("SELECT pg_sleep(30)").await });
        until(|| database.psql(me).contains('t')).await;
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!(cause(&error), Cause::Restarting, "{error}");
        assert!(matches!(of_statement(&error), StoreError::NotDone(_)), "{error}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_server_without_a_connection_to_spare_says_so_and_recovers() {
        let server = server::Server::start_with(&[
            "fsync=off",
            "max_connections=8",
            "superuser_reserved_connections=0",
        ]);
        let pools = pools(&server.url(), 10).await;
        let mut held = Vec::new();
        let why = loop {
            match pools.get().await {
                Ok(conn) => held.push(conn),
                Err(why) => break why.to_string(),
            }
        };
        assert!(why.contains("too many connections: [53300]"), "{why}");
        assert!((4..=8).contains(&held.len()), "{}", held.len());
        // the doctor has no connection of its own then: an answer is an answer
        held[0].batch_execute("SELECT pg_sleep(3)").await.unwrap();
        held.truncate(2);
        assert_eq!(one(&mut pools.get().await.unwrap()).await.unwrap(), 1);
    }
}
