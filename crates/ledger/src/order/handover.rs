//! How somebody without the entries knows who witnesses.
//!
//! A block that names witnesses has the cosignatures of those before it and of those that it names, and its state root holds who
//! these are. So the proof of that record of the state, with the block that it leads to, hands the trust in the former on to the
//! latter. One such proof for each block that names witnesses, from the founding on, stands for all entries between: whoever has
//! them believes who witnesses now as far as who replayed everything.
//!
//! Never does: fetch anything, or say whether a snapshot is that of a block.

use super::{
    Witnesses,
    chain::needed,
    newcomer::{FinalityError, check_cosigned},
};
use crate::{Block, Claim, Ledger, Proof, RecordKey, StateRecord, note::SignedNote};

/// Who witnesses a ledger after these handovers, which are in order. `ledger` is that of the founding alone.
///
/// # Errors
/// [`FinalityError`] says which of them does not follow.
pub fn heirs(ledger: &Ledger, handovers: &[Proof]) -> Result<Witnesses, FinalityError> {
    let (mut before, mut last) = (ledger.witnesses().clone(), 0);
    for handover in handovers {
        let note = &handover.checkpoint;
        // While others order nobody names witnesses.
        let block = Block::open(note, ledger.founder().0)?;
        let number = block.number;
        let follows = block.network == ledger.network() && number > last;
        let after = named(handover).filter(|_| follows && handover.verify(&block).is_ok());
        let after = after.ok_or(FinalityError::Differs { number })?;
        check_cosigned(&needed(&before, after), note, number)?;
        (before, last) = (after.clone(), number);
    }
    Ok(before)
}

fn named(handover: &Proof) -> Option<&Witnesses> {
    let Claim::Record(record) = &handover.claim else { return None };
    match &**record {
        StateRecord::Witnesses(witnesses, _) => Some(witnesses),
        _ => None,
    }
}

impl Ledger {
    /// What shows those who do not have the entries that this ledger's witnesses are who they are. `note` is the block of the last entry,
    /// which names them. Nothing if nobody witnesses.
    pub fn handover(&self, note: SignedNote) -> Option<Proof> {
        let (index, record, path) = self.prove_record(RecordKey::Witnesses)?;
        Some(Proof { claim: Claim::Record(Box::new(record)), index, path, checkpoint: note })
    }
}
