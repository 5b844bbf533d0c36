//! What nodes of a network say to each other, and its encodings.
//!
//! On the control lane: [`Control`]. On the activations lane: [`Flow`], which either opens and closes sessions or
//! carries one [`Step`] of one. Both decode to bounded values or to a [`WireError`] that blames the sender. Links
//! for weights have words of their own: [`fetch`]. Judges nothing: who may say what is decided elsewhere.

pub mod fetch;
mod finality;
pub mod outlook;
mod step;
pub mod training;

pub use finality::Finality;
pub use step::{Answer, Payload, Step, Wanted};

use crate::core::owner::Closed;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{fmt, net::SocketAddr};
use talka_base::{
    AdapterId, CodecError, Encoded, LayerSpan, Membership, ModelId, NetworkId, NodeId, Precision,
    Receipt, RequestId, Signed, Tick, TreeHash, decode, encode, model::ShapeError,
};
use talka_engine::{LogitsWanted, Pooling, quant::Encoding};
use talka_ledger::{
    Entry, Event, StateRecord, Voucher, epoch::Papers, note::NOTE_BYTES_MAX, order::Message,
};
use talka_net::{ActivationError, WireType, decode_activation};

/// Most addresses of one node.
pub const ADDRESSES_MAX: usize = 8;
/// Most nodes of one network.
pub const PEERS_MAX: usize = 1_024;
/// Most models one node offers, and spans of each.
pub(crate) const OFFERS_MAX: usize = 64;
const SPANS_MAX: usize = 64;
/// Most links whose round trips a node tells: enough for a co-operative where everybody is linked with everybody, and
/// in a larger one only near nodes matter.
pub const ROUND_TRIPS_MAX: usize = 64;
/// Longest message that is sent only to see how much goes through a link.
pub const BULK_BYTES_MAX: usize = 256 << 10;
/// Most adapters of one model on a node.
pub const ADAPTERS_MAX: usize = 64;
/// Most hops of a route.
pub const HOPS_MAX: usize = 255;
/// Most bytes of logits in one answer, unless one row alone has more: a stage computes no more at
/// once however many rows a head asks for. 32 rows of the largest vocabularies.
pub const LOGIT_BYTES_MAX: usize = 32 << 20;
/// Most positions of a step that its head may take back. More would be work for nothing.
pub const GUESSES_MAX: u32 = 16;
/// Most logits of a row that a head asks for where it does not want all.
pub const BEST_MAX: usize = 1_024;
/// Longest text in a refusal or failure, in bytes.
pub const REASON_BYTES_MAX: usize = 256;

/// First words on a link, each way: nobody is believed before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The network this node is in.
    pub network: NetworkId,
    /// How this node came in; the founder, whose paper is the founding entry, has none.
    pub membership: Option<Signed<Membership>>,
    /// Drawn when the process started: two processes with one key differ in it.
    pub instance: u64,
}

/// A request to be let in, by a node that holds an invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The network of the invitation.
    pub network: NetworkId,
    /// The invitation's secret.
    pub secret: [u8; 32],
    /// What people call the node.
    pub name: String,
}

/// The answer to a join request that was granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The new node's paper.
    pub membership: Signed<Membership>,
    /// Number of entries in the ledger, to be asked for next.
    pub ledger_height: u64,
    /// Where the other nodes are.
    pub peers: Vec<(NodeId, Vec<SocketAddr>)>,
}

/// What a node says of itself about once a second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// What people call it.
    pub name: String,
    /// What its clock said when it sent this.
    pub at: Tick,
    /// Memory it offers for weights, in bytes.
    pub memory_bytes: u64,
    /// Where it can be reached.
    pub addresses: Vec<SocketAddr>,
    /// Number of ledger entries it holds.
    pub ledger_height: u64,
    /// Sessions that its stages hold.
    pub load: u32,
    /// Whether there have been many for a while.
    pub is_busy: bool,
    /// Models that its callers asked for lately.
    pub asked: Vec<ModelId>,
    /// Microseconds to the nodes nearest to it and back.
    pub round_trips_us: Vec<(NodeId, u32)>,
    /// KiB a second that came through from those of them that sent enough to tell.
    pub throughputs_kib: Vec<(NodeId, u32)>,
    /// How fast it computes.
    pub machine: Machine,
    /// Why it gives no work to others, if it does not.
    pub closed: Option<Closed>,
    /// The models it has.
    pub offers: Vec<Offer>,
    /// Other nodes it knows.
    pub peers: Vec<(NodeId, Vec<SocketAddr>)>,
}

/// How a node holds a model's weights, the most faithful first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Grade {
    /// As they are stored.
    #[default]
    Stored,
    /// Quantised to Q8_0 when loaded.
    Q8,
    /// Quantised to Q4_K when loaded.
    Q4,
}

impl Grade {
    /// All, the most faithful first.
    pub const ALL: [Self; 3] = [Self::Stored, Self::Q8, Self::Q4];

    /// Of weights `stored` so and quantised to `encoding` when they are loaded, if at all. What is stored in
    /// fewer bits is loaded as it is.
    pub fn of(stored: Precision, encoding: Option<Encoding>) -> Self {
        match (encoding, stored) {
            (None, _) | (Some(Encoding::Q8_0), Precision::Int8) => Self::Stored,
            (Some(Encoding::Q8_0), _) => Self::Q8,
            (Some(_), _) => Self::Q4,
        }
    }
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stored => "stored",
            Self::Q8 => "q8_0",
            Self::Q4 => "q4_k",
        })
    }
}

/// How fast a machine computes, whatever the model. 0 says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Million floating-point operations a second in products with many rows, as of a prompt.
    pub matmul_mflops: u32,
    /// Million bytes of weights that it reads a second, which is what single tokens wait for.
    pub memory_mbytes: u32,
}

/// One model of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The model.
    pub model: ModelId,
    /// The span the owner pinned, if any.
    pub pinned: Option<LayerSpan>,
    /// Memory offered for this model, in bytes.
    pub memory_bytes: u64,
    /// How its weights are held.
    pub grade: Grade,
    /// Memory it could have here if it were asked for; 0 if the node never swaps models.
    pub could_bytes: u64,
    /// Microseconds for one token through one layer, measured or else estimated.
    pub layer_us: u32,
    /// Spans ready to run.
    pub serves: Vec<LayerSpan>,
    /// Adapters it can add to them.
    pub adapters: Vec<AdapterId>,
}

/// Why the founder did not order an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The payer holds too little, in µGFT.
    Insufficient {
        /// What the payer holds.
        held: u64,
        /// What the request may cost.
        needed: u64,
    },
    /// It was ordered before, at this height: done.
    Duplicate {
        /// Where.
        height: u64,
    },
    /// Any other rule of the ledger.
    Rule {
        /// Which, for people.
        reason: String,
    },
    /// The founder was not asked, or did not answer. Never sent.
    Unreachable {
        /// Why, for people.
        reason: String,
    },
}

/// A message on the control lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// First words of a member.
    Hello(Hello),
    /// First words of somebody invited.
    Join(JoinRequest),
    /// The answer to a good one.
    Admitted(Admission),
    /// The answer to a bad one.
    Refused {
        /// Why, for people.
        reason: String,
    },
    /// "I live, and this is what I do."
    Heartbeat(Heartbeat),
    /// To the founder: order this event.
    Submit {
        /// Chosen by the sender, comes back in the answer.
        id: u64,
        /// What is to be ordered.
        event: Box<Event>,
    },
    /// From the founder: what became of it.
    Ordered {
        /// The submission answered.
        id: u64,
        /// The entry, durable on the founder's disk.
        result: Result<Box<Signed<Entry>>, Refusal>,
    },
    /// "Answer at once."
    Ping(u64),
    /// The answer, with the same number.
    Pong(u64),
    /// "This node does not answer me: see for yourself."
    Suspect(NodeId),
    /// "Send me the ledger from this height on."
    EntriesWanted {
        /// First height wanted.
        from: u64,
    },
    /// Entries in order.
    Entries(Vec<Signed<Entry>>),
    /// "I removed those: the first that I still have is this one. Begin with my snapshot."
    Pruned {
        /// Its height.
        first: u64,
    },
    /// "Send me the records of your snapshot from this place on."
    SnapshotWanted {
        /// The first place wanted.
        from: u64,
    },
    /// Some of them.
    SnapshotPart(Box<SnapshotPart>),
    /// First words of a member on a link for [`fetch`] alone.
    Fetch(Hello),
    /// Says nothing: whoever gets it sees how much goes through.
    Bulk(Vec<u8>),
    /// First words of somebody invited who wants to know more before joining.
    Look(outlook::OutlookRequest),
    /// The answer to a good one.
    Outlook(Box<outlook::Outlook>),
    /// About the order of entries: blocks, votes, evidence.
    Order(Box<Message>),
    /// From a guest who has the entries: the text of the block is wanted that holds the one at this height.
    BlockWanted(u64),
    /// The answer: the text of a signed block.
    Block(String),
    /// About jobs that nodes train together.
    Training(training::TrainingMessage),
    /// "Send me what the epoch at this height rests on."
    PapersWanted {
        /// Its height.
        height: u64,
    },
    /// The papers of an epoch: asked for, or just before its entry.
    Papers {
        /// Its height.
        height: u64,
        /// All of them, in order.
        papers: Box<Papers>,
    },
}

/// Records of a snapshot, as many as fit one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPart {
    /// The signed block whose state it is.
    pub checkpoint: String,
    /// With the first part, the proofs of who witnessed since when.
    pub handovers: Vec<String>,
    /// With the first part, the roots of the complete subtrees of the log, from the left.
    pub subtrees: Vec<TreeHash>,
    /// In order.
    pub records: Vec<StateRecord>,
}

impl Encoded for Control {
    const NAME: &'static str = "control message";
    const SIZE_MAX: usize = 4 << 20;
}

/// Which stage of which route of a request a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leg {
    /// Counts the routes of the request from 0: one more each time a stage is lost.
    pub attempt: u8,
    /// Counts the hops of the route from 0.
    pub hop: u8,
}

impl Leg {
    /// The lane of a stage that is opened fresh here. One that goes on from an earlier route keeps its lane.
    pub fn lane(self) -> u16 {
        u16::from_be_bytes([self.attempt, self.hop])
    }

    /// The one after it on the same route.
    pub fn next(self) -> Self {
        Self { hop: self.hop.saturating_add(1), ..self }
    }
}

/// One stage of a session's route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteHop {
    /// Who runs it.
    pub node: NodeId,
    /// The layers.
    pub span: LayerSpan,
    /// It knows nothing of the session yet. Otherwise it goes on from what an earlier route left there.
    pub fresh: bool,
}

/// Opens a session on every stage of a route; travels down the chain ahead of the first step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The request.
    pub session: RequestId,
    /// Who samples, pays and is answered.
    pub head: NodeId,
    /// The model.
    pub model: ModelId,
    /// The adapter that every stage adds to it, if any.
    pub adapter: Option<AdapterId>,
    /// Who runs which layers, in order.
    pub route: Vec<RouteHop>,
    /// Positions whose answers the head has. Stages that are not fresh hold them; the others get them from
    /// the stage before, or from the head.
    pub held: u32,
    /// Most positions the session will have.
    pub positions_max: u32,
    /// How hidden states are written between stages.
    pub frames: WireType,
    /// What the head needs of logits; all of them if absent.
    pub best: Option<Best>,
    /// The founder's entry that reserves the credits: no stage works without it.
    pub ticket: Signed<Entry>,
    /// What shows it to be final, where the ledger has witnesses.
    pub finality: Option<Finality>,
}

/// What a head needs of each row of logits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Best {
    /// So many of the greatest.
    pub count: u32,
    /// And those of these tokens.
    pub also: Vec<u32>,
}

impl Best {
    fn check(&self) -> Result<(), WireError> {
        if self.count == 0 {
            return Err(WireError::None { what: "logits wanted" });
        }
        at_most("logits wanted", (self.count as usize).saturating_add(self.also.len()), BEST_MAX)
    }
}

/// A message on the activations lane.
#[derive(Debug, Clone, PartialEq)]
pub enum Flow {
    /// Down the chain.
    Open {
        /// The stage this is for.
        leg: Leg,
        /// What is opened.
        open: Box<Open>,
    },
    /// Down the chain, or from the last stage to the head.
    Step(Step),
    /// Down the chain: no more steps; receipts are wanted.
    Close {
        /// The stage this is for.
        leg: Leg,
        /// The session.
        session: RequestId,
    },
    /// From the head to a stage: whatever it holds of routes before this one is not needed.
    Abandon {
        /// The session.
        session: RequestId,
        /// The first attempt that is.
        before: u8,
    },
    /// From a stage to the head: what it did.
    Receipt(Signed<Receipt>),
    /// From the head to a stage: what it has earned so far.
    Voucher(Signed<Voucher>),
    /// From a stage to the head: it cannot go on.
    Failed {
        /// The session.
        session: RequestId,
        /// The stage that failed.
        leg: Leg,
        /// Why, for people.
        reason: String,
    },
}

/// The part of [`Flow`] that is no activation.
#[derive(Debug, Serialize, Deserialize)]
enum Notice {
    Open(Box<Open>),
    Close(RequestId),
    Receipt(Signed<Receipt>),
    Failed { session: RequestId, reason: String },
    Abandon(RequestId),
    Voucher(Signed<Voucher>),
}

impl Encoded for Notice {
    const NAME: &'static str = "session notice";
    const SIZE_MAX: usize = 64 << 10;
}

/// Why a peer's bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum WireError {
    /// The bytes do not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The activation does not decode.
    #[error(transparent)]
    Activation(#[from] ActivationError),
    /// The first bytes name no kind of message.
    #[error("flow message of kind {found:?}, expected 0 to {}", STEPS.len())]
    Kind { found: Option<u8> },
    /// The first byte of an answer about a model says what it is.
    #[error("answer of kind {found:?}, expected 0 or 1")]
    Answer { found: Option<u8> },
    /// A model that cannot be.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// More of something than any honest node sends.
    #[error("{found} {what}, expected at most {max}")]
    TooMany { what: &'static str, found: usize, max: usize },
    /// A job's name that is none.
    #[error("a job called {found:?}, expected 1 to 48 of a-z, 0-9, - and _")]
    Name { found: String },
    /// Nothing where an honest node sends something.
    #[error("no {what}, expected at least 1")]
    None { what: &'static str },
}

impl Control {
    /// The bytes to send.
    pub fn to_bytes(&self) -> Bytes {
        encode(self).into()
    }

    /// # Errors
    /// [`WireError`]; the sender is to blame.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        let message: Self = decode(bytes)?;
        match &message {
            Self::Join(join) => at_most("bytes of name", join.name.len(), REASON_BYTES_MAX)?,
            Self::Heartbeat(heartbeat) => heartbeat.check()?,
            Self::Admitted(admission) => check_peers(&admission.peers)?,
            Self::Bulk(bytes) => at_most("bytes of nothing", bytes.len(), BULK_BYTES_MAX)?,
            Self::Outlook(outlook) => outlook.check()?,
            Self::Training(message) => message.check()?,
            Self::Block(text) => at_most("bytes of a block", text.len(), NOTE_BYTES_MAX)?,
            _ => {}
        }
        Ok(message)
    }
}

impl Heartbeat {
    fn check(&self) -> Result<(), WireError> {
        at_most("bytes of name", self.name.len(), REASON_BYTES_MAX)?;
        at_most("addresses", self.addresses.len(), ADDRESSES_MAX)?;
        at_most("models asked for", self.asked.len(), OFFERS_MAX)?;
        at_most("round trips", self.round_trips_us.len(), ROUND_TRIPS_MAX)?;
        at_most("throughputs", self.throughputs_kib.len(), ROUND_TRIPS_MAX)?;
        at_most("offers", self.offers.len(), OFFERS_MAX)?;
        let spans = self.offers.iter().map(|offer| offer.serves.len()).max();
        at_most("spans of one model", spans.unwrap_or(0), SPANS_MAX)?;
        let adapters = self.offers.iter().map(|offer| offer.adapters.len()).max();
        at_most("adapters of one model", adapters.unwrap_or(0), ADAPTERS_MAX)?;
        check_peers(&self.peers)
    }
}

fn check_peers(peers: &[(NodeId, Vec<SocketAddr>)]) -> Result<(), WireError> {
    at_most("peers", peers.len(), PEERS_MAX)?;
    let addresses = peers.iter().map(|(_, addresses)| addresses.len()).max();
    at_most("addresses of one peer", addresses.unwrap_or(0), ADDRESSES_MAX)
}

fn at_most(what: &'static str, found: usize, max: usize) -> Result<(), WireError> {
    if found <= max { Ok(()) } else { Err(WireError::TooMany { what, found, max }) }
}

/// First byte of a flow message; the second is the attempt, the third the hop.
const NOTICE: u8 = 0;
const HEADER_BYTES: usize = 3;
/// Steps, by what the head waits for; the first is number 1.
const STEPS: [Wanted; 6] = [
    Wanted::Logits(LogitsWanted::None),
    Wanted::Logits(LogitsWanted::Last),
    Wanted::Logits(LogitsWanted::All),
    Wanted::Vector(Pooling::Mean),
    Wanted::Vector(Pooling::Cls),
    Wanted::Vector(Pooling::Last),
];

impl Flow {
    /// The bytes to send: kind, attempt, hop, then a notice or an activation message.
    pub fn to_bytes(&self) -> Bytes {
        let nowhere = Leg { attempt: 0, hop: 0 };
        let (kind, leg, body): (u8, Leg, Bytes) = match self {
            Self::Step(step) => {
                let kind = STEPS.iter().position(|wants| *wants == step.wants);
                (1 + kind.expect("the list is complete") as u8, step.leg, step.body())
            }
            Self::Open { leg, open } => (NOTICE, *leg, encode(&Notice::Open(open.clone())).into()),
            Self::Close { leg, session } => (NOTICE, *leg, encode(&Notice::Close(*session)).into()),
            Self::Receipt(receipt) => {
                (NOTICE, nowhere, encode(&Notice::Receipt(receipt.clone())).into())
            }
            Self::Voucher(voucher) => {
                (NOTICE, nowhere, encode(&Notice::Voucher(voucher.clone())).into())
            }
            Self::Failed { session, leg, reason } => {
                let notice = Notice::Failed { session: *session, reason: shorten(reason) };
                (NOTICE, *leg, encode(&notice).into())
            }
            Self::Abandon { session, before } => {
                let leg = Leg { attempt: *before, hop: 0 };
                (NOTICE, leg, encode(&Notice::Abandon(*session)).into())
            }
        };
        [&[kind, leg.attempt, leg.hop], body.as_ref()].concat().into()
    }

    /// # Errors
    /// [`WireError`]; the sender is to blame.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, WireError> {
        let found = bytes.first().copied();
        let Some(&[kind, attempt, hop]) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(WireError::Kind { found });
        };
        let leg = Leg { attempt, hop };
        if kind == NOTICE {
            return Self::from_notice(decode(&bytes[HEADER_BYTES..])?, leg);
        }
        let wants = STEPS.get(usize::from(kind - 1)).copied();
        let wants = wants.ok_or(WireError::Kind { found })?;
        let (header, payload) = decode_activation(bytes.slice(HEADER_BYTES..))?;
        Ok(Self::Step(Step::from_parts(leg, wants, header, &payload)))
    }

    fn from_notice(notice: Notice, leg: Leg) -> Result<Self, WireError> {
        Ok(match notice {
            Notice::Open(open) => {
                at_most("hops", open.route.len(), HOPS_MAX)?;
                open.best.as_ref().map_or(Ok(()), Best::check)?;
                open.finality.as_ref().map_or(Ok(()), Finality::check)?;
                Self::Open { leg, open }
            }
            Notice::Close(session) => Self::Close { leg, session },
            Notice::Receipt(receipt) => Self::Receipt(receipt),
            Notice::Voucher(voucher) => Self::Voucher(voucher),
            Notice::Abandon(session) => Self::Abandon { session, before: leg.attempt },
            Notice::Failed { session, reason } => {
                Self::Failed { session, leg, reason: shorten(&reason) }
            }
        })
    }
}

/// At most [`REASON_BYTES_MAX`] bytes of `text`, cut between characters.
pub fn shorten(text: &str) -> String {
    text[..text.floor_char_boundary(REASON_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn step(payload: Payload, wants: Wanted) -> Flow {
        let session = RequestId([7; 16]);
        Flow::Step(Step {
            session,
            leg: Leg { attempt: 1, hop: 3 },
            number: 9,
            position: 40,
            wants,
            payload,
        })
    }

    #[test]
    fn every_kind_of_flow_message_round_trips() {
        let session = RequestId([7; 16]);
        let messages = [
            step(Payload::Tokens(vec![1, 2, 300]), Wanted::Logits(LogitsWanted::All)),
            step(
                Payload::Hidden {
                    width: 2,
                    dtype: WireType::F32,
                    values: vec![1.5, -0.25, f32::MIN, 3.0],
                },
                Wanted::Logits(LogitsWanted::None),
            ),
            step(
                Payload::Hidden { width: 2, dtype: WireType::Bf16, values: vec![1.5, -0.25] },
                Wanted::Logits(LogitsWanted::None),
            ),
            step(
                Payload::Answer(Answer::Logits { vocab: 3, values: vec![0.1, -7.0, 2.0] }),
                Wanted::Logits(LogitsWanted::Last),
            ),
            step(
                Payload::Answer(Answer::Logits { vocab: 2, values: vec![0.1, -7.0, 2.0, 0.5] }),
                Wanted::Logits(LogitsWanted::All),
            ),
            step(
                Payload::Answer(Answer::Best {
                    count: 2,
                    picks: vec![(7, 1.5), (9, -2.0), (0, 3.0), (1, 0.5)],
                }),
                Wanted::Logits(LogitsWanted::All),
            ),
            step(Payload::Answer(Answer::Vector(vec![0.5, -0.5])), Wanted::Vector(Pooling::Cls)),
            Flow::Close { leg: Leg { attempt: 2, hop: 1 }, session },
            Flow::Abandon { session, before: 3 },
            Flow::Failed { session, leg: Leg { attempt: 0, hop: 2 }, reason: "no memory".into() },
        ];
        for message in messages {
            assert_eq!(Flow::from_bytes(message.to_bytes()), Ok(message));
        }
    }

    #[test]
    fn long_reasons_are_cut_between_characters() {
        let text = "ä".repeat(200);
        assert_eq!(shorten(&text).chars().count(), REASON_BYTES_MAX / 2);
        assert_eq!(shorten("short"), "short");
    }

    #[test]
    fn too_many_of_anything_is_refused() {
        let heartbeat = Heartbeat {
            name: "n".into(),
            at: Tick(0),
            memory_bytes: 1,
            addresses: vec![([127, 0, 0, 1], 1).into(); ADDRESSES_MAX + 1],
            ledger_height: 0,
            load: 0,
            is_busy: false,
            asked: vec![],
            round_trips_us: vec![],
            throughputs_kib: vec![],
            machine: Machine::default(),
            closed: None,
            offers: vec![],
            peers: vec![],
        };
        let bytes = Control::Heartbeat(heartbeat).to_bytes();
        let error = Control::from_bytes(&bytes).expect_err("too many");
        assert_eq!(error.to_string(), "9 addresses, expected at most 8");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Control::from_bytes(&bytes);
            let _ = Flow::from_bytes(bytes.into());
        }

        #[test]
        fn a_truncated_step_is_refused(values in proptest::collection::vec(any::<f32>(), 1..40)) {
            let width = values.len() as u32;
            let bytes = step(Payload::Hidden { width, dtype: WireType::F32, values }, Wanted::Logits(LogitsWanted::Last)).to_bytes();
            for end in 0..bytes.len() {
                prop_assert!(Flow::from_bytes(bytes.slice(..end)).is_err());
            }
        }
    }
}
