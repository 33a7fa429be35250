//! TLS: the certificate and its key, read when the node starts and on reload.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::config::Settings;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM.
    #[error("{key} {} cannot be used: {why}", .path.display())]
    File {
        /// The setting that names it.
        key: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The two files do not belong together, or the key is of a kind that cannot be used.
    #[error(
        "http.tls.key {} cannot be used with http.tls.cert {}: {why}; give the key of the first certificate in that file",
        .key.display(), .cert.display()
    )]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's.
        key: PathBuf,
        /// Why.
        why: String,
    },
}

/// The certificate that the node shows. Cheap to clone.
#[derive(Clone)]
pub struct Certificate(Arc<Files>);

struct Files {
    cert: PathBuf,
    key: PathBuf,
    now: RwLock<Arc<CertifiedKey>>,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("cert", &self.cert).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Files {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now.read().clone())
    }
}

impl Certificate {
    /// Reads what the settings name; `None` where they name none.
    ///
    /// # Errors
    /// Files that cannot be used, with the setting that names them.
    pub fn load(settings: &Settings) -> Result<Option<Self>, TlsError> {
        let tls = &settings.http.tls;
        // One without the other is no valid configuration.
        let (Some(cert), Some(key)) = (tls.cert.clone(), tls.key.clone()) else { return Ok(None) };
        let now = RwLock::new(Arc::new(read(&cert, &key)?));
        Ok(Some(Self(Arc::new(Files { cert, key, now }))))
    }

    /// Reads the files again: connections that come from now on see what is there now.
    ///
    /// # Errors
    /// Files that cannot be used: then all stays as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        let next = Arc::new(read(&self.0.cert, &self.0.key)?);
        *self.0.now.write() = next;
        Ok(())
    }

    /// How the server is to speak.
    pub(super) fn server_config(&self) -> Result<ServerConfig, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
        Ok(builder.with_cert_resolver(self.0.clone()))
    }
}

fn read(cert: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let unusable =
        |key: &'static str, path: &Path, why: String| TlsError::File { key, path: path.to_owned(), why };
    let no_cert = |why: String| unusable("http.tls.cert", cert, why);
    let no_key = |why: String| unusable("http.tls.key", key, why);
    let chain = CertificateDer::pem_file_iter(cert).map_err(|e| no_cert(e.to_string()))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|e| no_cert(e.to_string()))?;
    if chain.is_empty() {
        return Err(no_cert("it holds no certificate (PEM)".to_owned()));
    }
    // What is wrong with a key is not quoted from the file.
    let der = PrivateKeyDer::from_pem_file(key).map_err(|e| no_key(e.to_string()))?;
    let pair = |why: String| TlsError::Pair { cert: cert.to_owned(), key: key.to_owned(), why };
    let signing = ring::sign::any_supported_type(&der).map_err(|e| pair(e.to_string()))?;
    let pair_of = CertifiedKey::new(chain, signing);
    match pair_of.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(pair_of),
        Err(error) => Err(pair(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn settings(sets: &[String]) -> Settings {
        load(&Sources { sets: sets.to_vec(), ..Sources::default() }).unwrap()
    }

    fn try_load(cert: &Path, key: &Path) -> Result<Option<Certificate>, TlsError> {
        let set = |name: &str, path: &Path| format!("http.tls.{name}={}", path.display());
        Certificate::load(&settings(&[set("cert", cert), set("key", key)]))
    }

    #[test]
    fn what_is_wrong_with_the_files_is_said_with_their_setting() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let pair = |n: &str| {
            let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
            let key = made.signing_key.serialize_pem();
            (file(&format!("{n}.pem"), &made.cert.pem()), file(&format!("{n}.key"), &key))
        };
        let ((cert, key), (_, other)) = (pair("a"), pair("b"));
        assert!(matches!(try_load(&cert, &key), Ok(Some(_))));
        assert!(matches!(Certificate::load(&settings(&[])), Ok(None)));
        let nowhere = dir.path().join("nowhere");
        let empty = file("empty", "");
        for (cert, key, said) in [
            (&nowhere, &key, "http.tls.cert"),
            (&empty, &key, "it holds no certificate"),
            (&key, &key, "it holds no certificate"),
            (&cert, &nowhere, "http.tls.key"),
            (&cert, &cert, "http.tls.key"),
            (&cert, &other, "give the key of the first certificate"),
        ] {
            let error = try_load(cert, key).map(drop).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("PRIVATE"), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_used_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert"), dir.path().join("key"));
        let renew = || {
            let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
            std::fs::write(&cert, made.cert.pem()).unwrap();
            std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        };
        renew();
        let loaded = try_load(&cert, &key).unwrap().unwrap();
        let first = loaded.0.now.read().cert.clone();
        renew();
        loaded.reload().unwrap();
        let second = loaded.0.now.read().cert.clone();
        assert_ne!(first, second);
        std::fs::write(&key, "none").unwrap();
        assert!(loaded.reload().is_err());
        assert_eq!(loaded.0.now.read().cert, second);
    }
}
