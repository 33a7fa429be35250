//! The certificate authorities that the client trusts: the system's, and one that is named.

use std::{path::Path, sync::Arc};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsConfigBuilder, TlsProvider};

use super::exit::Failure;

/// The roots of the system, and those in `file`.
pub(super) fn roots(file: Option<&Path>) -> Result<TlsConfig, Failure> {
    let mut roots: Vec<CertificateDer<'static>> = rustls_native_certs::load_native_certs().certs;
    if let Some(path) = file {
        let unusable = |why: &dyn std::fmt::Display| {
            Failure::usage(format!("--cacert {}: {why}", path.display()))
                .hint("name a PEM file with the certificate of the authority that signed the node's")
        };
        let named = CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))?;
        let named = named.collect::<Result<Vec<_>, _>>().map_err(|error| unusable(&error))?;
        if named.is_empty() {
            return Err(unusable(&"it holds no certificate"));
        }
        roots.extend(named);
    }
    let roots: Vec<Certificate<'static>> =
        roots.iter().map(|root| Certificate::from_der(root.as_ref()).to_owned()).collect();
    let builder: TlsConfigBuilder = TlsConfig::builder();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(builder
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(provider)
        .build())
}
