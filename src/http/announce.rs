//! `node.json` in the data directory: the address of the node that uses it.

use std::{fs, io, net::SocketAddr, path::Path};

use serde::{Deserialize, Serialize};

use crate::config::Http;

/// The file's name in the data directory.
pub const FILE: &str = "node.json";

/// Where a node can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The API's root, such as `http://127.0.0.1:7710`.
    pub url: String,
    /// The node's process.
    pub pid: u32,
    /// Its boot id.
    pub boot: String,
}

impl Announcement {
    /// What this process announces when it listens at `address`.
    pub fn new(address: SocketAddr, http: &Http, boot: impl Into<String>) -> Self {
        Self { url: url_of(address, http), pid: std::process::id(), boot: boot.into() }
    }

    /// Writes it, whole or not at all: to be called when the node is ready.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        let draft = data_dir.join(format!("{FILE}.{}.new", self.pid));
        fs::write(&draft, serde_json::to_vec(self)?)?;
        fs::rename(&draft, data_dir.join(FILE))
    }

    /// What stands there; nothing where there is no such file, or none that can be read.
    pub fn read(data_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(data_dir.join(FILE)).ok()?).ok()
    }

    /// Takes away what an earlier node left: to be called before a new one starts.
    pub fn forget(data_dir: &Path) {
        // Where it cannot be removed it is overwritten when the node is ready.
        let _ = fs::remove_file(data_dir.join(FILE));
    }

    /// Takes it away, if it is still this one: to be called at an orderly end.
    pub fn remove(&self, data_dir: &Path) {
        if Self::read(data_dir).is_some_and(|there| there.boot == self.boot) {
            // A file that stays is out of date, and no more than that.
            let _ = fs::remove_file(data_dir.join(FILE));
        }
    }
}

/// The URL at which a client on this machine reaches `address`.
pub fn url_of(address: SocketAddr, http: &Http) -> String {
    let host = match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => "127.0.0.1".to_owned(),
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => "[::1]".to_owned(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    };
    let scheme = if http.tls.cert.is_some() { "https" } else { "http" };
    format!("{scheme}://{host}:{}", address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn http(sets: &[&str]) -> Http {
        let sets = sets.iter().map(|s| (*s).to_owned()).collect();
        load(&Sources { sets, ..Sources::default() }).unwrap().http
    }

    #[test]
    fn it_is_read_back_and_removed_by_its_own_node_only() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Announcement::read(dir.path()), None);
        let mine = Announcement::new("127.0.0.1:7710".parse().unwrap(), &http(&[]), "boot-1");
        mine.write(dir.path()).unwrap();
        assert_eq!(Announcement::read(dir.path()), Some(mine.clone()));
        let other = Announcement { boot: "boot-2".into(), ..mine.clone() };
        other.remove(dir.path());
        assert!(Announcement::read(dir.path()).is_some());
        mine.remove(dir.path());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_client_can_use_the_url() {
        for (address, url) in [
            ("127.0.0.1:80", "http://127.0.0.1:80"),
            ("0.0.0.0:80", "http://127.0.0.1:80"),
            ("[::]:80", "http://[::1]:80"),
            ("[::1]:80", "http://[::1]:80"),
        ] {
            assert_eq!(url_of(address.parse().unwrap(), &http(&[])), url);
        }
        let tls = http(&["http.tls.cert=c", "http.tls.key=k"]);
        assert_eq!(url_of("0.0.0.0:443".parse().unwrap(), &tls), "https://127.0.0.1:443");
    }
}
