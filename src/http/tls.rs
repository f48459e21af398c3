//! TLS of both ports: PEM files in, a rustls configuration out. TLS 1.3 only; with a client
//! authority, mutual. Left to others: accepting, and who a client's certificate says it is.

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the files cannot be used. Each names the flag and the file; the node does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{flag} {}: cannot be read: {error}", path.display())]
    Unreadable { flag: &'static str, path: PathBuf, error: std::io::Error },
    #[error("{flag} {}: not PEM: {error}", path.display())]
    NotPem { flag: &'static str, path: PathBuf, error: pem::Error },
    #[error("{flag} {}: holds no {expected} (a PEM block that begins with -----BEGIN {label}-----)", path.display())]
    Empty { flag: &'static str, path: PathBuf, expected: &'static str, label: &'static str },
    #[error("{flag} {}: {error}", path.display())]
    Unusable { flag: &'static str, path: PathBuf, error: String },
    #[error("--tls-key {}: does not belong to the certificate of --tls-cert {}", key.display(), cert.display())]
    Mismatch { cert: PathBuf, key: PathBuf },
}

/// Loads a server's certificate chain and key, and the authorities that sign its clients when
/// there are any; `alpn` are the protocols offered (`h2` for gRPC, `http/1.1` for the window).
pub fn load(cert: &Path, key: &Path, client_ca: Option<&Path>, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates("--tls-cert", cert)?;
    let private_key = private_key(key)?;

    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring speaks TLS 1.3");
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let unusable = |error: String| Error::Unusable { flag: "--tls-client-ca", path: path.into(), error };
            let mut roots = RootCertStore::empty();
            for certificate in certificates("--tls-client-ca", path)? {
                roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(|error| unusable(error.to_string()))?)
        }
    };
    let mut config = builder.with_single_cert(chain, private_key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => Error::Mismatch { cert: cert.into(), key: key.into() },
        rustls::Error::InvalidCertificate(_) => {
            Error::Unusable { flag: "--tls-cert", path: cert.into(), error: error.to_string() }
        }
        _ => Error::Unusable { flag: "--tls-key", path: key.into(), error: error.to_string() },
    })?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| Error::Unreadable { flag, path: path.into(), error })
}

fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = read(flag, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| Error::NotPem { flag, path: path.into(), error })?;
    if found.is_empty() {
        return Err(Error::Empty { flag, path: path.into(), expected: "certificate", label: "CERTIFICATE" });
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let flag = "--tls-key";
    PrivateKeyDer::from_pem_slice(&read(flag, path)?).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            Error::Empty { flag, path: path.into(), expected: "private key", label: "PRIVATE KEY" }
        }
        error => Error::NotPem { flag, path: path.into(), error },
    })
}
