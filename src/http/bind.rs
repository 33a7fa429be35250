//! Binding the port, before anything else starts, so that errors are reported at once.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use socket2::TcpKeepalive;

use crate::config::Settings;

/// So many times `http.timeout` a client may take nothing at all: a reader of the event stream, too, that has
/// stood still for a while goes on with the newest.
#[cfg(target_os = "linux")]
const STALLED: u32 = 4;
/// How much of an answer the system keeps for a client that has not taken it: left to itself, it keeps megabytes
/// for each, also for those who have shown no token.
const SEND_BUFFER: usize = 64 * 1_024;
/// How long nothing is heard of a client before it is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

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
        "http.bind = \"{0}\" is reachable from other machines, and the token would travel in the clear: bind to 127.0.0.1, set http.tls.cert and http.tls.key, or put a proxy that speaks TLS in front and set `http.behind_proxy = true`"
    )]
    Exposed(SocketAddr),
    /// The system refused.
    #[error("cannot listen on {address}: {error}")]
    System {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
}

/// Refuses an address that is reachable from elsewhere where nothing encrypts.
///
/// # Errors
/// [`BindError::Exposed`].
pub fn exposed(settings: &Settings) -> Result<(), BindError> {
    let http = &settings.http;
    if http.is_exposed() {
        return Err(BindError::Exposed(http.bind));
    }
    Ok(())
}

/// Takes the port of `http.bind`.
///
/// # Errors
/// The port is in use or may not be taken, or listening there would not be safe.
pub fn bind(settings: &Settings) -> Result<TcpListener, BindError> {
    let http = &settings.http;
    exposed(settings)?;
    let system = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(http.bind),
        _ => BindError::System { address: http.bind, error },
    };
    let listener = TcpListener::bind(http.bind).map_err(system)?;
    listener.set_nonblocking(true).map_err(system)?;
    // Handed down to each connection: one whose client is gone, or takes nothing any more, is ended by the system.
    let socket = socket2::SockRef::from(&listener);
    let alive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE / 6);
    socket.set_tcp_keepalive(&alive).map_err(system)?;
    socket.set_send_buffer_size(SEND_BUFFER).map_err(system)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(http.timeout * STALLED)).map_err(system)?;
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
    fn little_of_an_answer_is_kept_for_who_does_not_take_it() {
        use std::{io::Write as _, net::TcpStream};
        let listener = try_bind(&["http.bind=127.0.0.1:0"]).unwrap();
        listener.set_nonblocking(false).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        socket2::SockRef::from(&client).set_recv_buffer_size(4_096).unwrap();
        let (mut connection, _) = listener.accept().unwrap();
        connection.set_nonblocking(true).unwrap();
        let mut taken = 0;
        while let Ok(bytes) = connection.write(&[0; 16 * 1_024]) {
            taken += bytes;
        }
        assert!(taken < 1 << 20, "{taken} bytes are on their way");
    }

    #[test]
    fn an_open_address_needs_tls_or_a_proxy() {
        assert!(matches!(try_bind(&["http.bind=0.0.0.0:0"]), Err(BindError::Exposed(_))));
        assert!(try_bind(&["http.bind=0.0.0.0:0", "http.behind_proxy=true"]).is_ok());
        assert!(try_bind(&["http.bind=0.0.0.0:0", "http.tls.cert=c", "http.tls.key=k"]).is_ok());
        assert!(try_bind(&["http.bind=127.0.0.1:0"]).is_ok());
    }
}
