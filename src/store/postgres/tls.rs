//! The way to the server: plain or TLS, and read along with in either case.

use std::{io, pin::Pin, sync::Arc, task::Poll};

use futures_util::future::BoxFuture;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{self, CryptoProvider},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    url::{Privacy, Roots},
    wire::{Tap, Wire},
};
use crate::store::StoreError;

/// A socket, or TLS over one.
pub(super) enum Way<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Plain(S),
    Tls(Box<<MakeRustlsConnect as MakeTlsConnect<S>>::Stream>),
}

/// How to set out: read once, used for every connection.
#[derive(Clone)]
pub(super) struct Tls(Option<MakeRustlsConnect>);

impl Tls {
    /// Reads the roots that the URL asks for.
    pub(super) fn new(privacy: &Privacy) -> Result<Self, StoreError> {
        let provider = Arc::new(crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| StoreError::Refused(format!("TLS cannot be set up: {e}")))?;
        let mut config = match privacy {
            Privacy::Plain => return Ok(Self(None)),
            Privacy::Verified(from) => builder.with_root_certificates(roots(from)?).with_no_client_auth(),
            Privacy::Encrypted(from) => {
                let chain = from.as_ref().map(|from| chain_of(from, &provider)).transpose()?;
                let lenient = Arc::new(Lenient { provider, chain });
                builder.dangerous().with_custom_certificate_verifier(lenient).with_no_client_auth()
            }
        };
        // servers that are met with sslnegotiation=direct insist on it, others do not look
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(Self(Some(MakeRustlsConnect::new(config))))
    }

    /// For one connection.
    pub(super) fn connector(&self, wire: Arc<Wire>) -> Connector {
        Connector { tls: self.0.clone(), wire }
    }
}

fn roots(from: &Roots) -> Result<RootCertStore, StoreError> {
    let refused = |why: String| StoreError::Refused(why);
    let mut store = RootCertStore::empty();
    match from {
        Roots::System => {
            let found = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(found.certs);
            if store.is_empty() {
                let why = found.errors.first().map_or_else(String::new, |e| format!(" ({e})"));
                return Err(refused(format!(
                    "the system trusts no certificate authority that could be read{why}: install \
                     ca-certificates, or name one with sslrootcert in the store's URL"
                )));
            }
        }
        Roots::File(path) => {
            let shown = path.display();
            let unread =
                |e: &dyn std::fmt::Display| refused(format!("sslrootcert {shown} cannot be read: {e}"));
            for cert in CertificateDer::pem_file_iter(path).map_err(|e| unread(&e))? {
                store.add(cert.map_err(|e| unread(&e))?).map_err(|e| unread(&e))?;
            }
            if store.is_empty() {
                return Err(unread(&"it holds no certificate"));
            }
        }
    }
    Ok(store)
}

fn chain_of(from: &Roots, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, StoreError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots(from)?), Arc::clone(provider))
        .build()
        .map_err(|e| StoreError::Refused(format!("sslrootcert cannot be used: {e}")))
}

/// `sslmode=require`: whoever answers is believed, or whoever has a certificate of the named root.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    chain: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Makes the stream of one connection. To tokio-postgres, plain text is a kind of TLS too (with
/// `sslnegotiation=direct`), so that there is one kind of stream.
pub(super) struct Connector {
    tls: Option<MakeRustlsConnect>,
    wire: Arc<Wire>,
}

/// A [`Connector`] that knows whom it is to meet.
pub(super) struct Meeting<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> {
    tls: Option<<MakeRustlsConnect as MakeTlsConnect<S>>::TlsConnect>,
    wire: Arc<Wire>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Connector {
    type Stream = Tap<Way<S>>;
    type TlsConnect = Meeting<S>;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Meeting<S>, Self::Error> {
        let tls = match &mut self.tls {
            None => None,
            Some(tls) => Some(MakeTlsConnect::<S>::make_tls_connect(tls, domain)?),
        };
        Ok(Meeting { tls, wire: Arc::clone(&self.wire) })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Meeting<S> {
    type Stream = Tap<Way<S>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Tap<Way<S>>>>;

    fn connect(self, stream: S) -> Self::Future {
        let Self { tls, wire } = self;
        match tls {
            None => Box::pin(async move { Ok(Tap::new(Way::Plain(stream), wire)) }),
            Some(tls) => {
                let handshake = tls.connect(stream);
                Box::pin(async move { Ok(Tap::new(Way::Tls(Box::new(handshake.await?)), wire)) })
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncRead for Way<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Self::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncWrite for Way<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(s) => Pin::new(s).poll_write(cx, buf),
            Self::Tls(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(s) => Pin::new(s).poll_flush(cx),
            Self::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Self::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsStream for Way<S> {
    fn channel_binding(&self) -> ChannelBinding {
        match self {
            Self::Plain(_) => ChannelBinding::none(),
            Self::Tls(s) => s.channel_binding(),
        }
    }
}

#[cfg(test)]
mod tests {
    use diesel_async::SimpleAsyncConnection;

    use super::super::{
        pool::Pools,
        server::{Authority, PASSWORD, Server},
        url::Url,
    };
    use crate::store::{Durability, StoreError};

    /// What the store says to such a URL: nothing, where it gets in and all is encrypted.
    async fn met(url: &str) -> Result<(), String> {
        let url = Url::parse(url).map_err(|e| e.to_string())?;
        let pools = Pools::open(url, Durability::Relaxed, 1).await.map_err(|e| {
            assert!(matches!(e, StoreError::NotDone(_)), "{e}");
            e.to_string()
        })?;
        let encrypted = "DO $$BEGIN IF NOT (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()) \
                         THEN RAISE 'plain text'; END IF; END$$";
        pools.get().await.unwrap().batch_execute(encrypted).await.map_err(|e| e.to_string())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_answers_is_verified_as_far_as_the_url_says() {
        let (server, root) = Server::with_tls();
        let stranger = server.data().join("stranger.pem");
        std::fs::write(&stranger, Authority::new().pem()).unwrap();
        let (root, stranger) = (root.display(), stranger.display());
        let port = server.port();
        let at =
            |host: &str, rest: &str| format!("postgres://postgres:{PASSWORD}@{host}:{port}/postgres?{rest}");
        let fine = [
            at("localhost", "sslmode=require"),
            at("localhost", "sslmode=require&channel_binding=require"),
            at("localhost", &format!("sslmode=verify-full&sslrootcert={root}")),
            at("localhost", &format!("sslmode=verify-full&sslrootcert={root}&channel_binding=require")),
            // a root named is a root meant
            at("localhost", &format!("sslrootcert={root}")),
            // the name is not verified, the chain is
            at("127.0.0.1", &format!("sslmode=require&sslrootcert={root}")),
        ];
        for url in fine {
            assert_eq!(met(&url).await, Ok(()), "{url}");
        }
        let wrong = [
            (at("127.0.0.1", &format!("sslmode=verify-full&sslrootcert={root}")), "not valid for name"),
            (
                at("localhost", &format!("sslmode=verify-full&sslrootcert={stranger}")),
                "invalid peer certificate",
            ),
            (at("localhost", &format!("sslmode=require&sslrootcert={stranger}")), "invalid peer certificate"),
            (at("localhost", "sslmode=verify-full&sslrootcert=/nowhere.pem"), "cannot be read"),
            (at("localhost", "sslmode=disable"), "does not allow it"),
            (at("localhost", "sslmode=require").replace(PASSWORD, "guessed"), "does not allow it"),
        ];
        for (url, expected) in wrong {
            let why = met_or_refused(&url).await;
            assert!(why.contains(expected), "{url}: {why}");
            assert!(!why.contains(PASSWORD) && !why.contains("guessed"), "{why}");
        }
    }

    async fn met_or_refused(url: &str) -> String {
        match Pools::open(Url::parse(url).unwrap(), Durability::Relaxed, 1).await {
            Ok(_) => "it was let in".to_owned(),
            Err(e) => e.to_string(),
        }
    }

    /// A private authority is none that the system trusts.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn without_a_root_the_systems_decide() {
        let (server, _) = Server::with_tls();
        let url = format!(
            "postgres://postgres:{PASSWORD}@localhost:{}/postgres?sslmode=verify-full",
            server.port()
        );
        let why = met_or_refused(&url).await;
        assert!(why.contains("UnknownIssuer") || why.contains("trusts no certificate authority"), "{why}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_server_without_tls_is_not_spoken_to_in_plain_text() {
        let server = Server::careless();
        let why = met_or_refused(&format!("{}?sslmode=require", server.url())).await;
        assert!(why.contains("TLS") && why.contains("sslmode=disable"), "{why}");
    }
}
