//! Who decides the order of entries, and when an entry is final.
//!
//! One node, the *sequencer*, orders entries and closes them into blocks ([`Sequencer`]); every other node
//! executes each entry again and follows ([`Replica`]). What makes a block final is said by the ledger itself:
//!
//! - *Solo*: it names no witnesses. The sequencer's signature makes a block final.
//! - *Witnessed*: it names 3f+1 nodes of as many members. A block is final with the cosignatures of 2f+1
//!   ([`Witnesses`]). A witness cosigns one block of each number, after it executed every entry and made its
//!   vote durable. Two quorums share an honest witness, so two blocks that contradict each other are never
//!   both final, as long as at most f witnesses are dishonest, whatever the sequencer does.
//!
//! Naming witnesses is an entry, by the founder or by what the members decided. Its block needs the quorum of the new ones as well as that of the old ones, so
//! the change never forks the log.
//!
//! - *By turns*: it names at least four witnesses, and says that each may order. They agree on every block before they
//!   cosign it, and another leads when the one who does falls silent ([`Council`]). So ordering survives the death of any f.
//!
//! A change of who orders is an entry too, the last one of its block.
//!
//! A node that joins later executes all entries at once and needs few blocks only ([`Newcomer`]); where entries were removed,
//! proofs of who witnessed since when stand for them ([`heirs`]).
//!
//! Whoever sees two blocks that a key signed and that cannot both be true keeps them as [`Evidence`], which
//! convinces anybody, and votes no more. Where witnesses order by turns it keeps what one of them signed and goes on.
//!
//! A part is a machine ([`Order`]): its state, the time and one input give effects. Whoever performs them
//! keeps their order, and makes a [`Effect::Persist`] durable before a later effect leaves. Where one node orders, its death or
//! dishonesty stops a witnessed ledger, and never splits it.

mod ballots;
mod chain;
mod council;
mod evidence;
mod handover;
mod newcomer;
mod pool;
mod replica;
mod sequencer;
pub(crate) mod turns;
pub(crate) mod witnesses;

pub use ballots::{Ballot, Offer, Stage, digest};
pub use chain::{Chain, needed};
pub use council::{Council, Promise};
pub use evidence::{Evidence, EvidenceError};
pub use handover::heirs;
pub use newcomer::{FinalityError, Newcomer, naming};
pub use replica::{CLOCK_SKEW_MS_MAX, Replica};
pub use sequencer::{EVENTS_WAITING_MAX, Sequencer};
pub use turns::{OrderChange, TURNS_WITNESSES_MIN, Turns};
pub(crate) use witnesses::check_count;
pub use witnesses::{Appointment, WITNESSES_MAX, Witnesses};

use crate::{
    entry::{Entry, Event},
    error::LedgerError,
    note::{NOTE_BYTES_MAX, NoteSignature, SignedNote},
};
use evidence::EVIDENCE_BYTES_MAX;
use serde::{Deserialize, Serialize};
use talka_base::{Encoded, NodeId, Signed, Tick};

/// No more entries go into a block once they have this many bytes: it has to fit a message.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// A signed ballot with the lengths around it.
const BALLOT_BYTES_MAX: usize = 256;
/// The longest message and record: a full batch of which the last entry is the largest, with its note and ballots; or evidence.
const ENCODED_BYTES_MAX: usize = 16 + {
    let ballots = WITNESSES_MAX * BALLOT_BYTES_MAX;
    let batch = BATCH_BYTES_MAX + <Signed<Entry> as Encoded>::SIZE_MAX + NOTE_BYTES_MAX + ballots;
    if batch > EVIDENCE_BYTES_MAX { batch } else { EVIDENCE_BYTES_MAX }
};

/// A node's part in ordering.
pub trait Order {
    /// Takes one input at this node's time `now`. Same state and inputs give the same effects.
    fn step(&mut self, now: Tick, input: Input, out: &mut Vec<Effect>);

    /// The ledger as far as this part has it: final, or, on a witness, as far as it voted.
    fn chain(&self) -> &Chain;

    /// The ledger up to the last final block; nothing if that is behind what this node voted for.
    fn final_chain(&self) -> Option<&Chain>;

    /// Whether nothing here waits to be final.
    fn is_settled(&self) -> bool;

    /// The last block that is final here, as it was signed; nothing if none was.
    fn last_final(&self) -> Option<&SignedNote>;

    /// The proof that somebody signed what cannot be true, if one was seen.
    fn evidence(&self) -> Option<&Evidence>;

    /// Whether it orders by turns, which it does until the ledger says otherwise.
    fn is_by_turns(&self) -> bool {
        false
    }

    /// Gives away the events that wait, for the part that takes over.
    fn hand_over(&mut self) -> Vec<Box<Event>> {
        Vec::new()
    }
}

/// What happens to a node.
#[derive(Debug, Clone)]
pub enum Input {
    /// Somebody wants this recorded. Only a sequencer heeds it.
    Submit(Box<Event>),
    /// The batch is to be closed, if no block is under way: it is closed when that one is final.
    Close,
    /// Some time passed: what was not answered is sent again.
    Again,
    /// Another node, authenticated, sent this.
    Message(NodeId, Message),
}

/// What nodes say to each other about order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The sequencer asks for cosignatures.
    Proposal(Batch),
    /// A witness cosigns the block of this number.
    Vote(u64, NoteSignature),
    /// A block with all signatures that make it final.
    Final(Batch),
    /// The block that begins at this height is wanted, which the asker has to have next.
    Want(u64),
    /// The latest block that the sender knows, so that split views meet.
    Seen(SignedNote),
    /// The sequencer, or a witness, is dishonest.
    Accusation(Box<Evidence>),
    /// By turns: this is to be ordered.
    Wish(Box<Event>),
    /// By turns: the leader offers a block.
    Offer(Box<Offer>),
    /// By turns: a member's word for a block.
    Ballot(Box<Signed<Ballot>>),
    /// By turns: a member saw no progress.
    Leave {
        /// The turn that it leaves.
        turn: u64,
        /// The block that it holds, if it does, with the ballots of the turn in which it was prepared.
        held: Option<Box<Offer>>,
    },
}

impl Encoded for Message {
    const NAME: &'static str = "order message";
    const SIZE_MAX: usize = ENCODED_BYTES_MAX;
}

/// A signed block and its entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The block.
    pub note: SignedNote,
    /// Its entries, in order.
    pub entries: Vec<Signed<Entry>>,
}

/// What is to be done, in this order.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Make this durable before anything later in the list is done.
    Persist(Record),
    /// Send to one node. May be lost.
    Send(NodeId, Message),
    /// Send to all nodes that are linked. May be lost.
    Publish(Message),
    /// Send a node the stored [`Batch`] of the final block that begins at this height, as [`Message::Final`].
    SendStored(NodeId, u64),
    /// These entries and all before are final: whoever waits for them may be told.
    Finalised(Batch),
    /// This event is not recorded, and why.
    Refused(Box<Event>, LedgerError),
}

/// What has to survive a crash. A node's records in order give its machine back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// Signed as the next block, or voted for: never another of its number.
    Signed(Batch),
    /// The last block signed is final, with these signatures.
    Final(SignedNote),
    /// A final block of others.
    Taken(Batch),
    /// Somebody was dishonest.
    Evidence(Box<Evidence>),
    /// By turns: the last of these holds.
    Promised(Box<Promise>),
}

impl Encoded for Record {
    const NAME: &'static str = "order record";
    const SIZE_MAX: usize = ENCODED_BYTES_MAX;
}
