//! Founders whose word alone is not enough.

use crate::common::{PATIENCE, node, span};
use talka_base::{Keypair, Membership, NodeId, Signed, Tick};
use talka_ledger::{
    Entry, Event, Founding, Ledger, Policy,
    note::SignedNote,
    order::{Appointment, Batch, Effect, Input, Message, Order, Record, Sequencer, Witnesses},
};
use talka_net::{BindOptions, Endpoint, Invite, InviteSecret, Lane};
use talka_node::{
    Node,
    wire::{Admission, Control},
};
use tokio::time::timeout;

const NOW: Tick = Tick(1_700_000_000_000);

/// Whose keys the founder has, and who cosigns for it.
const FOUNDER: u8 = 1;
const WITNESSES: [u8; 4] = [2, 3, 4, 5];

fn keys(who: u8) -> Keypair {
    Keypair::from_secret(&[who; 32])
}

fn id(who: u8) -> NodeId {
    NodeId(keys(who).public())
}

/// A ledger with witnesses, in which `guest` is a member: its entries, and its last block with the cosignatures of so
/// many witnesses. All blocks before have enough.
struct Village {
    entries: Vec<Signed<Entry>>,
    notes: Vec<SignedNote>,
}

impl Village {
    fn new(guest: NodeId, cosigners: usize) -> Self {
        let founding = Founding {
            name: "village".into(),
            founder: id(FOUNDER),
            founder_name: "barn".into(),
            policy: Policy::default(),
            nonce: [1; 16],
        };
        let (ledger, founding) = Ledger::found(&keys(FOUNDER), founding, NOW).expect("founds");
        let network = ledger.network();
        let joins = |node: NodeId| Event::Joined {
            membership: keys(FOUNDER).sign(Membership {
                network,
                node,
                member: node.into(),
                name: "somebody".into(),
                invited_by: id(FOUNDER),
                issued_at: NOW,
            }),
        };
        let mut nodes: Vec<NodeId> = WITNESSES.into_iter().map(id).collect();
        nodes.sort();
        let appointment = keys(FOUNDER).sign(Appointment { network, witnesses: nodes });
        let blocks = [
            WITNESSES.into_iter().map(|who| joins(id(who))).collect(),
            vec![Event::Appointed { appointment }],
            vec![joins(guest)],
        ];
        let mut sequencer = Sequencer::recover(keys(FOUNDER), &founding, []).expect("founds");
        let mut village = Self { entries: vec![founding], notes: Vec::new() };
        let last = blocks.len() - 1;
        for (number, events) in blocks.into_iter().enumerate() {
            village.close(&mut sequencer, events, if number == last { cosigners } else { 4 });
        }
        village
    }

    fn close(&mut self, sequencer: &mut Sequencer, events: Vec<Event>, cosigners: usize) {
        let mut effects = Vec::new();
        for event in events {
            sequencer.step(NOW, Input::Submit(Box::new(event)), &mut effects);
        }
        sequencer.step(NOW, Input::Close, &mut effects);
        let signed = effects.iter().find_map(|effect| match effect {
            Effect::Persist(Record::Signed(batch)) => Some(batch.clone()),
            _ => None,
        });
        let Batch { mut note, entries } = signed.expect("a block");
        let block = note.text().parse().expect("a block");
        for who in WITNESSES.into_iter().take(cosigners) {
            let vote = Witnesses::cosign(&block, &keys(who), NOW.0 / 1000);
            note.add(vote.clone());
            let message = Message::Vote(block.number, vote);
            sequencer.step(NOW, Input::Message(id(who), message), &mut effects);
        }
        self.notes.push(note);
        self.entries.extend(entries);
    }

    fn invite(&self, endpoint: &Endpoint) -> Invite {
        let founding = self.entries[0].claimed_value();
        let Event::Founded(founding) = &founding.event else { panic!("no founding") };
        Invite {
            network: founding.network_id(),
            network_name: "village".into(),
            inviter: id(FOUNDER),
            addresses: endpoint.addresses(),
            secret: InviteSecret([7; 32]),
            expires_at: Tick(u64::MAX),
        }
    }

    /// Lets one guest in and answers what it asks, until it has enough.
    async fn host(&self, endpoint: &Endpoint, invite: &Invite) {
        let link = timeout(PATIENCE, endpoint.accept()).await.expect("a guest").expect("a link");
        let guest = link.peer();
        let (sender, mut receiver) = link.split();
        while let Ok((_, bytes)) = receiver.recv().await {
            let answer = match Control::from_bytes(&bytes).expect("a message") {
                Control::Join(_) => Control::Admitted(Admission {
                    membership: keys(FOUNDER).sign(Membership {
                        network: invite.network,
                        node: guest,
                        member: guest.into(),
                        name: "guest".into(),
                        invited_by: id(FOUNDER),
                        issued_at: NOW,
                    }),
                    ledger_height: self.entries.len() as u64,
                    peers: Vec::new(),
                }),
                Control::EntriesWanted { from } => {
                    Control::Entries(self.entries[from as usize..].to_vec())
                }
                Control::BlockWanted(height) => {
                    let holds = |note: &&SignedNote| {
                        let block = note.text().parse::<talka_ledger::Block>();
                        block.is_ok_and(|block| block.size > height)
                    };
                    let note = self.notes.iter().find(holds).expect("a block");
                    Control::Block(note.to_string())
                }
                other => panic!("asked for {other:?}"),
            };
            if sender.send(Lane::Control, answer.to_bytes()).await.is_err() {
                break;
            }
        }
    }
}

/// What a guest says to a founder's ledger of which the last block has so many cosignatures.
async fn joined(node: &Node, cosigners: usize) -> Result<(), String> {
    let village = Village::new(node.id(), cosigners);
    let endpoint = Endpoint::bind(BindOptions::loopback(keys(FOUNDER))).await.expect("a port");
    let invite = village.invite(&endpoint);
    let (api, text) = (node.api(), invite.to_string());
    let (said, ()) = tokio::join!(api.join(&text), village.host(&endpoint, &invite));
    said.map(|_| ()).map_err(|error| error.to_string())
}

/// Goal: a guest believes a ledger with witnesses only if enough of them cosigned its end, whatever the founder signed.
#[tokio::test]
async fn a_guest_refuses_a_ledger_whose_end_is_not_cosigned() {
    let place = tempfile::tempdir().expect("a folder");
    let node = node(place.path(), span(0, 2)).await;
    let before = node.api().status().await.network;
    for cosigners in [0, 2] {
        let refused = joined(&node, cosigners).await.expect_err("not final");
        assert!(refused.contains("cosignatures"), "{refused}");
    }
    assert_eq!(node.api().status().await.network, before);
    joined(&node, 3).await.expect("enough of them");
    assert_eq!(node.api().ledger_verify().await.expect("verifies").witnesses, 4);
    node.shutdown().await;
}
