//! Flags about how a node listens to callers.

use clap::Args;
use std::path::PathBuf;
use talka_gateway::Origin;

#[derive(Debug, Args)]
pub struct ListenArgs {
    /// File of certificates in PEM, the node's own first: callers then come over HTTPS. Read again when it changes
    #[arg(long, value_name = "PEM", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// File of the certificate's private key in PEM
    #[arg(long, value_name = "PEM", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Origin of pages that may ask models here and read the answers, such as https://chat.example; repeatable
    /// [default: none]
    #[arg(long = "cors-origin", value_name = "ORIGIN")]
    pub cors_origins: Vec<Origin>,
}
