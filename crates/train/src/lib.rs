//! Training, at home and over home connections.
//!
//! On one machine a [`Trainer`] turns batches into better weights: the model stands in `model`, the update in `optim`. A
//! [`Job`] says what is to be trained on which text, and a [`Course`] takes it from there to a model that can be served.
//! Members train apart for a while and exchange only what they learned, thousands of times less than gradients:
//! [`compress`] writes an update in few bytes and reads those of others.
//!
//! Never opens a socket. Training may differ between machines in the last bits. Merging is floating-point arithmetic on
//! which all members have to agree to the bit, so it uses only additions, multiplications, divisions, square roots and
//! conversions, which IEEE 754 rounds in one way, in a stated order, without fused operations.

mod checkpoint;
pub mod compress;
mod config;
mod course;
pub mod data;
pub mod files;
mod fused;
mod gradients;
pub mod job;
pub mod layout;
mod memory;
mod model;
mod ops;
mod optim;
mod parameters;
mod real;
pub mod tokens;
mod trainer;
mod weights;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use compress::{Compressor, Cut, Feedback, UpdateError};
pub use config::{
    AdamW, ConfigError, ModelConfig, Muon, OptimiserConfig, Precision, Schedule, TrainConfig,
};
pub use course::{Course, CourseError, Survey, Trial};
pub use files::FileError;
pub use job::{Job, JobError, JobFile, JobFormat};
pub use layout::Layout;
pub use memory::MemoryNeed;
pub use optim::Moments;
pub use parameters::{Parameter, Parameters, Role};
pub use real::Real;
pub use tokens::TextTokenizer;
pub use trainer::{Batch, StepReport, TrainError, Trainer};
pub use weights::{WeightWidth, WeightsError, read_model, write_model};
