//! Flags about how a node listens to callers.

use clap::Args;
use std::path::PathBuf;
use talka_gateway::Origin;
use talka_node::REQUESTS_MAX;

#[derive(Debug, Args)]
pub struct ListenArgs {
    /// File of certificates in PEM, the node's own first: callers then come over HTTPS. Read again when it changes
    #[arg(long, value_name = "PEM", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// File of the certificate's private key in PEM
    #[arg(long, value_name = "PEM", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Origin of pages that may ask models here and read the answers; repeatable [default: none]
    #[arg(long = "cors-origin", value_name = "https://HOST")]
    pub cors_origins: Vec<Origin>,
    /// Requests answered at once [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=REQUESTS_MAX as i64))]
    pub max_concurrent: Option<u16>,
    /// Requests that wait for their turn, half a minute at most; the rest get 429 [default: 64]
    #[arg(long, value_name = "N")]
    pub max_queue: Option<u16>,
}
