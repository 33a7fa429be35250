//! Connecting to a server: its URL, TLS, and the two connections of a link.

use std::{fs, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, PushInfo,
    TlsCertificates, aio::MultiplexedConnection,
};

use crate::cache::options::{CacheError, CacheOptions};

/// How long a connection may take to be made, TLS and log-in included. Nobody waits for it.
const CONNECT: Duration = Duration::from_secs(2);

/// A server.
pub(super) struct Server {
    client: Client,
}

/// What a connection calls with what it was not asked for. It must not block.
pub(super) type OnPush = Arc<dyn Fn(PushInfo) + Send + Sync>;

impl Server {
    /// The server that a URL means.
    pub(super) fn parse(url: &str, options: &CacheOptions) -> Result<Self, CacheError> {
        // An error of the client may quote the URL, password and all.
        let invalid = |what: &str| CacheError::Url(what.to_owned());
        let info = url.into_connection_info().map_err(|error| {
            let known = error.to_string();
            let secret = url.contains('@') || known.contains(url);
            invalid(if secret {
                "write redis://USER:PASSWORD@HOST:PORT/DB, characters such as / and @ as %2F and %40"
            } else {
                &known
            })
        })?;
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let info = info.set_redis_settings(settings);
        let tls = match info.addr() {
            ConnectionAddr::TcpTls { insecure: true, .. } => {
                return Err(invalid("#insecure is not supported: name the CA with cache.tls_ca"));
            }
            ConnectionAddr::TcpTls { .. } => true,
            _ => false,
        };
        let client = match &options.tls_ca {
            Some(path) if tls => {
                let ca = |error: &dyn std::fmt::Display| CacheError::TlsCa {
                    path: path.clone(),
                    error: error.to_string(),
                };
                let pem = fs::read(path).map_err(|e| ca(&e))?;
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem) };
                Client::build_with_tls(info, certificates).map_err(|e| ca(&e))?
            }
            _ => Client::open(info).map_err(|error| invalid(error.category()))?,
        };
        if tls {
            // Another part of the process may have installed it: the first one stays.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        Ok(Self { client })
    }

    /// A connection, driven by the runtime that this is called on.
    pub(super) async fn connect(&self, on_push: OnPush) -> Result<MultiplexedConnection, String> {
        let config = AsyncConnectionConfig::new()
            // Each call has its own.
            .set_response_timeout(None)
            .set_connection_timeout(Some(CONNECT))
            .set_push_sender(move |push: PushInfo| {
                on_push(push);
                Ok::<(), redis::aio::SendError>(())
            });
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        match tokio::time::timeout(CONNECT, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(format!("it cannot be reached: {error}")),
            Err(_) => Err(format!("it cannot be reached: no answer within {CONNECT:?}")),
        }
    }
}
