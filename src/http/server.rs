//! The server: shared data, start and shutdown.

use std::{
    future::ready,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::Duration,
};

use actix_http::{HttpService, Protocol, error::DispatchError};
use actix_server::{GracefulShutdownSignal, Server};
use actix_service::{
    IntoServiceFactory as _, ServiceFactory, ServiceFactoryExt as _, fn_service, map_config,
};
use actix_tls::accept::{
    TlsError,
    rustls_0_23::{Acceptor, TlsStream},
};
use actix_web::{App, dev::AppConfig, middleware::from_fn, rt::net::TcpStream, web};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::{
    access::Access,
    events::{self, Feed},
    files, guard,
    pipeline::Bounded,
    router,
    tls::Certificate,
};
use crate::{
    config::Settings,
    log::Logger,
    model::event::{self, Event, Level},
    runtime::operator::Operator,
};

/// Threads that parse requests; the agents' work is done elsewhere.
const WORKERS: usize = 2;
/// Connections at the same time, for each worker: room for all event streams, and for as many others as
/// if there were none.
const MAX_CONNECTIONS: usize = events::MAX_STREAMS / WORKERS + 2_048;
/// How long a connection without a request is kept.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a client may take to go when its connection has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long requests that are under way may go on when the node ends.
const DRAIN_SECONDS: u64 = 10;
/// How often the histograms are tidied, whether somebody reads them or not.
const UPKEEP: Duration = Duration::from_secs(5);

/// What every handler may use.
#[derive(Clone)]
pub struct Ctx {
    /// The door to the node.
    pub operator: Operator,
    /// What the server was started with.
    pub settings: Arc<Settings>,
    /// The log, for `/logs`.
    pub logger: Logger,
    /// The metrics, where a recorder is installed.
    pub metrics: Option<PrometheusHandle>,
    /// Who may come in.
    pub access: Access,
    /// Cancelled when the node ends: long polls are answered at once, and the server ends.
    pub stop: CancellationToken,
}

/// The same, where only so many files may be open: a quarter of them is for the agents, their tools and the store.
fn max_connections() -> usize {
    files::open_files().map_or(MAX_CONNECTIONS, |files| MAX_CONNECTIONS.min(files / 4 * 3 / WORKERS).max(1))
}

/// Serves on `listener` (see `bind`), with `tls` where it is given, on a thread of its own, until [`Ctx::stop`] is
/// cancelled and the requests that are under way have been answered.
///
/// # Errors
/// The thread cannot be started. What goes wrong later is in the log.
pub fn spawn(
    ctx: Ctx,
    listener: TcpListener,
    tls: Option<Certificate>,
) -> io::Result<thread::JoinHandle<()>> {
    let logger = ctx.logger.clone();
    files::take_all();
    thread::Builder::new().name("http".to_owned()).spawn(move || {
        if let Err(error) = actix_web::rt::System::new().block_on(serve(ctx, listener, tls)) {
            let event = Event::new(Level::Error, event::NODE_STOPPING, "http");
            logger.emit(event.field("error", error.to_string()));
        }
    })
}

/// Who is at the other end; answers leave at once: one of several writes would wait 40 ms for the client's delayed
/// acknowledgement.
fn peer_of(stream: &TcpStream) -> Option<SocketAddr> {
    let _ = stream.set_nodelay(true);
    stream.peer_addr().ok()
}

/// What each worker makes its service of.
#[derive(Clone)]
struct Site {
    ctx: Ctx,
    feed: web::Data<Feed>,
    patience: Duration,
    drained: GracefulShutdownSignal,
}

impl Site {
    /// Answers the requests of one connection.
    fn requests<S>(
        &self,
    ) -> impl ServiceFactory<
        (Bounded<S>, Protocol, Option<SocketAddr>),
        Config = (),
        Response = (),
        Error = DispatchError,
        InitError = (),
    > + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let Self { ctx, feed, patience, drained } = self.clone();
        let app = App::new()
            .app_data(web::Data::new(ctx))
            .app_data(feed)
            .configure(router::routes)
            .default_service(web::to(router::nowhere))
            .wrap(from_fn(guard::front))
            .into_factory()
            .map_err(|error| error.error_response());
        HttpService::build()
            .graceful_shutdown_signal(move || {
                let drained = drained.clone();
                async move { drained.notified().await }
            })
            .client_request_timeout(patience)
            .client_disconnect_timeout(LAST_WORDS)
            .keep_alive(KEEP_ALIVE)
            .on_connect_ext(|stream: &Bounded<S>, data| {
                data.insert(stream.pipeline());
            })
            .finish(map_config(app, |()| AppConfig::default()))
    }
}

async fn serve(ctx: Ctx, listener: TcpListener, tls: Option<Certificate>) -> io::Result<()> {
    let (stop, patience) = (ctx.stop.clone(), ctx.settings.http.timeout);
    let upkeep = ctx.metrics.clone().map(|metrics| {
        actix_web::rt::spawn(async move {
            loop {
                actix_web::rt::time::sleep(UPKEEP).await;
                metrics.run_upkeep();
            }
        })
    });
    let feed = web::Data::new(Feed::start(ctx.logger.stream().clone(), stop.clone()));
    let server = Server::build();
    let site = Site { ctx, feed, patience, drained: server.graceful_shutdown_signal() };
    let server = server
        .workers(WORKERS)
        .max_concurrent_connections(max_connections())
        .shutdown_timeout(DRAIN_SECONDS)
        .disable_signals();
    let server = match tls {
        Some(tls) => {
            let mut config = tls.server_config().map_err(io::Error::other)?;
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            server.listen("https", listener, move || {
                let mut acceptor = Acceptor::new(config.clone());
                acceptor.set_handshake_timeout(patience);
                acceptor
                    .map_err(TlsError::into_service_error)
                    .map(|stream: TlsStream<TcpStream>| (peer_of(stream.get_ref().0), stream))
                    .map(|(peer, stream)| (Bounded::new(stream), Protocol::Http1, peer))
                    .and_then(site.requests().map_err(TlsError::Service))
            })?
        }
        None => server.listen("http", listener, move || {
            fn_service(|stream: TcpStream| {
                let peer = peer_of(&stream);
                ready(Ok((Bounded::new(stream), Protocol::Http1, peer)))
            })
            .and_then(site.requests())
        })?,
    };
    let server = server.run();
    let handle = server.handle();
    let ender = actix_web::rt::spawn(async move {
        stop.cancelled().await;
        handle.stop(true).await;
    });
    let ended = server.await;
    ender.abort();
    if let Some(upkeep) = upkeep {
        upkeep.abort();
    }
    ended
}
