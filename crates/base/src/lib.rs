//! The words every other crate speaks: ids, units, encodings, signatures, model shapes, receipts.
//!
//! Everything here belongs to the band that *must agree*: two honest nodes given the same bytes
//! compute the same bits. So this crate holds integers only, reads no clock, no file and no entropy,
//! and every encoded type carries a version, a size limit and a golden test.

pub mod blame;
pub mod codec;
pub mod fixed;
pub mod hardware;
pub mod hex;
pub mod id;
pub mod membership;
pub mod model;
pub mod receipt;
pub mod rng;
pub mod sign;
pub mod span;
pub mod units;

pub use blame::Blame;
pub use codec::{CodecError, Encoded, decode, encode, try_encode};
pub use fixed::{Factor, log2_millionths};
pub use hardware::{DeviceKind, Hardware, Scores};
pub use id::{
    AdapterId, DecisionHash, EntryHash, EventId, EvidenceHash, HardwareId, JobId, MemberId,
    ModelId, NetworkId, NodeId, ProposalId, RequestId, TreeHash, UpdateHash, VoucherHash,
    WeightsHash,
};
pub use membership::Membership;
pub use model::{ModelShape, Precision};
pub use receipt::Receipt;
pub use sign::{Keypair, SignatureError, Signed};
pub use span::LayerSpan;
pub use units::{Amount, Credits, Flops, Tick};
