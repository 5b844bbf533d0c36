//! The giving side: tells what a model is, and sends pieces of the tensors that are here.

use crate::{
    core::fetch::{Description, rest},
    shell::{Shared, links, models::KnownModel},
    wire::fetch::{Answer, Ask},
};
use bytes::Bytes;
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use talka_base::NodeId;
use talka_engine::{ModelSource, Outline, OutlineError, PIECE_BYTES};
use talka_net::{Lane, LinkReceiver, LinkSender};
use tokio::time::{sleep, timeout};

/// Links that fetch from this node at once; each may hold a few pieces in memory.
pub(crate) const TAKERS_MAX: usize = 16;

/// Who asks nothing for so long has what it wanted.
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);

/// What this node tells of one model; made when somebody first asks, as it takes reading all weights.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    begun: AtomicBool,
    told: OnceLock<Result<Told, String>>,
}

#[derive(Debug)]
struct Told {
    description: Description,
    outline: Bytes,
    /// Of the tensors, by number.
    names: Vec<String>,
}

impl Told {
    fn of(known: &KnownModel) -> Result<Self, OutlineError> {
        let outline = Outline::of(&known.source)?;
        let bytes = Bytes::from(outline.to_bytes()?);
        let description = Description {
            model: known.id,
            outline: blake3::hash(&bytes).into(),
            bytes: bytes.len() as u64,
        };
        let names = outline.tensors().iter().map(|tensor| tensor.name().to_owned()).collect();
        Ok(Self { description, outline: bytes, names })
    }
}

/// Answers a member that fetches, until it leaves.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    peer: NodeId,
    sender: &LinkSender,
    receiver: &mut LinkReceiver,
) {
    let Ok(_turn) = shared.takers.try_acquire() else {
        let reason = format!("{TAKERS_MAX} others are fetching from this node: ask again later");
        return links::refuse(sender, &reason).await;
    };
    if sender.send(Lane::Control, shared.hello().to_bytes()).await.is_err() {
        return;
    }
    while let Ok(Ok((_, bytes))) = timeout(IDLE_TIME_MAX, receiver.recv()).await {
        let ask = match Ask::from_bytes(&bytes) {
            Ok(ask) => ask,
            Err(error) => {
                tracing::warn!(peer = %peer.short(), %error, "a node asked what cannot be read");
                return sender.close(&error.to_string());
            }
        };
        // Reading a piece may wait for the disk.
        let asked = Arc::clone(shared);
        let answer = tokio::task::spawn_blocking(move || answer(&asked, ask)).await;
        let answer = answer.expect("answering does not panic");
        let is_piece = matches!(answer, Answer::Piece(_));
        if sender.send(Lane::Activations, answer.to_bytes()).await.is_err() {
            return;
        }
        if is_piece {
            sleep(rest(shared.stages.sessions_held() > 0, sender.round_trip())).await;
        }
    }
}

fn answer(shared: &Arc<Shared>, ask: Ask) -> Answer {
    let known = match &ask {
        Ask::Describe { name } => shared.models.iter().find(|known| known.name == *name),
        Ask::Outline { model, .. } | Ask::Piece { model, .. } => shared.model_by_id(*model),
    };
    let absent = |reason: &str| Answer::Absent { reason: reason.into() };
    let Some(known) = known else { return absent("this node has no such model") };
    let told = match told(known) {
        None => return Answer::NotYet,
        Some(Err(reason)) => return absent(reason),
        Some(Ok(told)) => told,
    };
    let piece = match ask {
        Ask::Describe { .. } => {
            let Description { model, outline, bytes } = told.description;
            return Answer::Described { model, outline, bytes };
        }
        Ask::Outline { piece, .. } => {
            let start = (piece as usize).saturating_mul(PIECE_BYTES).min(told.outline.len());
            let end = (start + PIECE_BYTES).min(told.outline.len());
            Some(told.outline.slice(start..end)).filter(|piece| !piece.is_empty())
        }
        Ask::Piece { tensor, piece, .. } => {
            let name = told.names.get(tensor as usize);
            let bytes = name.and_then(|name| known.model.piece(name, piece as usize));
            bytes.map(Bytes::copy_from_slice)
        }
    };
    piece.map_or_else(|| absent("this node has no such piece"), Answer::Piece)
}

/// What there is to tell of `known`, once it is made.
fn told(known: &Arc<KnownModel>) -> Option<Result<&Told, &str>> {
    let telling = &known.telling;
    if !telling.begun.swap(true, Ordering::Relaxed) {
        // A partial model has its outline already; anything else is read whole.
        let make = |known: &KnownModel| {
            known.telling.told.get_or_init(|| Told::of(known).map_err(|error| error.to_string()));
        };
        if matches!(known.source, ModelSource::Partial(_)) {
            make(known);
        } else {
            let known = Arc::clone(known);
            tokio::task::spawn_blocking(move || make(&known));
        }
    }
    Some(telling.told.get()?.as_ref().map_err(String::as_str))
}
