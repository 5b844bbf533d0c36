//! Finding out what a model is that other nodes have: its outline, kept for the next start.

use super::{Caller, FetchError, Line};
use crate::{
    core::{
        faults::{Fault, Faults},
        fetch::{Description, believed},
    },
    store::{KEY_BYTES_MAX, Store},
    wire::fetch::{Answer, Ask},
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};
use talka_base::{NodeId, hex};
use talka_engine::{Model, ModelSource, OUTLINE_BYTES_MAX, Outline, PIECE_BYTES, PartialModel};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, timeout_at},
};

/// Record of the outline's digest, by the model's name.
const RECORD: &str = "fetched:";
const NAME_BYTES_MAX: usize = KEY_BYTES_MAX - RECORD.len();
const OUTLINE_FILE: &str = "outline";

/// Nodes that are asked what a model is: enough for a majority, and no crowd.
const WITNESSES_MAX: usize = 32;

/// A node that is there says what it knows within this time: longer than linking to one that is not takes.
const DESCRIBE_TIME_MAX: Duration = Duration::from_secs(15);
/// Once one has answered, the others are given so long: some may be off.
const OTHERS_TIME_MAX: Duration = Duration::from_secs(2);
/// The others may be starting at the same time, or reading their files.
const FIND_TIME_MAX: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(250);

/// Open links: linking anew for each question would take longer than the answer.
type Lines = BTreeMap<NodeId, Line>;

type Peers = [(NodeId, Vec<SocketAddr>)];

/// The model that the nodes of the network call `name`: from the disk if it was found before, else as
/// most of `peers` say.
///
/// # Errors
/// [`FetchError`] says why there is none.
pub(crate) async fn find(
    caller: &Caller,
    store: &Store,
    data_dir: &Path,
    name: &str,
    peers: &Peers,
    faults: &mut Faults,
) -> Result<ModelSource, FetchError> {
    let found = name.len();
    if !(1..=NAME_BYTES_MAX).contains(&found) {
        return Err(FetchError::Name { found, max: NAME_BYTES_MAX });
    }
    let record = format!("{RECORD}{name}");
    let folder = data_dir.join("fetched");
    if let Some(digest) = store.get(&record)?.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        && let Ok(bytes) = fs::read(folder.join(hex::show(&digest)).join(OUTLINE_FILE))
        && let Ok(outline) = Outline::from_bytes(&bytes)
    {
        let folder = folder.join(hex::show(&digest));
        return Ok(ModelSource::Partial(Arc::new(PartialModel::new(name.into(), folder, outline))));
    }
    let (digest, bytes) = ask_all(caller, name, peers, faults).await?;
    let folder = folder.join(hex::show(&digest));
    let disk = |source| FetchError::Disk { path: folder.clone(), source };
    keep(&folder, OUTLINE_FILE, &bytes).map_err(disk)?;
    let outline = Outline::from_bytes(&bytes)?;
    store.put(&record, &digest)?;
    Ok(ModelSource::Partial(Arc::new(PartialModel::new(name.into(), folder, outline))))
}

/// The file is whole under its name in `folder` or not there.
pub(super) fn keep(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let part = folder.join(format!("{name}.part"));
    let mut file = File::create(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(part, folder.join(name))
}

/// The digest and bytes of the outline that most describe.
async fn ask_all(
    caller: &Caller,
    name: &str,
    peers: &Peers,
    faults: &mut Faults,
) -> Result<([u8; 32], Vec<u8>), FetchError> {
    let mut peers: BTreeMap<_, _> = peers.iter().cloned().collect();
    peers.remove(&caller.endpoint.node_id());
    if peers.is_empty() {
        return Err(FetchError::Alone);
    }
    let started = Instant::now();
    let mut was_told = false;
    let mut lines = Lines::new();
    loop {
        let Said { mut descriptions, is_making, mut is_silent, reasons } =
            ask_each(caller, name, &peers, &mut lines).await;
        let is_late = started.elapsed() > FIND_TIME_MAX;
        // Who is still making it may be right where the others are wrong; but nobody can hold up the rest.
        while (!is_making || is_late)
            && let Some((description, nodes)) = believed(&descriptions)
        {
            for node in &nodes {
                let Some(mut line) = lines.remove(node) else { continue };
                match outline(&mut line, description).await {
                    Ok(bytes) => return Ok((description.outline, bytes)),
                    Err(NoOutline::Lost(reason)) => {
                        is_silent = true;
                        tracing::warn!(peer = %node.short(), reason, "no outline of {name}");
                    }
                    Err(NoOutline::Lie(reason)) => {
                        faults.blame(*node, Fault::Piece);
                        tracing::warn!(peer = %node.short(), reason, "a false outline of {name}");
                    }
                }
            }
            descriptions.retain(|node, _| !nodes.contains(node));
        }
        if !is_making && (is_late || !is_silent) {
            let reasons = reasons.into_iter().map(|(node, r)| format!("{}: {r}", node.short()));
            let reasons = reasons.collect::<Vec<_>>().join("; ");
            return Err(FetchError::Nobody { reasons });
        }
        if is_making && !was_told {
            tracing::info!("the nodes that have {name} are reading it through for its hashes");
            was_told = true;
        }
        sleep(PAUSE).await;
    }
}

/// What nodes said when they were asked what a model is.
#[derive(Default)]
struct Said {
    descriptions: BTreeMap<NodeId, Description>,
    /// Somebody has it and does not know yet what to say.
    is_making: bool,
    /// Somebody could not be asked.
    is_silent: bool,
    /// Why the others have nothing to tell.
    reasons: BTreeMap<NodeId, String>,
}

async fn ask_each(
    caller: &Caller,
    name: &str,
    peers: &BTreeMap<NodeId, Vec<SocketAddr>>,
    lines: &mut Lines,
) -> Said {
    let mut asked = JoinSet::new();
    for (node, addresses) in peers.iter().take(WITNESSES_MAX) {
        let (caller, node, addresses) = (caller.clone(), *node, addresses.clone());
        let (ask, line) = (Ask::Describe { name: name.into() }, lines.remove(&node));
        asked.spawn(async move {
            let answer = async {
                let mut line = match line {
                    Some(line) => line,
                    None => caller.link(node, &addresses).await?,
                };
                line.ask(&ask).await?;
                Ok((line.answer().await?, line))
            };
            (node, answer.await)
        });
    }
    let mut said = Said::default();
    let mut until = Instant::now() + DESCRIBE_TIME_MAX;
    while let Ok(Some(answered)) = timeout_at(until, asked.join_next()).await {
        let (node, answer) = answered.expect("asking does not panic");
        let answer: Result<_, String> = answer.map(|(answer, line)| {
            lines.insert(node, line);
            answer
        });
        match answer {
            Ok(Answer::Described { model, outline, bytes }) => {
                said.descriptions.insert(node, Description { model, outline, bytes });
                until = until.min(Instant::now() + OTHERS_TIME_MAX);
            }
            Ok(Answer::NotYet) => said.is_making = true,
            Ok(Answer::Absent { reason }) => {
                said.reasons.insert(node, reason);
            }
            Err(reason) => {
                said.is_silent = true;
                said.reasons.insert(node, reason);
            }
            Ok(Answer::Piece(_)) => {
                said.reasons.insert(node, "it answered something else".into());
            }
        }
    }
    said
}

/// Why a node did not show the outline that it described.
enum NoOutline {
    /// It fell away, or has it no longer.
    Lost(String),
    /// What it sent is another, or none.
    Lie(String),
}

impl From<String> for NoOutline {
    fn from(reason: String) -> Self {
        Self::Lost(reason)
    }
}

/// The outline that the node on `line` described: of that digest, and of a model with that id.
async fn outline(line: &mut Line, description: Description) -> Result<Vec<u8>, NoOutline> {
    let Description { model, outline, bytes: length } = description;
    let length = usize::try_from(length).ok().filter(|length| *length <= OUTLINE_BYTES_MAX);
    let length = length.ok_or_else(|| NoOutline::Lie("it is too long".into()))?;
    // Grows as pieces come: a length alone allocates nothing.
    let mut bytes = Vec::new();
    for piece in (0..).take(length.div_ceil(PIECE_BYTES)) {
        line.ask(&Ask::Outline { model, piece }).await?;
        match line.answer().await? {
            Answer::Piece(part) => bytes.extend_from_slice(&part),
            Answer::Absent { reason } => return Err(reason.into()),
            Answer::Described { .. } | Answer::NotYet => {
                return Err(NoOutline::Lie("it changed its mind".into()));
            }
        }
    }
    let checked = spawn_blocking(move || {
        if bytes.len() != length || blake3::hash(&bytes) != outline {
            return Err("its outline is not the one it described".to_owned());
        }
        let read = Outline::from_bytes(&bytes).map_err(|error| error.to_string())?;
        let partial = PartialModel::new("model".into(), "nowhere".into(), read);
        let opened = Model::open(ModelSource::Partial(Arc::new(partial)));
        let found = opened.map_err(|error| error.to_string())?.id();
        if found != model {
            return Err(format!("its outline is of {found}, expected {model}"));
        }
        Ok(bytes)
    });
    checked.await.expect("reading an outline does not panic").map_err(NoOutline::Lie)
}
