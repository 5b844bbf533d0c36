//! What nodes ask the ledger to record about one inference request, each signed by its author.

use crate::voucher::Voucher;
use serde::{Deserialize, Serialize};
use talka_base::{
    Encoded, MemberId, ModelId, ModelShape, NetworkId, NodeId, Receipt, RequestId, Signed, Tick,
};

/// The most receipts in one settlement: more stages than any sensible route has hops.
pub const RECEIPTS_MAX: usize = 256;

/// The most vouchers in one settlement: lanes of stages that were lost on the way.
pub const VOUCHERS_MAX: usize = 32;

/// How far the ledger's time may be from the one at which a paper that begins a request says it was signed: members' clocks are wrong
/// now and then, and a founder is away for a night.
///
/// A paper that is refused for its age cannot be used twice, so the ledger forgets requests that were over twice as long.
pub const REQUEST_SIGNED_MS_MAX: u64 = 12 * 60 * 60 * 1000;

/// For how long after its end a request's id is remembered: until none of its papers can be used.
pub(crate) const REQUEST_KEPT_MS: u64 = 2 * REQUEST_SIGNED_MS_MAX;

/// "Hold the most that this request can cost", signed by the head.
///
/// No amount is named: the ledger derives it with [`quote`](crate::quote). `shape` is the head's
/// claim; a stage refuses work whose reservation misstates the shape of `model`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The network whose ledger this is for.
    pub network: NetworkId,
    /// The request; never used before.
    pub request: RequestId,
    /// Whose account pays.
    pub payer: MemberId,
    /// The node that took the request in: signs this, belongs to the payer.
    pub head: NodeId,
    /// The model asked for.
    pub model: ModelId,
    /// Its shape, from which the price follows.
    pub shape: ModelShape,
    /// Tokens of the prompt, at least one.
    pub prompt_tokens: u32,
    /// The most tokens that may be generated.
    pub max_new_tokens: u32,
    /// When the head signed: the later of its clock and the ledger's time, at most [`REQUEST_SIGNED_MS_MAX`] from the entry's.
    pub at: Tick,
}

impl Reservation {
    /// All that it asks for, of prompt and answer.
    pub fn tokens(&self) -> u64 {
        self.prompt_tokens.saturating_add(self.max_new_tokens).into()
    }
}

impl Encoded for Reservation {
    const NAME: &'static str = "reservation";
    const SIZE_MAX: usize = 512;
}

/// "This work was done", signed by the head of the reservation, with what each stage signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// The network whose ledger this is for.
    pub network: NetworkId,
    /// The request, reserved before.
    pub request: RequestId,
    /// Positions `0..positions` were computed by every stage.
    pub positions: u32,
    /// For how many of them the last stage computed logits.
    pub logits: u32,
    /// One receipt per stage of the last route, in layer order: together each layer once. At most
    /// [`RECEIPTS_MAX`]; none, with zero positions, where nobody is left to sign.
    pub receipts: Vec<Signed<Receipt>>,
    /// The highest voucher of every other lane that has one, in the order of lanes: they are paid first. At
    /// most [`VOUCHERS_MAX`].
    pub vouchers: Vec<Signed<Voucher>>,
}

impl Encoded for Settlement {
    const NAME: &'static str = "settlement";
    const VERSION: u8 = 2;
    const SIZE_MAX: usize = 108 * 1024;
}

const _: () = assert!(
    RECEIPTS_MAX * <Signed<Receipt> as Encoded>::SIZE_MAX
        + VOUCHERS_MAX * <Signed<Voucher> as Encoded>::SIZE_MAX
        + 256
        <= Settlement::SIZE_MAX,
    "a full settlement fits its limit"
);

/// "Nothing came of this request", signed by a node of the payer: the whole reservation returns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancellation {
    /// The network whose ledger this is for.
    pub network: NetworkId,
    /// The request, reserved before.
    pub request: RequestId,
    /// The node that signs; the head, or another node of the same payer.
    pub node: NodeId,
}

impl Encoded for Cancellation {
    const NAME: &'static str = "cancellation";
    const SIZE_MAX: usize = 128;
}
