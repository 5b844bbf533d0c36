//! Why a node does not do what a front end asks of it.

use talka_base::{Credits, LayerSpan, MemberId, NodeId, RequestId};
use talka_engine::SamplingError;

/// Why no answer came, or why it broke off.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum GenerateError {
    /// Nobody here knows the model.
    #[error("model {found:?} is not known here, expected one of: {}", known.join(", "))]
    UnknownModel { found: String, known: Vec<String> },
    /// A sampling or length parameter is out of range.
    #[error(transparent)]
    Parameter(#[from] SamplingError),
    /// The prompt has no tokens.
    #[error("the prompt is empty, expected at least one token")]
    EmptyPrompt,
    /// A token id that the vocabulary lacks.
    #[error("token id {found} is not in the vocabulary of {vocab} tokens")]
    UnknownToken { found: u32, vocab: u32 },
    /// A bias for a token that the vocabulary lacks.
    #[error("logit_bias names token {found}, expected ids below {vocab}")]
    UnknownBias { found: u32, vocab: u32 },
    /// The grammar is not one, asks for too much, or leads nowhere.
    #[error("the form asked for is refused: {reason}")]
    Grammar { reason: String },
    /// The model's chat template refused the conversation.
    #[error("the model's chat template refused the messages: {reason}")]
    Template { reason: String },
    /// Prompt and answer do not fit the model's context.
    #[error(
        "the prompt has {prompt} tokens, but the model's context is {context} tokens \
         and at least one is needed for the answer"
    )]
    PromptTooLong { prompt: u32, context: u32 },
    /// A text is longer than its vector may be made of.
    #[error(
        "a text has {found} tokens, but the model makes vectors of at most {max}: send less, or ask \
         for it to be cut"
    )]
    TextTooLong { found: u32, max: u32 },
    /// The model has no next token to tell.
    #[error("{model} is an encoder: it makes vectors of texts and continues none")]
    Encoder { model: String },
    /// The member cannot pay the most that the request may cost.
    #[error("not enough credits: this request may cost up to {needed}, the balance is {held}")]
    InsufficientCredits { needed: Credits, held: Credits },
    /// The caller's key cannot pay the most that the request may cost.
    #[error(transparent)]
    OverBudget(#[from] crate::core::keys::OverBudget),
    /// No chain of live stages covers the model.
    #[error("no complete route for {model}: layers {missing} are served by no reachable node")]
    NoRoute { model: String, missing: LayerSpan },
    /// A stage of this request died or failed.
    #[error("stage {span} on node {name} was lost: {reason}; the request was not charged")]
    StageLost { name: String, span: LayerSpan, reason: String },
    /// No upstream has this name.
    #[error("upstream {found:?} is not set up here, expected {}", listed(known))]
    UnknownUpstream { found: String, known: Vec<String> },
    /// The request wants something that upstreams cannot be asked for.
    #[error("upstreams cannot be asked for {what}: leave it out, or let the network answer")]
    NotForUpstream { what: &'static str },
    /// Nobody outside answered either.
    #[error("{why}no upstream answered: {failures}; the request was not charged")]
    NoUpstream { why: String, failures: String },
    /// An upstream failed in the middle of its answer.
    #[error(
        "upstream {name} failed in the middle of the answer: {reason}; the request was not charged"
    )]
    UpstreamLost { name: String, reason: String },
    /// The founder, who orders the ledger, cannot be reached.
    #[error("the ledger cannot be reached: {reason}; nothing was computed or charged")]
    LedgerUnreachable { reason: String },
    /// The ledger refused the reservation or settlement for another reason than credits.
    #[error("the ledger refused the request: {reason}")]
    LedgerRefused { reason: String },
    /// The answer goes on elsewhere.
    #[error("another caller goes on with this answer")]
    TakenOver,
    /// No answer can be gone on with under this name.
    #[error("the answer {request} cannot be gone on with: {reason}")]
    NotResumable { request: RequestId, reason: &'static str },
    /// As many requests run as this node answers at once, and no more may wait.
    #[error(
        "{running} requests are running, the most this node answers at once, and no more can wait; try again shortly"
    )]
    Overloaded { running: usize },
}

/// Why an administrative call failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum AdminError {
    /// The invitation cannot be used: wrong text, expired, reused, foreign.
    #[error("the invitation cannot be used: {reason}")]
    Invite { reason: String },
    /// The inviter could not be reached.
    #[error(
        "the inviter {inviter} cannot be reached: {reason}; is it running, and on your network?"
    )]
    Unreachable { inviter: NodeId, reason: String },
    /// This node is bound to a network with other members.
    #[error(
        "this node belongs to network {network} with {members} members; \
         use another --data-dir to join a second network"
    )]
    AlreadyMember { network: String, members: usize },
    /// The ledger does not take what this node's member wants.
    #[error("the ledger does not take it: {reason}")]
    Order { reason: String },
    /// The stored ledger does not verify.
    #[error("the ledger does not verify: {reason}")]
    Ledger { reason: String },
    /// No such entry.
    #[error("the ledger has entries 0 to {last}, found {height}")]
    NoEntry { height: u64, last: u64 },
    /// The entry is no epoch, or rests on nothing of that session, or what it rests on is not here.
    #[error(
        "there is no paper here of request {request} in an epoch at entry {height}: see `talka credits`, which lists an epoch's \
         requests"
    )]
    NoPaper { height: u64, request: RequestId },
    /// The entry was removed here.
    #[error(
        "entry {height} was removed here to save room, the first still held is {first}: ask a node that \
         keeps all, or look into a backup"
    )]
    Pruned { height: u64, first: u64 },
    /// A setting that cannot be so.
    #[error("{name} is {reason}")]
    Setting { name: &'static str, reason: String },
    /// Nobody here knows the model.
    #[error("model {found:?} is not known here, expected one of: {}", known.join(", "))]
    NoModel { found: String, known: Vec<String> },
    /// A model that cannot be served.
    #[error("the model cannot be served: {reason}")]
    Model { reason: String },
    /// Nobody of that id has an account.
    #[error("no member {member} has an account: `talka credits` lists them")]
    NoMember { member: MemberId },
    /// No signed block here holds what is to be proved.
    #[error(
        "no checkpoint of the founder that holds this has come yet: ask again in a moment, or ask the founder's node"
    )]
    NoCheckpoint,
    /// Nobody was proved to be dishonest.
    #[error("there is no evidence against anybody")]
    NoEvidence,
    /// The last signed block has fewer entries than the older one is said to have.
    #[error("the last checkpoint has {size} entries, found {old}: expected 1 to {size}")]
    NoSize { old: u64, size: u64 },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The founder, or the ledger's rules, do not let it be.
    #[error("the ledger refused it: {reason}")]
    Refused { reason: String },
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "none, for there is none".into()
    } else {
        format!("one of: {}", names.join(", "))
    }
}
