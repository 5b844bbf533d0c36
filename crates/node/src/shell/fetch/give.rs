//! The giving side: tells what a model is, and sends pieces of the tensors that are here.
//!
//! The hashes of a model's weights are kept beside what tells that its files are still those (`Outline::stamp`), so
//! that a node that starts again need not read them all. One that has tensors from a place without hashes cannot
//! tell what the model is, but has pieces to give to whoever knows their hashes.

use super::find::keep;
use crate::{
    core::fetch::{Description, rest},
    shell::{Shared, links, models::KnownModel},
    wire::fetch::{Answer, Ask},
};
use bytes::Bytes;
use std::{
    fs,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use talka_base::{ModelId, NodeId};
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
    /// What it is and its outline, or why that cannot be told.
    shown: Result<(Description, Bytes), String>,
    /// Of the tensors, by number.
    names: Vec<String>,
}

impl Told {
    fn of(known: &KnownModel, outlines: &Path) -> Result<Self, OutlineError> {
        let names = |outline: &Outline| {
            outline.tensors().iter().map(|tensor| tensor.name().to_owned()).collect()
        };
        let outline = match (outline(&known.source, known.id, outlines), &known.source) {
            (Ok(outline), _) => outline,
            (Err(error @ OutlineError::Unhashed { .. }), ModelSource::Partial(partial)) => {
                let names = names(partial.outline());
                return Ok(Self { shown: Err(error.to_string()), names });
            }
            (Err(error), _) => return Err(error),
        };
        let bytes = Bytes::from(outline.to_bytes()?);
        let description = Description {
            model: known.id,
            outline: blake3::hash(&bytes).into(),
            bytes: bytes.len() as u64,
        };
        Ok(Self { shown: Ok((description, bytes)), names: names(&outline) })
    }
}

/// The outline of the model `id` at `source`, as it was kept in `outlines` if no file has changed since.
fn outline(source: &ModelSource, id: ModelId, outlines: &Path) -> Result<Outline, OutlineError> {
    // Without a stamp nothing is kept: reading all weights is then the only way.
    let stamp = Outline::stamp(source).ok().flatten();
    let name = id.to_string();
    let read = fs::read(outlines.join(&name)).ok();
    let kept = read.as_deref().zip(stamp).and_then(|(bytes, stamp)| bytes.strip_prefix(&stamp));
    if let Some(outline) = kept.and_then(|bytes| Outline::from_bytes(bytes).ok()) {
        return Ok(outline);
    }
    let outline = Outline::of(source)?;
    if let Some(stamp) = stamp
        && let Err(error) = keep(outlines, &name, &[&stamp[..], &outline.to_bytes()?].concat())
    {
        tracing::warn!(%error, "the hashes of {} are not kept", source.name());
    }
    Ok(outline)
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
        let bytes = if let Answer::Piece(bytes) = &answer { bytes.len() as u64 } else { 0 };
        if sender.send(Lane::Activations, answer.to_bytes()).await.is_err() {
            return;
        }
        if bytes > 0 {
            let rest = rest(shared.stages.sessions_held() > 0, sender.round_trip());
            sleep(rest.max(shared.settings.bandwidth.gave(bytes))).await;
        }
    }
}

fn answer(shared: &Arc<Shared>, ask: Ask) -> Answer {
    let known = match &ask {
        Ask::Thing { job, hash, piece } => {
            let found = shared.training.piece(*job, hash, *piece);
            let absent = || Answer::Absent { reason: "this node has no such thing".into() };
            return found.map_or_else(absent, |bytes| Answer::Piece(bytes.into()));
        }
        Ask::Describe { name } => shared.models.find(|known| known.name == *name),
        Ask::Outline { model, .. } | Ask::Piece { model, .. } => shared.model_by_id(*model),
    };
    let absent = |reason: &str| Answer::Absent { reason: reason.into() };
    let Some(known) = known else { return absent("this node has no such model") };
    let told = match told(&known, &shared.outlines) {
        None => return Answer::NotYet,
        Some(Err(reason)) => return absent(reason),
        Some(Ok(told)) => told,
    };
    let piece = match (ask, &told.shown) {
        (Ask::Thing { .. }, _) => None,
        (Ask::Piece { tensor, piece, .. }, _) => {
            let name = told.names.get(tensor as usize);
            let bytes = name.and_then(|name| known.model.piece(name, piece as usize));
            bytes.map(Bytes::copy_from_slice)
        }
        (_, Err(reason)) => return absent(reason),
        (Ask::Describe { .. }, Ok((Description { model, outline, bytes }, _))) => {
            return Answer::Described { model: *model, outline: *outline, bytes: *bytes };
        }
        (Ask::Outline { piece, .. }, Ok((_, outline))) => {
            let start = (piece as usize).saturating_mul(PIECE_BYTES).min(outline.len());
            let end = (start + PIECE_BYTES).min(outline.len());
            Some(outline.slice(start..end)).filter(|piece| !piece.is_empty())
        }
    };
    piece.map_or_else(|| absent("this node has no such piece"), Answer::Piece)
}

/// What there is to tell of `known`, once it is made.
fn told<'a>(known: &'a Arc<KnownModel>, outlines: &Path) -> Option<Result<&'a Told, &'a str>> {
    let telling = &known.telling;
    if !telling.begun.swap(true, Ordering::Relaxed) {
        // A partial model has its outline already; anything else is read whole.
        let make = |known: &KnownModel, outlines: &Path| {
            let told = || Told::of(known, outlines).map_err(|error| error.to_string());
            known.telling.told.get_or_init(told);
        };
        if matches!(known.source, ModelSource::Partial(_)) {
            make(known, outlines);
        } else {
            let (known, outlines) = (Arc::clone(known), outlines.to_owned());
            tokio::task::spawn_blocking(move || make(&known, &outlines));
        }
    }
    Some(telling.told.get()?.as_ref().map_err(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::File,
        time::{Duration, SystemTime},
    };
    use talka_engine::Model;

    /// Goal: weights are read once, and again only when a file changes.
    /// Method: weights are damaged behind the back of the stamp, by giving the file its old time again.
    #[test]
    fn hashes_are_kept_until_a_file_changes() {
        let bard = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/models/bard");
        let place = tempfile::tempdir().expect("temporary folder");
        let (folder, outlines) = (place.path().join("model"), place.path().join("outlines"));
        fs::create_dir(&folder).expect("a folder");
        for name in ["config.json", "tokenizer.json", "model.safetensors"] {
            fs::copy(bard.join(name), folder.join(name)).expect("copied");
        }
        let source = ModelSource::Folder(folder.clone());
        let id = Model::open(source.clone()).expect("it opens").id();
        let first = outline(&source, id, &outlines).expect("an outline");
        let weights = folder.join("model.safetensors");
        let time = fs::metadata(&weights).and_then(|file| file.modified()).expect("a time");
        let mut bytes = fs::read(&weights).expect("weights");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&weights, bytes).expect("written");
        let set = |time: SystemTime| {
            let file = File::options().write(true).open(&weights).expect("a file");
            file.set_modified(time).expect("a time");
        };
        set(time);
        assert_eq!(outline(&source, id, &outlines).expect("kept"), first);
        set(time + Duration::from_secs(1));
        let changed = outline(&source, id, &outlines).expect("made anew");
        assert_ne!(changed, first);
        // A damaged record is none.
        fs::write(outlines.join(id.to_string()), b"damaged").expect("written");
        assert_eq!(outline(&source, id, &outlines).expect("made anew"), changed);
    }
}
