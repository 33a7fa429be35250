//! Hints between nodes: LISTEN on a connection of its own, NOTIFY from wherever.
//!
//! A notification is a hint, never the truth: whoever waits for one polls as well. It is never sent
//! from a transaction that matters, for a commit with a NOTIFY takes a lock that all of them share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use diesel::sql_types::Text;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    connect::{Ear, Heard},
    error,
    pool::Pools,
};
use crate::store::{Hint, StoreError, Watch};

/// The one channel; databases have their own each.
const CHANNEL: &str = "greenroom";

/// How soon our own notification must be heard.
const ECHO: Duration = Duration::from_secs(2);

/// What begins our own.
const OWN: &str = "echo ";

/// Hints that wait to be acted upon. Where some find no room, who listens is told to look round.
const ROOM: usize = 1024;

/// Waits between tries to connect: from, to.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Between tries where connections are made but nothing is heard.
const DEAF: Duration = Duration::from_secs(60);

/// Begins to listen, and calls `tell` with what it hears. `tell` must not block.
pub(super) fn listen(pools: Pools, tell: impl Fn(Hint) + Send + Sync + 'static) -> Watch {
    let home = pools.source().home().clone();
    Watch::new(home.spawn(async move {
        if pools.source().url.pooled {
            tell(Hint::Polling("the store's URL leads through a pooler".to_owned()));
            return;
        }
        let (mut wait, mut is_polling) = (BACK_OFF.0, false);
        loop {
            let heard = hear(&pools, &tell, &mut is_polling).await;
            match heard {
                Ok(()) => wait = BACK_OFF.0,
                Err(Deaf::Lost(why)) => {
                    // said once; the store's own errors tell the rest
                    if !std::mem::replace(&mut is_polling, true) {
                        tell(Hint::Polling(why));
                    }
                }
                Err(Deaf::Unheard) => {
                    if !std::mem::replace(&mut is_polling, true) {
                        tell(Hint::Polling(format!("our own NOTIFY was not heard within {ECHO:?}")));
                    }
                    wait = DEAF;
                }
            }
            // not all nodes at once
            sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            wait = (wait * 2).min(BACK_OFF.1);
        }
    }))
}

/// Why nothing is heard.
enum Deaf {
    Lost(String),
    Unheard,
}

impl From<StoreError> for Deaf {
    fn from(error: StoreError) -> Self {
        Self::Lost(error.to_string())
    }
}

/// Listens until the connection ends.
async fn hear(pools: &Pools, tell: &impl Fn(Hint), is_polling: &mut bool) -> Result<(), Deaf> {
    let (sender, mut heard) = mpsc::channel::<Heard>(ROOM);
    let missed = Arc::<AtomicBool>::default();
    let ear = Ear { heard: sender, missed: missed.clone() };
    let (client, _) = pools.source().client(Some(ear)).await?;
    client.batch_execute(&format!("LISTEN {CHANNEL}")).await.map_err(|e| error::of_client(&e))?;
    // from another connection, as it will be: some poolers bring us our own
    let own = format!("{OWN}{:016x}", fastrand::u64(..));
    notify(&mut *pools.control().await?, &own).await?;
    let echo = async {
        loop {
            match heard.recv().await {
                Some((_, payload)) if payload == own => return true,
                // the first look round makes up for what came before it
                Some(_) => {}
                None => return false,
            }
        }
    };
    match timeout(ECHO, echo).await {
        Err(_) => return Err(Deaf::Unheard),
        Ok(false) => return Err(Deaf::Lost("the connection that listens was lost".to_owned())),
        Ok(true) => {}
    }
    *is_polling = false;
    tell(Hint::Resync);
    while let Some((_, payload)) = heard.recv().await {
        if !payload.starts_with(OWN) {
            tell(Hint::Nudge(payload));
        }
        if missed.swap(false, Ordering::AcqRel) {
            tell(Hint::Resync);
        }
    }
    *is_polling = true;
    tell(Hint::Polling("the connection that listens was lost".to_owned()));
    Ok(())
}

/// Tells all who listen; of them, those who are away miss it. At most 8,000 bytes.
pub(super) async fn notify(conn: &mut AsyncPgConnection, payload: &str) -> Result<(), StoreError> {
    diesel::sql_query(format!("SELECT pg_notify('{CHANNEL}', $1)"))
        .bind::<Text, _>(payload)
        .execute(conn)
        .await
        .map_err(|e| error::of_statement(&e))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            server::{Database, Server},
            url::Url,
        },
        *,
    };
    use crate::store::Durability;

    type Told = mpsc::UnboundedReceiver<Hint>;

    async fn listening(url: &str) -> (Pools, Watch, Told) {
        let pools = Pools::open(Url::parse(url).unwrap(), Durability::Relaxed, 2).await.unwrap();
        let (sender, told) = mpsc::unbounded_channel();
        let listener = listen(pools.clone(), move |signal| sender.send(signal).unwrap_or_default());
        (pools, listener, told)
    }

    async fn next(told: &mut Told) -> Hint {
        timeout(Duration::from_secs(20), told.recv()).await.unwrap().unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_sent_is_heard_in_order() {
        let database = Database::new();
        let (pools, _listener, mut told) = listening(&database.url()).await;
        assert_eq!(next(&mut told).await, Hint::Resync);
        for n in 0..20 {
            notify(&mut pools.get().await.unwrap(), &format!("{n}")).await.unwrap();
        }
        for n in 0..20 {
            assert_eq!(next(&mut told).await, Hint::Nudge(n.to_string()));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_listener_comes_back_with_the_server_and_says_to_look_round() {
        let mut server = Server::careless();
        let (pools, _listener, mut told) = listening(&server.url()).await;
        assert_eq!(next(&mut told).await, Hint::Resync);
        server.stop_immediate();
        assert!(matches!(next(&mut told).await, Hint::Polling(_)));
        server.go_on();
        assert_eq!(next(&mut told).await, Hint::Resync);
        notify(&mut pools.get().await.unwrap(), "again").await.unwrap();
        assert_eq!(next(&mut told).await, Hint::Nudge("again".to_owned()));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn through_a_pooler_nobody_listens() {
        let database = Database::new();
        let (_pools, _listener, mut told) = listening(&format!("{}?pooler=true", database.url())).await;
        assert!(matches!(next(&mut told).await, Hint::Polling(why) if why.contains("pooler")));
        let listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' \
                         AND datname = current_database()";
        assert_eq!(database.psql(listening), "0");
    }
}
