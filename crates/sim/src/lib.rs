//! Worlds for tests and measurements that a test machine does not have.
//!
//! [`Relay`] stands between real processes and makes their link long, narrow and lossy. Part of no program
//! that people run.

mod relay;

pub use relay::{LinkModel, Relay};
