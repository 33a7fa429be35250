//! The store's URL: removes what tokio-postgres does not know, and decides on TLS.
//!
//! | host | without `sslmode` | allowed |
//! |---|---|---|
//! | a unix socket | plain | `disable` |
//! | loopback | plain | all three |
//! | anything else | `verify-full` | all three; plain text only where it was asked for |
//!
//! `sslmode=require` encrypts and verifies nothing, as with libpq; with `sslrootcert` it verifies the
//! chain, not the name. `verify-full` verifies both, against `sslrootcert` or the system's roots.

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

use percent_encoding::percent_decode_str;
use tokio_postgres::{
    Config,
    config::{ChannelBinding, Host, SslMode, SslNegotiation},
};

use crate::store::StoreError;

/// How long a connection may take to come about where the URL does not say.
const CONNECT: Duration = Duration::from_secs(5);

/// How private the way to the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Privacy {
    /// Plain text.
    Plain,
    /// Encrypted; the chain is verified where a root is named, the name never.
    Encrypted(Option<Roots>),
    /// Encrypted, and the server is who it says.
    Verified(Roots),
}

/// Whom to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Roots {
    /// Whom the system trusts.
    System,
    /// The certificates in a file.
    File(PathBuf),
}

/// Where the store is, and how to get there.
#[derive(Clone)]
pub(super) struct Url {
    /// Without TLS: see [`Url::privacy`].
    pub config: Config,
    pub privacy: Privacy,
    /// A pooler stands between: a session may change from one transaction to the next.
    pub pooled: bool,
    /// By its name, this is Neon, which keeps commits in its own way (`fsync = off` by design).
    pub neon: bool,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
}

/// Never the password.
impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self}, {:?})", self.privacy)
    }
}

/// Hosts and database, for people.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        for (n, host) in self.config.get_hosts().iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            match host {
                Host::Tcp(name) => write!(f, "{comma}{name}")?,
                Host::Unix(path) => write!(f, "{comma}{}", path.display())?,
            }
            if let Some(port) = self.config.get_ports().get(n).or_else(|| self.config.get_ports().first()) {
                write!(f, ":{port}")?;
            }
        }
        write!(f, "/{}", self.config.get_dbname().unwrap_or_default())
    }
}

/// What the query part says that is not tokio-postgres's to read.
#[derive(Default)]
struct Own {
    sslmode: Option<String>,
    sslrootcert: Option<String>,
    pooler: Option<bool>,
}

impl Url {
    /// Reads `postgres://[USER[:PASSWORD]@]HOST[:PORT][,…]/DATABASE[?…]`.
    ///
    /// # Errors
    /// [`StoreError::Refused`] with what is wrong; never with the password.
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        let (own, rest) = split(url)?;
        let mut config: Config = rest.parse().map_err(|e: tokio_postgres::Error| {
            let cause = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
            refused(&format!("the store's URL cannot be read: {cause}"))
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            config.host_path(if cfg!(target_os = "linux") { "/var/run/postgresql" } else { "/tmp" });
        }
        let unix = config.get_hosts().iter().filter(|h| matches!(h, Host::Unix(_))).count();
        if unix > 0 && config.get_hosts().len() > 1 {
            return Err(refused("the store's URL names a socket among several hosts: name the socket alone"));
        }
        let privacy = privacy(&own, unix > 0, is_near(&config))?;
        if privacy == Privacy::Plain && config.get_channel_binding() == ChannelBinding::Require {
            return Err(refused("channel_binding=require needs TLS: write sslmode=require or verify-full"));
        }
        if config.get_application_name().is_none() {
            config.application_name("greenroom");
        }
        // what the other side does not say when it is cut off is noticed within a minute, not two hours
        config
            .keepalives_idle(Duration::from_secs(20))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(4);
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(Duration::from_secs(20));
        }
        let connect_timeout = config.get_connect_timeout().copied().unwrap_or(CONNECT);
        config.connect_timeout(connect_timeout);
        match privacy {
            // see `connect`: the stream is ours in either case
            Privacy::Plain => config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct),
            _ => config.ssl_mode(SslMode::Require),
        };
        let names = |part: &dyn Fn(&str) -> bool| {
            config.get_hosts().iter().any(|h| matches!(h, Host::Tcp(name) if part(name)))
        };
        let pooled = own
            .pooler
            .unwrap_or_else(|| names(&|name| name.split('.').next().is_some_and(|l| l.ends_with("-pooler"))));
        let neon = names(&|name| name.trim_end_matches('.').ends_with(".neon.tech"));
        Ok(Self { config, privacy, pooled, neon, connect_timeout })
    }
}

fn refused(why: &str) -> StoreError {
    StoreError::Refused(why.to_owned())
}

/// Splits off what is ours.
fn split(url: &str) -> Result<(Own, String), StoreError> {
    let mut own = Own::default();
    // as tokio-postgres and libpq do: all before the first @ is who, whatever stands in it
    let after = url.find('@').unwrap_or(0);
    let Some(at) = url.get(after..).and_then(|rest| rest.find('?')).map(|at| after + at) else {
        return Ok((own, url.to_owned()));
    };
    let (base, query) = url.split_at(at);
    let mut left = Vec::new();
    for pair in query.trim_start_matches('?').split('&').filter(|p| !p.is_empty()) {
        let (key, raw) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(raw)
            .decode_utf8()
            .map_err(|_| refused(&format!("{key} in the store's URL is not UTF-8")))?
            .into_owned();
        match key {
            "sslmode" => own.sslmode = Some(value),
            "sslrootcert" if value.is_empty() => {}
            "sslrootcert" => own.sslrootcert = Some(value),
            "pooler" | "pgbouncer" => {
                own.pooler = Some(match value.as_str() {
                    "true" | "1" | "on" | "yes" => true,
                    "false" | "0" | "off" | "no" => false,
                    _ => return Err(refused(&format!("{key} in the store's URL is true or false"))),
                });
            }
            "sslcert" | "sslkey" => {
                return Err(refused(&format!(
                    "{key} in the store's URL: client certificates are not supported"
                )));
            }
            _ => left.push(pair),
        }
    }
    let rest = if left.is_empty() { base.to_owned() } else { format!("{base}?{}", left.join("&")) };
    Ok((own, rest))
}

/// Whether every host is this machine.
fn is_near(config: &Config) -> bool {
    let near = |ip: &IpAddr| ip.is_loopback();
    if !config.get_hostaddrs().is_empty() {
        return config.get_hostaddrs().iter().all(near);
    }
    config.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => {
            name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| near(&ip))
        }
        Host::Unix(_) => true,
    })
}

fn privacy(own: &Own, unix: bool, near: bool) -> Result<Privacy, StoreError> {
    let file = own.sslrootcert.as_ref().map(|path| match path.as_str() {
        "system" => Roots::System,
        path => Roots::File(PathBuf::from(path)),
    });
    match own.sslmode.as_deref() {
        Some("disable") => Ok(Privacy::Plain),
        Some(_) if unix => {
            Err(refused("there is no TLS over a socket: leave sslmode out of the store's URL"))
        }
        Some("require") => Ok(Privacy::Encrypted(file)),
        Some("verify-full") => Ok(Privacy::Verified(file.unwrap_or(Roots::System))),
        Some(other) => Err(refused(&format!(
            "sslmode={other} in the store's URL: this program knows disable, require and verify-full"
        ))),
        None if file.is_some() && !unix => Ok(Privacy::Verified(file.unwrap_or(Roots::System))),
        None if near => Ok(Privacy::Plain),
        None => Ok(Privacy::Verified(Roots::System)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Url {
        Url::parse(url).unwrap()
    }

    fn wrong(url: &str) -> String {
        match Url::parse(url) {
            Err(StoreError::Refused(why)) => why,
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn plain_text_leaves_this_machine_only_where_it_was_asked_for() {
        for near in ["localhost", "127.0.0.1", "127.3.2.1:5433", "[::1]", "LocalHost:6000"] {
            assert_eq!(parse(&format!("postgres://u:p@{near}/d")).privacy, Privacy::Plain, "{near}");
        }
        assert_eq!(parse("postgres:///d?host=/tmp/x").privacy, Privacy::Plain);
        for far in ["db.example", "10.0.0.1", "localhost.example", "127.0.0.1,db.example", "[2001:db8::1]"] {
            let url = format!("postgres://u:p@{far}/d");
            assert_eq!(parse(&url).privacy, Privacy::Verified(Roots::System), "{far}");
            assert_eq!(parse(&format!("{url}?sslmode=disable")).privacy, Privacy::Plain, "{far}");
        }
        // the address decides, not the name beside it
        let named = parse("postgres://u@localhost/d?hostaddr=10.0.0.1");
        assert_eq!(named.privacy, Privacy::Verified(Roots::System));
    }

    #[test]
    fn three_modes_are_known_and_others_are_named() {
        let far = "postgres://u@db.example/d?sslmode=";
        assert_eq!(parse(&format!("{far}require")).privacy, Privacy::Encrypted(None));
        let root = Roots::File(PathBuf::from("/etc/a b.pem"));
        let with = format!("{far}require&sslrootcert=/etc/a%20b.pem");
        assert_eq!(parse(&with).privacy, Privacy::Encrypted(Some(root.clone())));
        let full = format!("{far}verify-full&sslrootcert=/etc/a%20b.pem");
        assert_eq!(parse(&full).privacy, Privacy::Verified(root.clone()));
        let near = parse("postgres://u@localhost/d?sslrootcert=/etc/a%20b.pem");
        assert_eq!(near.privacy, Privacy::Verified(root));
        for mode in ["prefer", "allow", "verify-ca", "on"] {
            assert!(wrong(&format!("{far}{mode}")).contains(mode));
        }
        assert!(wrong("postgres:///d?host=/tmp&sslmode=require").contains("socket"));
        assert!(wrong("postgres://localhost/d?channel_binding=require").contains("TLS"));
    }

    #[test]
    fn a_neon_url_works_unchanged() {
        let url = parse(
            "postgresql://me:s3cret@ep-cool-1-pooler.eu-central-1.aws.neon.tech/neondb\
             ?sslmode=require&channel_binding=require&options=endpoint%3Dep-cool-1",
        );
        assert!(url.pooled && url.neon);
        assert_eq!(url.privacy, Privacy::Encrypted(None));
        assert_eq!(url.config.get_channel_binding(), ChannelBinding::Require);
        assert_eq!(url.config.get_options(), Some("endpoint=ep-cool-1"));
        assert_eq!(url.config.get_dbname(), Some("neondb"));
        assert!(!parse("postgresql://u@ep-cool-1.eu.aws.neon.tech/d").pooled);
    }

    #[test]
    fn a_pooler_can_be_named() {
        assert!(parse("postgres://localhost/d?pooler=true").pooled);
        assert!(parse("postgres://localhost/d?pgbouncer=true").pooled);
        assert!(!parse("postgres://x-pooler.example/d?pooler=false").pooled);
        assert!(!parse("postgres://db.x-pooler/d").pooled, "the first label says it");
        assert!(wrong("postgres://localhost/d?pooler=perhaps").contains("pooler"));
    }

    #[test]
    fn lists_names_and_limits_are_kept() {
        let url = parse(
            "postgres://u@a.example:6001,b.example:6002/d?target_session_attrs=read-write\
             &application_name=mine&connect_timeout=9",
        );
        assert_eq!(url.config.get_hosts().len(), 2);
        assert_eq!(url.config.get_ports(), [6001, 6002]);
        assert_eq!(url.config.get_application_name(), Some("mine"));
        assert_eq!(url.connect_timeout, Duration::from_secs(9));
        assert_eq!(parse("postgres://localhost/d").config.get_application_name(), Some("greenroom"));
        assert!(wrong("postgres://%2Ftmp,localhost/d").contains("socket"));
        assert!(wrong("postgres://localhost/d?sslkey=k").contains("client certificates"));
        assert!(wrong("postgres://localhost/d?wibble=1").contains("wibble"));
    }

    #[test]
    fn a_password_is_never_shown() {
        let url = parse("postgres://u:hunter2?x@db.example:6000/d?sslmode=disable");
        assert_eq!(url.config.get_password(), Some(&b"hunter2?x"[..]));
        assert_eq!(url.to_string(), "postgres://db.example:6000/d");
        assert!(!format!("{url:?}").contains("hunter2"));
        assert!(!wrong("postgres://u:hunter2@h:port/d").contains("hunter2"));
        assert!(!wrong("postgres://u:hunter2@h/d?wibble=2").contains("hunter2"));
    }
}
