//! One connection: opened, checked, driven.

use std::{
    future::poll_fn,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel_async::{AsyncConnection, AsyncPgConnection};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    runtime::Handle,
    sync::mpsc,
    time::timeout,
};
use tokio_postgres::{
    AsyncMessage, Client, Config, Connection, SimpleQueryMessage, config::Host, tls::MakeTlsConnect,
};

use super::{
    error,
    tls::Tls,
    url::{Privacy, Url},
    wire::Wire,
};
use crate::store::{Durability, StoreError};

/// The oldest server that is supported.
const OLDEST: u32 = 130_000;

/// What a session says before it is used; not through a pooler, where another session may come
/// with the next transaction. A statement that runs for so long serves nobody any more, and a
/// transaction that stands open must not hold its locks for ever. Whoever has set the server, or our
/// role, shorter limits has the last word.
const SETTINGS: &str = "\
    SELECT set_config('statement_timeout', '60s', false) \
        WHERE current_setting('statement_timeout')::interval NOT BETWEEN '1ms' AND '60s'; \
    SELECT set_config('idle_in_transaction_session_timeout', '30s', false) \
        WHERE current_setting('idle_in_transaction_session_timeout')::interval NOT BETWEEN '1ms' AND '30s'";

/// Whence connections come.
pub(super) struct Source {
    pub url: Url,
    tls: Tls,
    durability: Durability,
    /// Connections are driven here: never on a thread that an agent may hold up.
    home: Handle,
    /// The store's connections that are open.
    wires: Mutex<Vec<Weak<Wire>>>,
}

/// What the server says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Server {
    /// As `150004`.
    pub version: u32,
    synchronous_commit: String,
    standbys: bool,
    fsync: bool,
    read_only: bool,
    neon: bool,
}

/// A connection of the store's.
pub(super) struct Link {
    pub conn: AsyncPgConnection,
    pub wire: Arc<Wire>,
    pub server: Server,
}

/// A notification as it came.
pub(super) type Heard = (String, String);

/// Where notifications go.
pub(super) struct Ear {
    pub heard: mpsc::Sender<Heard>,
    /// Some have found no room.
    pub missed: Arc<AtomicBool>,
}

impl Source {
    /// Call it on the runtime that is to be the connections' home.
    pub(super) fn new(url: Url, durability: Durability) -> Result<Self, StoreError> {
        let tls = Tls::new(&url.privacy)?;
        let home = Handle::try_current().map_err(|e| StoreError::NotDone(e.to_string()))?;
        Ok(Self { url, tls, durability, home, wires: Mutex::default() })
    }

    pub(super) fn home(&self) -> &Handle {
        &self.home
    }

    /// The store's connections that are open.
    pub(super) fn wires(&self) -> Vec<Arc<Wire>> {
        self.wires.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// How long the one that has heard nothing for the longest has waited.
    pub(super) fn silence(&self) -> Option<Duration> {
        self.wires().iter().filter_map(|wire| wire.silence()).max()
    }

    /// A connection as it is, without checks; what it hears goes to `heard`.
    pub(super) async fn client(&self, heard: Option<Ear>) -> Result<(Client, Arc<Wire>), StoreError> {
        let wire = Arc::new(Wire::default());
        let connector = self.tls.connector(Arc::clone(&wire));
        let config = &self.url.config;
        let limit = self.url.connect_timeout;
        let late =
            |_| StoreError::NotDone(format!("the server cannot be reached: no answer within {limit:?}"));
        let client = match socket(config) {
            None => {
                let met = timeout(limit, config.connect(connector)).await.map_err(late)?;
                let (client, connection) = met.map_err(|e| self.unmet(&e))?;
                self.drive(connection, &wire, heard);
                client
            }
            Some(path) => {
                let mut connector = connector;
                let meeting =
                    connector.make_tls_connect("").map_err(|e| StoreError::NotDone(e.to_string()))?;
                let met = timeout(limit, async {
                    let stream = UnixStream::connect(&path).await.map_err(|e| {
                        let shown = path.display();
                        StoreError::NotDone(format!("the server cannot be reached: {shown}: {e}"))
                    })?;
                    config.connect_raw(stream, meeting).await.map_err(|e| error::of_client(&e))
                });
                let (client, connection) = met.await.map_err(late)??;
                self.drive(connection, &wire, heard);
                client
            }
        };
        Ok((client, wire))
    }

    /// A connection for the store, checked: it keeps what it acknowledges, and takes writes.
    pub(super) async fn link(&self) -> Result<Link, StoreError> {
        let (client, wire) = self.client(None).await?;
        let limit = self.url.connect_timeout;
        let set_up = async {
            let server = describe(&client, self.url.neon).await?;
            check(&server, self.durability)?;
            if !self.url.pooled {
                client.batch_execute(SETTINGS).await.map_err(|e| error::of_client(&e))?;
            }
            let mut conn = AsyncPgConnection::try_from(client).await.map_err(|e| error::of_setup(&e))?;
            conn.set_instrumentation(Count(Arc::clone(&wire)));
            let mut wires = self.wires.lock();
            wires.retain(|wire| wire.strong_count() > 0);
            wires.push(Arc::downgrade(&wire));
            drop(wires);
            Ok(Link { conn, wire: Arc::clone(&wire), server })
        };
        timeout(limit, set_up).await.map_err(|_| {
            StoreError::NotDone(format!("the server let us in, but did not answer within {limit:?}"))
        })?
    }

    /// Why there is no connection, with advice where the way itself is the trouble.
    fn unmet(&self, e: &tokio_postgres::Error) -> StoreError {
        let error = error::of_client(e);
        let text = e.to_string();
        match error {
            StoreError::NotDone(why) if text.contains("TLS") && self.url.privacy != Privacy::Plain => {
                StoreError::NotDone(format!(
                    "{why} (the store's URL may name sslrootcert, sslmode=require to verify nothing, or \
                     sslmode=disable for plain text)"
                ))
            }
            error => error,
        }
    }

    /// Drives the connection until its client is gone or the server is.
    fn drive<S, T>(&self, mut connection: Connection<S, T>, wire: &Arc<Wire>, heard: Option<Ear>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let wire = Arc::clone(wire);
        self.home.spawn(async move {
            loop {
                let message = tokio::select! {
                    message = poll_fn(|cx| connection.poll_message(cx)) => message,
                    () = wire.given_up() => break,
                };
                match message {
                    Some(Ok(AsyncMessage::Notification(n))) => {
                        if let Some(ear) = &heard
                            && ear.heard.try_send((n.channel().to_owned(), n.payload().to_owned())).is_err()
                        {
                            ear.missed.store(true, Ordering::Release);
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => break,
                }
            }
            // known before those who wait hear of it, or they would give it back to the pool
            wire.close();
            drop(connection);
        });
    }
}

fn socket(config: &Config) -> Option<std::path::PathBuf> {
    let port = config.get_ports().first().copied().unwrap_or(5432);
    match config.get_hosts() {
        [Host::Unix(folder)] if config.get_hostaddrs().is_empty() => {
            Some(folder.join(format!(".s.PGSQL.{port}")))
        }
        _ => None,
    }
}

/// Counts statements that begin and end: see [`Wire::is_abandoned`].
struct Count(Arc<Wire>);

impl Instrumentation for Count {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        match event {
            InstrumentationEvent::StartQuery { .. } => self.0.count(1),
            InstrumentationEvent::FinishQuery { .. } => self.0.count(-1),
            _ => {}
        }
    }
}

async fn describe(client: &Client, neon: bool) -> Result<Server, StoreError> {
    let query = "SELECT current_setting('server_version_num'), current_setting('synchronous_commit'), \
                 current_setting('synchronous_standby_names'), current_setting('fsync'), \
                 pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on', \
                 current_setting('neon.timeline_id', true) IS NOT NULL";
    let answer = client.simple_query(query).await.map_err(|e| error::of_client(&e))?;
    let Some(row) = answer.iter().find_map(|m| match m {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    }) else {
        return Err(StoreError::NotDone("the server says nothing of itself".to_owned()));
    };
    let text = |n: usize| row.try_get(n).ok().flatten().unwrap_or_default();
    Ok(Server {
        version: text(0).parse().unwrap_or_default(),
        synchronous_commit: text(1).to_owned(),
        standbys: !text(2).trim().is_empty(),
        fsync: text(3) != "off",
        read_only: text(4) == "t",
        neon: neon || text(5) == "t",
    })
}

/// Whether the server is one to entrust acknowledged work to.
fn check(server: &Server, durability: Durability) -> Result<(), StoreError> {
    if server.version < OLDEST {
        let (had, least) = (server.version / 10_000, OLDEST / 10_000);
        return Err(StoreError::Refused(format!("the server is Postgres {had}: at least {least} is needed")));
    }
    if server.read_only {
        return Err(error::read_only());
    }
    if durability == Durability::Relaxed {
        return Ok(());
    }
    // `local` and `remote_write` flush here as `on` does; they are weaker where a standby is to have
    // the commit, too
    let weak = match server.synchronous_commit.as_str() {
        "off" => true,
        "local" | "remote_write" => server.standbys,
        _ => false,
    };
    if weak {
        return Err(StoreError::Refused(format!(
            "the server runs with synchronous_commit = {}: acknowledged work could be lost. ALTER ROLE … SET \
             synchronous_commit = on, or set store.durability = \"relaxed\"",
            server.synchronous_commit
        )));
    }
    // Neon keeps commits in its safekeepers, not in the server's files
    if !server.fsync && !server.neon {
        return Err(StoreError::Refused(
            "the server runs with fsync = off: acknowledged work would not survive a power cut. Switch it on, \
             or set store.durability = \"relaxed\""
                .to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fine() -> Server {
        Server { version: 150_004, synchronous_commit: "on".to_owned(), fsync: true, ..Server::default() }
    }

    fn why(server: &Server) -> Option<String> {
        check(server, Durability::Full).err().map(|e| e.to_string())
    }

    #[test]
    fn a_server_that_would_lose_what_it_acknowledges_is_refused() {
        assert_eq!(why(&fine()), None);
        let commit =
            |level: &str, standbys| Server { synchronous_commit: level.to_owned(), standbys, ..fine() };
        assert!(why(&commit("off", false)).unwrap().contains("synchronous_commit = off"));
        assert_eq!(why(&commit("local", false)), None);
        assert!(why(&commit("local", true)).is_some() && why(&commit("remote_write", true)).is_some());
        assert_eq!(why(&commit("remote_apply", true)), None);
        let unsynced = Server { fsync: false, ..fine() };
        assert!(why(&unsynced).unwrap().contains("fsync"));
        assert_eq!(why(&Server { neon: true, ..unsynced.clone() }), None);
        assert!(check(&unsynced, Durability::Relaxed).is_ok());
        assert!(check(&commit("off", false), Durability::Relaxed).is_ok());
    }

    #[test]
    fn an_old_server_is_refused_and_a_standby_waited_for() {
        let old = Server { version: 120_009, ..fine() };
        assert!(matches!(check(&old, Durability::Relaxed), Err(StoreError::Refused(t)) if t.contains("12")));
        let standby = Server { read_only: true, ..fine() };
        assert!(
            matches!(check(&standby, Durability::Relaxed), Err(StoreError::NotDone(t)) if t.contains("read-only"))
        );
    }
}
