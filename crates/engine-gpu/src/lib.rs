//! What the GPUs of this machine can do, measured with kernels of our own.
//!
//! [`list`] names them, [`Gpu::measure`] measures one: products of matrices in each precision that it has, reading of
//! memory, and the time of one batch, for some seconds. Before that a small product of each precision is compared with
//! the processor's. Models do not run here, and nothing follows from what is measured: the engine computes on processors.
//!
//! Drivers are other people's programs. Whatever they do, this crate answers: in time, and with a [`GpuError`] that says
//! what went wrong. What it cannot keep them from is ending the whole process.

mod adapter;
mod check;
mod device;
mod kernel;
mod measure;
mod patience;

pub use adapter::{Gpu, Precision, Which, list};
pub use measure::{Effort, ProductRate, Rates};

use std::time::Duration;

/// Why something was not measured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// The driver shows a GPU and gives no access to it.
    #[error("its driver gives no access: {0}")]
    NoAccess(String),
    /// Not even the smallest of what is tried fits.
    #[error("its memory is full")]
    OutOfMemory,
    /// It was there and is gone: unplugged, crashed or reset.
    #[error("it was lost on the way: {0}")]
    Lost(String),
    /// Nothing came for so long.
    #[error("it gave no answer in {} s", .0.as_secs())]
    Silent(Duration),
    /// The driver takes what the standard allows for wrong, or failed inside.
    #[error("its driver refused: {0}")]
    Refused(String),
    /// The driver's library gave up.
    #[error("its driver broke off: {0}")]
    BrokeOff(String),
    /// It computes something else than a processor.
    #[error("it computes wrongly: {what} gave {found}, expected {expected}")]
    Wrong {
        /// What was computed.
        what: String,
        /// The first wrong number.
        found: String,
        /// What a processor makes of it.
        expected: String,
    },
}
