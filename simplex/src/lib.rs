//! Talka's ledger ordered by commonware's simplex, to be compared with [`Council`](talka_ledger::order::Council).
//!
//! A [`Town`] is a ledger whose members all witness and may order. [`Town::start`] starts one of them, with either order: the
//! same ledger, links, disk and clock; what differs is who decides which block comes next. No node uses this crate.
//!
//! With simplex a member is three parts: the engine, which knows digests of blocks only; [`orderer`], which makes and executes
//! blocks and answers the engine; and [`simplex`], which puts the two together.

pub mod council;
pub mod net;
pub mod orderer;
pub mod simplex;
pub mod store;
pub mod town;

pub use net::Net;
pub use town::{Kind, Member, Report, Timing, Town, What};

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use talka_base::{NodeId, Tick};
use talka_ledger::{Event, order::Chain};

/// What was not answered is sent again after so long, as a node does it.
const AGAIN: Duration = Duration::from_secs(1);
/// Inputs that are taken before what follows from them is done.
const TOGETHER_MAX: usize = 256;

/// What happens to a member.
pub enum Input {
    /// Somebody wants this recorded.
    Submit(Box<Event>),
    /// Another member sent these bytes.
    Message(NodeId, Vec<u8>),
    /// The simplex engine asks or tells.
    Asked(simplex::Asked),
    /// Somebody wants to see the final chain.
    Show(Sender<Chain>),
    /// It dies.
    Stop,
}

/// A member's part, on a thread of its own: it blocks on the disk.
pub(crate) trait Part {
    /// Takes one input.
    fn take(&mut self, input: Input) -> std::io::Result<()>;
    /// Some time passed.
    fn again(&mut self) -> std::io::Result<()>;
    /// Does what follows from the inputs that came together.
    fn settle(&mut self) -> std::io::Result<()>;
    /// When it has to be settled though nothing comes.
    fn wakes(&self) -> Option<Instant>;
    /// As far as it is final.
    fn chain(&self) -> &Chain;
}

/// Drives a part until it is to stop.
pub(crate) fn drive(part: &mut impl Part, inputs: &Receiver<Input>) -> std::io::Result<()> {
    let mut again = Instant::now() + AGAIN;
    loop {
        part.settle()?;
        let wake = part.wakes().map_or(again, |at| at.min(again));
        let first = inputs.recv_timeout(wake.saturating_duration_since(Instant::now()));
        if matches!(first, Err(RecvTimeoutError::Disconnected)) {
            return Ok(());
        }
        for input in first.into_iter().chain(inputs.try_iter()).take(TOGETHER_MAX) {
            match input {
                Input::Stop => return Ok(()),
                // Whoever asked may have left.
                Input::Show(answer) => drop(answer.send(part.chain().clone())),
                input => part.take(input)?,
            }
        }
        if Instant::now() >= again {
            again = Instant::now() + AGAIN;
            part.again()?;
        }
    }
}

/// The time on the clock.
pub fn now() -> Tick {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Tick(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
