//! Training, at home and over home connections.
//!
//! On one machine a [`Trainer`] turns batches into better weights: the model stands in `model`, the update in `optim`. A
//! [`Job`] says what is to be trained on which text, and a [`Course`] takes it from there to a model that can be served.
//! Members train apart for a while and exchange only what they learned, thousands of times less than gradients.
//! Here stands what that takes and needs no tensor library: [`assign`] says who trains on
//! what, [`compress`] writes an update in few bytes and reads those of others, [`robust`] and [`outer`] merge them, whole or
//! in fragments ([`fragment`]), and [`round`] is the protocol by which members agree on what is merged.
//!
//! Never opens a socket. Training may differ between machines in the last bits. Merging is floating-point arithmetic on
//! which all members have to agree to the bit, so it uses only additions, multiplications, divisions, square roots and
//! conversions, which IEEE 754 rounds in one way, in a stated order, without fused operations.

pub mod assign;
mod average;
mod checkpoint;
pub mod compress;
mod config;
mod course;
pub mod data;
pub mod depot;
pub mod files;
pub mod fragment;
mod fused;
mod gradients;
pub mod job;
pub mod layout;
mod material;
pub mod member;
mod memory;
mod model;
mod ops;
mod optim;
pub mod outer;
mod parameters;
mod real;
pub mod recipe;
pub mod robust;
pub mod round;
pub mod tokens;
mod trainer;
mod weights;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use compress::{Compressor, Cut, Feedback, UpdateError};
pub use config::{
    AdamW, ConfigError, ModelConfig, Muon, OptimiserConfig, Precision, Schedule, TrainConfig,
};
pub use course::{Course, CourseError, Survey, Trial};
pub use depot::Depot;
pub use files::FileError;
pub use fragment::{Fragment, Fragments};
pub use job::{Job, JobError, JobFile, JobFormat};
pub use layout::Layout;
pub use member::Member;
pub use memory::MemoryNeed;
pub use optim::Moments;
pub use outer::{Outer, Said, Shared, SharedError};
pub use parameters::{Parameter, Parameters, Role};
pub use real::Real;
pub use recipe::{Recipe, RecipeError};
pub use robust::{Centre, MergeError, Part, Rule};
pub use tokens::TextTokenizer;
pub use trainer::{Batch, StepReport, TrainError, Trainer};
pub use weights::{WeightWidth, WeightsError, read_model, write_model};
