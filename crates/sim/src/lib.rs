//! Worlds for tests and measurements that a test machine does not have.
//!
//! [`Relay`] stands between real processes and makes their link long, narrow and lossy; [`TcpRelay`] does it
//! to programs that speak TCP. Part of no program that people run.

mod line;
mod relay;
mod tcp;

pub use line::LinkModel;
pub use relay::Relay;
pub use tcp::TcpRelay;
