//! Who makes the ledger's entries final: witnesses, their appointment, and what was proved against the founder.

use super::{AdminError, Api};
use crate::{
    shell::{ordering::Halt, orders},
    wire::Refusal,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use talka_base::{NodeId, Signed};
use talka_ledger::{
    Event,
    note::SignedNote,
    order::{Appointment, OrderChange, Witnesses},
};

/// The change is waited for as long as so many entries are, one after the other: half a minute.
const APPOINTMENT_TRIES: usize = 6;

/// How entries become final.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderReport {
    /// The node that founded the network.
    pub founder: NodeId,
    /// The witnesses order entries by turns; otherwise the founder does.
    pub by_turns: bool,
    /// The nodes whose cosignatures a block needs; none, if the founder's signature is enough.
    pub witnesses: Vec<WitnessReport>,
    /// How many of them have to cosign.
    pub quorum: usize,
    /// How many of them may be dishonest or dead.
    pub faulty_max: usize,
    /// The number of the last block here, if there is one: final, where there are witnesses.
    pub block: Option<u64>,
    /// Entries that it covers.
    pub size: Option<u64>,
    /// Why nothing is ordered or believed any more, if so.
    pub halted: Option<String>,
}

/// One witness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessReport {
    /// The node.
    pub node: NodeId,
    /// What people call it.
    pub name: String,
    /// Whether it is this node or linked with it.
    pub linked: bool,
    /// Whether its cosignature is on the last block. One that was late is not, though all is well.
    pub cosigned: bool,
}

/// The proof that the founder or a witness is dishonest: checkable with its public key alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceReport {
    /// Who signed what cannot be true.
    pub accused: NodeId,
    /// The proof as text; see docs/ledger-format.md.
    pub evidence: String,
}

impl Api {
    /// Who witnesses, and how far the ledger is final.
    ///
    /// # Errors
    /// [`AdminError::Store`].
    pub async fn ledger_order(&self) -> Result<OrderReport, AdminError> {
        let desk = self.shared.desk();
        let last = match self.ledger_checkpoint().await {
            Ok(last) => Some(last),
            Err(AdminError::NoCheckpoint) => None,
            Err(error) => return Err(error),
        };
        let note = last.as_ref().and_then(|last| last.checkpoint.parse::<SignedNote>().ok());
        let witnesses = desk.read(|ledger| ledger.witnesses().clone());
        let cosigned = note.map(|note| witnesses.cosigned(&note)).unwrap_or_default();
        let view = self.shared.view.borrow();
        let report = |node| WitnessReport {
            node,
            name: view.name_of(node),
            linked: self.shared.reaches(node),
            cosigned: cosigned.contains(&node),
        };
        Ok(OrderReport {
            founder: desk.founder(),
            by_turns: desk.is_by_turns(),
            quorum: witnesses.quorum(),
            faulty_max: witnesses.nodes().count() - witnesses.quorum(),
            witnesses: witnesses.nodes().map(report).collect(),
            block: last.as_ref().map(|last| last.number),
            size: last.map(|last| last.size),
            halted: desk.halted().map(|halt| halt.to_string()),
        })
    }

    /// As the founder, has these nodes witness from now on, in place of those before.
    ///
    /// # Errors
    /// [`AdminError::Refused`] if this is not the founder, too few of them are linked to make anything final, or the
    /// ledger's rules do not let it be.
    pub async fn appoint(&self, nodes: Vec<NodeId>) -> Result<OrderReport, AdminError> {
        let shared = &self.shared;
        let desk = shared.desk();
        let refused = |reason: String| Err(AdminError::Refused { reason });
        self.check_founder("appoints witnesses")?;
        let named: BTreeSet<NodeId> = nodes.into_iter().collect();
        let linked = shared.reached(named.iter().copied());
        let quorum = named.iter().copied().collect::<Witnesses>().quorum();
        // The change itself needs them; without them the ledger would stand still.
        if linked < quorum {
            return refused(format!(
                "{linked} of these {} nodes are linked now, expected at least {quorum}: without so \
                 many nothing becomes final",
                named.len()
            ));
        }
        let appointment: Signed<Appointment> = shared
            .keys
            .sign(Appointment { network: desk.network(), witnesses: named.into_iter().collect() });
        self.change(Event::Appointed { appointment }).await
    }

    /// As the founder, has the witnesses order by turns from now on, or orders again.
    ///
    /// # Errors
    /// [`AdminError::Refused`] if this is not the founder, too few witnesses are linked to make it final, or the ledger's
    /// rules do not let it be.
    pub async fn order_by_turns(&self, by_turns: bool) -> Result<OrderReport, AdminError> {
        self.check_founder("changes who orders")?;
        let ledger = self.shared.desk().ledger();
        if ledger.turns().by_turns == by_turns {
            return self.ledger_order().await;
        }
        let witnesses = ledger.witnesses();
        let linked = self.shared.reached(witnesses.nodes());
        if linked < witnesses.quorum() {
            let (quorum, of) = (witnesses.quorum(), witnesses.nodes().count());
            let reason = format!("{linked} of {of} witnesses are linked now, expected {quorum}");
            return Err(AdminError::Refused { reason });
        }
        let (network, number) = (ledger.network(), ledger.turns().changes + 1);
        let change = self.shared.keys.sign(OrderChange { network, number, by_turns });
        self.change(Event::OrderChanged { change }).await
    }

    fn check_founder(&self, does: &str) -> Result<(), AdminError> {
        let (me, founder) = (self.shared.me, self.shared.desk().founder());
        if me == founder {
            return Ok(());
        }
        let reason = format!("only the founder, {founder}, {does}, and this is {me}");
        Err(AdminError::Refused { reason })
    }

    /// Has a change of order recorded, which is waited for.
    async fn change(&self, event: Event) -> Result<OrderReport, AdminError> {
        let mut waited = String::new();
        for _ in 0..APPOINTMENT_TRIES {
            waited = match orders::order(&self.shared, event.clone()).await {
                Ok(_) | Err(Refusal::Duplicate { .. }) => return self.ledger_order().await,
                // It is signed, and final as soon as enough answer.
                Err(Refusal::Unreachable { reason }) => reason,
                Err(refusal) => {
                    return Err(AdminError::Refused { reason: orders::describe(&refusal) });
                }
            };
        }
        Err(AdminError::Refused { reason: waited })
    }

    /// What proves the founder to be dishonest, or else a witness.
    ///
    /// # Errors
    /// [`AdminError::NoEvidence`] if nothing does.
    pub async fn ledger_evidence(&self) -> Result<EvidenceReport, AdminError> {
        let desk = self.shared.desk();
        if let Some(Halt::Dishonest(evidence)) = desk.halted() {
            let (accused, evidence) = (desk.founder(), evidence.to_string());
            return Ok(EvidenceReport { accused, evidence });
        }
        let kept = tokio::task::spawn_blocking(move || desk.evidence_kept()).await;
        let kept = kept.expect("reading does not panic")?;
        let first = kept.first().and_then(|evidence| Some((evidence.witness()?, evidence)));
        let (accused, evidence) = first.ok_or(AdminError::NoEvidence)?;
        Ok(EvidenceReport { accused, evidence: evidence.to_string() })
    }
}
