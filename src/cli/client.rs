//! The client subcommands.
use crate::grpc::client::{DEFAULT_ENDPOINT, Target};
use clap::Args;
use std::path::PathBuf;

pub const EXIT_REFUSED: u8 = 1;
pub const EXIT_USAGE: u8 = 2;
pub const EXIT_UNREACHABLE: u8 = 3;

/// Where the node is.
#[derive(Args, Clone, Debug)]
pub struct Endpoint {
    /// The node's gRPC address [default: http://127.0.0.1:9004]
    #[arg(long, value_name = "URL", env = "ASSENT_ENDPOINT")]
    endpoint: Option<String>,

    /// PEM file of the authority that signed the node's certificate (for https://)
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,

    /// PEM file of our own certificate, where the node asks for one
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// PEM file of its key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

impl Endpoint {
    /// The node named by flag or environment, or the default one.
    pub fn target(&self) -> Target {
        Target {
            endpoint: self.endpoint.clone().unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()),
            tls_ca: self.tls_ca.clone(),
            tls_cert: self.tls_cert.clone(),
            tls_key: self.tls_key.clone(),
        }
    }

    /// The node named, if one is.
    pub fn given(&self) -> Option<Target> {
        self.endpoint.is_some().then(|| self.target())
    }
}
