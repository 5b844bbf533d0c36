//! What crosses the border between a node and its front ends: requests, events, reports, errors.
//!
//! Reports serialise to the JSON that the admin endpoints and `--json` show; ids are hexadecimal,
//! credits are µGFT, times are milliseconds since 1970 UTC.

use super::{Events, GenerateError, RouteDecision, StandingReport};
pub use crate::core::faults::{Counts, Fault};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use talka_base::{
    Credits, EntryHash, Factor, Flops, LayerSpan, MemberId, ModelId, ModelShape, NetworkId, NodeId,
    Precision, RequestId, Tick, TreeHash,
};
pub use talka_engine::{
    CallPart, ChatMessage, Grammar, SamplingError, SamplingParams, Tool, ToolCall, ToolChoice,
    ToolUse,
};
use talka_engine::{Parsed, TokenLogProbs, Tokenizer};

/// What to continue.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// Plain text, tokenised with the model's special tokens.
    Text(String),
    /// Token ids, used as they are.
    Tokens(Vec<u32>),
    /// A conversation, laid out by the model's chat template.
    Chat(Vec<ChatMessage>),
}

/// One request for text.
#[derive(Debug, Clone)]
pub struct GenerateRequest {
    /// A name as [`ModelReport::name`], or the hexadecimal [`ModelId`].
    pub model: String,
    /// What to continue.
    pub prompt: Prompt,
    /// Most tokens to generate; as many as the context allows if absent. 0 counts as 1 unless
    /// `echo` and `logprobs` ask for the prompt's own log-probabilities.
    pub max_tokens: Option<u32>,
    /// How tokens are drawn.
    pub sampling: SamplingParams,
    /// Generation ends before the first of these; they are not part of the text.
    pub stop: Vec<String>,
    /// The model's end is not accepted before this many tokens.
    pub min_tokens: u32,
    /// The model's end does not end the answer.
    pub ignore_end: bool,
    /// Report log-probabilities of tokens, with this many alternatives each, at most
    /// [`LOGPROBS_MAX`].
    pub logprobs: Option<u8>,
    /// The text begins with the prompt, and with `logprobs` its tokens are reported as well.
    pub echo: bool,
    /// What the answer must look like, where it calls no function.
    pub grammar: Option<Grammar>,
    /// Functions that a chat's answer may call.
    pub tools: Option<ToolUse>,
    /// Tokens may be guessed ahead, which changes how fast the answer comes and nothing else.
    pub guesses: bool,
    /// Whether it may come from outside the network.
    pub fallback: Fallback,
    /// The answer that this one goes on with.
    pub resume: Option<Resume>,
}

impl GenerateRequest {
    /// The functions that the answer may call.
    pub fn functions(&self) -> &[Tool] {
        self.tools.as_ref().map_or(&[], |wish| &wish.tools)
    }
}

/// An answer that broke off. Whoever asks the same again may go on with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// What it was called: [`Generation::request`].
    pub request: RequestId,
    /// [`Piece::generated`] of the last piece that the caller has; 0 if it has none.
    pub seen: u32,
}

/// Whether an answer may come from outside the network, from an upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Fallback {
    /// If the network cannot answer.
    #[default]
    Allowed,
    /// No.
    Never,
    /// It shall, from the upstream of this name.
    Only(String),
}

/// One request for vectors.
#[derive(Debug, Clone)]
pub struct EmbedRequest {
    /// As [`GenerateRequest::model`].
    pub model: String,
    /// What to make vectors of, each on its own.
    pub texts: Vec<Prompt>,
    /// Longer texts are cut to so many tokens, special ones included, or to what the model takes if
    /// that is less; refused if absent.
    pub tokens_max: Option<u32>,
}

/// The vectors of some texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// Names the first text's session in receipts and in the ledger.
    pub request: RequestId,
    /// The model's name.
    pub model: String,
    /// One for each text, `[D]`, of length 1.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all texts.
    pub prompt_tokens: u64,
    /// What the caller's member paid.
    pub cost: Credits,
    /// Work of all stages.
    pub flops: Flops,
    /// Who ran which layers, in order, for the first text.
    pub route: Vec<StageReport>,
}

/// Most alternatives that are reported for a token, OpenAI's limit.
pub const LOGPROBS_MAX: u8 = 20;

/// A generation under way. Dropping it cancels the request and releases its credits.
#[derive(Debug)]
pub struct Generation {
    /// Names the answer, however often it is gone on with, and the first request for it in receipts and in the
    /// ledger.
    pub request: RequestId,
    /// The model's name.
    pub model: String,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// The upstream that answers, if that is known already: one that stands in for lost stages is not.
    pub upstream: Option<String>,
    /// Any number of [`GenerateEvent::Piece`], then exactly one other event.
    pub events: Events,
}

/// What happens during a generation.
#[derive(Debug)]
pub enum GenerateEvent {
    /// More of the answer.
    Piece(Piece),
    /// The end of a complete answer, after its settlement is durable.
    Done(Summary),
    /// The end of a failed one. Nothing was charged, unless the request's own grammar led nowhere.
    Failed(GenerateError),
}

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Piece {
    /// Further text, perhaps none: whole characters, never part of a stop string.
    pub text: String,
    /// What it calls, as it comes.
    pub calls: Vec<CallPart>,
    /// The tokens chosen meanwhile, if log-probabilities were asked for. Their text may come later.
    pub tokens: Vec<TokenReport>,
    /// How many tokens of the answer were chosen by now: what [`Resume::seen`] wants. 0 where they are not
    /// counted, because the text is the prompt's or an upstream's.
    pub generated: u32,
}

impl Piece {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.calls.is_empty() && self.tokens.is_empty()
    }

    /// Adds what comes after it.
    pub fn extend(&mut self, later: Self) {
        let Self { text, calls, tokens, generated } = later;
        self.add(Parsed { text, calls });
        self.tokens.extend(tokens);
        self.generated = generated;
    }

    /// Adds more text and calls.
    pub(crate) fn add(&mut self, later: Parsed) {
        let (text, calls) = (std::mem::take(&mut self.text), std::mem::take(&mut self.calls));
        let mut all = Parsed { text, calls };
        all.extend(later);
        (self.text, self.calls) = (all.text, all.calls);
    }
}

/// How likely a token was.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenReport {
    /// Its id.
    pub token: u32,
    /// Its text; bytes that are no whole character show as U+FFFD.
    pub text: String,
    /// Its bytes; absent for a special token, which is no part of the text.
    pub bytes: Option<Vec<u8>>,
    /// Natural logarithm of its probability before sampling parameters; absent for the first token
    /// of a prompt, which follows nothing.
    pub logprob: Option<f32>,
    /// The likeliest tokens at its place, likelier first.
    pub top: Vec<Alternative>,
}

/// A token that could have come instead.
#[derive(Debug, Clone, PartialEq)]
pub struct Alternative {
    /// Its text, as in [`TokenReport::text`].
    pub text: String,
    /// Its bytes, as in [`TokenReport::bytes`].
    pub bytes: Option<Vec<u8>>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

impl TokenReport {
    /// For people and programs.
    pub(crate) fn of(tokenizer: &Tokenizer, found: &TokenLogProbs) -> Self {
        let alternative = |&(token, logprob): &(u32, f32)| {
            let (text, bytes) = spelled(tokenizer, token);
            Alternative { text, bytes, logprob }
        };
        let top = found.top.iter().map(alternative).collect();
        Self { logprob: Some(found.logprob), top, ..Self::unscored(tokenizer, found.token) }
    }

    /// A token whose probability nothing says.
    pub(crate) fn unscored(tokenizer: &Tokenizer, token: u32) -> Self {
        let (text, bytes) = spelled(tokenizer, token);
        Self { token, text, bytes, logprob: None, top: Vec::new() }
    }
}

fn spelled(tokenizer: &Tokenizer, token: u32) -> (String, Option<Vec<u8>>) {
    let bytes = tokenizer.token_bytes(token);
    let text = String::from_utf8_lossy(bytes).into_owned();
    (text, (!tokenizer.is_special(token)).then(|| bytes.to_vec()))
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model's end token or a stop string.
    Stop,
    /// The same, where the answer calls functions.
    #[serde(rename = "tool_calls")]
    ToolCalls,
    /// `max_tokens` or the context was reached.
    Length,
    /// An upstream holds back the rest.
    #[serde(rename = "content_filter")]
    Filtered,
}

/// What an answer took and who computed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The request.
    pub request: RequestId,
    /// Why the answer ended.
    pub finish: FinishReason,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated, an end token included.
    pub completion_tokens: u32,
    /// What the caller's member paid.
    pub cost: Credits,
    /// Work of all stages.
    pub flops: Flops,
    /// Who ran which layers, in order; nobody, if it came from an upstream.
    pub route: Vec<StageReport>,
    /// What each of them signed for, in order; nothing, where nobody is paid by work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub receipts: Vec<ReceiptReport>,
    /// The upstream that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// The stop string that ended it, if one did. Upstreams do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
}

/// What one stage of an answer's last route claimed to have done, as it stands in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptReport {
    /// The node.
    pub node: NodeId,
    /// Its layers.
    pub span: LayerSpan,
    /// Positions that it computed, of the prompt and of the answer.
    pub positions: u32,
    /// Its work.
    pub flops: Flops,
    /// The signed receipt, in hexadecimal digits: a version byte and a canonical body, then key and signature.
    pub signed: String,
}

/// One stage of a route or of a model's coverage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageReport {
    /// The node.
    pub node: NodeId,
    /// What people call it.
    pub name: String,
    /// Its layers.
    pub span: LayerSpan,
}

/// The node at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of this program.
    pub version: String,
    /// This node.
    pub node: NodeId,
    /// What people call it.
    pub name: String,
    /// Whose account it uses.
    pub member: MemberId,
    /// The network it is in.
    pub network: NetworkId,
    /// What people call the network.
    pub network_name: String,
    /// The node that orders the ledger.
    pub founder: NodeId,
    /// When this process started.
    pub started_at: Tick,
    /// Nodes of the network that answer now, this one included.
    pub nodes_alive: usize,
    /// All nodes of the network, this one included.
    pub nodes_known: usize,
    /// Requests being answered by this node now.
    pub requests_running: usize,
    /// Requests that wait for their turn here.
    #[serde(default)]
    pub requests_waiting: usize,
    /// Sessions of any head that a stage of this node holds now.
    pub sessions_held: usize,
    /// Tokens of answers that this node chose as their head since it started.
    pub tokens_chosen: u64,
    /// How long stages of this node have computed since it started, in milliseconds.
    pub busy_ms: u64,
    /// Bytes that went to other nodes since it started, as payload of UDP, with what was sent twice.
    pub socket_bytes_sent: u64,
    /// Bytes that came so.
    pub socket_bytes_received: u64,
    /// Floating-point operations a second in products of many rows, as a prompt needs.
    pub flops_per_second: u64,
    /// Bytes of weights that it reads a second, which is what single tokens wait for.
    pub memory_bytes_per_second: u64,
    /// Where it tells others that it can be reached.
    #[serde(default)]
    pub addresses: Vec<SocketAddr>,
    /// Why this node gives no work to others, if it does not, for people.
    pub closed: Option<String>,
    /// Models known here.
    pub models: Vec<ModelReport>,
    /// The last routes of requests that came to this node, the latest first.
    pub routes: Vec<RouteDecision>,
    /// Services that answer where the network cannot, in the order in which they are asked.
    pub upstreams: Vec<UpstreamReport>,
    /// What those did wrong who belong to no member.
    pub faults_of_strangers: Counts,
    /// Balance of the member.
    pub balance: Credits,
    /// Number of ledger entries held.
    pub ledger_height: u64,
}

/// One model and who serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelReport {
    /// The name requests use.
    pub name: String,
    /// Its digest.
    pub id: ModelId,
    /// Its dimensions.
    pub shape: ModelShape,
    /// Weights of all layers, in bytes.
    pub weight_bytes: u64,
    /// Every span served by a live node, ordered by layer.
    pub coverage: Vec<StageReport>,
    /// Whether a complete route exists now.
    pub complete: bool,
    /// Whether it only makes vectors of texts.
    pub is_encoder: bool,
    /// Memory that this node gives to it; 0 while it waits on the disk, nothing until that is decided.
    pub share_bytes: Option<u64>,
    /// How long its layers took to load when they last were, in milliseconds.
    pub load_ms: Option<u64>,
    /// What of it is on its way into this node's memory, if anything is.
    #[serde(default)]
    pub underway: Option<UnderwayReport>,
    /// Whether this node's owner wants none of it in memory.
    #[serde(default)]
    pub rests: bool,
    /// Whether this node is loading layers of it.
    #[serde(default)]
    pub loads: bool,
    /// Adapters of this node: requests ask for `MODEL:ADAPTER`.
    pub adapters: Vec<String>,
}

/// Layers on their way into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderwayReport {
    /// They are being fetched from elsewhere; else they are read from the disk.
    pub fetching: bool,
    /// How much of them is here.
    pub bytes_here: u64,
    /// How much there is.
    pub bytes: u64,
}

/// A service outside the network, and what became of its answers since this node started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamReport {
    /// What requests call it.
    pub name: String,
    /// Where it is.
    pub address: String,
    /// Models it was set up for, by the names that requests use; none if it is asked for what this
    /// node knows.
    pub models: Vec<String>,
    /// Whether it is told who asks.
    pub has_key: bool,
    /// How often it was asked.
    pub asked: u64,
    /// How often it gave no answer, or none to the end.
    pub failed: u64,
    /// What was wrong the last time.
    pub last_failure: Option<String>,
}

/// One node of the network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerReport {
    /// The node.
    pub node: NodeId,
    /// What people call it.
    pub name: String,
    /// Whose account it uses.
    pub member: MemberId,
    /// Whether this is the node asked.
    pub this: bool,
    /// Whether it answers now.
    pub alive: bool,
    /// Milliseconds since it was last heard, if ever.
    pub silent_ms: Option<u64>,
    /// Memory it offers, in bytes.
    pub memory_bytes: u64,
    /// Sessions that its stages hold, by its own word.
    pub load: u32,
    /// Microseconds from the node asked to this one and back, if they are linked.
    pub round_trip_us: Option<u32>,
    /// Bytes a second between the node asked and this one, the slower way, once that is known.
    pub link_bytes_per_second: Option<u64>,
    /// Floating-point operations a second in products of many rows, by its own word.
    pub flops_per_second: u64,
    /// Bytes of weights that it reads a second, by its own word.
    pub memory_bytes_per_second: u64,
    /// Milliseconds that its clock is ahead of that of the node asked, or behind if negative; nothing until it was heard.
    #[serde(default)]
    pub clock_ms: Option<i64>,
    /// Why it gives no work to others, if it does not, for people.
    pub closed: Option<String>,
    /// What it serves: model name and span.
    pub serves: Vec<(String, LayerSpan)>,
    /// What the node asked saw it do wrong, and how often, since that one started.
    pub faults: Counts,
    /// How fast it is: model name and microseconds for one token through one layer.
    pub layer_us: Vec<(String, u32)>,
    /// What the node asked thinks of it, in thousandths of a point, since that one started.
    #[serde(default)]
    pub reputation_thousandths: i64,
    /// What its work counts for.
    #[serde(default)]
    pub standing: StandingReport,
}

/// What an invitation should allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteOptions {
    /// Any number of nodes may use it until it expires; otherwise one.
    #[serde(default)]
    pub reusable: bool,
    /// How long it is valid.
    pub valid_ms: u64,
}

/// A fresh invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteReport {
    /// The text to hand over.
    pub invite: String,
    /// The network it opens.
    pub network: NetworkId,
    /// When it ends.
    pub expires_at: Tick,
    /// Whether more than one node may use it.
    pub reusable: bool,
}

/// What joining led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinReport {
    /// The network joined.
    pub network: NetworkId,
    /// Its name.
    pub network_name: String,
    /// The node that let us in.
    pub invited_by: NodeId,
}

/// The member's account, and everybody's standing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreditsReport {
    /// Whose account this is.
    pub member: MemberId,
    /// Spendable now.
    pub balance: Credits,
    /// Set aside for requests under way.
    pub reserved: Credits,
    /// Earned by common work of the last days, and not spendable yet.
    pub held: Credits,
    /// The economy: coop, gft, fei, neuro or tokenless.
    pub economy: String,
    /// What expires within the time of which the network warns, and when the first of it does.
    pub expiring: Option<(Credits, Tick)>,
    /// All members, ordered by name.
    pub members: Vec<MemberReport>,
}

/// One member's sums since the network was founded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    /// The member.
    pub member: MemberId,
    /// Name of its first node.
    pub name: String,
    /// Spendable now.
    pub balance: Credits,
    /// Given on joining.
    pub granted: Credits,
    /// Paid to it for work.
    pub earned: Credits,
    /// Paid by it for answers.
    pub spent: Credits,
    /// Work it did.
    pub flops: Flops,
}

/// One ledger entry for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryReport {
    /// Position in the log.
    pub height: u64,
    /// When it was ordered.
    pub at: Tick,
    /// Its hash.
    pub hash: EntryHash,
    /// What it is: founded, joined, reserved, settled, released, forwarded, delivered, appointed, removed, rated,
    /// judged, claimed or epoch.
    pub kind: String,
    /// The request it belongs to, if any.
    pub request: Option<RequestId>,
    /// What it moved; sums to zero.
    pub postings: Vec<PostingReport>,
    /// What the amounts follow from, if that is more than the entry's kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Basis>,
}

/// One change of one account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostingReport {
    /// The member, or `mint`, `burn` or `treasury`.
    pub account: String,
    /// Which part of a member's credits: `spendable`, `reserved`, `held` or `stake`.
    pub bucket: Option<String>,
    /// By how much, in µGFT.
    pub change: i64,
}

/// The numbers behind the amounts of an entry. A price in µGFT is FLOPs times `per_mille`, divided by a million and
/// rounded up; or, where the economy sells tokens, their number times `per_million_tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum Basis {
    /// Held: all tokens, of prompt and answer, through all layers.
    Quote {
        /// Tokens of the prompt.
        prompt_tokens: u32,
        /// Tokens of the longest answer.
        max_new_tokens: u32,
        /// Layers of the model.
        layers: u32,
        /// Work of that.
        flops: Flops,
        /// The factor for the precision of the weights.
        per_mille: u32,
        /// What a million tokens cost, where they and not FLOPs have a price.
        #[serde(default)]
        per_million_tokens: Option<Credits>,
    },
    /// Paid: what the stages signed for, each member's part in proportion to its work.
    Work {
        /// Tokens that went through all layers.
        positions: u32,
        /// For how many of them the next token was computed.
        logits: u32,
        /// Who ran which layers, in order.
        work: Vec<WorkReport>,
        /// Work of all layers, if this node knows it.
        flops: Option<Flops>,
        /// Of the weights, if this node knows it...
        precision: Option<Precision>,
        /// ...and its factor.
        per_mille: Option<u32>,
        /// What a million tokens cost, where they and not FLOPs have a price.
        #[serde(default)]
        per_million_tokens: Option<Credits>,
    },
    /// Paid: many sessions by one entry.
    Epoch {
        /// Counts the ledger's epochs from 1.
        number: u64,
        /// Papers that it rests on.
        papers: u64,
        /// Whether they are here: without them no session tells its work.
        papers_here: bool,
        /// The sessions.
        sessions: Vec<SessionReport>,
    },
    /// Held for an answer from outside the network.
    Tariff {
        /// Tokens of the prompt.
        prompt_tokens: u32,
        /// Tokens of the longest answer.
        max_new_tokens: u32,
        /// So many thousandths of the network's own price...
        multiple_per_mille: Option<u32>,
        /// ...or so much for a thousand tokens.
        per_thousand_tokens: Option<Credits>,
    },
}

/// One session of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReport {
    /// The request.
    pub request: RequestId,
    /// Who paid, if this node knows it.
    pub payer: Option<MemberId>,
    /// What it cost.
    pub cost: Credits,
    /// Whether its head settled it; otherwise its time was over.
    pub settled: bool,
    /// What the cost follows from: [`Basis::Work`], where stages signed receipts and the papers are here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Basis>,
}

/// One stage's part in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkReport {
    /// The node.
    pub node: NodeId,
    /// What people call it.
    pub name: String,
    /// Whose node it is, if it is part of the network.
    #[serde(default)]
    pub member: Option<MemberId>,
    /// Its layers.
    pub span: LayerSpan,
    /// Its work, if this node knows it.
    pub flops: Option<Flops>,
    /// What its hardware counted for then, in ten-thousandths, if this node knows it...
    pub multiplier: Option<Factor>,
    /// ...and how reliable it was.
    pub reliability: Option<Factor>,
}

/// What a full replay checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// The network whose ledger it is.
    pub network: NetworkId,
    /// The first entry replayed: 0, or where the snapshot ends that stands for removed ones.
    pub since: u64,
    /// Entries replayed.
    pub entries: u64,
    /// Signatures checked, those inside entries included.
    pub signatures: u64,
    /// Postings derived anew and compared.
    pub postings: u64,
    /// Papers of epochs that are here, and gave what their epochs say.
    pub papers: u64,
    /// Members with an account.
    pub members: u64,
    /// Credits ever granted.
    pub minted: Credits,
    /// Sum of members' balances.
    pub balances: Credits,
    /// Held by open requests.
    pub reserved: Credits,
    /// Hash of the last entry.
    pub head: EntryHash,
    /// Hash of the state reached.
    pub state: TreeHash,
    /// Witnesses, of whom enough cosigned the end and every change of theirs; 0 where there are none.
    #[serde(default)]
    pub witnesses: u64,
}
