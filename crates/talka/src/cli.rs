//! Commands and flags as typed. Resolved where they are used; nothing is decided here.

mod govern;
mod keys;
mod listen;
mod member;
mod terminal;
mod train;

pub use govern::{GovernAction, GovernArgs, ProposeArgs, ProposedAction};
pub use keys::{KeysAction, KeysAddArgs, KeysArgs};
pub use listen::ListenArgs;
pub use member::{MemberAction, MemberArgs, Signing};
pub use terminal::{CompletionsArgs, ManArgs, ServiceAction, ServiceArgs, TopArgs};
pub use train::{TrainAction, TrainArgs};

use crate::{
    env,
    log::LogArgs,
    model_ref::{AdapterChoice, DraftChoice, LayerChoice, ModelRef, PrecisionChoice},
    quantity::{self, Size},
    upstream::UpstreamFlag,
};
use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{FalseyValueParser, PossibleValuesParser, TypedValueParser},
};
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use talka_node::{
    Encoding, Hours, PROFILE_NAMES, Policy, Profile,
    base::{Credits, MemberId, NodeId, RequestId},
};

/// Where a node answers unless told otherwise: this computer only.
pub const HTTP_DEFAULT: &str = "127.0.0.1:4242";

/// Serves open language models, alone or together with your neighbours' computers.
///
/// `talka` alone is `talka up`.
#[derive(Debug, Parser)]
#[command(version, after_help = "Example: talka up, then in another terminal: talka chat")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs a node in the foreground until Ctrl-C
    #[command(after_help = "Example: talka up --model bard --http 127.0.0.1:4242")]
    Up(UpArgs),
    /// Continues a text; prints the continuation and nothing else
    #[command(after_help = "Example: talka run --max-tokens 40 \"To be, or not to be\"")]
    Run(RunArgs),
    /// Holds a conversation
    #[command(after_help = "Example: talka chat --model bard")]
    Chat(ChatArgs),
    /// Makes an invitation to this node's network and prints it
    #[command(after_help = "Example: talka invite --reusable --valid 7d")]
    Invite(InviteArgs),
    /// Joins a network: with the node that runs here, or else by starting one
    #[command(after_help = "Example: talka join talka1abc... --name kitchen --model peer:bard")]
    Join(JoinArgs),
    /// Shows, fetches and removes models
    #[command(after_help = "Example: talka models pull hf:HuggingFaceTB/SmolLM2-135M-Instruct")]
    Models(ModelsArgs),
    /// Shows the nodes of the network
    #[command(after_help = "Example: talka peers")]
    Peers(PeersArgs),
    /// Shows this node at a glance
    #[command(after_help = "Example: talka status --json")]
    Status(NodeAt),
    /// Watches the network: nodes, links, tokens, sessions and credits, as they are now
    #[command(after_help = "Example: talka top --interval 5s")]
    Top(TopArgs),
    /// Trains a model, shows how that goes, and serves what came of it
    #[command(after_help = "Example: talka train examples/bard.toml")]
    Train(TrainArgs),
    /// Shows who earned and who spent
    #[command(after_help = "Example: talka credits")]
    Credits(CreditsArgs),
    /// Makes, lists and removes keys that let callers in
    #[command(after_help = "Example: talka keys add bob --budget 5000 --expires 30d")]
    Keys(KeysArgs),
    /// Proposes, votes on and shows what members decide together
    #[command(after_help = "Example: talka govern vote 5f0c yes")]
    Govern(GovernArgs),
    /// Stakes credits, and says which keys act for this node's member
    #[command(after_help = "Example: talka member stake 1000 --days 90")]
    Member(MemberArgs),
    /// Prints a fresh link that lets a browser in, good once and for minutes
    #[command(after_help = "Example: talka login")]
    Login(NodeAt),
    /// Shows, checks or exports the ledger
    #[command(after_help = "Example: talka ledger verify")]
    Ledger(LedgerArgs),
    /// Measures how fast a running node answers, or how fast this computer is
    #[command(after_help = "Example: talka bench model --model bard --tokens 64")]
    Bench(BenchArgs),
    /// Looks for what keeps Talka from working and says what to do
    #[command(after_help = "Example: talka doctor --data-dir /srv/talka")]
    Doctor(DoctorArgs),
    /// Keeps a node running from login on, as a service of this user
    #[command(after_help = "Example: talka service install -- --model bard --threads 4")]
    Service(ServiceArgs),
    /// Prints what lets a shell complete commands and flags
    #[command(after_help = "Example: talka completions bash > talka.bash")]
    Completions(CompletionsArgs),
    /// Prints the manual page, or writes those of all commands into a folder
    #[command(after_help = "Example: talka man ~/.local/share/man/man1")]
    Man(ManArgs),
}

/// A node to start.
#[derive(Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    pub node: NodeArgs,
    /// Join the network of this invitation, or of the one in @FILE
    #[arg(long, value_name = "INVITE")]
    pub join: Option<String>,
}

/// Everything about a node to start but the network it joins.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// Where keys, ledger and address are kept [default: this system's place for program data]
    #[arg(long, value_name = "DIR", env = env::DATA_DIR)]
    pub data_dir: Option<PathBuf>,
    /// Address for callers; any but this computer's own needs an API key; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = HTTP_DEFAULT)]
    pub http: SocketAddr,
    #[command(flatten)]
    pub listen: ListenArgs,
    /// UDP address for other nodes [default: any free port]
    #[arg(long, value_name = "ADDR")]
    pub p2p: Option<SocketAddr>,
    /// The only address to tell other nodes, such as that of a router that forwards a port here
    /// [default: this computer's own]
    #[arg(long, value_name = "ADDR")]
    pub announce: Option<SocketAddr>,
    /// Model to serve: bard, a folder in the Hugging Face layout, a .gguf file, or
    /// `hf:OWNER/REPO[@REV][:FILE]`, which is fetched if it is not here (of safetensors files that do not fit
    /// the memory, or with --layers, only what this node serves), or peer:NAME, of which this node fetches
    /// the layers it is to serve from the other nodes; repeatable [default: the largest fetched model that
    /// fits the memory, else bard]
    #[arg(long = "model", value_name = "REF")]
    pub models: Vec<ModelRef>,
    #[command(flatten)]
    pub hub: HubArgs,
    /// Layers of a model to serve, half open [default: what the network lacks]; repeatable
    #[arg(long, value_name = "REF=A..B")]
    pub layers: Vec<LayerChoice>,
    /// What stages that answer this node's callers may hold a model in at least: bf16 (as it is stored), q8_0 or
    /// q4_k [default: q4_k]; repeatable
    #[arg(long = "min-precision", value_name = "REF=PRECISION")]
    pub precisions: Vec<PrecisionChoice>,
    /// Let stages that hold a model's weights differently make one route
    #[arg(long)]
    pub mix_precision: bool,
    /// Low-rank adapter of a model to keep beside it, a folder in PEFT's layout; requests ask for
    /// MODEL:NAME; repeatable
    #[arg(long = "adapter", value_name = "[REF:]NAME=DIR")]
    pub adapters: Vec<AdapterChoice>,
    /// Smaller model of the same vocabulary that guesses ahead for a model, which then answers faster and
    /// the same
    #[arg(long = "draft", value_name = "[REF=]DRAFT")]
    pub drafts: Vec<DraftChoice>,
    /// Service to fall back on where the network cannot answer, any that speaks the OpenAI API: NAME=URL, then
    /// after commas model=NAME[=REMOTE] for each model of it [default: those known here], key-file=FILE or
    /// key-env=VAR, multiple=X [of the network's price, default: 2], price=GFT [for 1000 tokens of models
    /// unknown here, default: 16000], wait=TIME [for its first word, default: 60s]; repeatable, asked in order.
    /// Prompts then leave the network. Example:
    /// `--upstream groq=https://api.groq.com/openai/v1,model=llama-3.1-8b-instant,key-env=GROQ_API_KEY`
    #[arg(long = "upstream", value_name = "NAME=URL[,OPTION=VALUE]...")]
    pub upstreams: Vec<UpstreamFlag>,
    /// What people call this node [default: this computer's name]
    #[arg(long, value_name = "S")]
    pub name: Option<String>,
    /// Threads for computing [default: as many as there are processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Give work to others in these hours of the local clock only, such as `22:00-07:00` or `mon-fri 18:00-08:00`;
    /// repeatable [default: always]
    #[arg(long, value_name = "[DAYS ]FROM-TO")]
    pub hours: Vec<Hours>,
    /// Give work to others only while nobody types at this computer and no other programs need it
    #[arg(long)]
    pub when_idle: bool,
    /// Bytes a second that models may take each way on their way from and to other computers, such as 2M; answers do
    /// not count [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = quantity::bandwidth)]
    pub bandwidth: Option<Size>,
    /// Memory for weights and caches, such as 8G [default: what the system can spare]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Size>,
    /// How several models share the memory: each has its part always, or those asked for last are loaded, or the
    /// first stays and the others are swapped
    #[arg(long, value_name = "POLICY", default_value = "specialised")]
    pub policy: MemoryPolicy,
    /// How much of the memory is for caches: what answers under way have read and said [default: a quarter]
    #[arg(long, value_name = "SIZE")]
    pub cache: Option<Size>,
    /// Hold weights in fewer bits than they are stored in [default: as they are stored]
    #[arg(long, value_name = "FORMAT")]
    pub weights: Option<WeightFormat>,
    /// When founding a network: what every member starts with
    #[arg(long, value_name = "GFT", value_parser = quantity::credits)]
    pub grant: Option<Credits>,
    /// When founding a network: how long a request may take before what it set aside is given back, as in 90s or 1h
    /// [default: 15m]
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub request_time: Option<Duration>,
    /// When founding a network: how work is paid; tokenless counts work and pays nothing [default: coop]
    #[arg(long, value_name = "NAME", value_parser = economy())]
    pub economy: Option<Profile>,
    /// When founding a network: its rules of money, a file such as `talka govern policy` prints
    #[arg(long, value_name = "FILE", conflicts_with = "economy")]
    pub rules: Option<PathBuf>,
    #[command(flatten)]
    pub log: LogArgs,
    #[command(flatten)]
    pub key: KeyArgs,
    /// Print the ready line as one JSON document
    #[arg(long)]
    pub json: bool,
}

fn economy() -> impl TypedValueParser<Value = Profile> {
    let names = PossibleValuesParser::new(PROFILE_NAMES);
    names.map(|name| Profile::named(&name).expect("only names of profiles are possible"))
}

/// Whether models may be fetched.
#[derive(Debug, Args)]
pub struct HubArgs {
    /// Fetch nothing: use only models that are on this computer
    #[arg(long, env = env::HF_HUB_OFFLINE, value_parser = FalseyValueParser::new(), global = true)]
    pub offline: bool,
}

/// The key between callers and a node.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// File holding the API key [or the key itself in TALKA_API_KEY]
    #[arg(long, value_name = "FILE", global = true)]
    pub api_key_file: Option<PathBuf>,
}

/// Which running node to ask.
#[derive(Debug, Args)]
pub struct NodeAt {
    /// Data directory of the node [default: this system's place for program data]
    #[arg(long, value_name = "DIR", env = env::DATA_DIR, global = true)]
    pub data_dir: Option<PathBuf>,
    /// Address of the node, such as 127.0.0.1:4242, with https:// in front for one with a certificate [default: as
    /// kept in the data directory]
    #[arg(long, value_name = "ADDR", global = true)]
    pub http: Option<String>,
    /// File of certificates in PEM to trust besides this system's, for a node with one of its own making
    #[arg(long, value_name = "PEM", global = true)]
    pub tls_ca: Option<PathBuf>,
    #[command(flatten)]
    pub key: KeyArgs,
    /// Print one JSON document
    #[arg(long, global = true)]
    pub json: bool,
}

/// What shapes an answer.
#[derive(Debug, Args)]
pub struct SamplingArgs {
    /// Model to ask [default: the first that the network covers]
    #[arg(long, value_name = "M")]
    pub model: Option<String>,
    /// Most tokens to generate [default: half the model's context, at most 1024]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,
    /// 0 always takes the likeliest token; higher is more surprising [default: the node's]
    #[arg(long, value_name = "T")]
    pub temperature: Option<f64>,
    /// The same seed and request give the same answer [default: random]
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    pub seed: Option<i64>,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Text to continue
    pub prompt: String,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    #[command(flatten)]
    pub at: NodeAt,
}

#[derive(Debug, Args)]
pub struct ChatArgs {
    /// What the model should know before the conversation
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    #[command(flatten)]
    pub at: NodeAt,
}

#[derive(Debug, Args)]
pub struct InviteArgs {
    /// Any number of nodes may use it until it expires
    #[arg(long)]
    pub reusable: bool,
    /// How long it is valid: 90s, 30m, 24h, 7d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = quantity::duration)]
    pub valid: Duration,
    /// Write it to a file that only this user can read, instead of printing it
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub at: NodeAt,
}

#[derive(Debug, Args)]
pub struct JoinArgs {
    /// What `talka invite` printed on another node, or @FILE to read it from a file: other users can see what is
    /// typed here
    pub invite: String,
    /// Only say what joining with these flags would come to: layers, tokens/s, bytes a token, credits; joins
    /// nothing and keeps nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub node: NodeArgs,
}

#[derive(Debug, Args)]
pub struct ModelsArgs {
    #[command(subcommand)]
    pub action: Option<ModelsAction>,
    #[command(flatten)]
    pub hub: HubArgs,
    #[command(flatten)]
    pub at: NodeAt,
}

#[derive(Debug, Subcommand)]
pub enum ModelsAction {
    /// Lists the models that the network serves and those on this computer's disk (the default)
    #[command(after_help = "Example: talka models list")]
    List,
    /// Shows what one model is and takes, and who serves which layers; needs no running node
    #[command(after_help = "Example: talka models show bard")]
    Show {
        /// bard, a folder, a .gguf file, a fetched hf:OWNER/REPO, or a name that the network knows
        #[arg(value_name = "REF")]
        model: String,
    },
    /// Fetches a model from the hub, or goes on where an earlier fetch stopped
    #[command(after_help = "Example: talka models pull hf:HuggingFaceTB/SmolLM2-135M-Instruct")]
    Pull {
        /// `hf:OWNER/REPO[@REV][:FILE]`; FILE is a file's name or, for GGUF, an encoding such as q8_0
        #[arg(value_name = "REF")]
        model: String,
    },
    /// Removes a fetched model from the disk; without @REV and :FILE all of its repository
    #[command(after_help = "Example: talka models rm hf:HuggingFaceTB/SmolLM2-135M-Instruct")]
    Rm {
        /// As in `talka models pull`
        #[arg(value_name = "REF")]
        model: String,
    },
}

#[derive(Debug, Args)]
pub struct PeersArgs {
    #[command(subcommand)]
    pub action: Option<PeersAction>,
    #[command(flatten)]
    pub at: NodeAt,
}

#[derive(Debug, Subcommand)]
pub enum PeersAction {
    /// Lists them (the default)
    #[command(after_help = "Example: talka peers list")]
    List,
    /// As the founder, trusts a node anew that was suspended or is under review
    #[command(after_help = "Example: talka peers clear kitchen")]
    Clear {
        /// The node's name, or its id or the beginning of that
        #[arg(value_name = "NODE")]
        node: String,
    },
}

#[derive(Debug, Args)]
pub struct CreditsArgs {
    /// How many of this member's last entries are explained
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub last: usize,
    #[command(flatten)]
    pub at: NodeAt,
}

#[derive(Debug, Args)]
pub struct LedgerArgs {
    #[command(subcommand)]
    pub action: Option<LedgerAction>,
    #[command(flatten)]
    pub at: NodeAt,
}

#[derive(Debug, Subcommand)]
pub enum LedgerAction {
    /// Shows the last entries (the default)
    #[command(after_help = "Example: talka ledger show --last 5")]
    Show {
        /// How many
        #[arg(long, value_name = "N", default_value_t = LEDGER_SHOWN)]
        last: u64,
    },
    /// Replays the whole ledger and says what it checked; with --proof and the like, checks a file without any node
    #[command(after_help = "Example: talka ledger verify --json")]
    Verify(VerifyArgs),
    /// Prints every entry, one JSON object a line (with --json: one array)
    #[command(after_help = "Example: talka ledger export > ledger.jsonl")]
    Export,
    /// Proves an entry, a request that an epoch settled, or a member's balance, in a file that needs no node to be checked
    #[command(after_help = "Example: talka ledger proof 3 --out 3.tlog-proof")]
    Proof {
        /// Position of the entry, from 0
        #[arg(required_unless_present = "member")]
        height: Option<u64>,
        /// Prove what this member can spend instead
        #[arg(long, value_name = "ID", conflicts_with = "height")]
        member: Option<MemberId>,
        /// Prove what the epoch at that position rests on for this request too
        #[arg(long, value_name = "ID", requires = "height")]
        request: Option<RequestId>,
        /// Where to write the proof; standard output, if absent
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Prints the last checkpoint: size and root of the log, signed by its founder and, where there are any, witnesses
    #[command(after_help = "Example: talka ledger checkpoint --out village.checkpoint")]
    Checkpoint {
        /// Where to write the checkpoint; standard output, if absent
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Keeps the whole ledger in a file, and replays that to be sure
    #[command(after_help = "Example: talka ledger backup village.talka-backup")]
    Backup {
        /// The file to write
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Puts the ledger of a backup into the data directory of a node that is stopped
    #[command(
        after_help = "Example: talka ledger restore village.talka-backup --data-dir /srv/talka"
    )]
    Restore(RestoreArgs),
    /// Removes this node's copy of old entries; balances and proofs of the others stay
    #[command(after_help = "Example: talka ledger prune --keep-days 90")]
    Prune {
        /// Days whose entries stay
        #[arg(long, value_name = "DAYS", default_value_t = PRUNE_KEEP_DAYS)]
        keep_days: u32,
    },
    /// Proves that the last checkpoint only adds to an older one, in a file that needs no node to be checked
    #[command(after_help = "Example: talka ledger consistency 120 --out since-120.consistency")]
    Consistency {
        /// Entries of the older checkpoint: its second line
        old: u64,
        /// Where to write the proof; standard output, if absent
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Shows or appoints the nodes that have to agree before an entry counts
    #[command(after_help = "Example: talka ledger witness appoint barn mill kitchen attic")]
    Witness {
        #[command(subcommand)]
        action: Option<WitnessAction>,
    },
    /// Prints the proof that the founder or a witness is dishonest, if this node has one
    #[command(after_help = "Example: talka ledger evidence --out village.evidence")]
    Evidence {
        /// Where to write the proof; standard output, if absent
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// A backup and where it goes.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// A file that `talka ledger backup` wrote
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Only say what is in it, after replaying all of it
    #[arg(long)]
    pub check: bool,
}

#[derive(Debug, Subcommand)]
pub enum WitnessAction {
    /// Lists them, and how far the ledger is final (the default)
    #[command(after_help = "Example: talka ledger witness list --json")]
    List,
    /// As the founder, appoints witnesses in place of those before
    #[command(after_help = "Example: talka ledger witness appoint barn mill kitchen attic")]
    Appoint {
        /// Names or ids of `talka peers`: 1, 4, 7 and so on up to 64 nodes, each of another member
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// As the founder, has the witnesses order entries by turns, so that the ledger goes on without this node
    #[command(after_help = "Example: talka ledger witness lead")]
    Lead,
    /// As the founder, orders entries alone again, which the witnesses make final
    #[command(after_help = "Example: talka ledger witness follow")]
    Follow,
}

/// What to verify: the ledger of a node, or one file.
#[derive(Debug, Args)]
#[group(id = "what", multiple = false)]
pub struct VerifyWhat {
    /// A file that `talka ledger proof` wrote
    #[arg(long, value_name = "FILE")]
    pub proof: Option<PathBuf>,
    /// A file that `talka ledger consistency` wrote, to be compared with --checkpoint
    #[arg(long, value_name = "FILE", requires = "checkpoint")]
    pub consistency: Option<PathBuf>,
    /// A file that `talka ledger evidence` wrote
    #[arg(long, value_name = "FILE", requires = "founder")]
    pub evidence: Option<PathBuf>,
}

/// What to verify, and what to believe.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub what: VerifyWhat,
    /// A checkpoint to be believed: instead of the one in the proof, or as the older one
    #[arg(long, value_name = "FILE", requires = "what")]
    pub checkpoint: Option<PathBuf>,
    /// The key of the network's founder, 64 hexadecimal digits: what it did not sign is not believed
    #[arg(long, value_name = "KEY", requires = "what")]
    pub founder: Option<NodeId>,
    /// A witness, 64 hexadecimal digits, once for each: what too few of them cosigned is not believed
    #[arg(long = "witness", value_name = "KEY", requires = "what")]
    pub witnesses: Vec<NodeId>,
}

/// Days whose entries `talka ledger prune` leaves: as long as credits last.
const PRUNE_KEEP_DAYS: u32 = 365;

/// Entries that `talka ledger show` shows: a screenful.
pub const LEDGER_SHOWN: u64 = 20;

#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(subcommand)]
    pub action: Option<DoctorAction>,
    #[command(flatten)]
    pub at: NodeAt,
}

#[derive(Debug, Subcommand)]
pub enum DoctorAction {
    /// Says which way a request would go now, and of every stage why it was chosen or not
    #[command(after_help = "Example: talka doctor route bard")]
    Route {
        /// Name of the model, or MODEL:ADAPTER
        model: String,
    },
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub action: Option<BenchAction>,
    #[command(flatten)]
    pub at: NodeAt,
}

#[derive(Debug, Subcommand)]
pub enum BenchAction {
    /// Tokens per second of prompt and answer (the default); costs credits like any request
    #[command(after_help = "Example: talka bench model --model bard --prompt 128 --tokens 64")]
    Model(BenchModelArgs),
    /// How fast this computer and its GPUs are, and what its work counts for; no node need run, and one that works disturbs
    #[command(after_help = "Example: talka bench hardware --threads 8")]
    Hardware(BenchHardwareArgs),
}

#[derive(Debug, Args)]
pub struct BenchHardwareArgs {
    /// Threads that compute [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Try drivers for GPUs that compute on processors as well, such as Mesa's llvmpipe
    #[cfg(feature = "gpu")]
    #[arg(long)]
    pub software_gpus: bool,
}

#[derive(Debug, Args, Default)]
pub struct BenchModelArgs {
    /// Model to measure [default: the first that the network covers]
    #[arg(long, value_name = "M")]
    pub model: Option<String>,
    /// Tokens of the prompt [default: half the model's context, at most 256]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub prompt: Option<u32>,
    /// What the answer is like
    #[arg(long, value_enum, default_value_t)]
    pub text: BenchText,
    /// Guess no tokens ahead
    #[arg(long)]
    pub no_guesses: bool,
    /// Answers at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=32))]
    pub together: u32,
    /// Tokens of the answer, at least 2 [default: a quarter of the model's context, at most 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub tokens: Option<u32>,
}

/// How the tokens of a measured answer are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum BenchText {
    /// Always the likeliest
    #[default]
    Likeliest,
    /// Drawn by chance: next to nothing can be guessed ahead
    Random,
    /// One token again and again: all can be guessed, which shows the most that guessing gains
    Repeating,
}

/// Formats that weights can be quantised to when they are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WeightFormat {
    /// 8 bits with a scale for every 32: answers that can hardly be told apart
    #[value(name = "q8_0")]
    Q8,
    /// 4 bits with scales and minima: half of that again, at some loss
    #[value(name = "q4_k")]
    Q4,
}

/// How several models share a node's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MemoryPolicy {
    /// All in memory always
    Specialised,
    /// Loaded when asked for; the least recently used makes room
    Dynamic,
    /// The first stays, the others are swapped
    Mixed,
}

impl From<MemoryPolicy> for Policy {
    fn from(policy: MemoryPolicy) -> Self {
        match policy {
            MemoryPolicy::Specialised => Self::Specialised,
            MemoryPolicy::Dynamic => Self::Dynamic,
            MemoryPolicy::Mixed => Self::Mixed,
        }
    }
}

impl From<WeightFormat> for Encoding {
    fn from(format: WeightFormat) -> Self {
        match format {
            WeightFormat::Q8 => Self::Q8_0,
            WeightFormat::Q4 => Self::Q4_K,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn flags_do_not_contradict_each_other_and_every_command_shows_an_example() {
        let command = Cli::command();
        command.clone().debug_assert();
        let mut commands: Vec<_> = command.get_subcommands().collect();
        while let Some(command) = commands.pop() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Example: talka "), "{}", command.get_name());
            commands.extend(command.get_subcommands());
        }
    }

    #[test]
    fn every_command_speaks_json_but_what_is_made_for_shells() {
        let mut root = Cli::command();
        root.build();
        let mut commands: Vec<_> = root.get_subcommands().collect();
        while let Some(command) = commands.pop() {
            let speaks = command.get_arguments().any(|flag| flag.get_long() == Some("json"));
            let name = command.get_name();
            let leads_on = command.has_subcommands() || name == "help" || name == "completions";
            assert!(speaks || leads_on, "{name}");
            if name != "help" {
                commands.extend(command.get_subcommands());
            }
        }
    }

    #[test]
    fn every_example_parses() {
        let command = Cli::command();
        let mut commands: Vec<_> = command.get_subcommands().cloned().collect();
        while let Some(command) = commands.pop() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = help.trim_start_matches("Example: ").split(" > ").next().map(words);
            let example = example.expect("an example");
            assert!(Cli::try_parse_from(&example).is_ok(), "{example:?}");
            commands.extend(command.get_subcommands().cloned());
        }
    }

    /// Split at blanks outside quotation marks.
    fn words(line: &str) -> Vec<String> {
        let quoted = |(at, part): (usize, &str)| -> Vec<String> {
            if at % 2 == 1 {
                vec![part.into()]
            } else {
                part.split_whitespace().map(String::from).collect()
            }
        };
        line.split('"').enumerate().flat_map(quoted).collect()
    }
}
