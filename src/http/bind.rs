//! Taking the port: done before anything else starts, so that what is wrong is said at once.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use crate::config::Settings;

/// Why the port was not taken.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has it.
    #[error(
        "{0} is in use, perhaps by another node: stop that one, or take another port with `--set http.bind={ip}:0`",
        ip = .0.ip()
    )]
    InUse(SocketAddr),
    /// The address is reachable from elsewhere, and the token would cross the network unencrypted.
    #[error(
        "http.bind = \"{0}\" is reachable from other machines, and the token would travel in the clear: bind to 127.0.0.1, or put a proxy that speaks TLS in front and set `http.behind_proxy = true`"
    )]
    Exposed(SocketAddr),
    /// TLS was asked for, and this version does not speak it.
    #[error(
        "http.tls is set, but this version does not speak TLS itself: put a proxy that does in front, and set `http.behind_proxy = true`"
    )]
    Tls,
    /// The system refused.
    #[error("cannot listen on {address}: {error}")]
    System {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
}

/// Takes the port of `http.bind`.
///
/// # Errors
/// The port is in use or may not be taken, or listening there would not be safe.
pub fn bind(settings: &Settings) -> Result<TcpListener, BindError> {
    let http = &settings.http;
    if http.tls.cert.is_some() || http.tls.key.is_some() {
        return Err(BindError::Tls);
    }
    if !http.bind.ip().is_loopback() && !http.behind_proxy {
        return Err(BindError::Exposed(http.bind));
    }
    let system = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(http.bind),
        _ => BindError::System { address: http.bind, error },
    };
    let listener = TcpListener::bind(http.bind).map_err(system)?;
    listener.set_nonblocking(true).map_err(system)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn try_bind(sets: &[&str]) -> Result<TcpListener, BindError> {
        let dir = tempfile::tempdir().unwrap();
        let sets = sets.iter().map(|s| (*s).to_owned()).collect();
        let sources = Sources { cwd: dir.path().into(), sets, ..Sources::default() };
        bind(&load(&sources).unwrap())
    }

    #[test]
    fn a_port_in_use_is_named_with_a_way_out() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = try_bind(&[&format!("http.bind={address}")]).unwrap_err();
        assert!(matches!(error, BindError::InUse(a) if a == address));
        let text = error.to_string();
        assert!(
            text.contains(&address.to_string()) && text.contains("--set http.bind=127.0.0.1:0"),
            "{text}"
        );
    }

    #[test]
    fn an_open_address_needs_a_proxy() {
        assert!(matches!(try_bind(&["http.bind=0.0.0.0:0"]), Err(BindError::Exposed(_))));
        assert!(try_bind(&["http.bind=0.0.0.0:0", "http.behind_proxy=true"]).is_ok());
        assert!(try_bind(&["http.bind=127.0.0.1:0"]).is_ok());
    }
}
