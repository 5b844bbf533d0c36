//! A member that orders with [`Council`], as a node drives it.

use crate::{
    Input, Part,
    net::{Channel, Net},
    now,
    store::Store,
    town::{Reports, What},
};
use std::{io, time::Instant};
use talka_base::{Keypair, NodeId, decode, encode};
use talka_ledger::{
    LedgerError,
    order::{Chain, Council, Effect, Input as Step, Message, Order, Record},
};

/// What members say to each other.
pub const CHANNEL: Channel = 0;

pub(crate) struct Seat {
    me: NodeId,
    others: Vec<NodeId>,
    council: Council,
    net: Net,
    store: Store,
    reports: Reports,
    /// Something was submitted since the last block was asked for.
    submitted: bool,
}

impl Seat {
    pub fn new(
        keys: Keypair,
        genesis: Chain,
        kept: Vec<Record>,
        (net, store, reports): (Net, Store, Reports),
    ) -> Result<Self, LedgerError> {
        let me = NodeId(keys.public());
        let others = genesis.ledger().witnesses().nodes().filter(|&node| node != me).collect();
        let council = Council::resume(keys, genesis, None, kept)?;
        Ok(Self { me, others, council, net, store, reports, submitted: false })
    }

    fn step(&mut self, input: Step) -> io::Result<()> {
        let mut effects = Vec::new();
        self.council.step(now(), input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Persist(record) => {
                    self.store.put(&record)?;
                    if let Record::Signed(batch) = record {
                        self.reports.tell(What::Decided(batch));
                    }
                }
                Effect::Send(node, message) => self.send(node, &message),
                Effect::Publish(message) => {
                    self.others.iter().for_each(|&node| self.send(node, &message));
                }
                Effect::SendStored(node, first) => {
                    if let Some(batch) = self.store.stored(first) {
                        self.send(node, &Message::Final(batch.clone()));
                    }
                }
                Effect::Finalised(batch) => self.reports.tell(What::Final(batch)),
                // One that is recorded already was told.
                Effect::Refused(_, LedgerError::Duplicate { .. }) => {}
                Effect::Refused(event, error) => self.reports.tell(What::Refused(event, error)),
            }
        }
        Ok(())
    }

    fn send(&self, node: NodeId, message: &Message) {
        if matches!(message, Message::Offer(_)) {
            self.reports.tell(What::Leads);
        }
        self.net.send(self.me, node, CHANNEL, encode(message));
    }
}

impl Part for Seat {
    fn take(&mut self, input: Input) -> io::Result<()> {
        match input {
            Input::Submit(event) => {
                self.submitted = true;
                self.step(Step::Submit(event))
            }
            Input::Message(from, bytes) => match decode(&bytes) {
                Ok(message) => self.step(Step::Message(from, message)),
                Err(_) => Ok(()),
            },
            Input::Asked(_) | Input::Show(_) | Input::Stop => Ok(()),
        }
    }

    fn again(&mut self) -> io::Result<()> {
        self.step(Step::Again)
    }

    fn settle(&mut self) -> io::Result<()> {
        // What came together makes up one block.
        if std::mem::take(&mut self.submitted) { self.step(Step::Close) } else { Ok(()) }
    }

    fn wakes(&self) -> Option<Instant> {
        None
    }

    fn chain(&self) -> &Chain {
        self.council.chain()
    }
}
