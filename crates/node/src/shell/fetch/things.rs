//! Fetches what members of a training job have, by its hash, from one of them after the other.
//!
//! A thing that was cut off goes on where it was, from the same node or the next one. Whoever's piece made the whole another
//! thing than was asked for is not known, so it is whoever gave the last piece who is left out, and all of it is fetched anew.

use super::{Caller, Line, Shared};
use crate::{
    core::faults::Fault,
    wire::fetch::{Answer, Ask},
};
use std::{collections::VecDeque, net::SocketAddr, sync::Arc};
use talka_base::{JobId, NodeId};
use talka_engine::PIECE_BYTES;
use talka_train::{
    depot::{Depot, Hash, Kind},
    files::FileError,
};
use tokio::{task::spawn_blocking, time::sleep};

/// Pieces that are asked for before the first of them came.
const ASKED_AHEAD: u32 = 4;

/// Something to be fetched.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) job: JobId,
    pub(crate) hash: Hash,
    /// The most bytes that it can have.
    pub(crate) bytes_max: u64,
    pub(crate) kind: Kind,
    pub(crate) depot: Arc<Depot>,
}

impl Wanted {
    /// Fetches it from the first of `from` that gives it; says how many bytes came, and whether it is here now.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) async fn bring(
        &self,
        shared: &Arc<Shared>,
        from: &[NodeId],
    ) -> Result<(bool, u64), FileError> {
        let mut came = 0;
        for &node in from.iter().filter(|node| **node != shared.me) {
            if self.depot.has(&self.hash) {
                break;
            }
            let introductions = shared.view.borrow().introductions.clone();
            let Some((_, addresses)) = introductions.into_iter().find(|(other, _)| *other == node)
            else {
                continue;
            };
            match self.ask(shared, node, &addresses, &mut came).await {
                Ok(true) => self.take(shared, node).await?,
                Ok(false) => {}
                Err(Trouble::Peer(reason)) => {
                    tracing::debug!(peer = %node.short(), reason, "a thing did not come from there");
                }
                Err(Trouble::Disk(error)) => return Err(error),
            }
        }
        Ok((self.depot.has(&self.hash), came))
    }

    /// All pieces of one node, from where what is here ends. False if it does not have the thing.
    async fn ask(
        &self,
        shared: &Arc<Shared>,
        node: NodeId,
        addresses: &[SocketAddr],
        came: &mut u64,
    ) -> Result<bool, Trouble> {
        let caller: Caller = shared.caller();
        let mut line = caller.link(node, addresses).await.map_err(Trouble::Peer)?;
        // A piece that was cut is fetched whole.
        let here = self.depot.fetched(&self.hash);
        if !here.is_multiple_of(PIECE_BYTES as u64) {
            self.depot.drop_part(&self.hash);
        }
        let mut got = self.depot.fetched(&self.hash);
        let mut next = (got / PIECE_BYTES as u64) as u32;
        let mut owed = VecDeque::new();
        loop {
            while owed.len() < ASKED_AHEAD as usize
                && u64::from(next) * (PIECE_BYTES as u64) < self.bytes_max
            {
                let ask = Ask::Thing { job: self.job, hash: self.hash, piece: next };
                line.ask(&ask).await.map_err(Trouble::Peer)?;
                owed.push_back(next);
                next += 1;
            }
            if owed.pop_front().is_none() {
                return Ok(got > 0);
            }
            let Answer::Piece(bytes) = self.answer(shared, node, &mut line).await? else {
                // Past the end, or not there at all.
                return Ok(got > 0);
            };
            got += bytes.len() as u64;
            *came += bytes.len() as u64;
            if got > self.bytes_max {
                self.depot.drop_part(&self.hash);
                shared.blame(node, Fault::Piece);
                return Err(Trouble::Peer("it sent more than there can be".into()));
            }
            let (depot, hash, length) = (Arc::clone(&self.depot), self.hash, bytes.len());
            let added = spawn_blocking(move || depot.add(&hash, &bytes)).await;
            added.expect("writing does not panic").map_err(Trouble::Disk)?;
            if length < PIECE_BYTES {
                return Ok(true);
            }
        }
    }

    async fn answer(
        &self,
        shared: &Shared,
        node: NodeId,
        line: &mut Line,
    ) -> Result<Answer, Trouble> {
        let answer = line.answer().await.map_err(Trouble::Peer)?;
        if let Some(rate) = line.receiver.take_throughput() {
            shared.meter.arrived(node, rate);
        }
        if let Answer::Piece(bytes) = &answer {
            sleep(shared.settings.bandwidth.fetched(bytes.len() as u64)).await;
        }
        Ok(answer)
    }

    async fn take(&self, shared: &Shared, node: NodeId) -> Result<(), FileError> {
        let (depot, kind, hash) = (Arc::clone(&self.depot), self.kind, self.hash);
        let is_right = spawn_blocking(move || depot.complete(kind, &hash)).await;
        if !is_right.expect("reading does not panic")? {
            shared.blame(node, Fault::Piece);
        }
        Ok(())
    }
}

enum Trouble {
    Peer(String),
    Disk(FileError),
}
